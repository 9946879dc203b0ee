"""Where records go besides loggers, and what becomes of them when a run is resumed, killed or dropped."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from ignite.engine.events import EventEnum
from ignite.handlers import EarlyStopping, ProgressBar
from test_logger import Clipper, ListLogger
from torch import nn

from ignite_lr import (
    GradNormClipper,
    JSONLinesLogger,
    LRLogger,
    LRSchedulerHandler,
    ScheduleLR,
    ScheduleParam,
    schedules,
)


def sgd(groups: int = 1, lr: Any = 1.0, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))]} for _ in range(groups)], lr=lr, **options)


def falling(optimizer: torch.optim.Optimizer) -> Engine:
    """A trainer whose update i uses the rate 1 / 2 ** i."""

    def step(engine: Engine, batch: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.5**engine.state.iteration
        optimizer.step()

    return Engine(step)


# --- the metrics of the trainer


@pytest.mark.parametrize("attach", ["ours", "ignite"])
def test_tags_are_in_the_metrics_right_after_the_update(attach: str) -> None:
    optimizer = sgd()
    trainer = falling(optimizer)
    shown: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: shown.append(trainer.state.metrics["lr/SGD"]))
    handler = LRLogger(optimizer, metrics=True)
    if attach == "ours":
        handler.attach(trainer)
    else:
        ListLogger().attach(trainer, handler, Events.COMPLETED)
    trainer.run([0] * 4)
    assert shown == [0.5, 0.25, 0.125, 0.0625]


def test_a_progress_bar_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    optimizer = sgd(lr=torch.tensor(0.25))
    trainer = Engine(lambda engine, batch: optimizer.step())
    ProgressBar().attach(trainer, metric_names="all")
    LRLogger(optimizer, metrics=True, tag="rates").attach(trainer)
    trainer.run([0] * 3)
    assert "rates/lr/SGD=0.25" in capsys.readouterr().err


def test_early_stopping_can_use_them() -> None:
    optimizer = sgd()
    trainer = falling(optimizer)
    LRLogger(optimizer, metrics=True).attach(trainer)
    stopper = EarlyStopping(3, score_function=lambda engine: engine.state.metrics["lr/SGD"], trainer=trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, stopper)
    trainer.run([0] * 10)
    assert trainer.state.iteration == 4


def test_a_tensor_in_the_metrics_is_not_written_over() -> None:
    rate = torch.tensor(0.25)
    optimizer = sgd(lr=rate)
    trainer = Engine(lambda engine, batch: optimizer.step())
    LRLogger(optimizer, metrics=True).attach(trainer)
    trainer.run([0])
    rate.fill_(9.0)
    assert trainer.state.metrics["lr/SGD"] == 0.25


# --- nothing recorded is said


def test_a_logger_that_would_keep_nothing_is_refused() -> None:
    optimizer = sgd()
    with pytest.raises(ValueError, match=r"logger must be given, .* history=n or metrics=True"):
        LRLogger(optimizer).attach(falling(optimizer))
    assert optimizer._optimizer_step_pre_hooks == {}


def test_a_logger_on_an_evaluator_says_what_to_do(tmp_path: Path) -> None:
    optimizer = sgd()
    evaluator = Engine(lambda engine, batch: None)
    logger = JSONLinesLogger(tmp_path / "log.jsonl")
    logger.attach(evaluator, log_handler=LRLogger(optimizer), event_name=Events.EPOCH_COMPLETED)

    def run() -> None:
        for _ in range(5):
            evaluator.run([0] * 60)

    with pytest.warns(UserWarning, match=r"100 iterations .* nothing is recorded.*evaluator") as warned:
        run()
    assert len(warned) == 1
    assert warned[0].filename == __file__


def test_a_logger_that_sees_no_update_says_so_once() -> None:
    optimizer = sgd()
    trainer = Engine(lambda engine, batch: None)
    logger = LRLogger(optimizer, history=10)
    logger.attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: optimizer.step())
    with pytest.warns(UserWarning, match=r"100.*handler.*second_step.*graph") as warned:
        trainer.run([0] * 350)
    assert len(warned) == 1
    assert len(logger.history()["update"]) == 0


def test_a_logger_that_fails_is_reported_at_a_line_of_the_users() -> None:
    class Broken(ListLogger):
        def write(self, values: Any, step: int) -> None:
            raise OSError("gone")

    optimizer = sgd()
    trainer = falling(optimizer)
    LRLogger(optimizer).attach(trainer, Broken())
    with pytest.warns(RuntimeWarning, match="Broken failed") as warned:
        trainer.run([0])
    assert warned[0].filename == __file__


# --- counting


class Backward(EventEnum):
    """An event of the training step's own."""

    COMPLETED = "backward_completed"


