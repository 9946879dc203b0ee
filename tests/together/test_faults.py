"""What goes wrong in long trainings, and what each handler then does.

Each function below is a row of the table in ``docs/reliability.md``, and is run for each handler. ``python
tests/together/test_faults.py`` writes the table to the page; a test keeps the two the same.
"""

from __future__ import annotations

import copy
import functools
import io
import math
import os
import pickle
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, EventEnum, Events
from ignite.handlers import Checkpoint, DiskSaver
from torch import nn

from ignite_lr import schedules
from ignite_lr.clipper import GradNormClipper
from ignite_lr.logger import JSONLinesLogger, LRLogger
from ignite_lr.lr_finder import LRFinder
from ignite_lr.range_test import RangeTestResult
from ignite_lr.scheduler import LRSchedulerHandler, ScheduleLR

DATA = [(torch.randn(4, 3, generator=torch.Generator().manual_seed(i)), torch.ones(4, 1)) for i in range(8)]
EPOCHS, UPDATES, BAD = 2, 16, 6  # the sixth iteration is the one in which things go wrong
HANDLERS = ("finder", "scheduler", "clipper", "logger")
TITLES = ("range test", "scheduler", "clipper", "logger")

Outcomes = dict[str, str]
_rows: dict[str, tuple[Callable[..., None], Outcomes]] = {}


