"""The progress bar of a dry run: counts updates, and shows the rate and the loss."""

from __future__ import annotations

import sys
from typing import Any

import ignite.distributed as idist

from ignite_lr.dry_run._pass import Pass, Record

__all__ = ["Progress"]


class Progress:
    """A tqdm bar over the updates of all passes; on the first rank only.

    Args:
        what: stands before the bar.
        wanted: None shows one on a terminal.
    """

    def __init__(self, what: str, wanted: bool | None) -> None:
        self._bar: Any = None
        if idist.get_rank() == 0 and wanted is not False and (wanted or sys.stderr.isatty()):
            from tqdm import tqdm

            self._bar = tqdm(total=0, desc=what, unit="update", leave=True)

    def begin(self, plan: Pass) -> None:
        """A pass begins: what is to come is counted anew, since the last one may have ended early."""
        if self._bar is not None:
            self._bar.total = self._bar.n + len(plan.rates) + plan.ahead
            self._bar.refresh()

    def show(self, record: Record, updates: int) -> None:
        """So many updates were made, the last ones of the record."""
        updates = 0 if self._bar is None else min(updates, self._bar.total - self._bar.n)
        if updates > 0 and record.losses:
            plan = record.plan
            rate = max(plan.rates[len(record.losses) - 1])
            loss = record.losses[-1] if plan.shown is None else plan.shown()
            name = f"{plan.name}, " if plan.name else ""
            self._bar.set_postfix_str(f"{name}lr={rate:.2e}, loss={loss:.4g}", refresh=False)
            self._bar.update(updates)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
