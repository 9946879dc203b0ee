"""Counting survives whatever a trainer does."""

from __future__ import annotations

import warnings

import pytest
from ignite.engine import Engine, Events
from ignite.engine.events import EventEnum
from worked_out import FACTOR, attach_one, close, sgd, update, warnings_of

from ignite_lr import GradNormClipper, LRFinder, LRLogger, LRSchedulerHandler, ScheduleLR


class Backward(EventEnum):
    """An event of the training step's own, as MONAI's and the truncated-BPTT trainer fire them."""

    COMPLETED = "backward_completed"


def firing_trainer(optimizer, rates=None):
    """A trainer whose step fires an event of its own between backward and update."""

    def step(engine, batch):
        engine.fire_event(Backward.COMPLETED)
        update(optimizer, rates)

    trainer = Engine(step)
    trainer.register_events(*Backward)
    return trainer


@pytest.mark.parametrize("lengths", [[1, 1, 1, 1], [1, 3]], ids=str)
def test_a_step_that_fires_events_is_counted_in_every_run(lengths):
    """run() is called again and again with few batches, and the training step fires an event of its own.

    Each run begins at an iteration number seen before; scheduler, clipper and logger still see every update.
    """
    optimizer, rates = sgd(), []
    trainer = firing_trainer(optimizer, rates)
    scheduler = ScheduleLR(optimizer, FACTOR)
    LRSchedulerHandler(scheduler).attach(trainer)
    clipper = GradNormClipper(optimizer, enabled=False)
    clipper.attach(trainer)
    logger = LRLogger(optimizer, history=10)
    logger.attach(trainer)
    for length in lengths:
        trainer.run([0] * length)
    assert close(rates, [0.9**i for i in range(4)])
    assert (scheduler.last_epoch, clipper.report().updates, len(logger.history()["update"])) == (4, 4, 4)


def test_a_handler_that_moves_to_another_trainer_takes_its_count_along():
    """A step raises after its update; the handler is taken off and attached to a new trainer.

    The update that was made counts: the next one has the next rate.
    """
    optimizer, rates = sgd(), []

    def step(engine, batch):
        update(optimizer, rates)
        if batch == "bad":
            raise OSError("after the update")

    handler = LRSchedulerHandler(ScheduleLR(optimizer, FACTOR))
    first = Engine(step)
    attachment = handler.attach(first)
    with pytest.raises(OSError, match="after the update"):
        first.run(["good", "good", "bad"])
    attachment.remove()
    second = Engine(step)
    handler.attach(second)
    second.run(["good"] * 2)
    assert close(rates, [0.9**i for i in range(5)])


@pytest.mark.parametrize("what", ["schedule", "clipper", "logger"])
def test_a_handler_that_sees_no_update_says_so_once(what):
    """The update is made in a handler of ITERATION_COMPLETED, as in Ignite's reinforcement learning examples.

    After 100 iterations without an update one warning names the likely reasons; it is not repeated.
    """
    optimizer = sgd()
    trainer = Engine(lambda engine, batch: None)
    seen = attach_one(what, optimizer, trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: update(optimizer))
    _, caught = warnings_of(lambda: trainer.run([0] * 350))
    assert seen() == 0
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "100" in message
    assert all(reason in message for reason in ("handler", "second_step", "graph"))


def test_a_range_test_inside_an_iteration_does_not_count_for_other_optimizers():
    """A sweep of one optimizer is run from ITERATION_STARTED; the step also updates another one, not in to_save.

    Scheduler, clipper and logger of the other optimizer do not count the sweep's updates.
    """
    swept, other = sgd(lr=0.01), sgd()
    rates = []

    def step(engine, batch):
        update(swept)
        update(other, rates)
        return 1.0 / engine.state.iteration

    trainer = Engine(step)
    scheduler = ScheduleLR(other, FACTOR)
    LRSchedulerHandler(scheduler).attach(trainer)
    clipper = GradNormClipper(other)
    clipper.attach(trainer)
    logger = LRLogger(other, history=99)
    logger.attach(trainer)

    @trainer.on(Events.ITERATION_STARTED(once=3))
    def sweep():
        with LRFinder().attach(trainer, {"optimizer": swept}, num_iter=20, start_lr=1e-4, end_lr=1e-2) as run:
            run.run([0] * 20)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.run([0] * 6)
    assert (scheduler.last_epoch, clipper.report().updates, len(logger.history()["update"])) == (6, 6, 6)
    assert other.param_groups[0]["lr"] == pytest.approx(0.9**6)
