"""The three recipes of examples/study.py, on small settings."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("optuna")

EXAMPLE = Path(__file__).parents[2] / "examples" / "study.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["examples/study.py", *map(str, arguments)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_it_is_short_enough_to_read() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 120


def test_is_my_rate_stable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "stable", "--updates", 40)
    assert re.search(r"^0\.02 is stable up to 0?\.\d+, unstable at ", capsys.readouterr().out, re.MULTILINE)


def test_the_shortest_warmups(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "warmup", "--updates", 40)
    found = re.findall(r"^(\d+) x [\d.]+: shortest warmup (None|\d+)", capsys.readouterr().out, re.MULTILINE)
    assert [multiple for multiple, _ in found] == ["2", "4", "10"]


@pytest.mark.filterwarnings("ignore:Run completed without loss diverging")
def test_a_search_leaves_its_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(monkeypatch, "search", "--updates", 40, "--trials", 3, "--more", 1, "--output", tmp_path)
    record = json.loads((tmp_path / "record.json").read_text())
    assert list(record) == ["name", "trials", "best score", "command", "configuration"]
    assert record["trials"] == 4
    assert "examples/study.py search --updates 40" in record["command"]
    assert {path.name for path in tmp_path.iterdir()} == {"record.json", "study.html", "study.json"}
