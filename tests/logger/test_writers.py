from __future__ import annotations

import hashlib
import struct
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from ignite.engine import Events
from ignite.handlers import ClearMLLogger, NeptuneLogger, PolyaxonLogger, TensorboardLogger, VisdomLogger
from test_logger import DATA, Clipper, Decay, read_events, spy, supervised

from ignite_lr.logger import LRLogger
from ignite_lr.logger._writers import writer_of


def mark(tag: str) -> str:
    """What a name ends in that is not the tag itself."""
    return hashlib.sha256(tag.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def curve(events: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.mark.parametrize("kind", ["ignite", "tensorboardX", "torch", "tensorboardX queue"])
@pytest.mark.parametrize("attach", ["ours", "ignite"])
def test_tensorboard(kind: str, attach: str, tmp_path: Path) -> None:
    import tensorboardX
    import torch.utils.tensorboard

    trainer, optimizer = supervised(momentum=0.9)
    seen = spy(trainer, optimizer)
    logger = TensorboardLogger(str(tmp_path))
    if kind != "ignite":
        logger.writer.close()
        for file in tmp_path.iterdir():
            file.unlink()
        logger.writer = {
            "torch": lambda: torch.utils.tensorboard.SummaryWriter(str(tmp_path)),
            "tensorboardX": lambda: tensorboardX.SummaryWriter(str(tmp_path)),
            # what is to be purged keeps its place in the queue
            "tensorboardX queue": lambda: tensorboardX.SummaryWriter(str(tmp_path), purge_step=0),
        }[kind]()
    lr_logger = LRLogger(optimizer, momentum=True)
    if attach == "ours":
        lr_logger.attach(trainer, logger)
    else:
        logger.attach(trainer, lr_logger, Events.ITERATION_COMPLETED)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, Decay(optimizer))
    trainer.run(DATA, max_epochs=10)
    logger.close()
    events = read_events(tmp_path)
    assert set(events.Tags()["scalars"]) == {"lr/SGD", "momentum/SGD"}
    assert curve(events, "lr/SGD") == [(step, float(np.float32(value))) for step, value in seen]


def test_a_bare_summary_writer_is_a_logger(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    trainer, optimizer = supervised()
    with SummaryWriter(str(tmp_path)) as writer:
        LRLogger(optimizer).attach(trainer, writer)
        trainer.run(DATA)
    assert [step for step, _ in curve(read_events(tmp_path), "lr/SGD")] == [1, 2, 3, 4, 5, 6]


def test_a_replaced_add_scalar_is_called(tmp_path: Path) -> None:
    trainer, optimizer = supervised()
    with TensorboardLogger(tmp_path) as logger:
        logger.writer.add_scalar = MagicMock()
        LRLogger(optimizer).attach(trainer, logger)
        trainer.run(DATA[:2])
        assert [call.args for call in logger.writer.add_scalar.mock_calls] == [("lr/SGD", 0.1, 1), ("lr/SGD", 0.1, 2)]


def test_mlflow(tmp_path: Path) -> None:
    from ignite.handlers import MLflowLogger

    trainer, optimizer = supervised()
    seen = spy(trainer, optimizer)
    uri = f"sqlite:///{tmp_path}/runs.db"
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("rates", artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_experiment("rates")
    with MLflowLogger(tracking_uri=uri) as logger:
        run = logger.active_run.info.run_id
        logger.attach(trainer, LRLogger({"net (a)": optimizer}), Events.ITERATION_COMPLETED)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, Decay(optimizer))
        trainer.run(DATA)
    history = mlflow.tracking.MlflowClient(uri).get_metric_history(run, "lr/net _a_-" + mark("lr/net (a)"))
    assert sorted((metric.step, metric.value) for metric in history) == seen


def wandb_records(file: Path) -> list[Any]:
    """What an offline run holds. The file is a LevelDB log: blocks of 32 KB, and records that may be cut at their ends.

    Read until the process that writes it has come to its end.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    deadline = time.monotonic() + 60
    while True:
        data, position, found, part = file.read_bytes(), 7, [], b""  # after the header of the file
        while position < len(data):
            if 2**15 - position % 2**15 < 7:
                position += 2**15 - position % 2**15
                continue
            _, size, kind = struct.unpack_from("<IHB", data, position)
            position += 7 + size
            part += data[position - size : position]
            if kind in (1, 4):  # whole, or the last part of it
                found.append(Record.FromString(part))
                part = b""
        if found and found[-1].HasField("exit"):
            return found
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wandb_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of the histories of all offline runs in a folder."""
    return [
        {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"))
        for record in wandb_records(file)
    ]


# W&B starts a process of its own and is not quick to end it
@pytest.mark.filterwarnings("ignore::ResourceWarning:wandb", "ignore::DeprecationWarning")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    from ignite.handlers import WandBLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    trainer, optimizer = supervised(accumulation=2)
    seen = spy(trainer, optimizer)
    with WandBLogger(mode="offline", dir=str(tmp_path), project="rates") as logger:
        # another handler is ahead in every iteration
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: logger.log({"loss": 0.0}, step=engine.state.iteration)
        )
        logger.attach(trainer, LRLogger(optimizer), Events.ITERATION_COMPLETED)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, Decay(optimizer))
        trainer.run(DATA)
    rows = wandb_rows(tmp_path)
    assert [(int(row["_step"]), float(row["lr/SGD"])) for row in rows if "lr/SGD" in row] == seen
    assert wandb.run is None


def call_of(logger: Any, record: MagicMock) -> list[Any]:
    """How a logger of Ignite's was called for one update."""
    trainer, optimizer = supervised()
    clipper = Clipper(optimizer)
    clipper.attach(trainer)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, LRLogger(optimizer, tag="t"), logger, Events.ITERATION_COMPLETED
    )
    trainer.run(DATA[:1])
    return record.mock_calls


