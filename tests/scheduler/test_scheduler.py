from __future__ import annotations

import gc
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import ignite
import pytest
import torch
from ignite.engine import Engine, EventEnum, Events, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from torch import nn
from torch.optim import lr_scheduler

from ignite_lr import LRSchedulerHandler, ScheduleLR, schedules

LINE = schedules.Linear(total_steps=20)
DATA = [(torch.ones(2, 3), torch.ones(2, 1)) for _ in range(8)]


def benchmark() -> ModuleType:
    """The table of the benchmark, which is also the one in the docs."""
    path = Path(__file__).parents[2] / "benchmarks" / "schedulers.py"
    spec = importlib.util.spec_from_file_location("schedulers_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BENCHMARK = benchmark()


def model_and_optimizer(**options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, torch.optim.SGD(model.parameters(), **{"lr": 0.5, **options})


def spy(optimizer: torch.optim.Optimizer) -> list[float]:
    """The rate that each step really uses; registered first, so looked up when the step is over."""
    rates: list[float] = []
    optimizer.register_step_post_hook(lambda *_: rates.append(float(optimizer.param_groups[0]["lr"])))
    return rates


def line(*steps: int) -> list[float]:
    return [0.5 * LINE(step) for step in steps]


def supervised(**options: Any) -> tuple[Engine, torch.optim.Optimizer, list[float]]:
    model, optimizer = model_and_optimizer()
    rates = spy(optimizer)
    return create_supervised_trainer(model, optimizer, nn.MSELoss(), **options), optimizer, rates


def backward(model: nn.Module, batch: Any) -> None:
    nn.functional.mse_loss(model(batch[0]), batch[1]).backward()


class TestWhatIsCounted:
    @pytest.mark.parametrize("accumulation", [1, 2, 3])
    def test_updates_under_accumulation(self, accumulation: int) -> None:
        trainer, optimizer, rates = supervised(gradient_accumulation_steps=accumulation)
        LRSchedulerHandler(ScheduleLR(optimizer, LINE)).attach(trainer)
        trainer.run(DATA, max_epochs=3)
        assert rates == line(*range(24 // accumulation))

    @pytest.mark.parametrize("fused", [False, True])
    def test_updates_that_amp_skips_are_none(self, fused: bool) -> None:
        model, optimizer = model_and_optimizer(fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
        used: list[float] = []

        def step(engine: Engine, batch: Any) -> None:
            optimizer.zero_grad()
            scaler.scale(nn.functional.mse_loss(model(batch[0]), batch[1])).backward()
            if engine.state.iteration in (1, 4, 5):
                next(model.parameters()).grad.fill_(float("inf"))  # type: ignore[union-attr]  # set by backward()
            used.append(optimizer.param_groups[0]["lr"])
            scaler.step(optimizer)
            scaler.update()

        trainer = Engine(step)
        scheduler = ScheduleLR(optimizer, LINE)
        LRSchedulerHandler(scheduler).attach(trainer)
        trainer.run(DATA)
        assert used == line(0, 0, 1, 2, 2, 2, 3, 4)
        assert scheduler.last_epoch == 5

    def test_several_updates_in_one_iteration(self) -> None:
        model, optimizer = model_and_optimizer()
        rates = spy(optimizer)

        def step(engine: Engine, batch: Any) -> None:
            for _ in range(3):
                backward(model, batch)
                optimizer.step()

        trainer = Engine(step)
        LRSchedulerHandler(ScheduleLR(optimizer, LINE)).attach(trainer)
        trainer.run(DATA[:4])
        assert rates == line(*range(12))

    def test_each_of_two_optimizers_by_itself(self) -> None:
        (critic, critic_optimizer), (generator, generator_optimizer) = model_and_optimizer(), model_and_optimizer()

        def step(engine: Engine, batch: Any) -> None:
            backward(critic, batch)
            critic_optimizer.step()
            if engine.state.iteration % 4 == 0:
                backward(generator, batch)
                generator_optimizer.step()

        trainer = Engine(step)
        fast, slow = ScheduleLR(critic_optimizer, LINE), ScheduleLR(generator_optimizer, LINE)
        LRSchedulerHandler(fast).attach(trainer)
        LRSchedulerHandler(slow).attach(trainer)
        trainer.run(DATA)
        assert (fast.last_epoch, slow.last_epoch) == (8, 2)

    def test_nested_steps_once(self) -> None:
        class Outer(torch.optim.SGD):
            def step(self, closure: Any = None) -> Any:
                return super().step(closure)

        model = nn.Linear(3, 1)
        optimizer = Outer(model.parameters(), lr=0.5)
        scheduler = ScheduleLR(optimizer, LINE)
        trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
        LRSchedulerHandler(scheduler).attach(trainer)
        trainer.run(DATA)
        assert scheduler.last_epoch == 8

    @pytest.mark.parametrize("every", [1, 2, 3])
    @pytest.mark.parametrize(("interval", "units"), [("step", 12), ("iteration", 24), ("epoch", 3)])
    def test_every_so_many_over_the_whole_run(self, interval: str, units: int, every: int) -> None:
        trainer, optimizer, _ = supervised(gradient_accumulation_steps=2)
        scheduler = ScheduleLR(optimizer, LINE)
        LRSchedulerHandler(scheduler, interval=interval, every=every).attach(trainer)
        trainer.run(DATA, max_epochs=3)
        assert scheduler.last_epoch == units // every

    def test_an_added_group_has_the_right_rate_from_its_first_update(self) -> None:
        trainer, optimizer, _ = supervised()
        LRSchedulerHandler(ScheduleLR(optimizer, LINE)).attach(trainer)
        used: list[float] = []
        optimizer.register_step_post_hook(lambda *_: used.append(optimizer.param_groups[-1]["lr"]))

        @trainer.on(Events.ITERATION_STARTED(once=5))
        def thaw() -> None:
            optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1})

        trainer.run(DATA)
        assert used[4:] == pytest.approx([0.1 * LINE(step) for step in range(4, 8)])


@pytest.mark.parametrize("name", BENCHMARK.TORCH_SCHEDULERS)
def test_pytorchs_schedulers_have_the_rates_of_a_plain_loop(name: str) -> None:
    make = BENCHMARK.TORCH_SCHEDULERS[name]
    assert BENCHMARK.under(BENCHMARK.attach_handler, make) == BENCHMARK.plain_loop(make)


@pytest.mark.parametrize("name", ["ConstantLR", "LinearLR", "ExponentialLR", "CosineAnnealingWarmRestarts"])
def test_ignites_own_wrapper_has_not(name: str) -> None:
    """What the table in the docs says of Ignite 0.5.5; should it become untrue, the docs must change."""
    if name == "ExponentialLR" and ignite.__version__ < "0.5.5":
        pytest.skip("older versions of Ignite get this one right")
    make = BENCHMARK.TORCH_SCHEDULERS[name]
    assert BENCHMARK.under(BENCHMARK.attach_wrapper, make) != BENCHMARK.plain_loop(make)


class TestOrderOfCalls:
    """PyTorch's warning of schedulers that are stepped before optimizers; warnings are errors here."""

    @pytest.mark.parametrize("interval", ["step", "iteration"])
    def test_accumulated(self, interval: str) -> None:
        trainer, optimizer, _ = supervised(gradient_accumulation_steps=4)
        LRSchedulerHandler(lr_scheduler.ExponentialLR(optimizer, 0.9), interval=interval).attach(trainer)
        trainer.run(DATA)

    def test_wrapped(self) -> None:
        trainer, optimizer, _ = supervised()
        parts: list[Any] = [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)]
        scheduler = lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])
        step = type(optimizer).step.__get__(optimizer)
        optimizer.step = lambda *args, **kwargs: step(*args, **kwargs)  # type: ignore[method-assign]  # as others do
        LRSchedulerHandler(scheduler).attach(trainer)
        trainer.run(DATA)


