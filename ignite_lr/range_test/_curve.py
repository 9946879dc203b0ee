"""One sweep of a range test: the rates it plans, the points it records, and when it has to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Curve", "SweepCurve", "leading_lrs", "mean_of", "rates_of_groups", "smooth", "sweep_rates", "text_of"]

Rates = tuple[float, ...]


def sweep_rates(starts: Sequence[float], ends: Sequence[float], num_iter: int, step_mode: str) -> list[Rates]:
    """The rates of every point of a sweep, group by group.

    ``"exp"``: start * (end / start) ** (i / (num_iter - 1)); ``"linear"``: start + (end - start) * i / (num_iter - 1),
    for i = 0 ... num_iter - 1. The first point is exactly the start, the last exactly the end; a single point is the
    start.

    Args:
        starts: the first rate of each parameter group; positive for ``"exp"``.
        ends: the last rate of each parameter group.
        num_iter: the number of points, at least 1.
        step_mode: ``"exp"`` or ``"linear"``.

    Example:
        >>> sweep_rates([0.01], [1.0], 3, "exp")
        [(0.01,), (0.1,), (1.0,)]
    """

    def rate(start: float, end: float, share: float) -> float:
        if share in (0.0, 1.0) or start == end:
            return end if share == 1.0 else start
        return start * (end / start) ** share if step_mode == "exp" else start + (end - start) * share

    last = max(num_iter - 1, 1)
    return [
        tuple(rate(start, end, index / last) for start, end in zip(starts, ends, strict=True))
        for index in range(num_iter)
    ]


@dataclass(frozen=True)
class SweepCurve:
    """One sweep of a range test.

    Attributes:
        lrs: the rate of each point: a float, or a tuple with one for each parameter group.
        losses: the raw loss of each point.
        smoothed_losses: the same, exponentially smoothed as the sweep went.
        stop_reason: why this sweep ended.
        stop_lr: the rate in use when it ended, a tuple for several groups.
    """

    lrs: tuple[Any, ...]
    losses: tuple[float, ...]
    smoothed_losses: tuple[float, ...]
    stop_reason: str
    stop_lr: Any


def smooth(loss: float, before: float | None, smooth_f: float) -> float:
    """The exponentially smoothed loss: ``smooth_f`` times the new one, the rest the smoothed one before it.

    Example:
        >>> smooth(3.0, None, 0.5), smooth(1.0, 3.0, 0.5), smooth(1.0, 3.0, 0.0)
        (3.0, 2.0, 1.0)
    """
    return loss if before is None or smooth_f == 0 else smooth_f * loss + (1 - smooth_f) * before


def mean_of(sweeps: Sequence[SweepCurve], smooth_f: float) -> SweepCurve:
    """The mean of several sweeps over the same rates, as far as all of them came; the last one's reason to stop."""
    last, points = sweeps[-1], min(len(sweep.losses) for sweep in sweeps)
    columns = zip(*(sweep.losses[:points] for sweep in sweeps), strict=True)
    losses = tuple(math.fsum(at) / len(sweeps) for at in columns)
    smoothed: list[float] = []
    for loss in losses:
        smoothed.append(smooth(loss, smoothed[-1] if smoothed else None, smooth_f))
    return SweepCurve(last.lrs[:points], losses, tuple(smoothed), last.stop_reason, last.stop_lr)


