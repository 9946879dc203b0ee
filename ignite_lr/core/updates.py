"""What counts as an optimizer update.

Ignite counts iterations; learning rates, clipping and their records belong to *updates*. The two differ under gradient
accumulation, under automatic mixed precision (a step that overflowed changes nothing) and with several optimizers.
:class:`Updates` watches one optimizer through its step hooks, inside the iterations of one trainer, and is shared by
all handlers attached to that pair, so that what they do around an update has an order that does not depend on who was
attached first.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, SupportsIndex

from ignite.engine import Engine, Events
from ignite.engine.events import RemovableEventHandle
from torch.optim import Optimizer

from ignite_lr.core.engine import add_first, in_iteration, in_training_step
from ignite_lr.core.host import Readback
from ignite_lr.core.notice import notice
from ignite_lr.core.step_hooks import StepHooks, steps_on_stack
from ignite_lr.core.subscription import Callback, Phase, Subscription

__all__ = ["Updates", "is_suspended", "suspended"]

_NO_KEYWORDS: dict[str, Any] = {}

# Iterations without an update after which something is probably wrong, and what then does not happen
PATIENCE = 100
_MISSED = {
    Phase.SCHEDULE: "the scheduler stands still",
    Phase.PROTECT: "nothing is clipped",
    Phase.RECORD: "nothing is recorded",
}


class Updates:
    """The updates of one optimizer inside the iterations of one trainer. Use :meth:`of`.

    A step counts when it was taken while the trainer was inside an iteration, was not nested in another step of the
    same optimizer, and changed something: not one that a ``GradScaler`` skipped through a fused optimizer, nor one that
    a handler declared skipped. A flag that lies on a CUDA device is read one update later (:meth:`resolve`).

    Attributes:
        optimizer: the optimizer.
        count: updates since the first subscription.
        suspended: while positive, the hooks do nothing.
    """

    def __init__(self, trainer: Engine, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.count = 0
        self.suspended = 0
        # weak: a hook on the optimizer must not keep a trainer, and with it a data loader, alive
        self._trainer = weakref.ref(trainer)
        self._subscriptions: list[Subscription] = []
        self._before: tuple[Callback, ...] = ()
        self._launched: tuple[Callback, ...] = ()
        self._counted: tuple[Callback, ...] = ()
        self._completed: tuple[Callback, ...] = ()
        self._known_count = 0  # at the end of the last iteration
        self._idle = 0  # iterations since the last update
        self._said = False
        self._depth = 0
        self._args: tuple[Any, ...] = ()
        self._kwargs: dict[str, Any] = _NO_KEYWORDS
        self._skip = False
        self._skip_flag: Readback | None = None
        self._handles: list[RemovableEventHandle] = []
        self._until_dropped: weakref.finalize[..., Engine] | None = None

    @classmethod
    def of(cls, trainer: Engine, optimizer: Optimizer) -> Updates:
        """The one instance for this pair, made when it is first asked for."""
        for updates in _watching(optimizer):
            if updates.trainer is trainer:
                return updates
        return cls(trainer, optimizer)

    @property
    def trainer(self) -> Engine | None:
        """The trainer, or None once it is gone."""
        return self._trainer()

    @property
    def in_step(self) -> bool:
        """Whether the ``before`` callbacks of a step were called and the step has not ended yet. For use in hooks."""
        return self._depth > 0

    @property
    def closure(self) -> Any:
        """The closure that the coming step was called with, or None. For use in ``before``."""
        return self._args[1] if len(self._args) > 1 else self._kwargs.get("closure")

    def subscribe(
        self,
        owner: object,
        phase: Phase,
        *,
        before: Callback | None = None,
        launched: Callback | None = None,
        counted: Callback | None = None,
        completed: Callback | None = None,
        patient: bool = False,
        removed: Callback | None = None,
    ) -> Subscription:
        """Have callbacks called around updates; see :class:`Subscription` for when.

        Raises:
            RuntimeError: if ``owner`` is subscribed already, which means a handler was attached twice.
        """
        if any(subscription.owner() is owner for subscription in self._subscriptions):
            raise RuntimeError(
                f"{type(owner).__name__} is already attached to this trainer and optimizer: "
                "attach it once, or call remove() on what the first attach returned."
            )
        subscription = Subscription(
            self, weakref.ref(owner), phase, before, launched, counted, completed, patient, removed
        )
        if not self._subscriptions:
            self._watch()
        self._subscriptions.append(subscription)
        self._sort()
        return subscription

    def skip(self) -> None:
        """Declare, in ``before``, that the coming step will change nothing and is no update."""
        self._skip = True

    def resolve(self) -> None:
        """Settle whether the last step was an update, if that still lies on the device. May wait for it."""
        if self._skip_flag is not None:
            flag, self._skip_flag = self._skip_flag, None
            if flag.value() == 0.0:
                self._count()

    def pending(self) -> int:
        """1 if the last step turns out to have been an update once it is settled, else 0. May wait; changes nothing."""
        return int(self._skip_flag is not None and self._skip_flag.value() == 0.0)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        # A copied trainer would step the original optimizer past handlers that watch another one.
        raise TypeError(
            "a trainer with ignite_lr handlers attached cannot be copied or pickled: "
            "remove() them first, and attach new ones to the copy."
        )

    def _unsubscribe(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._sort()
            if not self._subscriptions:
                self._unwatch()
            if subscription.removed is not None:
                subscription.removed()

    def _sort(self) -> None:
        ordered = sorted(self._subscriptions, key=lambda subscription: subscription.phase)
        self._before = tuple(s.before for s in ordered if s.before is not None)
        self._launched = tuple(s.launched for s in ordered if s.launched is not None)
        self._counted = tuple(s.counted for s in ordered if s.counted is not None)
        self._completed = tuple(s.completed for s in ordered if s.completed is not None)

    def _watch(self) -> None:
        trainer = self.trainer
        assert trainer is not None  # whoever subscribes holds it
        StepHooks.of(self.optimizer).watch(self)
        self._handles = [add_first(trainer, Events.ITERATION_COMPLETED, self._iteration_completed)]
        # The optimizer holds its hooks, they hold the handlers, and these the optimizer: a circle, which is opened with
        # the end of the trainer, so that a training that was dropped is freed without the collector.
        self._until_dropped = weakref.finalize(trainer, _trainer_gone, weakref.ref(self))
        self._until_dropped.atexit = False

    def _unwatch(self) -> None:
        StepHooks.of(self.optimizer).remove(self)
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._until_dropped is not None:
            self._until_dropped.detach()
            self._until_dropped = None

    def before_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A step of the optimizer begins; called by its hooks."""
        trainer = self._trainer()
        if trainer is None or self.suspended or not (in_training_step(trainer) or in_iteration(trainer)):
            self._depth = 0
            return
        if self._depth and steps_on_stack(self.optimizer) > 1:
            self._depth += 1
            return
        self._depth = 1  # whatever it was: a step that raised never came to its end
        self._skip = False
        if self._skip_flag is not None:
            self.resolve()
        self._args = args
        self._kwargs = kwargs
        for callback in self._before:
            callback()

    def after_step(self) -> None:
        """The step came to its end; called by the hooks of the optimizer."""
        if self._depth != 1:
            self._depth = max(self._depth - 1, 0)
            return
        self._depth = 0
        self._args = ()
        self._kwargs = _NO_KEYWORDS
        # Set by GradScaler for optimizers that skip on the device, that is fused ones.
        found_inf = getattr(self.optimizer, "found_inf", None)
        for callback in self._launched:
            callback()
        if self._skip:
            return
        if found_inf is None:
            self.count += 1  # as _count() does, once an update
            for callback in self._counted:
                callback()
            return
        self._skip_flag = Readback(found_inf)
        if not self._skip_flag.is_remote:
            self.resolve()

    def _count(self) -> None:
        self.count += 1
        for callback in self._counted:
            callback()

    def _say_that_nothing_comes(self) -> None:
        missed = [_MISSED[subscription.phase] for subscription in self._subscriptions if not subscription.patient]
        if not missed or self._said:
            return
        self._said = True
        notice(
            f"{PATIENCE} iterations have passed without an update of {type(self.optimizer).__name__}, so that "
            f"{' and '.join(dict.fromkeys(missed))}. Likely reasons: the training step uses another optimizer; its "
            "step() is called in an event handler, after the iteration; first_step() and second_step() are called in "
            "place of step(); the step is replayed as a CUDA graph, which runs no hooks (for LRSchedulerHandler there "
            'is interval="iteration"); a GradScaler skips every step; or this engine is an evaluator, and not the '
            "trainer."
        )

    def _iteration_completed(self) -> None:
        if self.count != self._known_count:
            self._known_count = self.count
            self._idle = 0
        else:
            self._idle += 1
            if self._idle == PATIENCE:
                self._say_that_nothing_comes()
        for callback in self._completed:
            callback()


def _trainer_gone(reference: weakref.ref[Updates]) -> None:
    updates = reference()
    if updates is not None:
        for subscription in list(updates._subscriptions):
            subscription.remove()


def _watching(optimizer: Optimizer) -> list[Updates]:
    """Those of this optimizer that anybody is subscribed to."""
    return [watcher for watcher in StepHooks.of(optimizer).watchers() if isinstance(watcher, Updates)]


@contextmanager
def suspended(optimizer: Optimizer) -> Iterator[None]:
    """While the block runs, the handlers attached to ``optimizer`` neither count, clip nor record.

    Whoever subscribes inside the block is not affected: that is how a range test counts its own updates.
    """
    hooks = StepHooks.of(optimizer)
    paused = _watching(optimizer)
    hooks.suspensions += 1
    for updates in paused:
        updates.suspended += 1
    try:
        yield
    finally:
        hooks.suspensions -= 1
        for updates in paused:
            updates.suspended -= 1


def is_suspended(optimizer: Optimizer) -> bool:
    """Whether a dry run has the optimizer at the moment."""
    return StepHooks.of(optimizer).suspensions > 0