@pytest.mark.parametrize("lengths", [[1, 1, 1, 1], [1, 3]], ids=str)
def test_a_step_that_fires_events_is_recorded_in_every_run(lengths: list[int]) -> None:
    optimizer = sgd()

    def step(engine: Engine, batch: Any) -> None:
        engine.fire_event(Backward.COMPLETED)
        optimizer.step()

    trainer = Engine(step)
    trainer.register_events(*Backward)
    logger = LRLogger(optimizer, history=10)
    logger.attach(trainer)
    for length in lengths:
        trainer.run([0] * length)
    assert logger.history()["update"].tolist() == [1, 2, 3, 4]


class Lookahead(torch.optim.Optimizer):
    """An optimizer around another one that, as many in the wild, never calls ``Optimizer.__init__``."""

    def __init__(self, base_optimizer: torch.optim.Optimizer) -> None:
        self.base_optimizer = base_optimizer
        self.param_groups = base_optimizer.param_groups
        self.defaults = base_optimizer.defaults

    def step(self, closure: Any = None) -> Any:
        return self.base_optimizer.step(closure)


class Forwarding(Lookahead):
    """The same, but whoever wants to hook its steps gets to hook those of the inner optimizer."""

    def register_step_pre_hook(self, hook: Any) -> Any:
        return self.base_optimizer.register_step_pre_hook(hook)

    def register_step_post_hook(self, hook: Any) -> Any:
        return self.base_optimizer.register_step_post_hook(hook)


def test_an_optimizer_that_cannot_be_hooked_names_the_inner_one() -> None:
    with pytest.raises(TypeError, match=r"base_optimizer, of class SGD"):
        LRLogger(Lookahead(sgd()), history=5)


def test_an_optimizer_without_init_works_where_its_hooks_do() -> None:
    optimizer = Forwarding(sgd())
    trainer = Engine(lambda engine, batch: optimizer.step())
    logger = LRLogger(optimizer, history=10)
    logger.attach(trainer)
    trainer.run([0] * 5)
    assert len(logger.history()["update"]) == 5


# --- states


@pytest.fixture
def process_group() -> Iterator[None]:
    distributed = torch.distributed
    if not distributed.is_available():
        pytest.skip("needs torch.distributed")
    if distributed.is_initialized():
        yield
        return
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning:torch.distributed", "ignore::FutureWarning")
def test_a_distributed_checkpoint_brings_back_the_history(process_group: None, tmp_path: Path) -> None:
    from torch.distributed import checkpoint

    def train(logger: LRLogger, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
        def step(engine: Engine, batch: float) -> None:
            optimizer.param_groups[0]["lr"] = batch
            optimizer.step()

        clipper = Clipper(optimizer)
        logger._sources[0].add_clipper(clipper, "")
        trainer = Engine(step)
        with clipper.attach(trainer), logger.attach(trainer):
            trainer.run([float(i) for i in range(start, stop)])

    first, second = sgd(momentum=0.5), sgd(momentum=0.5)
    logger, fresh = (LRLogger(one, history=25, momentum=True) for one in (first, second))
    train(logger, first, 1, 21)
    checkpoint.save({"logger": logger.state_dict()}, checkpoint_id=tmp_path / "saved")
    state = {"logger": fresh.state_dict()}
    checkpoint.load(state, checkpoint_id=tmp_path / "saved")
    assert state["logger"] == logger.state_dict()
    fresh.load_state_dict(state["logger"])
    train(fresh, second, 21, 31)
    history = fresh.history()
    assert history["update"].tolist() == list(range(6, 31))
    assert history["lr/SGD"].tolist() == [float(i) for i in range(6, 31)]
    assert history["momentum/SGD"].tolist() == [0.5] * 25


def test_two_identical_trainings_have_identical_states() -> None:
    def state(rests: int) -> dict[str, Any]:
        optimizers = {"A": sgd(), "B": sgd(2)}

        def step(engine: Engine, batch: Any) -> None:
            for optimizer in optimizers.values():
                optimizer.step()

        trainer, logger = Engine(step), LRLogger(optimizers, history=5)
        logger.attach(trainer)
        trainer.run([0] * (6 - rests))
        if rests:
            saved = logger.state_dict()
            trainer, logger = Engine(step), LRLogger(optimizers, history=5)
            logger.load_state_dict(saved)
            logger.attach(trainer)
            trainer.state.iteration = 6 - rests
            trainer.load_state_dict({"iteration": 6 - rests, "epoch_length": 6, "max_epochs": 1})
            trainer.run([0] * 6)
        return logger.state_dict()

    assert state(0) == state(0) == state(2)


# --- what a checkpoint covers is on the disk

KILLED = """
import os, signal, sys, torch
from ignite.engine import Engine, Events
from ignite.handlers import TensorboardLogger
from ignite_lr import LRLogger

folder, kind = sys.argv[1:]
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
trainer = Engine(lambda engine, batch: optimizer.step())
logger = TensorboardLogger(folder)
if kind == "torch":
    from torch.utils.tensorboard import SummaryWriter
    logger.writer.close()
    logger.writer = SummaryWriter(folder)
if kind == "queue":
    from tensorboardX import SummaryWriter
    logger.writer.close()
    logger.writer = SummaryWriter(folder, purge_step=0)
handler = LRLogger(optimizer)
logger.attach(trainer, handler, Events.ITERATION_COMPLETED)

@trainer.on(Events.ITERATION_COMPLETED(once=50))
def save():
    torch.save(handler.state_dict(), folder + "/checkpoint.pt")
    os.kill(os.getpid(), signal.SIGKILL)

trainer.run([0] * 60)
"""


@pytest.mark.parametrize("kind", ["tensorboardX", "queue", "torch"])
def test_a_kill_after_a_checkpoint_loses_no_record_that_it_covers(kind: str, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    folder.mkdir()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(folder), kind], capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    updates = torch.load(folder / "checkpoint.pt", weights_only=True)["SGD"]["updates"]
    (folder / "checkpoint.pt").unlink()
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("lr/SGD")] == list(range(1, updates + 1))
    assert updates == 50


