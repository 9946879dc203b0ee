"""Rates that were tried: how trials go down from a suggestion or from the edge, and what they decide.

**In** flows a range test's result and, one after another, the losses of trials at constant rates. **Out** come the
rates to try, and which of them learn. Nothing here trains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ignite_lr.suggestion import NoSuggestionError, Verdict, noise_of

__all__ = ["Trials", "VerifiedRate", "confirmed"]

LAST = 20
"""How many losses at a trial's end say where it came to."""

CLOSE = 0.8
"""A trial learns when its descent is at least this share of the best one's."""

LEAST = 0.1
"""From a suggestion: a best that descends less than this share of what the sweep did counts as none."""

SIGMAS = 5.0
"""From the edge: a best that descends less than so many standard errors counts as none, also beside a control."""

MOST = 12
"""So many trials at most, each at half the rate of the one before."""

LONGER = 4
"""So many times as many updates for trials from the edge, and for those of a slow start."""


@dataclass(frozen=True)
class VerifiedRate:
    """A rate at which the training was tried.

    Attributes:
        lr: the rate; with several parameter groups a tuple with one for each.
        losses: of each update at it.
        learns: whether they came down nearly as far as those of the best rate tried.

    Example:
        >>> VerifiedRate(lr=0.01, losses=(2.3, 1.9, 1.4), learns=True).learns
        True
    """

    lr: Any
    losses: tuple[float, ...]
    learns: bool


