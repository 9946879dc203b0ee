"""The base rate of a group is its ``initial_lr``, nowhere else."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from worked_out import FACTOR, close, sgd, trainer_of

from ignite_lr import LRFinder, LRSchedulerHandler, ScheduleLR, schedules


@pytest.fixture(scope="module")
def found():
    """The result of a real range test, with its suggested rate."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    inputs = torch.randn(64, 4)
    batch = (inputs, inputs.sum(1, keepdim=True))

    def step(engine, batch):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.item()

    finder = LRFinder()
    with finder.attach(
        Engine(step), {"model": model, "optimizer": optimizer}, num_iter=100, start_lr=1e-5, end_lr=10.0
    ) as sweep:
        sweep.run([batch] * 100)
    return finder.result


@pytest.mark.parametrize(
    "schedule", [schedules.Constant(), schedules.Linear(total_steps=100, warmup_steps=10)], ids=["constant", "warmup"]
)
def test_a_schedule_that_exists_follows_an_applied_suggestion(found, schedule):
    """The scheduler is made with the optimizer, then comes the range test and ``result.apply(optimizer)``.

    From the next update on the rate is the suggestion times the factor; in a warmup that is the factor's share of it.
    """
    optimizer, rates = sgd(lr=1e-4), []
    trainer = trainer_of(optimizer, rates)
    LRSchedulerHandler(ScheduleLR(optimizer, schedule)).attach(trainer)
    suggested = found.apply(optimizer)
    trainer.run([0] * 5)
    assert close(rates, [suggested * schedule(i) for i in range(5)])


def test_a_schedule_follows_an_initial_lr_that_the_user_writes():
    """In mid-run a handler halves ``initial_lr`` of the parameter group, after a rollback say.

    The base rate of a group is its ``initial_lr``, nowhere else: the rates from the next update on are halved.
    """
    optimizer, rates = sgd(), []
    trainer = trainer_of(optimizer, rates)
    LRSchedulerHandler(ScheduleLR(optimizer, FACTOR)).attach(trainer)

    @trainer.on(Events.ITERATION_COMPLETED(once=3))
    def halve():
        optimizer.param_groups[0]["initial_lr"] = 0.5

    trainer.run([0] * 6)
    assert close(rates, [(1.0 if i < 3 else 0.5) * 0.9**i for i in range(6)])


def test_absolute_with_factors_warns():
    """``absolute=True`` with a schedule of factors on an optimizer with lr=1e-3: the rate would be 1.0.

    A warning says so where it is given.
    """
    with pytest.warns(UserWarning, match="absolute"):
        ScheduleLR(sgd(lr=1e-3), schedules.Cosine(total_steps=10), absolute=True)