class TestMetric:
    def plateau(self, interval: str, metric: Any) -> tuple[Engine, lr_scheduler.ReduceLROnPlateau]:
        trainer, optimizer, _ = supervised()
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        LRSchedulerHandler(scheduler, interval=interval, metric=metric).attach(trainer)
        return trainer, scheduler

    @pytest.mark.parametrize("interval", ["step", "iteration", "epoch"])
    def test_one_that_is_computed_by_a_handler_attached_later(self, interval: str) -> None:
        trainer, scheduler = self.plateau(interval, "loss")
        values = iter(range(100))
        event = Events.EPOCH_COMPLETED if interval == "epoch" else Events.ITERATION_COMPLETED
        trainer.add_event_handler(event, lambda e: e.state.metrics.update(loss=float(next(values))))
        trainer.run(DATA, max_epochs=3)
        n = 3 if interval == "epoch" else 24
        # the first value is the best one, all others halve the rate
        assert scheduler.get_last_lr() == [max(0.5 * 0.5 ** (n - 1), 0.5 * 0.5**25)]

    def test_a_callable(self) -> None:
        trainer, scheduler = self.plateau("epoch", lambda engine: float(engine.state.epoch))
        trainer.run(DATA, max_epochs=3)
        assert scheduler.get_last_lr() == [0.125]

    @pytest.mark.parametrize("interval", ["step", "iteration", "epoch"])
    def test_a_missing_one_is_a_key_error(self, interval: str) -> None:
        trainer, _ = self.plateau(interval, "accuracy")
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: e.state.metrics.update(loss=1.0))
        with pytest.raises(KeyError, match=r"metric must be one of trainer.state.metrics, got 'accuracy'.*loss"):
            trainer.run(DATA)

    def test_reading_a_state_before_it_is_there_changes_nothing(self) -> None:
        trainer, optimizer, _ = supervised()
        rates: list[float] = []
        trainer.add_event_handler(
            Events.EPOCH_COMPLETED, lambda: rates.append(optimizer.state_dict()["param_groups"][0]["lr"])
        )
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        LRSchedulerHandler(scheduler, interval="epoch", metric=lambda engine: 1.0).attach(trainer)
        trainer.run(DATA, max_epochs=3)
        # those of the epoch that ends: the metric is read after all handlers
        assert rates == [0.5, 0.5, 0.25]
        assert scheduler.get_last_lr() == [0.125]


