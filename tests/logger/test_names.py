"""Names that survive: the oddest group names in every logger that can be read back, before and after a resume."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import MLflowLogger, TensorboardLogger
from test_writers import wandb_rows
from torch import nn

from ignite_lr import JSONLinesLogger, LRLogger
from ignite_lr.logger._names import Rule
from ignite_lr.logger._writers import writer_of

ODD = [
    *("a:b", "a_b", "a b", "a.b", "a-b", "a/b", "a//b", "/a", "a/", ".", "..", "../../b", "a\nb", "a\x00b", "\ud800"),
    *(
        "\udfff",
        "é",
        "e\u0301",
        "日本",
        "x" * 300,
        "x" * 301,
        "$a$",
        "50%",
        "step",
        "a\\b",
        "<script>",
        "{}",
        '"',
        "ß",
        " ",
    ),
    "a_b-0123456789ab",
]
Curves = dict[str, list[tuple[int, float]]]


def rate_of(index: int) -> float:
    return 2.0**-index


def train(attach: Callable[[], tuple[Any, Callable[[], None]]], tag: str | None = "//run/") -> None:
    """Three iterations, and three more in another process, as it were, where one more group has come."""
    state: dict[str, Any] = {}
    for start in (0, 3):
        names = ODD if start == 0 else [*ODD, "a?b"]
        groups = [
            {"params": [nn.Parameter(torch.ones(1))], "lr": rate_of(index), "name": name}
            for index, name in enumerate(names)
        ]
        optimizer = torch.optim.SGD(groups)
        trainer = Engine(lambda engine, batch, optimizer=optimizer: optimizer.step())
        handler = LRLogger(optimizer, tag=tag, step="update")
        if start:
            handler.load_state_dict(state)
        logger, close = attach()
        logger.attach(trainer, handler, Events.ITERATION_COMPLETED)
        trainer.run([0] * 3)
        state = handler.state_dict()
        close()


def check(curves: Mapping[str, list[tuple[int, float]]]) -> None:
    """Each group is a curve of its own, told by its rate, and goes on under its name."""
    wanted = {rate_of(index): (1 if index < len(ODD) else 4) for index in range(len(ODD) + 1)}
    assert len(curves) == len(wanted)
    for name, curve in curves.items():
        (rate,) = {value for _, value in curve}
        assert sorted(step for step, _ in curve) == list(range(wanted.pop(rate), 7)), name
    assert not wanted


def test_json_lines(tmp_path: Path) -> None:
    def attach() -> tuple[Any, Callable[[], None]]:
        logger = JSONLinesLogger(tmp_path / "rates.jsonl")
        return logger, logger.close

    train(attach)
    curves: Curves = {}
    for line in map(json.loads, (tmp_path / "rates.jsonl").read_text(encoding="utf-8").splitlines()):
        for name in set(line) - {"step", "resumed"}:
            curves.setdefault(name, []).append((line["step"], line[name]))
    check(curves)
    assert {f"run/lr/SGD/{name}" for name in ODD} <= set(curves) | {"run/lr/SGD/a_b-0123456789ab"}


@pytest.mark.parametrize("kind", ["tensorboardX", "tensorboardX with purge_step", "torch"])
def test_tensorboard(kind: str, tmp_path: Path) -> None:
    import tensorboardX
    import torch.utils.tensorboard
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    purges = iter([{}, {"purge_step": 4}])

    def attach() -> tuple[Any, Callable[[], None]]:
        logger = TensorboardLogger(str(tmp_path))
        logger.writer.close()
        if kind == "torch":
            logger.writer = torch.utils.tensorboard.SummaryWriter(str(tmp_path))
        else:
            logger.writer = tensorboardX.SummaryWriter(
                str(tmp_path), filename_suffix=str(time.time()), **(next(purges) if "purge" in kind else {})
            )
        return logger, logger.close

    train(attach)
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    check({tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags})
    assert "run/lr/SGD/a:b" in tags


def test_mlflow(tmp_path: Path) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path}/runs.db"
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("names", artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_experiment("names")
    run: list[str] = []

    def attach() -> tuple[Any, Callable[[], None]]:
        if run:
            mlflow.start_run(run_id=run[0])
        logger = MLflowLogger(tracking_uri=uri)
        run.append(logger.active_run.info.run_id)
        return logger, logger.close

    train(attach)
    client = mlflow.tracking.MlflowClient(uri)
    names = client.get_run(run[0]).data.metrics
    check({name: [(each.step, each.value) for each in client.get_metric_history(run[0], name)] for name in names})
    assert {"run/lr/SGD/a_b", "run/lr/SGD/日本"} <= set(names)


# W&B starts a process of its own and is not quick to end it
@pytest.mark.filterwarnings("ignore::ResourceWarning:wandb", "ignore::DeprecationWarning")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    from ignite.handlers import WandBLogger

    monkeypatch.setenv("WANDB_SILENT", "true")

    def attach() -> tuple[Any, Callable[[], None]]:
        logger = WandBLogger(mode="offline", dir=str(tmp_path), project="names")
        return logger, logger.close

    train(attach)
    curves: Curves = {}
    for row in wandb_rows(tmp_path):
        for name in row:
            if not name.startswith("_"):
                curves.setdefault(name, []).append((int(row["_step"]), float(row[name])))
    check(curves)
    assert "run/lr/SGD/a:b" in curves


@pytest.mark.parametrize("name", ["ClearMLLogger", "NeptuneLogger", "PolyaxonLogger", "VisdomLogger"])
def test_no_two_names_become_one_in_the_others(name: str) -> None:
    from unittest.mock import MagicMock

    import ignite.handlers

    rule = writer_of(MagicMock(spec=getattr(ignite.handlers, name))).names
    tags = [f"lr/SGD/{each}" for each in ODD]
    names = [rule.fitting(tag) for tag in tags]
    assert len(set(names)) == len(tags)
    assert [rule.fitting(tag) for tag in reversed(tags)] == names[::-1]
    assert rule.fitting("lr/SGD/group_0") == "lr/SGD/group_0"
    for each in names:
        each.encode()  # no lone surrogate


def test_what_looks_replaced_is_replaced() -> None:
    rule = Rule(illegal=r"[^\w/-]")
    one = rule.fitting("lr/a:b")
    assert one.startswith("lr/a_b-")
    assert rule.fitting(one) != one


@pytest.mark.parametrize("tag", ["train/", "/train", "//train//"])
def test_slashes_at_the_ends_of_a_tag_do_not_matter(tag: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    trainer, logger = Engine(lambda engine, batch: optimizer.step()), LRLogger(optimizer, tag=tag, history=5)
    logger.attach(trainer)
    trainer.run([0])
    assert "train/lr/SGD" in logger.history()


def test_a_tag_of_slashes_is_refused() -> None:
    with pytest.raises(ValueError, match="tag must be more than slashes, got '//'"):
        LRLogger(torch.optim.SGD([nn.Parameter(torch.ones(1))]), tag="//")