def test_clearml_is_called_as_ignite_calls_it() -> None:
    logger = MagicMock(spec=ClearMLLogger)
    logger.clearml_logger = MagicMock()
    (call,) = call_of(logger, logger.clearml_logger.report_scalar)
    assert call.kwargs == {"title": "t/lr", "series": "SGD", "iteration": 1, "value": 0.1}


def test_neptune_is_called_as_ignite_calls_it() -> None:
    logger = MagicMock(spec=NeptuneLogger)
    series = MagicMock()
    logger.__getitem__.side_effect = {"t/lr/SGD": series}.__getitem__
    (call,) = call_of(logger, series.append)
    assert (call.args, call.kwargs) == ((0.1,), {"step": 1})


def test_polyaxon_is_called_as_ignite_calls_it() -> None:
    logger = MagicMock(spec=PolyaxonLogger)
    logger.log_metrics = MagicMock()
    (call,) = call_of(logger, logger.log_metrics)
    assert call.kwargs == {"t/lr/SGD": 0.1, "step": 1}


def test_visdom_is_called_as_ignite_calls_it() -> None:
    trainer, optimizer = supervised()
    logger = MagicMock(spec=VisdomLogger)
    logger.vis, logger.executor = MagicMock(), MagicMock()
    logger.executor.submit.return_value.result.return_value = "window"
    LRLogger(optimizer).attach(trainer, logger)
    trainer.run(DATA[:2])
    first, second = [call for call in logger.executor.submit.mock_calls if call.args]
    assert first.args == second.args == (logger.vis.line,)
    assert (first.kwargs["X"], first.kwargs["Y"], first.kwargs["win"], first.kwargs["update"]) == (
        [1],
        [0.1],
        None,
        None,
    )
    assert (second.kwargs["X"], second.kwargs["win"], second.kwargs["update"]) == ([2], "window", "append")


def test_neptune_gets_no_value_that_it_raises_for() -> None:
    logger = MagicMock(spec=NeptuneLogger)
    writer_of(logger).write(logger, {"clip/grad_norm": float("inf"), "lr/SGD": 0.1}, 3)
    assert [call.args for call in logger.__getitem__.call_args_list] == [("lr/SGD",)]


def test_a_writer_of_numbers_alone_gets_the_numbers() -> None:
    class Numbers:
        def __init__(self) -> None:
            self.steps: list[int] = []

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.steps.append(step)

    trainer, optimizer = supervised()
    clipper, numbers = Clipper(optimizer), Numbers()
    clipper.attach(trainer)
    LRLogger(optimizer, clipper=clipper, on_error="raise").attach(trainer, numbers)
    trainer.run(DATA, max_epochs=2)
    assert set(numbers.steps) == set(range(1, 2 * len(DATA) + 1))


def test_only_tensorboard_takes_histograms() -> None:
    assert writer_of(MagicMock(spec=TensorboardLogger, writer=MagicMock())).write_histogram is not None
    assert writer_of(MagicMock(spec=PolyaxonLogger)).write_histogram is None
