"""Reading a state changes nothing, and loading one inside another scheduler writes no rate of the other's."""

from __future__ import annotations

import copy
import itertools

import pytest
from ignite.engine import Events
from ignite.handlers import Checkpoint, DiskSaver
from torch.optim import lr_scheduler
from worked_out import FACTOR, close, plateau_of, sgd, trainer_of, update

from ignite_lr import LRSchedulerHandler, ScheduleLR, schedules

VALIDATION = [1.0, 0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.7, 0.6, 0.6]


def plateau_by_hand(values):
    """The rate of each epoch in a plain PyTorch loop."""
    optimizer, rates = sgd(), []
    scheduler = plateau_of(optimizer)
    for value in values:
        update(optimizer, rates)
        scheduler.step(value)
    return rates


@pytest.mark.parametrize("saved", ["everything", "optimizer", "scheduler", "handler"])
def test_a_checkpoint_before_the_validation_leaves_the_plateau_alone(saved, tmp_path):
    """An epoch Checkpoint is attached before the handler that validates; ReduceLROnPlateau wants the validation loss.

    Saving neither raises for the missing metric nor steps with the last epoch's: the rates are those of a plain loop.
    """
    optimizer, rates = sgd(), []
    trainer = trainer_of(optimizer, rates)
    scheduler = plateau_of(optimizer)
    handler = LRSchedulerHandler(scheduler, interval="epoch", metric="loss")
    handler.attach(trainer)
    parts = {"optimizer": optimizer, "scheduler": scheduler, "handler": handler}
    to_save = {"trainer": trainer, **(parts if saved == "everything" else {saved: parts[saved]})}
    checkpoint = Checkpoint(to_save, DiskSaver(tmp_path, require_empty=False))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, checkpoint)
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: trainer.state.metrics.update(loss=VALIDATION[trainer.state.epoch - 1])
    )
    trainer.run([0], max_epochs=len(VALIDATION))
    assert close(rates, plateau_by_hand(VALIDATION))


def test_printing_the_optimizer_state_does_not_use_a_metric_twice():
    """Only rank 0 logs ``optimizer.state_dict()`` after each iteration, before its metric is there.

    All ranks go on at the same rates: reading a state never steps the scheduler.
    """
    losses = [1.0, 0.9, 0.95, 0.8, 0.85, 0.7, 0.75, 0.75, 0.6, 0.65, 0.5, 0.55]

    def rates_of_rank(reads):
        optimizer, rates = sgd(), []
        trainer = trainer_of(optimizer, rates)
        trainer.state.metrics["loss"] = 2.0
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        LRSchedulerHandler(scheduler, metric="loss").attach(trainer)
        if reads:
            trainer.add_event_handler(Events.ITERATION_COMPLETED(every=3), lambda: optimizer.state_dict())
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda: trainer.state.metrics.update(loss=losses[trainer.state.iteration - 1])
        )
        trainer.run([0] * len(losses))
        return rates

    assert rates_of_rank(True) == rates_of_rank(False)


def nested(shape, optimizer, kind=ScheduleLR):
    """Compound schedulers with ``kind`` inside."""
    if shape == "sequential":
        first = kind(optimizer, lambda step: (step + 1) / 4)
        return lr_scheduler.SequentialLR(optimizer, [first, lr_scheduler.ExponentialLR(optimizer, 0.5)], [4])
    if shape == "chained":
        first = kind(optimizer, lambda step: 0.9**step)
        return lr_scheduler.ChainedScheduler([first, lr_scheduler.ExponentialLR(optimizer, 0.5)], optimizer)
    raise AssertionError(shape)


@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
@pytest.mark.parametrize("order", list(itertools.permutations(["optimizer", "scheduler", "handler"])), ids="-".join)
@pytest.mark.parametrize("shape", ["sequential", "chained", "with_warmup"])
def test_a_nested_schedule_resumes_in_every_load_order(shape, order):
    """SequentialLR, ChainedScheduler or with_warmup around a ScheduleLR, stopped after update 2, 5 or 6 and resumed.

    Loading the inner schedule writes no rate that the outer scheduler owns: the rates are those without a stop.
    """

    def build():
        optimizer, rates = sgd(), []
        if shape == "with_warmup":
            scheduler = schedules.with_warmup(ScheduleLR(optimizer, FACTOR), 4)
        else:
            scheduler = nested(shape, optimizer)
        trainer = trainer_of(optimizer, rates)
        handler = LRSchedulerHandler(scheduler)
        handler.attach(trainer)
        return trainer, {"optimizer": optimizer, "scheduler": scheduler, "handler": handler}, rates

    if shape == "with_warmup":
        wanted = [i / 4 if i < 4 else 0.9 ** (i - 4) for i in range(10)]
    else:  # the same with PyTorch's own LambdaLR inside, in a plain loop
        optimizer, wanted = sgd(), []
        scheduler = nested(shape, optimizer, lr_scheduler.LambdaLR)
        for _ in range(10):
            update(optimizer, wanted)
            scheduler.step()
    for stop in (2, 5, 6):
        trainer, parts, before = build()
        trainer.run([0] * stop)
        saved = copy.deepcopy({key: part.state_dict() for key, part in parts.items()})
        trainer, parts, after = build()
        for key in order:
            parts[key].load_state_dict(copy.deepcopy(saved[key]))
        trainer.run([0] * (10 - stop))
        assert close(before + after, wanted)


def test_the_state_of_another_scheduler_class_is_refused():
    """The state of a OneCycleLR is loaded into a ScheduleLR; its base rates are 25 times too low.

    It is refused, and nothing has changed.
    """
    donor = sgd()
    foreign = lr_scheduler.OneCycleLR(donor, max_lr=1.0, total_steps=100)
    for _ in range(30):
        update(donor)
        foreign.step()
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, schedules.OneCycle(total_steps=100))
    before = (scheduler.last_epoch, optimizer.param_groups[0]["lr"])
    with pytest.raises((ValueError, TypeError)):
        scheduler.load_state_dict(foreign.state_dict())
    assert (scheduler.last_epoch, optimizer.param_groups[0]["lr"]) == before


def test_lambdas_assigned_later_are_not_ignored():
    """``scheduler.lr_lambdas = [...]`` in mid-run, which LambdaLR takes.

    The new function is followed, or the assignment is refused; never silence.
    """
    optimizer, rates = sgd(), []
    scheduler = ScheduleLR(optimizer, FACTOR)
    try:
        scheduler.lr_lambdas = [lambda step: 0.25]
    except (AttributeError, TypeError, ValueError):
        return
    for _ in range(3):
        update(optimizer, rates)
        scheduler.step()
    assert close(rates[1:], [0.25, 0.25])
