"""One pass of a dry run: what is to be done, and the record of what was."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Pass", "Passes", "Record"]

Rates = Sequence[float]


def _go_on(loss: float) -> None:
    """The rule of a pass that ends with its last update."""


@dataclass(frozen=True, eq=False)
class Pass:
    """A short training from the start: a sequence of rates, and a rule when to stop.

    Attributes:
        rates: one row an update, of one rate for each parameter group; at least one row.
        stop: called with the loss of each update; what it returns, if not None, ends the pass and is its reason. A
            loss that is not finite ends every pass.
        skip_nonfinite: but so many of them pass, as batches that the training step skips.
        rewind: whether the batches, the random states and the counters of the state start over as well. False: the
            weights do, but the batches read on.
        skip: so many batches are taken and dropped before the first one, after a rewind.
        prepare: called when everything is back at the start, before the first batch is taken.
        measure: gives the loss of an update in place of what the training step returned.
        updated: called after an iteration that updated, with the number of updates so far.
        ahead: updates that are expected to come after this pass. For the progress bar.
        name: of the pass. For the progress bar.
        shown: the loss that the progress bar shows; None: that of the last update.
    """

    rates: Sequence[Rates]
    stop: Callable[[float], str | None] = _go_on
    skip_nonfinite: int = 0
    rewind: bool = True
    skip: int = 0
    prepare: Callable[[], object] | None = None
    measure: Callable[[], float] | None = None
    updated: Callable[[int], object] | None = None
    ahead: int = 0
    name: str = ""
    shown: Callable[[], float] | None = None


@dataclass(eq=False)
class Record:
    """What a pass did.

    Attributes:
        plan: the pass.
        losses: the loss of each update, the mean over the micro-batches and the ranks.
        reason: why it ended: "completed", "non_finite", "terminated", "exception:<type>", or what ``stop`` said; empty
            while it runs.
        at: the index of the rates that were in use when it ended.
    """

    plan: Pass
    losses: list[float] = field(default_factory=list)
    reason: str = ""
    at: int = 0

    @property
    def rates(self) -> Sequence[Rates]:
        """The rates of the updates that were made, a row each."""
        return self.plan.rates[: len(self.losses)]


Passes = Generator[Pass, Record, Any]
"""A plan: yields passes and is sent the record of each, so that what comes next may depend on what came before."""