def fault(name: str, **outcomes: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a row of the table; ``outcomes`` says in words what it asserts for each handler."""

    def enter(function: Callable[..., None]) -> Callable[..., None]:
        _rows[name] = (function, outcomes)
        return function

    return enter


class BoomError(Exception):
    """What goes wrong in these tests."""


class Stage(EventEnum):
    LOSS_COMPUTED = "loss_computed"


class Training:
    """A trainer with one handler, or with all of them, and a place for trouble in its training step."""

    def __init__(self, *handlers: str, on_nonfinite: str = "count") -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.trainer = Engine(self.step)
        self.trainer.register_events(*Stage)
        self.trouble: Callable[[int], Any] = lambda iteration: None
        self.scheduler = ScheduleLR(self.optimizer, schedules.InverseSqrt(warmup_steps=5, warmup_start=0.1))
        self.schedule_handler = LRSchedulerHandler(self.scheduler)
        self.clipper = GradNormClipper(self.optimizer, 50.0, window=6, on_nonfinite=on_nonfinite)  # type: ignore[arg-type]  # parametrized
        self.logger = LRLogger(self.optimizer, history=100)
        self.handlers: dict[str, Any] = {
            "scheduler": self.schedule_handler,
            "clipper": self.clipper,
            "logger": self.logger,
        }
        self.attached = {name: self.handlers[name].attach(self.trainer) for name in handlers if name != "finder"}
        self.rates: list[float] = []
        self.optimizer.register_step_pre_hook(lambda *_: self.rates.append(self.optimizer.param_groups[0]["lr"]))

    def step(self, engine: Engine, batch: Any) -> float:
        self.optimizer.zero_grad()
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        engine.fire_event(Stage.LOSS_COMPUTED)
        loss.backward()
        # trouble may come with a value to take for the loss
        instead = self.trouble(engine.state.iteration)
        self.optimizer.step()
        return loss.item() if instead is None else instead

    def at(self, trouble: Callable[[], Any]) -> None:
        """Let it come in the iteration that is to go wrong."""
        self.trouble = lambda iteration: trouble() if iteration == BAD else None

    def to_save(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "schedule_handler": self.schedule_handler,
            "clipper": self.clipper,
            "logger": self.logger,
        }

    def run(self, done: int = 0) -> Training:
        """Run on, with the batches that were not seen yet, as a resumed data loader gives them."""
        rest = iter((DATA * EPOCHS)[done:])
        self.trainer.run(rest, max_epochs=EPOCHS, epoch_length=len(DATA))
        return self

    def seen(self, last: int = UPDATES) -> dict[str, Any]:
        """Everything that must be the same in two trainings that are the same."""
        return {
            "weights": [p.detach().numpy().copy() for p in self.model.parameters()],
            "rates": self.rates[-last:] if last else [],
            "clipper": {k: v for k, v in self.clipper.state_dict().items() if not isinstance(v, (list, torch.Tensor))},
            "norms": self.clipper.state_dict()["windows"],
            "logged": self.logger.history(),
            "scheduler": self.scheduler.last_epoch,
            "random": torch.get_rng_state().numpy(),
        }

    def counts(self) -> tuple[int, int, int]:
        """Updates as each handler counted them: scheduler, clipper, logger."""
        return self.scheduler.last_epoch, self.clipper.report().updates, len(self.logger.history()["update"])


@functools.cache
def whole(*handlers: str) -> Training:
    """The training to which nothing happened."""
    return Training(*handlers).run()


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for key in one:
        np.testing.assert_equal(one[key], other[key], err_msg=key)


def count_of(training: Training, handler: str) -> int:
    return training.counts()[("scheduler", "clipper", "logger").index(handler)]


def check_resume(broken: Training, handler: str, done: int) -> None:
    """What was left behind, taken up by a new training, ends where the whole one ends."""
    assert count_of(broken, handler) == done
    memory = io.BytesIO()
    torch.save({key: item.state_dict() for key, item in broken.to_save().items()}, memory)
    memory.seek(0)
    fresh = Training(handler)
    Checkpoint.load_objects(to_load=fresh.to_save(), checkpoint=torch.load(memory, weights_only=True))
    position = {"iteration": done, "epoch_length": len(DATA), "max_epochs": EPOCHS}
    fresh.trainer.load_state_dict(position)
    fresh.run(done)
    reference = whole(handler).seen(UPDATES - done)
    mine = fresh.seen(UPDATES - done)
    same(mine, reference)


def check_sweep(
    training: Training,
    reason: str | None,
    raises: type[BaseException] | None = None,
    match: str = r"^$",
    data: Any = DATA,
    points: int = 20,
) -> LRFinder:
    """A sweep that ends in a certain way; everything is as before, and the training as if there had been none."""
    finder = LRFinder()
    before = training.seen()
    to_save = {"model": training.model, "optimizer": training.optimizer}

    def sweep() -> None:
        with finder.attach(training.trainer, to_save, num_iter=points, start_lr=1e-4, end_lr=0.1) as engine:
            engine.run(data)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Run completed without loss diverging")
        if raises is None:
            sweep()
        else:
            with pytest.raises(raises, match=match):
                sweep()
    del before["rates"]  # the spy's own list
    same({key: value for key, value in training.seen().items() if key in before}, before)
    if reason is not None:
        assert finder.result.stop_reason == reason
    training.trouble = lambda iteration: None
    same(training.run().seen(), whole("finder").seen())
    return finder


def boom(error: BaseException) -> Callable[[], None]:
    def trouble() -> None:
        raise error

    return trouble


def failing_loader(error: BaseException) -> Iterator[Any]:
    yield from DATA[: BAD - 1]
    raise error


# -- the rows


@fault(
    "exception in the training step",
    finder="raised again; everything restored; the result has the points so far",
    scheduler="counts the updates made before it; resumes exactly",
    clipper="counts the updates made before it; resumes exactly",
    logger="keeps the updates made before it; resumes exactly",
)
def step_raises(handler: str, tmp_path: Path) -> None:
    training = Training(handler)
    training.at(boom(BoomError("in the step")))
    if handler == "finder":
        finder = check_sweep(training, "exception:BoomError", BoomError, "in the step")
        assert len(finder.result.losses) == BAD - 1
        return
    with pytest.raises(BoomError, match="in the step"):
        training.run()
    for _ in range(3):  # what the user does outside of a run
        training.optimizer.step()
    assert count_of(training, handler) == BAD - 1
    undo_steps(training, handler)
    check_resume(training, handler, BAD - 1)


def undo_steps(training: Training, handler: str) -> None:
    """The weights that the broken training had when it broke."""
    again = Training(handler)
    again.at(boom(BoomError("in the step")))
    with pytest.raises(BoomError, match="in the step"):
        again.run()
    training.model.load_state_dict(again.model.state_dict())
    training.optimizer.load_state_dict(again.optimizer.state_dict())


@fault(
    "exception in the data loader",
    finder="raised again; everything restored",
    scheduler="resumes exactly",
    clipper="resumes exactly",
    logger="resumes exactly",
)
def loader_raises(handler: str, tmp_path: Path) -> None:
    training = Training(handler)
    error = BoomError("in the loader")
    if handler == "finder":
        with pytest.warns(UserWarning, match="iterator"):
            check_sweep(training, "exception:BoomError", BoomError, "in the loader", failing_loader(error))
        return
    with pytest.raises(BoomError, match="in the loader"):
        training.trainer.run(failing_loader(error), max_epochs=EPOCHS, epoch_length=len(DATA))
    check_resume(training, handler, BAD - 1)


@fault(
    "exception in another handler",
    finder="handlers of the trainer do not run; of a custom event: raised again, everything restored",
    scheduler="counts the update, which was made; resumes exactly",
    clipper="counts the update, which was made; resumes exactly",
    logger="keeps the update, which was made; resumes exactly",
)
def another_handler_raises(handler: str, tmp_path: Path) -> None:
    training = Training(handler)

    def explode(engine: Engine) -> None:
        if engine.state.iteration == BAD:
            raise BoomError("in a handler")

    if handler == "finder":
        with training.trainer.add_event_handler(Stage.LOSS_COMPUTED, explode):
            before = [p.detach().clone() for p in training.model.parameters()]
            finder = LRFinder()
            to_save = {"model": training.model, "optimizer": training.optimizer}
            with (
                pytest.raises(BoomError, match="in a handler"),
                finder.attach(training.trainer, to_save, num_iter=20) as sweep,
            ):
                sweep.run(DATA)
            for mine, theirs in zip(training.model.parameters(), before, strict=True):
                assert torch.equal(mine, theirs)
        training.trainer.add_event_handler(Events.ITERATION_COMPLETED, boom(BoomError("not in the sweep")))
        with finder.attach(training.trainer, to_save, num_iter=20, end_lr=1e6) as sweep:
            sweep.run(DATA)
        return
    training.trainer.add_event_handler(Events.ITERATION_COMPLETED, explode)
    with pytest.raises(BoomError, match="in a handler"):
        training.run()
    check_resume(training, handler, BAD)


@fault(
    "Ctrl-C in the training step",
    finder="`KeyboardInterrupt` raised again; everything restored",
    scheduler="resumes exactly",
    clipper="resumes exactly",
    logger="resumes exactly",
)
def interrupted(handler: str, tmp_path: Path) -> None:
    training = Training(handler)
    training.at(lambda: signal.raise_signal(signal.SIGINT))
    if handler == "finder":
        check_sweep(training, "exception:KeyboardInterrupt", KeyboardInterrupt)
        return
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        training.run()
    check_resume(training, handler, BAD - 1)


@fault(
    "SIGKILL, then resumed from the last checkpoint",
    finder="the checkpoint from before the sweep is untouched; a snapshot in memory leaves no file",
    scheduler="every rate is that of the whole run",
    clipper="every threshold is that of the whole run",
    logger="every record of its history is that of the whole run",
)
def killed(handler: str, tmp_path: Path) -> None:
    every = ("scheduler", "clipper", "logger")
    folder, killed_at = run_and_kill("sweep" if handler == "finder" else "train")
    (newest,) = folder.glob("*.pt")
    saved = torch.load(newest, weights_only=True)
    done = saved["trainer"]["iteration"]
    assert [path.name for path in folder.iterdir()] == [newest.name]
    assert killed_at - done == (1 if handler != "finder" else killed_at - 3)
    fresh = Training(*every)
    Checkpoint.load_objects(to_load={"trainer": fresh.trainer, **fresh.to_save()}, checkpoint=saved)
    fresh.run(done)
    mine, reference = fresh.seen(UPDATES - done), whole(*every).seen(UPDATES - done)
    same(mine, reference)


@functools.cache
def run_and_kill(kind: str) -> tuple[Path, int]:
    import random
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="ignite_lr_killed_"))
    # a new place in every run of the tests; what fails names it
    killed_at = random.randint(5, UPDATES - 1)
    print(f"killed in iteration {killed_at}")
    command = [sys.executable, __file__, kind, str(folder), str(killed_at)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder, killed_at


def train_until_killed(kind: str, folder: Path, killed_at: int) -> None:
    training = Training("scheduler", "clipper", "logger")
    to_save = {"trainer": training.trainer, **training.to_save()}
    checkpoint = Checkpoint(to_save, DiskSaver(folder, require_empty=False), n_saved=1)
    training.trainer.add_event_handler(Events.ITERATION_COMPLETED, checkpoint)

    def die(iteration: int) -> None:
        if iteration == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "train":
        training.trouble = die
        training.run()
        return
    training.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), training.trainer.terminate)
    training.run()
    training.trouble = die
    to_save = {"model": training.model, "optimizer": training.optimizer}
    with LRFinder().attach(training.trainer, to_save, num_iter=50) as sweep:
        sweep.run(DATA)


@fault(
    "the loss becomes NaN",
    finder="stops there (`non_finite`); everything restored",
    scheduler="goes on: the update was made",
    clipper='counts it apart, its window stays clean; with `on_nonfinite="skip"` the weights too',
    logger="records the rate that the update used",
)
def loss_is_nan(handler: str, tmp_path: Path) -> None:
    training = Training(handler)

    def poison() -> float:
        spoil(training, math.nan)
        return math.nan

    check_nonfinite(training, handler, poison)


@fault(
    "a gradient becomes infinite",
    finder="stops where the loss shows it (`non_finite`); everything restored",
    scheduler="goes on: the update was made",
    clipper='counts it apart, its window stays clean; with `on_nonfinite="skip"` the weights too, with "raise" '
    "`RuntimeError` before the update",
    logger="records the rate that the update used",
)
def gradient_is_infinite(handler: str, tmp_path: Path) -> None:
    training = Training(handler)

    check_nonfinite(training, handler, functools.partial(spoil, training, math.inf))
    if handler == "clipper":
        careful = Training(handler, on_nonfinite="raise")
        careful.at(functools.partial(spoil, careful, math.inf))
        with pytest.raises(RuntimeError, match="finite"):
            careful.run()
        check_resume(careful, handler, BAD - 1)


def spoil(training: Training, value: float) -> None:
    # of the last layer, so that no saturated tanh hides it from the loss
    gradient = training.model[2].weight.grad
    assert gradient is not None
    gradient[0, 0] = value


def check_nonfinite(training: Training, handler: str, poison: Callable[..., Any]) -> None:
    training.at(poison)
    if handler == "finder":
        finder = check_sweep(training, "non_finite")
        assert len(finder.result.losses) in (BAD, BAD + 1)
        return
    training.run()
    assert count_of(training, handler) == UPDATES
    if handler == "scheduler":
        assert training.rates == whole(handler).rates
    if handler == "clipper":
        # the model is lost, and all norms after it are none
        assert training.clipper.report().nonfinite == UPDATES - BAD + 1
        assert np.isfinite(training.clipper.state_dict()["windows"][0]).all()
        careful = Training(handler, on_nonfinite="skip")
        careful.at(functools.partial(spoil, careful, math.nan))
        careful.run()
        report = careful.clipper.report()
        assert (report.updates, report.skipped, report.nonfinite) == (UPDATES - 1, 1, 1)
        assert all(p.isfinite().all() for p in careful.model.parameters())
    if handler == "logger":
        assert training.logger.history()["lr/SGD"].tolist() == training.rates


@fault(
    "no parameter has a gradient",
    finder="a point like any other; everything restored",
    scheduler="counts the update: the optimizer made its step",
    clipper="counts the update, with the norm 0; its window is unchanged",
    logger="records the rate that the update used",
)
def no_gradients(handler: str, tmp_path: Path) -> None:
    training = Training(handler)
    training.at(training.optimizer.zero_grad)
    if handler == "finder":
        check_sweep(training, "num_iter")
        return
    training.run()
    if handler == "scheduler":
        assert training.rates == whole(handler).rates
    if handler == "clipper":
        assert training.clipper.report().nonfinite == 0
        assert count_of(training, handler) == UPDATES
        assert training.clipper.report().zero == 0
        assert min(training.clipper.state_dict()["windows"][0]) > 0
    if handler == "logger":
        assert training.logger.history()["lr/SGD"].tolist() == training.rates


@fault(
    "disk full",
    finder="a snapshot that does not fit (`snapshot_to=` a folder) is an `OSError` or `RuntimeError` before anything "
    "is touched; no file is left",
    scheduler="the checkpoint's error ends the run; resumes exactly",
    clipper="the checkpoint's error ends the run; resumes exactly",
    logger="one warning; the training goes on as if nothing had been logged",
)
def disk_full(handler: str, tmp_path: Path) -> None:
    training = Training(handler)
    if handler == "finder":
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        to_save = {"model": training.model, "optimizer": training.optimizer}
        try:
            with (
                pytest.raises((OSError, RuntimeError), match=r"(?i)file|writ|space"),
                LRFinder().attach(training.trainer, to_save, num_iter=20, snapshot_to=tmp_path) as sweep,
            ):
                sweep.run(DATA)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == []
        same(training.run().seen(), whole(handler).seen())
        return
    if handler == "logger":
        output = JSONLinesLogger("/dev/full")
        logger = LRLogger(training.optimizer)
        logger.attach(training.trainer, output)
        with pytest.warns(RuntimeWarning, match="No space left"):
            training.run()
        same(training.seen(), whole(handler).seen())
        with pytest.raises(OSError, match="No space left"):
            output.close()
        return

    def save(engine: Engine) -> None:
        if engine.state.iteration == BAD:
            torch.save({key: item.state_dict() for key, item in training.to_save().items()}, "/dev/full")

    training.trainer.add_event_handler(Events.ITERATION_COMPLETED, save)
    # in whose words depends on the version of PyTorch
    with pytest.raises((OSError, RuntimeError), match=r"(?i)writ|space|pos"):
        training.run()
    check_resume(training, handler, BAD)


class Payload:
    """What would leave a file behind if it were unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.victim,))