# --- a dropped training is freed


def attach_ours(handler: LRLogger, trainer: Engine) -> Any:
    return handler.attach(trainer)


def attach_with_a_logger(handler: LRLogger, trainer: Engine) -> Any:
    return handler.attach(trainer, ListLogger(), every=2)


def attach_through_ignite(handler: LRLogger, trainer: Engine) -> Any:
    # a filter, as in ITERATION_COMPLETED(every=2), makes a cycle of Ignite's own
    return ListLogger().attach(trainer, handler, Events.ITERATION_COMPLETED)


def engine_holds_itself() -> bool:
    """Whether Ignite's engine is part of a cycle as soon as a handler takes it, as in Ignite 0.5.2."""
    trainer = Engine(lambda engine, batch: None)
    trainer.add_event_handler(Events.COMPLETED, lambda engine: None)
    ((_, given, _),) = trainer._event_handlers[Events.COMPLETED]
    return given[0] is trainer


@pytest.mark.parametrize("ran", [True, False])
@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize("attach", [attach_ours, attach_with_a_logger, attach_through_ignite], ids=lambda f: f.__name__)
def test_a_dropped_training_is_freed_without_the_collector(
    attach: Callable[[LRLogger, Engine], Any], removed: bool, ran: bool
) -> None:
    if not removed and engine_holds_itself():
        pytest.skip("this Ignite's engine refers to itself where a handler takes it")

    def training() -> list[weakref.ref[Any]]:
        optimizer = sgd()
        weight = optimizer.param_groups[0]["params"][0]
        clipper = Clipper(optimizer)
        trainer = Engine(lambda engine, batch: optimizer.step())
        handler = LRLogger(optimizer, clipper=clipper, history=5, metrics=True)
        handle = attach(handler, trainer)
        if ran:
            trainer.run([0] * 4)
        if removed:
            handle.remove()
        return [weakref.ref(one) for one in (optimizer, weight, trainer, handler, clipper)]

    training()  # what is imported and compiled for the first one leaves frames behind
    gc.collect()
    gc.disable()
    try:
        assert [one() for one in training()] == [None] * 5
    finally:
        gc.enable()


# --- shown


@pytest.mark.parametrize("options", [{}, {"momentum": True, "weight_decay": True}], ids=["rates", "all"])
def test_weight_decay_is_not_drawn_on_an_axis_called_learning_rate(options: dict[str, bool]) -> None:
    pytest.importorskip("matplotlib")
    optimizer = sgd(2, momentum=0.9, weight_decay=0.1)
    trainer, logger = falling(optimizer), LRLogger(optimizer, history=5, step="update", tag="run", **options)
    logger.attach(trainer)
    trainer.run([0] * 4)
    drawn = logger.plot(title="Rates")
    axes = drawn.figure.axes
    assert axes[0] is drawn
    assert [ax.get_ylabel() for ax in axes] == ["learning rate", *(["momentum", "weight decay"] if options else [])]
    for ax, kind in zip(axes, ["lr", "momentum", "weight_decay"], strict=False):
        assert [line.get_label() for line in ax.lines] == [f"run/{kind}/SGD/group_{group}" for group in (0, 1)]
    assert (drawn.get_title(), axes[-1].get_xlabel()) == ("Rates", "update")
    np.testing.assert_array_equal(drawn.lines[0].get_ydata(), [0.5, 0.25, 0.125, 0.0625])
    given = drawn.figure.__class__().add_subplot()
    assert logger.plot(given) is given
    assert len(given.figure.axes) == 1


