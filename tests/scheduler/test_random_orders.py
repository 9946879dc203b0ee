"""Trainings built, attached, saved, loaded and stopped in random order, against a plain loop of PyTorch's LambdaLR."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ignite.engine import Engine, EventEnum, Events
from torch.optim import lr_scheduler
from worked_out import keeps_tensors_apart

from ignite_lr import LRSchedulerHandler, ScheduleLR, schedules

EPOCHS, LENGTH = 3, 6
WARMUP, START = 4, 0.25
SHAPES = ("alone", "sequential", "chained", "warmup", "warmup of PyTorch's", "sequential of a warmup")
NAMES = ("trainer", "optimizer", "scheduler", "handler")
BASES = (0.5, 2.0, 0.125)


def factor(update: int) -> float:
    """A rise, a fall, and no two updates with the same factor."""
    return (update + 1) / (4 + 0.3 * update**2)


class Moment(EventEnum):
    """Inside the training step, where a program may be cut off as well."""

    BEFORE = "before_the_update"
    AFTER = "after_the_update"


MOMENTS = (
    Moment.BEFORE,
    Moment.AFTER,
    Events.ITERATION_STARTED,
    Events.ITERATION_COMPLETED,
    Events.EPOCH_STARTED,
    Events.EPOCH_COMPLETED,
)


@dataclass(frozen=True)
class Cut:
    """A checkpoint, after which the program goes on for a while and dies, or is rolled back to it."""

    event: Any
    after: int  # made at the first such event from this iteration on
    attached_first: bool  # whether the checkpoint is attached before the handler
    later: int  # iterations that are lost
    rolled_back: bool  # loaded into the program that made it
    loaded_first: bool  # states are loaded before the handler is attached
    made_late: bool  # the scheduler is made when the state of the optimizer is there
    order: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A training, and what becomes of it."""

    shape: str
    groups: int
    tensors: bool
    accumulation: int
    cuts: tuple[Cut, ...]


CUTS = st.builds(
    Cut,
    event=st.sampled_from(MOMENTS),
    after=st.integers(1, EPOCHS * LENGTH),
    attached_first=st.booleans(),
    later=st.integers(0, 4),
    rolled_back=st.booleans(),
    loaded_first=st.booleans(),
    made_late=st.booleans(),
    order=st.permutations(NAMES).map(tuple),
)
KEEPS_TENSORS_APART = keeps_tensors_apart()
PLANS = st.builds(
    Plan,
    shape=st.sampled_from(SHAPES),
    groups=st.integers(1, 3),
    tensors=st.booleans(),
    accumulation=st.integers(1, 3),
    cuts=st.lists(CUTS, min_size=1, max_size=3).map(tuple),
).filter(lambda plan: KEEPS_TENSORS_APART or not (plan.tensors and "sequential" in plan.shape))


def optimizer_for(plan: Plan) -> torch.optim.Optimizer:
    groups = [
        {
            "params": [torch.nn.Parameter(torch.zeros(1))],
            "lr": torch.tensor(base, dtype=torch.float64) if plan.tensors else base,
        }
        for base in BASES[: plan.groups]
    ]
    return torch.optim.SGD(groups, lr=1.0)


def scheduler_for(plan: Plan, optimizer: torch.optim.Optimizer, kind: type[lr_scheduler.LambdaLR]) -> Any:
    if plan.shape == "sequential":
        parts = [kind(optimizer, factor), lr_scheduler.ExponentialLR(optimizer, 0.9)]
        return lr_scheduler.SequentialLR(optimizer, parts, [5])
    if plan.shape == "chained":
        return lr_scheduler.ChainedScheduler(
            [kind(optimizer, factor), lr_scheduler.ConstantLR(optimizer, 0.5, 4)], optimizer
        )
    if plan.shape == "alone":
        return kind(optimizer, factor)
    inner = lr_scheduler.ExponentialLR(optimizer, 0.9) if "PyTorch" in plan.shape else kind(optimizer, factor)
    warmed = schedules.with_warmup(inner, WARMUP, warmup_start=START)
    if plan.shape == "sequential of a warmup":
        return lr_scheduler.SequentialLR(optimizer, [warmed, lr_scheduler.ExponentialLR(optimizer, 0.9)], [7])
    return warmed


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def plain_loop(plan: Plan) -> list[list[float]]:
    """The rates of every update, without Ignite and without anything of this package."""
    updates = EPOCHS * LENGTH
    if "warmup" in plan.shape:
        after = (lambda update: 0.9**update) if "PyTorch" in plan.shape else factor
        ramp = [after(0) * (START + (1 - START) * i / WARMUP) for i in range(WARMUP)]
        factors = [*ramp, *map(after, range(updates - WARMUP))]
        if plan.shape == "sequential of a warmup":
            factors[7:] = [0.9**i for i in range(updates - 7)]
        return [[base * one for base in BASES[: plan.groups]] for one in factors]
    optimizer, rates = optimizer_for(plan), []
    scheduler = scheduler_for(plan, optimizer, lr_scheduler.LambdaLR)
    for _ in range(updates):
        rates.append(rates_of(optimizer))
        optimizer.step()
        scheduler.step()
    return rates