def starting_level(losses: Sequence[float]) -> float:
    """Where a sweep began: the mean of its first tenth."""
    first = max(1, len(losses) // 10)
    return math.fsum(loss / first for loss in losses[:first])


def descent_of(losses: Sequence[float], start: float) -> float:
    """How far a trial came down: from ``start`` to the mean of its last 20 losses; -inf where they are not finite.

    Example:
        >>> descent_of([2.0] * 30 + [0.5] * 20, 2.0)
        1.5
    """
    return start - end_of(losses)


def end_of(losses: Sequence[float]) -> float:
    """Where a trial came to: the mean of its last 20 losses; infinite where one of all is not finite.

    Example:
        >>> end_of([2.0] * 30 + [0.5] * 20)
        0.5
    """
    last = losses[-LAST:]
    if not last or not all(map(math.isfinite, losses)):
        return math.inf
    return math.fsum(loss / len(last) for loss in last)


def _sweep_descent(losses: Sequence[float], start: float) -> float:
    """How far a sweep came down: to the lowest mean of 20 losses in a row."""
    windows = [losses[end - LAST : end] for end in range(min(LAST, len(losses)), len(losses) + 1)]
    return max((descent_of(window, start) for window in windows), default=-math.inf)


def _noise(losses: Sequence[float], start: float) -> float:
    """Standard error of a descent from the batches' noise, where nothing but noise is to be seen."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < 3:
        return math.inf
    return noise_of(np.array(finite)) * math.sqrt(1 / LAST + 1 / max(1, len(losses) // 10))


def _beside(control: Sequence[float], losses: Sequence[float]) -> float:
    """How far a trial came down beside its control; -inf where that is not finite, or may be chance.

    Both saw the same batches, so that what a batch is worth cancels: in noisy data nearly all of the noise.
    """
    if not all(map(math.isfinite, losses)):
        return -math.inf
    below = np.array([theirs - ours for theirs, ours in zip(control, losses, strict=True)][-LAST:])
    descent = float(below.mean())
    if len(below) < 2 or not descent > 0:
        return -math.inf
    with np.errstate(over="ignore"):
        error = float(below.std(ddof=1)) / math.sqrt(len(below))
    return descent if descent > SIGMAS * error else -math.inf


def _learning(descents: Sequence[float], least: float) -> list[bool]:
    best = max(descents)
    return [best > 0 and best >= least and descent >= CLOSE * best for descent in descents]


def confirmed(verified: Sequence[VerifiedRate], verdict: Verdict) -> float | list[float]:
    """The rate to train with, a list for several groups: the largest that learns, from the edge the best.

    Raises:
        NoSuggestionError: if none learns.
    """
    learning = [trial for trial in verified if trial.learns]
    if not learning:
        updates = max(len(trial.losses) for trial in verified)
        said = "" if verdict.lr is not None else f" The default rule says: {verdict.reason}"
        raise NoSuggestionError(
            f"none of the {len(verified)} rates that were tried learns, from {verified[0].lr} down to "
            f"{verified[-1].lr} in up to {updates} updates: look at the data and the loss, or try for longer with a "
            f"larger verify.{said}"
        )
    if verdict.lr is None:
        lr = max(learning, key=lambda trial: descent_of(trial.losses, 0.0)).lr
    else:
        lr = max(trial.lr for trial in learning)
    return list(lr) if isinstance(lr, tuple) else float(lr)


class Trials:
    """The trials that follow a sweep: downwards in factors of two, until a rate has learnt and a lower one less.

    Where nothing that was tried from the edge stands out of the noise of the batches, a control follows: the same
    updates at a rate that leaves the network as it is. Beside it the trials are compared batch by batch.

    Args:
        losses: of the sweep.
        suggested: the rate that the default rule suggests, or None where it abstains.
        edge: the rate at which the sweep ended.
        lowest: the first rate of the sweep.
        updates: of a trial from a suggestion; one from the edge, where little can be seen early, has four times as
            many, and so have those from a suggestion at which nothing has learnt yet (a slow start).
    """

    def __init__(
        self, losses: Sequence[float], suggested: float | None, edge: float, lowest: float, updates: int
    ) -> None:
        self._start = starting_level(losses) if losses else math.nan
        self._from_edge = suggested is None
        if suggested is None:
            self._first, self.updates = edge, LONGER * updates
            self._least = SIGMAS * _noise(losses, self._start)
            self._may_go_on = False
        else:
            self._first, self.updates = suggested, updates
            self._least = LEAST * _sweep_descent(losses, self._start)
            self._may_go_on = True
        self._lowest = lowest
        self._done: list[tuple[Any, tuple[float, ...]]] = []  # rounds that ended without a rate
        self._round: list[tuple[Any, tuple[float, ...]]] = []
        self.control: tuple[float, ...] = ()

    def upcoming(self) -> float | None:
        """The rate of the next trial, of ``updates`` updates; None when all is known."""
        if not math.isfinite(self._start) or self._settled():
            return None
        rate: float = self._first / 2 ** len(self._round)
        if len(self._round) < MOST and (rate >= self._lowest or not self._round) and rate > 0:
            return rate
        if any(self._flags()) or not self._may_go_on:
            return None
        self._may_go_on = False
        self.updates *= LONGER
        self._done += self._round
        self._round = []
        return self.upcoming()

    def add(self, lr: Any, losses: Sequence[float]) -> None:
        """The trial of the upcoming rate had these losses; ``lr`` is that rate, or a tuple of those of all groups."""
        self._round.append((lr, tuple(losses)))

    @property
    def undecided(self) -> bool:
        """Whether trials from the edge were made, and none stands out of the noise: a control may tell more."""
        finite = any(end_of(losses) < math.inf for _, losses in self._round)
        return self._from_edge and finite and not any(self._flags())

    def compare(self, control: Sequence[float]) -> None:
        """Judge the trials beside these losses, of as many updates over the same batches that change nothing."""
        self.control = tuple(control)

    @property
    def verified(self) -> tuple[VerifiedRate, ...]:
        """All trials in the order in which they were made."""
        lost = [VerifiedRate(*trial, learns=False) for trial in self._done]
        now = [VerifiedRate(*trial, learns=flag) for trial, flag in zip(self._round, self._flags(), strict=True)]
        return (*lost, *now)

    def _flags(self) -> list[bool]:
        if not self._round:
            return []
        if not self.control:
            return _learning([descent_of(losses, self._start) for _, losses in self._round], self._least)
        return _learning([_beside(self.control, losses) for _, losses in self._round], 0.0)

    def _settled(self) -> bool:
        flags = self._flags()
        return any(flags) and not flags[-1]
