from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from ignite.engine import Events
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
    with pytest.raises(TypeError, match=r"path must be a str or a pathlib\.Path, got 3 of type int"):
        JSONLinesLogger(3)  # type: ignore[arg-type]  # the mistake
