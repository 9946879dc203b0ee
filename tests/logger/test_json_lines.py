from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from test_logger import DATA, spy, supervised

from ignite_lr.logger import JSONLinesLogger, LRLogger


def lines_of(path: Path) -> list[dict[str, object]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines()]


def test_json_lines(tmp_path: Path) -> None:
    trainer, optimizer = supervised()
    seen = spy(trainer, optimizer)
    with JSONLinesLogger(tmp_path / "new" / "rates.jsonl") as logger:
        logger.attach(trainer, LRLogger(optimizer), Events.ITERATION_COMPLETED)
        trainer.run(DATA)
        lines = lines_of(logger.path)
    assert [(line["step"], line["lr/SGD"]) for line in lines] == seen


def test_numbers_that_json_does_not_know_are_strings(tmp_path: Path) -> None:
    with JSONLinesLogger(tmp_path / "a.jsonl") as logger:
        logger.write({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1}, 1)
    assert lines_of(logger.path) == [{"step": 1, "a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 1}]


def test_a_resumed_run_goes_on_in_the_file(tmp_path: Path) -> None:
    for step in (1, 2):
        with JSONLinesLogger(str(tmp_path / "a.jsonl")) as logger:
            logger.write({"a": 0.5}, step)
    assert [line["step"] for line in lines_of(tmp_path / "a.jsonl")] == [1, 2]


def test_what_writes_nothing_leaves_no_file(tmp_path: Path) -> None:
    JSONLinesLogger(tmp_path / "a.jsonl").close()
    assert not (tmp_path / "a.jsonl").exists()


def test_ignites_own_handlers_write_to_it(tmp_path: Path) -> None:
    trainer, optimizer = supervised()
    with JSONLinesLogger(tmp_path / "a.jsonl") as logger:
        logger.attach_output_handler(
            trainer, Events.ITERATION_COMPLETED, tag="training", output_transform=lambda loss: {"loss": 0.5}
        )
        logger.attach_opt_params_handler(trainer, Events.ITERATION_STARTED, optimizer=optimizer, tag="a")
        trainer.run(DATA[:1])
    assert lines_of(logger.path) == [{"step": 1, "a/lr/group_0": 0.1}, {"step": 1, "training/loss": 0.5}]


def test_a_path_is_wanted() -> None:
    with pytest.raises(TypeError, match=r"path must be a string or a path, got 3 of type int"):
        JSONLinesLogger(3)  # type: ignore[arg-type]  # the mistake


def test_numbers_of_numpy_and_pytorch_are_written_as_they_are(tmp_path: Path) -> None:
    with JSONLinesLogger(tmp_path / "a.jsonl") as logger:
        logger.write(
            {
                "a": np.float32(1.5),
                "b": np.int64(3),
                "c": torch.tensor(2.5),
                "d": torch.tensor(4),
                "e": np.float32("nan"),
                "f": torch.tensor([-math.inf]),
                "g": np.bool_(True),
                "h": 2**70,
            },
            step=np.int64(1),  # type: ignore[arg-type]  # an integer is an integer
        )
    text = '{"step": 1, "a": 1.5, "b": 3, "c": 2.5, "d": 4, "e": "NaN", "f": "-Infinity", "g": true, "h": '
    assert (tmp_path / "a.jsonl").read_text() == text + f"{2**70}}}\n"


def test_rates_on_a_device_come_over_in_one_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ignite_lr.core import host

    reads: list[int] = []
    read = host.read
    monkeypatch.setattr(host, "read", lambda values: reads.append(len(values)) or read(values))  # type: ignore[func-returns-value]  # None is falsy
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": torch.tensor(0.5)} for _ in range(3)]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    trainer = Engine(lambda engine, batch: optimizer.step())
    with JSONLinesLogger(tmp_path / "a.jsonl") as logger:
        logger.attach_opt_params_handler(trainer, Events.ITERATION_COMPLETED, optimizer=optimizer)
        trainer.run([0])
    assert reads == [3]
    assert lines_of(logger.path) == [{"step": 1, **{f"lr/group_{index}": 0.5 for index in range(3)}}]


def test_a_value_called_step_does_not_overwrite_the_step(tmp_path: Path) -> None:
    with JSONLinesLogger(tmp_path / "a.jsonl") as logger:
        logger.write({"step": 5.0, "resumed": 1.0, "a": 2.0}, step=3)
    (line,) = lines_of(logger.path)
    assert line["step"] == 3
    assert "resumed" not in line
    assert sorted(map(str, line.values())) == ["1.0", "2.0", "3", "5.0"]


@pytest.mark.parametrize(
    ("values", "step", "message"),
    [
        pytest.param(3, 1, "values must be a dict of numbers by name, got 3 of type int", id="values"),
        pytest.param({1: 0.5}, 1, "values must have strings as names, got 1", id="name"),
        pytest.param({"a": "x"}, 1, r"values\['a'\] must be a real number, got 'x'", id="text"),
        pytest.param({"a": torch.ones(2)}, 1, r"values\['a'\] must be a real number", id="vector"),
        pytest.param({"a": 1j}, 1, r"values\['a'\] must be a real number", id="complex"),
        pytest.param({"a": 0.5}, 1.5, "step must be an integer, got 1.5", id="step"),
    ],
)
def test_wrong_arguments_of_write_are_named(values: Any, step: Any, message: str, tmp_path: Path) -> None:
    with JSONLinesLogger(tmp_path / "a.jsonl") as logger:
        with pytest.raises(TypeError, match=message):
            logger.write(values, step)
        logger.write({"a": 0.5}, 1)
    assert lines_of(logger.path) == [{"step": 1, "a": 0.5}]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param('{"step": 1, "a": 0.5}\n{"step": 2, "a"', '{"step": 1, "a": 0.5}\n', id="cut off"),
        pytest.param('{"ste', "", id="the first"),
        pytest.param('{"step": 1, "a": 0.5}', '{"step": 1, "a": 0.5}\n', id="only its end is missing"),
        pytest.param("someone's\nnotes", "someone's\nnotes\n", id="somebody else's"),
        pytest.param("", "", id="empty"),
        pytest.param("x" * 200_000 + '\n{"step": ' + "1" * 200_000, "x" * 200_000 + "\n", id="long"),
    ],
)
def test_a_line_that_was_never_completed_does_not_spoil_the_next(before: str, after: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(before)
    with JSONLinesLogger(path) as logger:
        logger.write({"a": 0.25}, 3)
    mark = ', "resumed": true' if after else ""
    assert path.read_text() == after + '{"step": 3, "a": 0.25' + mark + "}\n"


def test_a_full_disk_cuts_no_line(tmp_path: Path) -> None:
    """The limit of a file's size stops a write in the middle of a line, as a full disk does."""
    code = """
import resource, signal, sys
from ignite_lr import JSONLinesLogger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
logger = JSONLinesLogger(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
for step in range(5):
    try:
        logger.write({"a": 0.5}, step)
    except OSError as error:
        print(step, type(error).__name__)
if sys.argv[2] == "room":
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    logger.write({"a": 0.5}, 9)
    logger.close()
"""
    for room, wanted in (("room", [0, 1, 2, 9]), ("none", [0, 1, 2])):
        path = tmp_path / f"{room}.jsonl"
        ended = subprocess.run(
            [sys.executable, "-c", code, str(path), room], capture_output=True, text=True, timeout=60
        )
        assert ended.stdout.split("\n")[0] == "2 OSError", ended.stderr
        if room == "none":  # another process goes on
            assert not path.read_text().endswith("\n")
            with JSONLinesLogger(path) as logger:
                logger.write({"a": 0.5}, 2)
        assert [line["step"] for line in lines_of(path)] == wanted


def test_a_resume_is_marked_so_that_what_comes_twice_is_told_apart(tmp_path: Path) -> None:
    for start, stop in ((1, 5), (3, 7)):  # killed after 4, with a checkpoint at 2
        logger = JSONLinesLogger(tmp_path / "a.jsonl")
        for step in range(start, stop):
            logger.write({"a": 0.5}, step)
        logger.close()
        logger.write({"a": 0.5}, 7)  # opened again by the same run
        logger.close()
    lines = lines_of(tmp_path / "a.jsonl")
    assert [line["step"] for line in lines if "resumed" in line] == [3]
    kept: list[dict[str, object]] = []
    for line in lines:
        if line.get("resumed"):
            kept = [one for one in kept if one["step"] < line["step"]]  # type: ignore[operator]  # they are numbers
        kept.append(line)
    assert [line["step"] for line in kept] == [1, 2, 3, 4, 5, 6, 7]
