"""What a handler asks to be called for around updates, in which order, and how it takes that back."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ignite_lr.core.updates import Updates

__all__ = ["Callback", "Phase", "Subscription"]

Callback = Callable[[], None]


class Phase(IntEnum):
    """The order of the callbacks around one update."""

    SCHEDULE = 0  # a rate that is due takes effect first,
    PROTECT = 1  # then the gradients are clipped,
    RECORD = 2  # and last, what the update is about to use is recorded


@dataclass(frozen=True, eq=False, repr=False)
class Subscription:
    """What a handler gets for its callbacks: ``remove()`` takes them back. Also a context manager.

    Args:
        updates: the updates that the callbacks hang on.
        owner: the handler they belong to, held weakly so that a dropped handler is not kept alive by its hooks.
        phase: when they are called, among those of other handlers.
        before: called before each update, while the gradients are complete and the rates still those of the update.
        launched: called after each step, also after one that turns out to have been skipped.
        counted: called once for each step that is known to have been an update.
        completed: called on ``Events.ITERATION_COMPLETED``, before the handlers of the user.
        patient: whether it may wait for ever for an update, without a word.
        removed: called once the callbacks are off, be it by :meth:`remove` or because the trainer is gone.
    """

    updates: Updates
    owner: weakref.ref[object]
    phase: Phase
    before: Callback | None
    launched: Callback | None
    counted: Callback | None
    completed: Callback | None
    patient: bool
    removed: Callback | None

    def remove(self) -> None:
        """Take the callbacks off; the last one takes the hooks and the event handler with it. Idempotent."""
        self.updates._unsubscribe(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()
