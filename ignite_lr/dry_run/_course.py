"""The pass under way: which rates are next, what was recorded, and whether it is over."""

from __future__ import annotations

import math

from ignite_lr.dry_run._loss import loss_of
from ignite_lr.dry_run._pass import Pass, Rates, Record

__all__ = ["Course"]

_SILENCE = 10  # updates in a row without a loss, if not fewer are planned, before we say so


class Course:
    """Keeps the record of a pass while it runs.

    Attributes:
        plan: the pass.
        record: what it has done so far.
        row: the rates of the next update.
        pending: updates in the present iteration.
        waiting: iterations since the last update.
    """

    def __init__(self, plan: Pass) -> None:
        self.plan = plan
        self.record = Record(plan)
        self.row: Rates = plan.rates[0]
        self.pending = 0
        self.waiting = 0
        self._updates = 0
        self._silent = 0
        self._passing = plan.skip_nonfinite
        self._micro_losses: list[float] = []

    def count_update(self) -> None:
        """An update was made: the next one has the next rates."""
        self._updates += 1
        self.pending += 1
        self.row = self.plan.rates[min(self._updates, len(self.plan.rates) - 1)]

    def note(self, loss: float | None, updates: int) -> str | None:
        """Record what an iteration did.

        A batch without a loss, or whose loss is not finite and may pass, is as if it had not been there. An update that
        has no other batch is none then: the next one has the same rates.

        Args:
            loss: of this batch, None where the training step returned none.
            updates: that it made.

        Returns:
            why the pass ends, or None.

        Raises:
            TypeError: if updates are made, but never a loss returned.
        """
        self._silent = self._silent + updates if loss is None else 0
        if self._silent >= min(_SILENCE, len(self.plan.rates)):
            loss_of(None)  # says what a loss has to be
        if loss is not None and self._passing and not math.isfinite(loss):
            self._passing -= 1
            loss = None
        if not updates:
            self.waiting += 1
            if loss is not None:
                self._micro_losses.append(loss)
            return None if loss is None or math.isfinite(loss) else "non_finite"
        self.waiting = 0
        losses, last = self.record.losses, len(self.plan.rates)
        if self._micro_losses:
            loss = _mean(self._micro_losses if loss is None else [*self._micro_losses, loss])
            self._micro_losses = []
        elif loss is None:
            self._updates = len(losses)
            self.row = self.plan.rates[self._updates]
            return None
        reason: str | None = None
        for _ in range(min(updates, last - len(losses))):
            losses.append(loss)
            reason = self.plan.stop(loss)
            if not math.isfinite(loss):
                reason = "non_finite"
            elif reason is None and len(losses) == last:
                reason = "completed"
            if reason is not None:
                break
        if self.plan.updated is not None:
            self.plan.updated(len(losses))
        return reason

    def end(self, reason: str) -> Record:
        """The record, complete."""
        points = len(self.record.losses)
        # what ended it is the rate of the last update, unless it was on the way to the next one
        on_the_way = reason.startswith("exception") or not points or bool(self._micro_losses)
        self.record.at = min(points if on_the_way else points - 1, len(self.plan.rates) - 1)
        self.record.reason = reason
        return self.record


def _mean(losses: list[float]) -> float:
    try:
        return math.fsum(losses) / len(losses)
    except OverflowError:  # the sum is beyond all floats, the mean need not be
        return sum(loss / len(losses) for loss in losses)
