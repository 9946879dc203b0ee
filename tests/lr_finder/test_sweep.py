"""The engine of a sweep; what it does to a training is in ``test_lr_finder.py`` and ``test_transparency.py``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from ignite_lr.dry_run import raise_failures
from ignite_lr.lr_finder import LRFinder

pytestmark = pytest.mark.filterwarnings("ignore:Run completed without loss diverging")


class Trained:
    def __init__(self, every: int = 1) -> None:
        self.parameter = nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD([self.parameter], lr=0.5)
        self.seen: list[tuple[int, int, float]] = []

        def step(engine: Engine, batch: Any) -> float:
            self.seen.append((engine.state.iteration, engine.state.epoch, self.optimizer.param_groups[0]["lr"]))
            if engine.state.iteration % every == 0:
                self.optimizer.step()
            return 1.0

        self.trainer = Engine(step)

    def attach(self, **options: Any) -> Any:
        settings = {"num_iter": 6, "start_lr": 1.0, "end_lr": 32.0, **options}
        return LRFinder().attach(self.trainer, {"optimizer": self.optimizer}, **settings)


def test_it_is_an_engine_whose_handlers_fire() -> None:
    training = Trained()
    events: list[Any] = []
    with training.attach() as sweep:
        assert isinstance(sweep, Engine)
        assert sweep is not training.trainer
        for event in (Events.STARTED, Events.EPOCH_COMPLETED, Events.ITERATION_COMPLETED, Events.COMPLETED):
            sweep.add_event_handler(event, lambda _, event=event: events.append(event))
        state = sweep.run(range(4))
        assert state is sweep.state is training.trainer.state
        assert state.dataloader == range(4)
    assert events.count(Events.ITERATION_COMPLETED) == 6
    assert events[0] is Events.STARTED
    assert events[-1] is Events.COMPLETED


def test_the_step_sees_rates_and_epochs_as_they_are() -> None:
    training = Trained(every=2)
    with training.attach() as sweep:
        sweep.run(range(5))
    iterations, epochs, rates = zip(*training.seen, strict=True)
    assert iterations == tuple(range(1, 13))
    assert epochs == (1,) * 5 + (2,) * 5 + (3,) * 2
    assert rates == pytest.approx((1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32))


def test_a_handler_on_the_sweep_reads_the_rate_of_its_iteration() -> None:
    training = Trained()
    rates: list[float] = []
    with training.attach() as sweep:
        sweep.add_event_handler(
            Events.ITERATION_COMPLETED, lambda: rates.append(training.optimizer.param_groups[0]["lr"])
        )
        sweep.run(range(4))
    assert rates == pytest.approx([1, 2, 4, 8, 16, 32])


def test_running_needs_one_limit_at_most() -> None:
    training = Trained()
    with training.attach() as sweep, pytest.raises(ValueError, match="max_iters and max_epochs are mutually exclusive"):
        sweep.run(range(4), max_epochs=1, max_iters=1)


def test_empty_data_is_an_error() -> None:
    training = Trained()
    with training.attach() as sweep, pytest.raises(ValueError, match="zero size"):
        sweep.run([])


def test_ending_an_epoch_inside_the_step_starts_the_data_again() -> None:
    training = Trained()
    original = training.trainer._process_function
    batches: list[int] = []

    def step(engine: Engine, batch: int) -> Any:
        batches.append(batch)
        if len(batches) == 2:
            engine.terminate_epoch()
        return original(engine, batch)

    training.trainer._process_function = step
    with training.attach() as sweep:
        sweep.run(range(10))
    assert batches == [0, 1, 0, 1, 2, 3]


def test_failures_are_reported_together_by_name() -> None:
    raise_failures([], None)
    failures = [("model", ValueError("a")), ("ema", OSError("b")), ("ema", OSError("b"))]
    message = r"could not be restored, everything else was: model: ValueError: a; ema: OSError: b$"
    with pytest.raises(RuntimeError, match=message):
        raise_failures(failures, None)
    raise_failures(failures, KeyboardInterrupt())  # which is on its way already