def test_where_pyplot_is_in_use_the_figure_is_pyplots() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    optimizer = sgd(momentum=0.9)
    trainer, logger = falling(optimizer), LRLogger(optimizer, history=5, momentum=True)
    logger.attach(trainer)
    trainer.run([0] * 4)
    drawn = logger.plot()
    assert any(pyplot.figure(number) is drawn.figure for number in pyplot.get_fignums())


def test_wrong_arguments_of_plot_are_named() -> None:
    pytest.importorskip("matplotlib")
    optimizer = sgd()
    trainer, logger = falling(optimizer), LRLogger(optimizer, history=5)
    logger.attach(trainer)
    trainer.run([0])
    with pytest.raises(TypeError, match=r"ax must be a matplotlib\.axes\.Axes or None, got 3"):
        logger.plot(ax=3)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="title must be a string or None, got 3"):
        logger.plot(title=3)  # type: ignore[arg-type]  # the mistake


def test_a_notebook_shows_the_history_and_leaves_no_figure_open() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    optimizer = sgd(momentum=0.9)
    trainer, logger = falling(optimizer), LRLogger(optimizer, history=5, momentum=True)
    assert logger._repr_png_() is None
    logger.attach(trainer)
    trainer.run([0] * 4)
    before = pyplot.get_fignums()
    shown = logger._repr_png_()
    assert shown is not None
    assert shown.startswith(b"\x89PNG")
    assert pyplot.get_fignums() == before


def test_reprs_say_what_was_asked_for(tmp_path: Path) -> None:
    optimizer = sgd(momentum=0.9)
    assert repr(LRLogger(optimizer)) == "LRLogger(SGD)"
    logger = LRLogger({"G": optimizer, "D": sgd()}, momentum=True, history=5)
    assert repr(logger) == "LRLogger(G, D, momentum=True, history=5)"
    attached = logger.attach(falling(optimizer))
    assert repr(attached) == "<Attachment: LRLogger(G, D, momentum=True, history=5) on a trainer, attached>"
    assert repr(JSONLinesLogger(tmp_path / "a")) == f"JSONLinesLogger({str(tmp_path / 'a')!r})"


def test_a_scheduled_weight_decay_and_momentum_are_logged_as_the_updates_used_them() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([weight], lr=0.1, betas=(0.8, 0.99), weight_decay=0.5)
    used: list[tuple[float, float, float]] = []

    def step(engine: Engine, batch: Any) -> None:
        weight.grad = torch.ones(1)
        optimizer.step()

    def look(*_: Any) -> None:
        group = optimizer.param_groups[0]
        used.append((group["lr"], group["weight_decay"], group["betas"][0]))

    optimizer.register_step_post_hook(look)
    trainer, logger = Engine(step), LRLogger(optimizer, momentum=True, weight_decay=True, history=9)
    logger.attach(trainer)  # before the schedules: order does not matter
    factor = schedules.Exponential(gamma=0.5)
    for scheduler in (
        ScheduleLR(optimizer, factor),
        ScheduleParam(optimizer, "weight_decay", factor),
        ScheduleParam(optimizer, "momentum", factor),
    ):
        LRSchedulerHandler(scheduler).attach(trainer)
    trainer.run([0] * 4)
    history = logger.history()
    assert history["lr/Adam"].tolist() == pytest.approx([0.1 * 0.5**i for i in range(4)])
    assert history["weight_decay/Adam"].tolist() == pytest.approx([0.5 * 0.5**i for i in range(4)])
    assert history["momentum/Adam"].tolist() == pytest.approx([0.8 * 0.5**i for i in range(4)])
    columns = (history[f"{kind}/Adam"].tolist() for kind in ("lr", "weight_decay", "momentum"))
    assert list(zip(*columns, strict=True)) == used


def test_an_update_without_gradients_repeats_no_old_norm() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)

    def step(engine: Engine, batch: float | None) -> None:
        weight.grad = None if batch is None else torch.full((1,), batch)
        optimizer.step()

    trainer, clipper = Engine(step), GradNormClipper(optimizer, percentile=100.0)
    clipper.attach(trainer)
    logger = LRLogger(optimizer, clipper=clipper, history=10)
    logger.attach(trainer)
    trainer.run([1.0, 2.0, None, 4.0, 5.0, None])
    assert np.nan_to_num(logger.history()["clip/grad_norm"]).tolist() == [1.0, 2.0, 0.0, 4.0, 5.0, 0.0]
