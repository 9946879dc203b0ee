"""What a clipper has done, in numbers of the host, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ENOUGH", "TOO_OFTEN", "ClipReport", "advise", "judged", "line", "quantiles", "too_often", "typical_excess"]

#: Above this share of clipped updates the learning rate is too high: Deep Learning Tuning Playbook, "How can
#: optimization failures be debugged and mitigated?".
TOO_OFTEN = 0.5
# medians of the older and newer half of the window that differ by more than this are called a drift
_DRIFT = 1.5
#: fewer updates than this say nothing
ENOUGH = 20


@dataclass(frozen=True)
class ClipReport:
    """What a :class:`~ignite_lr.clipper.GradNormClipper` has done so far.

    Attributes:
        updates: optimizer updates.
        clipped: updates that were clipped.
        frequency: ``clipped / updates``; 0 before any update.
        recent_frequency: the same over the last ``window`` updates.
        nominal_frequency: ``1 - percentile / 100``, the frequency to expect of stationary norms.
        threshold: that of the last update; ``inf`` where nothing is limited, as before any update.
        norm_quantiles: norm at the percentiles 50, 90, 99 and at ``"max"`` of the unclipped finite norms in the window;
            ``nan`` before any.
        nonfinite: steps whose norm was not finite.
        skipped: those of them that the clipper made change nothing.
        advice: what follows, in words.

    Example:
        >>> import torch
        >>> from ignite_lr import GradNormClipper
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1)
        >>> report = GradNormClipper(optimizer, percentile=75.0).report()
        >>> report.updates, report.nominal_frequency, report.advice
        (0, 0.25, 'No update yet.')
    """

    updates: int
    clipped: int
    frequency: float
    recent_frequency: float
    nominal_frequency: float
    threshold: float
    norm_quantiles: dict[int | str, float]
    nonfinite: int
    skipped: int
    advice: str

    def __str__(self) -> str:
        quantiles = ", ".join(f"{name}: {value:.4g}" for name, value in self.norm_quantiles.items())
        return (
            f"{self.clipped} of {self.updates} updates clipped ({self.frequency:.1%}, recently "
            f"{self.recent_frequency:.1%}, nominally {self.nominal_frequency:.1%}) at threshold {self.threshold:.4g}\n"
            f"norm percentiles {quantiles}\n"
            f"{self.nonfinite} norms not finite, {self.skipped} steps skipped for it\n"
            f"{self.advice}"
        )


def quantiles(norms: npt.NDArray[np.float32]) -> dict[int | str, float]:
    """The percentiles that a report shows, of finite norms.

    Example:
        >>> quantiles(np.float32([1.0, 2.0, 3.0]))["max"]
        3.0
    """
    if not len(norms):
        return {50: math.nan, 90: math.nan, 99: math.nan, "max": math.nan}
    at = [float(value) for value in np.percentile(norms.astype(np.float64), (50, 90, 99, 100))]
    return dict(zip((50, 90, 99, "max"), at, strict=True))


def judged(recent_frequency: float, recent_updates: int, clipped: int, updates: int) -> tuple[float, int]:
    """The clip frequency to judge by, and over how many updates: a short window is too few.

    Example:
        >>> judged(0.4, 5, 10, 100)
        (0.1, 100)
    """
    if recent_updates >= ENOUGH or not updates:
        return recent_frequency, recent_updates
    return clipped / updates, updates


def line(percentile: float, updates: int) -> float:
    """The clip frequency above which the learning rate is too high, over this many updates.

    One half, and for percentiles near 50 as much more as chance makes of it: four standard deviations of a binomial.
    A percentile below 50 is meant to clip most updates, and too few updates say nothing; then there is no line.

    Example:
        >>> line(90.0, 1000), round(line(50.0, 1000), 3), line(10.0, 1000)
        (0.5, 0.563, inf)
    """
    if percentile < 50 or updates < ENOUGH:
        return math.inf
    nominal = 1 - percentile / 100
    return max(TOO_OFTEN, nominal + 4 * math.sqrt(nominal * (1 - nominal) / updates))


def typical_excess(norms: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32]) -> float:
    """The median of norm / threshold, each norm with the threshold that it met; ``nan`` where none is finite.

    The present threshold would not do for all norms: as their percentile it lies above most of them.

    Example:
        >>> typical_excess(np.float32([2.0, 4.0, 8.0]), np.float32([1.0, 2.0, 2.0]))
        2.0
    """
    judged = np.isfinite(norms) & np.isfinite(thresholds) & (thresholds > 0)
    if not judged.any():
        return math.nan
    return float(np.median(norms[judged].astype(np.float64) / thresholds[judged]))


def too_often(frequency: float, excess: float) -> str:
    """The advice for too many clipped updates, with a factor from how far the norms exceed their thresholds."""
    advice = f"{frequency:.0%} of recent updates were clipped; above {TOO_OFTEN:.0%} lower the learning rate instead"
    if math.isfinite(excess) and excess > 1:
        return f"{advice}: the typical norm is {excess:.3g} times the threshold, so try 1/{excess:.3g} of it."
    return f"{advice}."


def advise(
    *,
    updates: int,
    skipped: int,
    nonfinite: int,
    frequency: float,
    counted: int,
    percentile: float,
    excess: float,
    norms: npt.NDArray[np.float32],
) -> str:
    """What follows from the counts of a clipper.

    Args:
        updates: optimizer updates.
        skipped: steps skipped for their norm, which are no updates.
        nonfinite: steps whose norm was not finite.
        frequency: share of recent updates that were clipped, 0 to 1.
        counted: over how many updates.
        percentile: the one clipped at, 0 to 100.
        excess: norm / threshold of the typical one of these updates, see :func:`typical_excess`.
        norms: unclipped finite norms of recent updates, oldest first.

    Returns:
        one sentence or more.

    Example:
        >>> advise(updates=100, skipped=0, nonfinite=0, frequency=0.1, counted=100, percentile=90.0, excess=0.5,
        ...        norms=np.ones(100, np.float32))
        'Nothing to change.'
    """
    steps = updates + skipped
    if not steps:
        return "No update yet."
    sentences = []
    if frequency > line(percentile, counted):
        sentences.append(too_often(frequency, excess))
    if len(norms) >= ENOUGH:
        older, newer = np.array_split(norms.astype(np.float64), 2)
        before, after = float(np.median(older)), float(np.median(newer))
        if max(before, after) > _DRIFT * min(before, after):
            rising = after > before
            sentences.append(
                f"The norms are {'rising' if rising else 'falling'} (median {before:.3g}, then {after:.3g}), so "
                f"{'more' if rising else 'fewer'} updates are clipped than {1 - percentile / 100:.0%}; a shorter "
                "window follows them sooner."
            )
    if nonfinite:
        sentences.append(
            f"{nonfinite / steps:.1%} of the norms were not finite: lower the learning rate or look for an overflow; "
            'on_nonfinite="skip" keeps such a step from the weights.'
        )
    return " ".join(sentences) or "Nothing to change."
