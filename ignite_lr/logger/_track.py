"""The updates that one trainer makes with an optimizer, as they are made."""

from __future__ import annotations

import math
import weakref
from typing import Any

from ignite.engine import Engine

from ignite_lr.core.updates import Updates
from ignite_lr.logger._record import Record, Source

__all__ = ["Track"]

_no_metrics: dict[str, Any] = {}


class Track:
    """The updates that one trainer makes with a source. Its callbacks run once an update, and do little.

    Attributes:
        every: how many updates lie between two that are due to be written by the logger's own attach; 0: none is ever.
        next_due: the number of the next one; infinite if there is none.
    """

    def __init__(self, source: Source, trainer: Engine, updates: Updates) -> None:
        self.source = source
        self.updates = updates
        self.every = 0
        self.next_due: float = math.inf
        self._due: list[Record] = []
        self._trainer = weakref.ref(trainer)
        self._coming: tuple[int, list[Any]] = (0, [])
        self._last: tuple[int, tuple[int, list[Any]], dict[str, Any]] | None = None

    @property
    def last(self) -> Record | None:
        """The record of the last update, if there was one."""
        if self._last is None:
            return None
        update, (iteration, values), clip = self._last
        return Record(update, iteration, values, clip)

    def write_every(self, every: int) -> None:
        """From now on, one of ``every`` updates is due; none if 0. What was due is dropped."""
        self.every = every
        self._due = []
        self._plan()

    def forget(self) -> None:
        """Start as if no update had been made."""
        self._last, self._due = None, []
        self._plan()

    def before(self) -> None:
        """An update is about to be made."""
        trainer = self._trainer()
        if trainer is None:
            return
        source = self.source
        source.found = True
        groups = source.optimizer.param_groups
        # the usual case, without a call: one rate, a float, which nobody can write over
        if len(groups) == 1 and source.only_rates and type(rate := groups[0]["lr"]) is float:
            self._coming = (trainer.state.iteration, [rate])
            return
        self._coming = (trainer.state.iteration, source.capture())

    def counted(self) -> None:
        """It was an update."""
        source = self.source
        source.updates = update = source.updates + 1
        clip = source.metrics() if source.clippers else _no_metrics
        self._last = (update, self._coming, clip)
        if source.keeps_history:
            source.keep(Record(update, *self._coming, clip))
        if update >= self.next_due and update % self.every == 0:
            self._due.append(Record(update, *self._coming, clip))

    def take_due(self) -> list[Record]:
        """The records due since the last call. Waits for the device only where the last step may be due."""
        if (self.source.updates + 1) % self.every == 0:
            self.updates.resolve()
        due, self._due = self._due, []
        self._plan()
        return due

    def _plan(self) -> None:
        updates = self.source.updates
        self.next_due = updates - updates % self.every + self.every if self.every else math.inf