@fault(
    "truncated, foreign or malicious checkpoint",
    finder="`RangeTestResult.load` says it is none (`ValueError`); nothing in it is run",
    scheduler="`ValueError` or `TypeError`, and the state stays as it was; a pickle is not run",
    clipper="`ValueError` or `TypeError`, and the state stays as it was; a pickle is not run",
    logger="`ValueError` or `TypeError`, and the state stays as it was; a pickle is not run",
)
def bad_checkpoint(handler: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    evil = tmp_path / "evil.pt"
    torch.save({"clipper": Payload(victim)}, evil)
    training = whole(handler)
    if handler == "finder":
        good = RangeTestResult((0.1, 0.2), (1.0, 2.0), (1.0, 2.0), "num_iter", 0.2).save(tmp_path / "good.json")
        for index, content in enumerate(
            (good.read_bytes()[:-20], b"", b"{}", b"[1, 2]", b"null", b'{"lrs": 1}', evil.read_bytes())
        ):
            path = tmp_path / f"{index}.json"
            path.write_bytes(content)
            with pytest.raises(ValueError, match="range test"):
                RangeTestResult.load(path)
        assert not victim.exists()
        return
    with pytest.raises(pickle.UnpicklingError, match=r"(?i)weights"):
        torch.load(evil, weights_only=True)
    assert not victim.exists()
    torch.save({key: item.state_dict() for key, item in training.to_save().items()}, tmp_path / "good.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:-100])
    with pytest.raises((RuntimeError, OSError), match=r"(?i)zip|archive|argument"):
        torch.load(tmp_path / "cut.pt", weights_only=True)

    stateful = {"scheduler": [training.scheduler, training.schedule_handler]}.get(handler, [training.handlers[handler]])
    before = training.seen()
    for item in stateful:
        good_state = item.state_dict()
        bad: list[Any] = [None, [], 7, "state", {}, {"foreign": 1}, training.model.state_dict()]
        bad += [{k: v for k, v in good_state.items() if k != key} for key in required(item, good_state)]
        bad += [{**good_state, key: object()} for key in required(item, good_state)]
        for state in bad:
            with pytest.raises((ValueError, TypeError), match=r"."):
                item.load_state_dict(state)
            same(training.seen(), before)


def required(item: Any, state: dict[str, Any]) -> list[str]:
    """Keys without which a state is none; what the scheduler compares and what not every state has may be missing."""
    optional = ("schedule", "absolute", "in_use") if isinstance(item, ScheduleLR) else ("due",)
    return [key for key in state if key not in optional]


@fault(
    "`trainer.terminate()`, then run again",
    finder="ends the sweep (`terminated`), not the training after it",
    scheduler="every update counts once; the rates go on where they were",
    clipper="every update counts once; the window goes on",
    logger="every update is there once, with its rate",
)
def terminated(handler: str, tmp_path: Path) -> None:
    training = Training(handler)
    training.at(training.trainer.terminate)
    if handler == "finder":
        check_sweep(training, "terminated")
        return
    training.run()
    assert count_of(training, handler) == BAD
    # a run after terminate() may leave out the rest of the epoch, as Ignite's does; the count of updates must not
    training.trainer.run(DATA, max_epochs=EPOCHS)
    made = len(training.rates)
    assert made > BAD
    assert count_of(training, handler) == made
    if handler == "scheduler":
        assert training.rates == pytest.approx([0.1 * factor for factor in training.scheduler.schedule.values(made)])
    if handler == "clipper":
        assert len(training.clipper.state_dict()["windows"][0]) == 6
    if handler == "logger":
        assert training.logger.history()["lr/SGD"].tolist() == training.rates


@fault(
    "two trainers share an optimizer",
    finder="handlers of both are suspended in the sweep",
    scheduler="counts the updates of its own trainer only",
    clipper="clips and counts the updates of its own trainer only",
    logger="records the updates of its own trainer only",
)
def shared_optimizer(handler: str, tmp_path: Path) -> None:
    training = Training(*HANDLERS[1:] if handler == "finder" else [handler])
    other = Engine(training.step)
    other.register_events(*Stage)
    if handler == "finder":
        before = training.counts()
        to_save = {"model": training.model, "optimizer": training.optimizer}
        with LRFinder().attach(other, to_save, num_iter=20, end_lr=1e6) as sweep:
            sweep.run(DATA)
        assert training.counts() == before
        return

    # in the middle of the other's iterations, as in an alternating training
    @training.trainer.on(Events.ITERATION_COMPLETED)
    def take_turns(engine: Engine) -> None:
        other.run(DATA[:2], max_epochs=1)

    training.run()
    assert len(training.rates) == 3 * UPDATES
    assert count_of(training, handler) == UPDATES


@fault(
    "attached twice, removed in mid-run",
    finder="a second block inside the first is a `RuntimeError`, and the first restores",
    scheduler="attached twice: `RuntimeError`; from the removal on the rate stays",
    clipper="attached twice: `RuntimeError`; from the removal on nothing is clipped",
    logger="attached twice: `RuntimeError`; from the removal on nothing is recorded",
)
def attached_twice(handler: str, tmp_path: Path) -> None:
    training = Training(handler)
    if handler == "finder":
        before = training.seen()
        to_save = {"model": training.model, "optimizer": training.optimizer}
        with LRFinder().attach(training.trainer, to_save, num_iter=20, end_lr=1e6) as sweep:
            sweep.run(DATA)
            with (
                pytest.raises(RuntimeError, match="running already"),
                LRFinder().attach(training.trainer, to_save, num_iter=20),
            ):
                pass
        del before["rates"]
        same(before, training.seen())
        return
    with pytest.raises(RuntimeError, match="already attached"):
        training.handlers[handler].attach(training.trainer)
    training.at(training.attached[handler].remove)
    training.run()
    assert count_of(training, handler) in (BAD - 1, BAD)
    if handler == "scheduler":
        assert len(set(training.rates[BAD:])) == 1
    training.handlers[handler].attach(training.trainer)


@fault(
    "the training step goes over to another optimizer",
    finder="200 iterations without an update: `RuntimeError`; everything restored",
    scheduler="stands still; one warning after 100 iterations",
    clipper="counts no further",
    logger="records no further",
)
def swapped_optimizer(handler: str, tmp_path: Path) -> None:
    training = Training(handler)
    first, second = training.optimizer, torch.optim.SGD(training.model.parameters(), lr=0.01)

    def swap(iteration: int) -> None:
        training.optimizer = first if iteration < BAD else second

    training.trouble = swap
    if handler == "finder":
        before = [p.detach().clone() for p in training.model.parameters()]
        finder = LRFinder()
        to_save = {"model": training.model, "optimizer": first}
        with (
            pytest.raises(RuntimeError, match="200 iterations without an update"),
            finder.attach(training.trainer, to_save, num_iter=20) as sweep,
        ):
            sweep.run(DATA)
        assert len(finder.result.losses) == BAD - 1
        for mine, theirs in zip(training.model.parameters(), before, strict=True):
            assert torch.equal(mine, theirs)
        return
    if handler == "scheduler":
        with pytest.warns(UserWarning, match="100 iterations have passed without an update") as caught:
            training.trainer.run(DATA * 30, max_epochs=2)
        assert len(caught) == 1
    else:
        training.run()
    assert count_of(training, handler) == BAD - 1


@fault(
    "deepcopy and pickle of the trainer",
    finder="as without it: nothing hangs on the trainer after the block",
    scheduler="`TypeError` that says to remove the handler first; removed, the copy is free of it",
    clipper="`TypeError` that says to remove the handler first; removed, the copy is free of it",
    logger="`TypeError` that says to remove the handler first; removed, the copy is free of it",
)
def copied_trainer(handler: str, tmp_path: Path) -> None:
    step = PlainStep()
    trainer = Engine(step)
    if handler == "finder":
        to_save = {"model": step.model, "optimizer": step.optimizer}
        with LRFinder().attach(trainer, to_save, num_iter=20, end_lr=1e9) as sweep:
            sweep.run(DATA)
    else:
        item = {
            "scheduler": lambda: LRSchedulerHandler(ScheduleLR(step.optimizer, schedules.Constant())),
            "clipper": lambda: GradNormClipper(step.optimizer),
            "logger": lambda: LRLogger(step.optimizer, history=5),
        }[handler]()
        handle = item.attach(trainer)
        with pytest.raises(TypeError, match=r"remove"):
            copy.deepcopy(trainer)
        with pytest.raises(TypeError, match=r"remove"):
            pickle.dumps(trainer)
        handle.remove()
    for copied in (copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))):
        copied.run(DATA)
        assert copied.state.iteration == len(DATA)
        assert not any(copied._event_handlers.values())
    assert trainer.state.iteration == 0


class PlainStep:
    """A training step that can be copied and pickled, with all that it needs."""

    def __init__(self) -> None:
        self.model = nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def __call__(self, engine: Engine, batch: Any) -> float:
        self.optimizer.zero_grad()
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        loss.backward()
        self.optimizer.step()
        return loss.item()


# -- the tests


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("name", list(_rows))
def test_fault(name: str, handler: str, tmp_path: Path) -> None:
    function, _ = _rows[name]
    function(handler, tmp_path)


def table() -> str:
    lines = ["| what goes wrong | " + " | ".join(TITLES) + " |", "|---" * 5 + "|"]
    for name, (_, outcomes) in _rows.items():
        lines.append(f"| **{name}** | " + " | ".join(outcomes[handler] for handler in HANDLERS) + " |")
    return "\n".join(lines) + "\n"


PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->\n", "<!-- faults: end -->"


def test_the_page_shows_this_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page[page.index(BEGIN) + len(BEGIN) : page.index(END)] == table()


def write_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page[: page.index(BEGIN) + len(BEGIN)] + table() + page[page.index(END) :], encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        train_until_killed(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    else:
        write_page()