class TestStandingStill:
    def test_a_hundred_iterations_without_an_update_give_one_warning(self) -> None:
        _, optimizer = model_and_optimizer()
        trainer = Engine(lambda engine, batch: None)
        LRSchedulerHandler(ScheduleLR(optimizer, LINE)).attach(trainer)
        trainer.run(range(99), max_epochs=1)
        with pytest.warns(
            UserWarning, match='100 iterations have passed without an update of SGD.*interval="iter'
        ) as w:
            trainer.run(range(300), max_epochs=2)
        assert len(w) == 1

    @pytest.mark.parametrize("interval", ["iteration", "epoch"])
    def test_the_other_intervals_need_no_updates(self, interval: str) -> None:
        _, optimizer = model_and_optimizer()
        trainer = Engine(lambda engine, batch: None)
        LRSchedulerHandler(ScheduleLR(optimizer, LINE), interval=interval).attach(trainer)
        trainer.run(range(250), max_epochs=1)

    def test_rare_updates_are_no_standing_still(self) -> None:
        trainer, optimizer, _ = supervised(gradient_accumulation_steps=60)
        LRSchedulerHandler(ScheduleLR(optimizer, LINE)).attach(trainer)
        trainer.run(DATA, max_epochs=60)


class TestAttaching:
    def test_one_handler_for_two_trainers_one_after_the_other(self) -> None:
        model, optimizer = model_and_optimizer()
        rates = spy(optimizer)
        pretrainer, finetuner = (create_supervised_trainer(model, optimizer, nn.MSELoss()) for _ in range(2))
        handler = LRSchedulerHandler(ScheduleLR(optimizer, LINE))
        handler.attach(pretrainer)
        handler.attach(finetuner)
        pretrainer.run(DATA[:3])
        finetuner.run(DATA[:4])
        assert rates == line(*range(7))

    def test_twice_to_one_trainer_is_an_error(self) -> None:
        trainer, optimizer, _ = supervised()
        handler = LRSchedulerHandler(ScheduleLR(optimizer, LINE))
        handler.attach(trainer)
        with pytest.raises(RuntimeError, match="already attached to this trainer"):
            handler.attach(trainer)

    def test_two_handlers_on_one_scheduler_are_an_error(self) -> None:
        trainer, optimizer, rates = supervised()
        scheduler = ScheduleLR(optimizer, LINE)
        first = LRSchedulerHandler(scheduler).attach(trainer)
        second = LRSchedulerHandler(scheduler)
        with pytest.raises(RuntimeError, match="another LRSchedulerHandler is already attached for this scheduler"):
            second.attach(trainer)
        trainer.run(DATA[:2])
        assert rates == line(0, 1)
        first.remove()
        second.attach(trainer)

    def test_only_a_trainer(self) -> None:
        _, optimizer = model_and_optimizer()
        with pytest.raises(TypeError, match=r"trainer must be an ignite\.engine\.Engine, got SGD"):
            LRSchedulerHandler(ScheduleLR(optimizer, LINE)).attach(optimizer)  # type: ignore[arg-type]  # the mistake

    @pytest.mark.parametrize("interval", ["step", "iteration", "epoch"])
    @pytest.mark.parametrize("metric", [None, "loss"])
    def test_remove_leaves_nothing(self, interval: str, metric: str | None) -> None:
        trainer, optimizer, _ = supervised()
        trainer.state.metrics["loss"] = 1.0
        scheduler: Any = lr_scheduler.ReduceLROnPlateau(optimizer) if metric else ScheduleLR(optimizer, LINE)

        def traces() -> list[int]:
            handlers = [len(handlers) for handlers in trainer._event_handlers.values() if handlers]
            hooks = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
            return [*handlers, *map(len, hooks), len(optimizer._optimizer_state_dict_pre_hooks)]

        before = traces()
        handle = LRSchedulerHandler(scheduler, interval, metric=metric).attach(trainer)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda e: e.state.metrics.update(loss=1.0)).remove()
        with handle as entered:
            assert entered is handle
            assert traces() != before
        handle.remove()
        assert traces() == before
        trainer.run(DATA)
        if not metric:
            assert scheduler.last_epoch == 0

    def test_a_dropped_trainer_is_freed_while_the_optimizer_lives(self) -> None:
        trainer, optimizer, _ = supervised()
        LRSchedulerHandler(ScheduleLR(optimizer, LINE)).attach(trainer)
        trainer.run(DATA)
        gone = weakref.ref(trainer)
        del trainer
        gc.collect()
        assert gone() is None
        optimizer.state_dict()
        optimizer.step()

    def test_as_an_event_handler_it_says_what_to_use(self) -> None:
        trainer, optimizer, _ = supervised()
        trainer.add_event_handler(Events.ITERATION_COMPLETED, LRSchedulerHandler(ScheduleLR(optimizer, LINE)))
        with pytest.raises(RuntimeError, match=r"use handler\.attach\(trainer\)"):
            trainer.run(DATA)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scheduler": 3}, TypeError, r"scheduler must have step\(\), got 3"),
        ({"scheduler": ScheduleLR}, TypeError, r"scheduler must have step\(\)"),
        ({"scheduler": torch.amp.GradScaler("cpu")}, TypeError, r"scheduler must have its optimizer"),
        ({"interval": "batch"}, ValueError, "interval must be one of 'step', 'iteration', 'epoch', got 'batch'"),
        ({"interval": None}, TypeError, "interval must be a string, got None"),
        ({"every": 0}, ValueError, "every must be at least 1, got 0"),
        ({"every": 1.5}, TypeError, r"every must be an integer, got 1\.5"),
        ({"metric": 3}, TypeError, "metric must be a name, an engine and a name, a callable or None, got 3"),
        ({"metric": "loss"}, ValueError, r"metric must be None, because ScheduleLR.step\(\) takes no metric"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    _, optimizer = model_and_optimizer()
    with pytest.raises(error, match=message):
        LRSchedulerHandler(**{"scheduler": ScheduleLR(optimizer, LINE), **arguments})


def test_a_scheduler_that_needs_a_metric_must_have_one() -> None:
    _, optimizer = model_and_optimizer()
    with pytest.raises(ValueError, match=r"metric must be given, because ReduceLROnPlateau.step\(\) takes metrics"):
        LRSchedulerHandler(lr_scheduler.ReduceLROnPlateau(optimizer))


class Stepped(EventEnum):
    """Fired by the training step itself, in the middle of an iteration."""

    BEFORE = "before_update"
    AFTER = "after_update"


MAKERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "ScheduleLR": lambda o: ScheduleLR(o, LINE),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=40),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[3]
    ),
}