class Program:
    """What a user's script makes, step by step."""

    def __init__(self, plan: Plan, rates: list[list[float]]) -> None:
        self.plan = plan
        self.rates = rates
        self.optimizer = optimizer_for(plan)
        self.trainer = Engine(self.step)
        self.trainer.register_events(*Moment)
        self.scheduler: Any = None

    def step(self, engine: Engine, batch: Any) -> None:
        engine.fire_event(Moment.BEFORE)
        if engine.state.iteration % self.plan.accumulation == 0:
            self.rates.append(rates_of(self.optimizer))
            self.optimizer.step()
        engine.fire_event(Moment.AFTER)

    def make(self) -> None:
        if self.scheduler is None:
            self.scheduler = scheduler_for(self.plan, self.optimizer, ScheduleLR)
            self.handler = LRSchedulerHandler(self.scheduler)

    def state(self) -> bytes:
        saved = io.BytesIO()
        torch.save({name: getattr(self, name).state_dict() for name in NAMES}, saved)
        return saved.getvalue()

    def load(self, saved: bytes, order: tuple[str, ...], made_late: bool) -> None:
        states = torch.load(io.BytesIO(saved), weights_only=True)
        if made_late:
            order = ("optimizer", *(name for name in order if name != "optimizer"))
        else:
            self.make()
        for name in order:
            if name in ("scheduler", "handler"):
                self.make()
            getattr(self, name).load_state_dict(states[name])

    def run(self) -> None:
        self.trainer.run(range(LENGTH), max_epochs=EPOCHS, epoch_length=LENGTH)


def run_to(program: Program, cut: Cut, attach: bool) -> tuple[bytes, int] | None:
    """A checkpoint and how many updates had begun by then; None if that moment did not come."""
    found: list[tuple[bytes, int]] = []
    lost = 0
    trainer = program.trainer

    def save() -> None:
        if not found and trainer.state.iteration >= cut.after:
            found.append((program.state(), len(program.rates)))

    def die() -> None:
        nonlocal lost
        if found:
            lost += 1
            if lost >= cut.later:
                trainer.terminate()

    if cut.attached_first:
        handles = [trainer.add_event_handler(cut.event, save)]
    if attach:
        program.handler.attach(trainer)
    if not cut.attached_first:
        handles = [trainer.add_event_handler(cut.event, save)]
    handles += [trainer.add_event_handler(Events.ITERATION_COMPLETED, die)]
    program.run()
    for handle in handles:
        handle.remove()
    return found[0] if found else None


def check(plan: Plan) -> None:
    rates: list[list[float]] = []
    program = Program(plan, rates)
    program.make()
    attach = True
    for cut in plan.cuts:
        found = run_to(program, cut, attach)
        attach = False
        if found is None:
            break  # the training has come to its end
        saved, begun = found
        del rates[begun:]
        if cut.rolled_back:
            program.load(saved, cut.order, made_late=False)
            continue
        program = Program(plan, rates)
        # PyTorch's own compounds write the rates of update 0 when they are made
        late = cut.made_late and plan.shape in ("alone", "warmup", "warmup of PyTorch's")
        if cut.loaded_first or late:
            program.load(saved, cut.order, late)
            attach = True
        else:
            program.make()
            program.handler.attach(program.trainer)
            program.load(saved, cut.order, made_late=False)
    else:
        if attach:
            program.handler.attach(program.trainer)
        program.run()
    wanted = plain_loop(plan)
    assert rates
    for i, (got, due) in enumerate(zip(rates, wanted, strict=False)):
        assert got == pytest.approx(due, rel=1e-12), f"update {i} of {plan}"


def checks(examples: int, **more: Any) -> settings:
    return settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **more
    )


@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
@checks(60)
@given(PLANS)
def test_the_rates_are_those_of_a_plain_loop_in_whatever_order(plan: Plan) -> None:
    check(plan)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
@checks(4000, derandomize=False)
@given(PLANS)
def test_the_rates_are_those_of_a_plain_loop_in_whatever_order_for_long(plan: Plan) -> None:
    check(plan)