class Curve:
    """The points of one sweep as they come in.

    Args:
        rates: the planned rates of each point, from :func:`sweep_rates`.
        smooth_f: weight of the new loss in the smoothed one, in [0, 1); 0 means no smoothing.
        diverge_th: at least 1; a smoothed loss above ``diverge_th`` times the best one ends the sweep.
    """

    def __init__(self, rates: Sequence[Rates], smooth_f: float, diverge_th: float) -> None:
        self.rates = rates
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._smooth_f = smooth_f
        self._diverge_th = diverge_th
        self._best = math.inf
        self._all_positive = True
        self._low, self._high = math.inf, -math.inf
        self._range = 0.0  # of the raw losses, up to the best point so far

    def add(self, loss: float) -> str | None:
        """Record the loss of the next point.

        Returns:
            why the sweep has to stop, or None.
        """
        smoothed = smooth(loss, self.smoothed[-1] if self.smoothed else None, self._smooth_f)
        self.losses.append(loss)
        self.smoothed.append(smoothed)
        if not math.isfinite(loss):
            return "non_finite"
        if self._is_divergence(loss, smoothed):
            return "divergence"
        return "num_iter" if len(self.losses) == len(self.rates) else None

    def _is_divergence(self, loss: float, smoothed: float) -> bool:
        """Whether the smoothed loss has left for good.

        While all smoothed losses are positive: when it exceeds ``diverge_th`` times the best. A ratio means nothing
        for losses that are negative or zero, so there the rise above the best is held against the range of the losses
        seen until the best: it may be (diverge_th - 1) times as large, the same as for a loss that fell to a value
        equal to that range. Five points are the least that make a range.
        """
        settled = len(self.losses) > 5
        self._low, self._high = min(self._low, loss), max(self._high, loss)
        if smoothed < self._best:
            self._best = smoothed
            self._range = self._high - self._low
        elif not settled:
            self._range = self._high - self._low
        self._all_positive = self._all_positive and smoothed > 0
        if self._all_positive:
            return smoothed > self._diverge_th * self._best
        return settled and smoothed - self._best > (self._diverge_th - 1) * self._range

    def freeze(self, stop_reason: str, at: int) -> SweepCurve:
        """What was recorded, for good.

        Args:
            stop_reason: why it ended.
            at: the index of the point whose rate was in use then.
        """
        return SweepCurve(
            lrs=tuple(_plain(rates) for rates in self.rates[: len(self.losses)]),
            losses=tuple(self.losses),
            smoothed_losses=tuple(self.smoothed),
            stop_reason=stop_reason,
            stop_lr=_plain(self.rates[at]),
        )


def leading_lrs(lrs: Sequence[Any]) -> list[float]:
    """One rate for each point: that of the parameter group with the largest rates.

    Example:
        >>> leading_lrs([(0.1, 0.01), (1.0, 0.1)])
        [0.1, 1.0]
    """
    if not lrs or not isinstance(lrs[0], tuple):
        return list(lrs)
    leader = max(range(len(lrs[-1])), key=lrs[-1].__getitem__)
    return [point[leader] for point in lrs]


def rates_of_groups(lrs: Sequence[Any], rate: float) -> Rates:
    """One rate for each parameter group, where the leading one has ``rate``; interpolated between two points.

    Beyond the sweep all groups keep the ratio that they had at its end.

    Example:
        >>> rates_of_groups([(0.1, 0.01), (1.0, 0.1)], 2.0)
        (2.0, 0.2)
    """
    if not lrs or not isinstance(lrs[0], tuple):
        return (rate,)
    axis = leading_lrs(lrs)
    index = next((i for i, lr in enumerate(axis) if lr >= rate), len(axis))
    if index < len(axis) and axis[index] == rate:
        return tuple(lrs[index])
    if index in (0, len(axis)):
        edge = min(index, len(axis) - 1)
        return tuple(lr * (rate / axis[edge]) for lr in lrs[edge])
    below, above = axis[index - 1], axis[index]
    share = math.log(rate / below) / math.log(above / below) if below > 0 else rate / above
    return tuple(
        low * (high / low) ** share if low > 0 else low + (high - low) * share
        for low, high in zip(lrs[index - 1], lrs[index], strict=True)
    )


def text_of(rate: Any) -> str:
    """A rate, or those of all groups, as texts show it.

    Example:
        >>> text_of(0.01234), text_of((0.1, 1.0))
        ('0.0123', '[0.1, 1]')
    """
    if isinstance(rate, (list, tuple)):
        return "[" + ", ".join(f"{one:.3g}" for one in rate) + "]"
    return f"{rate:.3g}"


def _plain(rates: Rates) -> Any:
    return rates[0] if len(rates) == 1 else tuple(rates)