class Run:
    """A training of 16 iterations, some of them with two updates or none."""

    def __init__(self, scheduler: str, interval: str = "step", every: int = 1) -> None:
        self.model, self.optimizer = model_and_optimizer(momentum=0.9)
        self.rates: list[float] = []
        self.trainer = Engine(self.step)
        self.trainer.register_events(*Stepped)
        self.scheduler = MAKERS[scheduler](self.optimizer)
        self.handler = LRSchedulerHandler(self.scheduler, interval, every)

    def step(self, engine: Engine, batch: Any) -> None:
        engine.fire_event(Stepped.BEFORE)
        for _ in range((1, 2, 0, 1)[engine.state.iteration % 4]):
            self.optimizer.zero_grad()
            backward(self.model, batch)
            self.rates.append(self.optimizer.param_groups[0]["lr"])
            self.optimizer.step()
        engine.fire_event(Stepped.AFTER)

    def to_save(self, order: tuple[str, ...] = ("scheduler", "schedule_handler", "optimizer")) -> dict[str, Any]:
        parts = {"optimizer": self.optimizer, "scheduler": self.scheduler, "schedule_handler": self.handler}
        return {"trainer": self.trainer, "model": self.model, **{name: parts[name] for name in order}}

    def go(self) -> None:
        done = self.trainer.state.iteration
        self.trainer.run(iter((DATA * 2)[done:]), max_epochs=2, epoch_length=len(DATA))


