"""The pass under way: which rates are next, what was recorded, and whether it is over."""

from __future__ import annotations

import math

from ignite_lr.dry_run._pass import Pass, Rates, Record

__all__ = ["Course"]


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
        self._micro_losses: list[float] = []

    def count_update(self) -> None:
        """An update was made: the next one has the next rates."""
        self._updates += 1
        self.pending += 1
        self.row = self.plan.rates[min(self._updates, len(self.plan.rates) - 1)]

    def loss_with(self, loss: float, updates: int) -> float:
        """The mean loss of the iterations since the last update, with this one."""
        if updates and not self._micro_losses:
            return loss
        self._micro_losses.append(loss)
        try:
            return math.fsum(self._micro_losses) / len(self._micro_losses)
        except OverflowError:  # the sum is beyond all floats, the mean need not be
            return sum(one / len(self._micro_losses) for one in self._micro_losses)

    def note(self, loss: float, updates: int) -> str | None:
        """Record what an iteration did.

        Returns:
            why the pass ends, or None.
        """
        if not updates:
            self.waiting += 1
            return None if math.isfinite(loss) else "non_finite"
        self._micro_losses = []
        self.waiting = 0
        losses, last = self.record.losses, len(self.plan.rates)
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
