"""Base rates written at random moments and in every way, against what the rates should be on paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ignite.engine import Engine, Events
from torch.optim import lr_scheduler

from ignite_lr import LRSchedulerHandler, ScheduleLR, schedules
from ignite_lr.core.rates import set_base_rates

UPDATES, LENGTH, WARMUP = 12, 3, 4
SHAPES = ("alone", "warmup", "warmup of PyTorch's", "plain loop")
MOMENTS = (
    "before the step",
    "after the step",
    Events.ITERATION_STARTED,
    Events.ITERATION_COMPLETED,
    Events.GET_BATCH_COMPLETED,
)
WAYS = ("applied", "every group", "one group", "in place", "base_lrs")


@dataclass(frozen=True)
class Write:
    """New base rates, from an update on."""

    iteration: int
    moment: Any
    way: str
    rate: float
    group: int


WRITES = st.builds(
    Write,
    iteration=st.integers(1, UPDATES - 1),
    moment=st.sampled_from(MOMENTS),
    way=st.sampled_from(WAYS),
    rate=st.sampled_from([0.25, 1.0, 8.0]),
    group=st.integers(0, 20),
)


def write(optimizer: torch.optim.Optimizer, scheduler: Any, one: Write, bases: list[float]) -> None:
    """Write them, and on paper what they are now."""
    groups = optimizer.param_groups
    which = [one.group % len(groups)] if one.way in ("one group", "in place") else range(len(groups))
    new = [one.rate * (1 + i % 3) if i in which else base for i, base in enumerate(bases)]
    tensors = torch.is_tensor(groups[0]["lr"])
    written = [torch.tensor(base, dtype=torch.float64) if tensors else base for base in new]
    if one.way == "applied":
        set_base_rates(optimizer, new)
    elif one.way == "base_lrs" and isinstance(scheduler, ScheduleLR):
        scheduler.base_lrs = written
    else:
        for i in which:
            if one.way == "in place" and tensors:
                groups[i]["initial_lr"].fill_(new[i])
            else:
                groups[i]["initial_lr"] = written[i]
    bases[:] = new


def check(shape: str, groups: int, tensors: bool, writes: list[Write]) -> None:
    bases = [0.5 * (1 + i % 2) for i in range(groups)]
    made: Any = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": base} for base in bases]
    for group in made:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64) if tensors else group["lr"]
    optimizer = torch.optim.SGD(made, lr=1.0)
    factor = schedules.Exponential(gamma=0.9)
    scheduler: Any = ScheduleLR(optimizer, factor)
    if shape == "warmup":
        scheduler = schedules.with_warmup(scheduler, WARMUP, warmup_start=0.1)
    elif "PyTorch" in shape:
        inner = lr_scheduler.ExponentialLR(optimizer, 0.9)
        scheduler = schedules.with_warmup(inner, WARMUP, warmup_start=0.1)
    rates: list[tuple[list[float], list[float]]] = []

    def due(moment: Any, iteration: int) -> None:
        for one in writes:
            if one.moment == moment and one.iteration == iteration:
                write(optimizer, scheduler, one, bases)

    def update(iteration: int) -> None:
        due("before the step", iteration)
        optimizer.step()
        due("after the step", iteration)

    def wanted() -> list[float]:
        i = len(rates)
        later = factor(i - WARMUP) if i >= WARMUP else 0.1 + 0.9 * i / WARMUP
        return [base * (later if "warmup" in shape else factor(i)) for base in bases]

    def note(*_: Any) -> None:
        rates.append(([float(group["lr"]) for group in optimizer.param_groups], wanted()))

    optimizer.register_step_post_hook(note)
    if shape == "plain loop":
        for i in range(1, UPDATES + 1):
            optimizer.step()
            due("before the step", i)  # all of them before the next step of the scheduler
            due("after the step", i)
            scheduler.step()
    else:
        trainer = Engine(lambda engine, batch: update(engine.state.iteration))
        for event in MOMENTS[2:]:
            ahead = event is Events.GET_BATCH_COMPLETED  # not counted yet
            trainer.add_event_handler(
                event, lambda event=event, ahead=ahead: due(event, trainer.state.iteration + ahead)
            )
        LRSchedulerHandler(scheduler).attach(trainer)
        trainer.run(range(LENGTH), max_epochs=UPDATES // LENGTH)
    assert len(rates) == UPDATES
    for i, (got, right) in enumerate(rates):
        assert got == pytest.approx(right, rel=1e-12), f"update {i}"


def checks(examples: int, **more: Any) -> settings:
    return settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **more
    )


CASES = (st.sampled_from(SHAPES), st.sampled_from([1, 2, 20]), st.booleans(), st.lists(WRITES, min_size=1, max_size=3))


@checks(100)
@given(*CASES)
def test_whoever_writes_a_base_rate_is_followed(shape: str, groups: int, tensors: bool, writes: list[Write]) -> None:
    check(shape, groups, tensors, writes)


@pytest.mark.long
@pytest.mark.timeout(3000)
@checks(5000, derandomize=False)
@given(*CASES)
def test_whoever_writes_a_base_rate_is_followed_for_long(
    shape: str, groups: int, tensors: bool, writes: list[Write]
) -> None:
    check(shape, groups, tensors, writes)