def whole_run(*arguments: Any) -> Run:
    run = Run(*arguments)
    run.handler.attach(run.trainer)
    run.go()
    return run


def interrupted(
    folder: Path,
    event: Any,
    stop: int,
    attach_first: bool,
    order: tuple[str, ...],
    load_order: tuple[str, ...],
    *arguments: Any,
) -> tuple[list[float], Run]:
    """The rates up to a checkpoint, and the run that was resumed from it."""
    first = Run(*arguments)
    checkpoint = Checkpoint(first.to_save(order), DiskSaver(folder), filename_pattern="c.pt")
    cut: list[int] = []

    def save(engine: Engine) -> None:
        if engine.state.iteration == stop:
            checkpoint(engine)
            cut.append(len(first.rates))

    if attach_first:
        first.handler.attach(first.trainer)
    first.trainer.add_event_handler(event, save)
    if not attach_first:
        first.handler.attach(first.trainer)
    first.go()  # on, as if it had been killed some time later
    second = Run(*arguments)
    second.handler.attach(second.trainer)
    saved = torch.load(folder / "c.pt", weights_only=True)
    Checkpoint.load_objects(to_load=second.to_save(load_order), checkpoint=saved)
    second.go()
    return first.rates[: cut[0]], second


NAMES = ("scheduler", "schedule_handler", "optimizer")


