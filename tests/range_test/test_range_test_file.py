from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ignite_lr.range_test import RangeTestResult
from ignite_lr.range_test._file import read_result, write_result

RESULT = RangeTestResult((0.1, 1.0), (2.0, 1.0), (2.0, 1.5), "num_iter", 1.0, iterations=2)


def changed(path: Path, **changes: Any) -> Path:
    content = json.loads(write_result(RESULT, path).read_text(encoding="utf-8"))
    content.update(changes)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_fields_come_back(tmp_path: Path) -> None:
    assert read_result(write_result(RESULT, tmp_path / "r.json")) == vars(RESULT)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_numpy_numbers_are_written_as_numbers(kind: Any, tmp_path: Path) -> None:
    lrs, losses = tuple(map(kind, (0.5, 1.0))), tuple(map(kind, (2.0, np.inf)))
    made = RangeTestResult(lrs, losses, losses, "non_finite", lrs[-1])
    assert RangeTestResult.load(made.save(tmp_path / "r.json")) == made


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", "no format"),
        (b'{"losses": [1.0]}', "no format"),
        (b"null", "no format"),
    ],
)
def test_a_foreign_file_is_a_value_error(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"foreign.json' is no range test result.*{reason}"):
        RangeTestResult.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": [1.0]},
        {"losses": 3},
        {"losses": None},
        {"losses": [1.0, "a lot"]},
        {"losses": [1.0, True]},
        {"losses": [1.0, 10**400]},
        {"lrs": [0.1, [1.0]]},
        {"lrs": [[0.1], [1.0]]},
        {"stop_lr": []},
        {"lrs": {"0": 1}},
        {"stop_reason": 3},
        {"iterations": "two"},
        {"sweeps": [{}]},
        {"sweeps": 3},
        {"sweeps": ["a"]},
        {"verified": 3},
        {"verified": [3]},
        {"verified": [{"lr": 0.1, "losses": [1.0], "learns": 1}]},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_damaged_file_is_a_value_error(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"r.json' is no range test result"):
        RangeTestResult.load(changed(tmp_path / "r.json", **changes))


@pytest.mark.parametrize("name", ["losses", "lrs", "stop_lr", "stop_reason", "iterations", "sweeps", "version"])
@pytest.mark.parametrize(
    "value", ["[" * 600 + "]" * 600, "1" * 5000, '"' + "a" * 10_000 + '"'], ids=["deep", "long", "text"]
)
def test_whatever_stands_in_a_file_the_error_names_it(name: str, value: str, tmp_path: Path) -> None:
    path = write_result(RESULT, tmp_path / "r.json")
    content = {**json.loads(path.read_text(encoding="utf-8")), name: "HERE"}
    path.write_text(json.dumps(content).replace('"HERE"', value), encoding="utf-8")
    if name == "stop_reason" and value.startswith('"'):
        assert len(RangeTestResult.load(path).stop_reason) == 10_000
        return
    with pytest.raises(ValueError, match=r"r\.json'") as caught:
        RangeTestResult.load(path)
    assert len(str(caught.value)) < 600 + len(str(path))


@pytest.mark.parametrize("path", [3, None, b"r.json"])
def test_what_is_no_path_is_named(path: Any) -> None:
    with pytest.raises(TypeError, match="path must be a string or a path, got"):
        RESULT.save(path)
    with pytest.raises(TypeError, match="path must be a string or a path, got"):
        RangeTestResult.load(path)


def test_a_file_of_a_later_release_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has version 2 of the format, this release reads version 1"):
        RangeTestResult.load(changed(tmp_path / "r.json", version=2))


def test_a_missing_file_is_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.json"):
        RangeTestResult.load(tmp_path / "nowhere.json")
