"""Schedulers of every make, and optimizers of every make."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers.param_scheduler import LRScheduler as IgniteLRScheduler
from torch.optim import lr_scheduler
from worked_out import FACTOR, attach_one, close, plateau_of, sgd, trainer_of, update, warnings_of

from ignite_lr import LRSchedulerHandler, ScheduleLR, schedules


def test_a_warmed_up_plateau_without_a_metric_is_refused_when_made():
    """``with_warmup(ReduceLROnPlateau(...), 3)`` is given to the handler without a metric.

    Whether a metric is needed is asked of the scheduler that wants it, at construction, not after the warmup.
    """
    scheduler = schedules.with_warmup(plateau_of(sgd()), 3)
    with pytest.raises(ValueError, match="metric"):
        LRSchedulerHandler(scheduler)


def test_a_warmed_up_step_schedule_with_a_metric_is_refused_when_made():
    """A metric is given for ``with_warmup(StepLR(...), 3)``, which would take it for an epoch number.

    It is refused as it is for StepLR alone.
    """
    scheduler = schedules.with_warmup(lr_scheduler.StepLR(sgd(), 2), 3)
    with pytest.raises(ValueError, match="metric"):
        LRSchedulerHandler(scheduler, metric="loss")


class CountedScheduler:
    """The shape of timm's schedulers: no count of its own, told of epochs by step() and of updates by step_update()."""

    def __init__(self, optimizer, by_update):
        self.optimizer = optimizer
        self.by_update = by_update
        self.calls = []

    def _set(self, count):
        for group in self.optimizer.param_groups:
            group["lr"] = 1.0 / (1 + count)

    def step(self, epoch, metric=None):
        self.calls.append((epoch, metric))
        if not self.by_update:
            self._set(epoch)

    def step_update(self, num_updates, metric=None):
        if self.by_update:
            self._set(num_updates)

    def state_dict(self):
        return {"by_update": self.by_update}

    def load_state_dict(self, state):
        self.by_update = state["by_update"]


def test_a_timm_scheduler_by_updates_is_told_how_many_there_were():
    """A scheduler of timm's, made to count updates, is given to LRSchedulerHandler; two iterations make an update.

    It is driven through ``step_update(count of updates)``.
    """
    optimizer, rates = sgd(), []

    def step(engine, batch):
        if engine.state.iteration % 2 == 0:
            update(optimizer, rates)

    trainer = Engine(step)
    LRSchedulerHandler(CountedScheduler(optimizer, by_update=True)).attach(trainer)
    trainer.run([0] * 12)
    assert close(rates, [1 / (1 + i) for i in range(6)])


def test_a_timm_scheduler_by_epochs_is_told_the_epoch():
    """A scheduler of timm's, made to count epochs, with ``interval="epoch"``.

    It is driven through ``step(epoch)``, the number of epochs done, and needs no metric.
    """
    optimizer, rates = sgd(), []
    trainer = trainer_of(optimizer, rates)
    LRSchedulerHandler(CountedScheduler(optimizer, by_update=False), interval="epoch").attach(trainer)
    trainer.run([0] * 2, max_epochs=3)
    assert close(rates, [1, 1, 1 / 2, 1 / 2, 1 / 3, 1 / 3])


class Lookahead(torch.optim.Optimizer):
    """An optimizer around another one that, as many in the wild, never calls ``Optimizer.__init__``."""

    def __init__(self, base_optimizer):
        self.base_optimizer = base_optimizer
        self.param_groups = base_optimizer.param_groups
        self.defaults = base_optimizer.defaults
        self.state = defaultdict(dict)

    def zero_grad(self, set_to_none=True):
        self.base_optimizer.zero_grad(set_to_none)

    def step(self, closure=None):
        return self.base_optimizer.step(closure)


class Forwarding(Lookahead):
    """The same, but whoever wants to hook its steps gets to hook those of the inner optimizer."""

    def register_step_pre_hook(self, hook):
        return self.base_optimizer.register_step_pre_hook(hook)

    def register_step_post_hook(self, hook):
        return self.base_optimizer.register_step_post_hook(hook)


@pytest.mark.parametrize("what", ["schedule", "clipper", "logger"])
def test_an_optimizer_that_cannot_be_hooked_names_the_inner_one(what):
    """The training step calls a Lookahead whose ``__init__`` never called that of Optimizer.

    Its steps cannot be hooked, and a TypeError says which optimizer to give instead.
    """
    optimizer = Lookahead(sgd())
    with pytest.raises(TypeError, match=r"base_optimizer|SGD"):
        attach_one(what, optimizer, trainer_of(optimizer))


@pytest.mark.parametrize("what", ["schedule", "clipper", "logger"])
def test_an_optimizer_without_init_works_where_its_hooks_do(what):
    """A wrapper that never called ``Optimizer.__init__`` hands on step hooks to the optimizer inside.

    Step hooks are all that is needed: every update is seen.
    """
    optimizer = Forwarding(sgd())
    trainer = trainer_of(optimizer)
    seen = attach_one(what, optimizer, trainer)
    trainer.run([0] * 5)
    assert seen() == 5


def noticed(act):
    """Whether ``act`` raises a RuntimeError or ValueError, or warns."""
    try:
        return bool(warnings_of(act)[1])
    except (RuntimeError, ValueError):
        return True


@pytest.mark.parametrize("first", ["handler", "ignite"])
def test_two_drivers_of_one_scheduler_are_noticed(first):
    """The scheduler is attached, and also given to setup_common_training_handlers, which steps it every iteration.

    Twice as fast is what nobody wants: an error or a warning says so.
    """
    from ignite.contrib.engines import common

    optimizer = sgd()
    trainer = trainer_of(optimizer)
    scheduler = ScheduleLR(optimizer, FACTOR)
    acts = {
        "handler": lambda: LRSchedulerHandler(scheduler).attach(trainer),
        "ignite": lambda: common.setup_common_training_handlers(
            trainer, lr_scheduler=scheduler, with_pbars=False, clear_cuda_cache=False, stop_on_nan=False
        ),
    }

    def act():
        for one in (first, *(other for other in acts if other != first)):
            acts[one]()
        trainer.run([0] * 5)

    assert noticed(act)


def test_ignites_wrapper_beside_the_handler_is_noticed():
    """It counts by writing ``last_epoch``, and calls no step."""
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, FACTOR)
    trainer = trainer_of(optimizer)
    LRSchedulerHandler(scheduler).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_STARTED, IgniteLRScheduler(scheduler))
    with pytest.warns(UserWarning, match="by somebody else as well"):
        trainer.run([0] * 6)