class TestResume:
    @pytest.mark.parametrize("scheduler", MAKERS)
    @pytest.mark.parametrize("event", [Events.ITERATION_COMPLETED, Stepped.AFTER])
    @pytest.mark.parametrize("stop", [1, 5, 9, 12, 15])
    @pytest.mark.parametrize("attach_first", [True, False])
    def test_a_checkpoint_anywhere(
        self, tmp_path: Path, scheduler: str, event: Any, stop: int, attach_first: bool
    ) -> None:
        whole = whole_run(scheduler)
        before, second = interrupted(tmp_path, event, stop, attach_first, NAMES, NAMES, scheduler)
        assert before + second.rates == whole.rates
        for mine, theirs in zip(second.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(mine, theirs)

    @pytest.mark.parametrize("scheduler", ["ScheduleLR", "ExponentialLR"])
    @pytest.mark.parametrize("order", list(itertools.permutations(NAMES)))
    @pytest.mark.parametrize("load_order", list(itertools.permutations(NAMES)))
    def test_whatever_the_order_in_to_save(
        self, tmp_path: Path, scheduler: str, order: tuple[str, ...], load_order: tuple[str, ...]
    ) -> None:
        whole = whole_run(scheduler)
        # iteration 5 makes two updates, so that one of them is still due
        before, second = interrupted(tmp_path, Stepped.AFTER, 5, True, order, load_order, scheduler)
        assert before + second.rates == whole.rates

    @pytest.mark.parametrize("every", [2, 3])
    @pytest.mark.parametrize("stop", [4, 5, 6, 7])
    def test_every_has_a_memory(self, tmp_path: Path, every: int, stop: int) -> None:
        whole = whole_run("ScheduleLR", "step", every)
        event = Events.ITERATION_COMPLETED
        before, second = interrupted(tmp_path, event, stop, True, NAMES, NAMES, "ScheduleLR", "step", every)
        assert before + second.rates == whole.rates

    @pytest.mark.parametrize("interval", ["iteration", "epoch"])
    @pytest.mark.parametrize("event", [Events.ITERATION_COMPLETED, Stepped.AFTER])
    @pytest.mark.parametrize("stop", [3, 8, 13])
    def test_other_intervals(self, tmp_path: Path, interval: str, event: Any, stop: int) -> None:
        """Also at the last iteration of an epoch, whose end no checkpoint of an iteration sees."""
        whole = whole_run("ScheduleLR", interval)
        before, second = interrupted(tmp_path, event, stop, True, NAMES, NAMES, "ScheduleLR", interval)
        assert before + second.rates == whole.rates

    @pytest.mark.parametrize("attach_first", [True, False])
    def test_at_the_end_of_an_epoch(self, tmp_path: Path, attach_first: bool) -> None:
        whole = whole_run("ScheduleLR", "epoch")
        event = Events.EPOCH_COMPLETED
        before, second = interrupted(tmp_path, event, 8, attach_first, NAMES, NAMES, "ScheduleLR", "epoch")
        assert before + second.rates == whole.rates

    def test_loading_into_a_running_training_forgets_what_was_due(self) -> None:
        run = Run("ScheduleLR")
        run.handler.attach(run.trainer)
        start = run.scheduler.state_dict()

        @run.trainer.on(Stepped.AFTER)
        def load() -> None:
            if run.trainer.state.iteration == 5:
                run.scheduler.load_state_dict(start)

        run.go()
        assert run.rates[6] == run.rates[0]

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"interval": "epoch"}, ValueError, "interval must be that of the saved state, 'epoch', got 'step'"),
            ({"ticks": -1}, ValueError, "ticks of state_dict must be at least 0"),
            ({"ticks": 1.5}, TypeError, "ticks of state_dict must be an integer"),
        ],
    )
    def test_a_state_that_does_not_fit_is_refused(
        self, change: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        handler = Run("ScheduleLR").handler
        with pytest.raises(error, match=message):
            handler.load_state_dict({**handler.state_dict(), **change})
        with pytest.raises(ValueError, match="state_dict must have interval and ticks and position"):
            handler.load_state_dict({})
        with pytest.raises(TypeError, match="state_dict must be a dict"):
            handler.load_state_dict([])  # type: ignore[arg-type]  # what is being tested


KILLED = """
import os, signal, sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from test_scheduler import Run
from ignite.engine import Events
from ignite.handlers import Checkpoint, DiskSaver

run = Run("ScheduleLR")
run.trainer.add_event_handler(
    Events.ITERATION_COMPLETED, Checkpoint(run.to_save(), DiskSaver({folder!r}, require_empty=False), n_saved=2)
)
run.handler.attach(run.trainer)
run.trainer.add_event_handler(Events.ITERATION_STARTED(once=11), lambda: os.kill(os.getpid(), signal.SIGKILL))
run.go()
"""


def test_a_killed_training_resumes_exactly(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    newest = max(tmp_path.glob("*.pt"), key=lambda path: int(path.stem.rsplit("_", 1)[1]))
    run = Run("ScheduleLR")
    run.handler.attach(run.trainer)
    Checkpoint.load_objects(to_load=run.to_save(), checkpoint=torch.load(newest, weights_only=True))
    assert run.trainer.state.iteration == 10
    run.go()
    whole = whole_run("ScheduleLR")
    assert run.rates == whole.rates[-len(run.rates) :]
    for mine, theirs in zip(run.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_graphed_step_is_stepped_by_the_iteration() -> None:
    """A replay runs no hooks; a step behind the optimizer's back stands for it here."""
    model, optimizer = model_and_optimizer()
    bare = torch.optim.SGD.step.__wrapped__  # type: ignore[attr-defined]  # without the hooks
    scheduler = ScheduleLR(optimizer, LINE)

    def step(engine: Engine, batch: Any) -> None:
        backward(model, batch)
        bare(optimizer)

    trainer = Engine(step)
    LRSchedulerHandler(scheduler, interval="iteration").attach(trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.run(DATA)
    assert scheduler.last_epoch == 8
