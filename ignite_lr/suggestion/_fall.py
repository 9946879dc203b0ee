"""How deep a noisy loss curve falls, where it is lowest, and where it leaves for good. Pure arithmetic.

``ready`` takes a checked curve, ``read_curve`` says all that the default rule asks of it, and ``leaves`` where the loss
is back for good. No word of what follows from it: that is ``_descent``'s business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ignite_lr.suggestion._curve import Floats

MIN_SIGMAS = 3.5
MIN_DEPTH = 0.75
"""Together they let about one flat curve in 50 pass where there are 50 or 100 points, one in 20 where there are 20."""

EDGE_SIGMAS = 5.0
"""Asked for in the decade below the explosion: more than elsewhere, since the rate is then a guess."""

MIN_POINTS = 10
"""The default rule wants as many finite losses."""

WIDTHS = (0.05, 0.075, 0.1, 0.2)
"""Widths of the smoothing (standard deviation of the Gaussian) as shares of the sweep."""


def ready(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The curve up to its first non-finite loss, with single outlying batches replaced.

    An outlier is further from the median of its five neighbours than ten times what is usual. What is usual is also
    looked up on the losses below the start: a loss that explodes steadily is its own median everywhere, and where that
    is a large part of the sweep, ordinary noise would pass for outliers.
    """
    finite = np.isfinite(y)
    count = len(y) if finite.all() else int(np.argmin(finite))
    x, y = x[:count], y[:count]
    if count < MIN_POINTS:
        return x, y
    local = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(y, 2, mode="edge"), 5), axis=1)
    off = np.abs(y - local)
    usual = max(np.median(off), np.median(off[y <= np.median(y[: head(count)])]))
    return x, np.where(off > 10 * usual / 0.6745, local, y)


def capped(y: Floats, points: int) -> Floats:
    """The losses, at most as far above the start as the lowest is below it, and so high after their end."""
    start = float(np.mean(y[: head(len(y))])) if len(y) else 0.0
    top = 2 * start - float(y.min()) if len(y) else 0.0
    return np.concatenate([np.minimum(y, max(top, start)), np.full(points - len(y), max(top, start))])


def head(count: int) -> int:
    """How many points at least make up the starting level."""
    return max(3, count // 10)


@dataclass(frozen=True)
class Fall:
    """The descent that a curve shows when it is smoothed with one width."""

    smooth: Floats
    lowest: int
    shrink: float
    start: float
    depth: float
    sigmas: float


def find_fall(y: Floats, noise: float, width: float) -> Fall:
    """The descent from the starting level to the lowest point of the smoothed curve.

    The starting level is the mean of that many first losses that make the descent stand out most.
    """
    smooth, shrinks = smoothed(y, max(1.0, width))
    # What comes after an explosion, half as high above the start as the descent before it was deep, is another story.
    start = float(np.mean(y[: head(len(y))]))
    fallen = start - np.minimum.accumulate(smooth)
    exploded = (fallen > noise * np.maximum(MIN_DEPTH, MIN_SIGMAS * shrinks)) & (smooth - start > 0.5 * fallen)
    lowest = int(np.argmin(smooth[: int(np.argmax(exploded))] if exploded.any() else smooth))
    shrink = float(shrinks[lowest])
    first = min(head(len(y)), max(lowest, 1))
    counts = np.arange(first, max(lowest, first) + 1)
    levels = np.cumsum(y)[counts - 1] / counts
    depths = levels - smooth[lowest]
    sigmas = depths / (noise * np.hypot(shrink, counts**-0.5))
    best = int(np.argmax(sigmas))
    return Fall(smooth, lowest, shrink, float(levels[best]), float(depths[best]), float(sigmas[best]))


def noise_of(y: Floats) -> float:
    """Standard deviation of the noise, from second differences, so that no trend counts."""
    bends = np.abs(y[1:-1] - (y[:-2] + y[2:]) / 2)
    return float(np.median(bends) / 0.6745 / 1.5**0.5)


def convolve(values: Floats, weights: Floats) -> Floats:
    """The full convolution; by Fourier transform where a direct one would take seconds."""
    count = len(values) + len(weights) - 1
    if count < 5000:
        return np.convolve(values, weights)
    size = 1 << (count - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(values, size) * np.fft.rfft(weights, size), size)[:count]


def smoothed(y: Floats, width: float) -> tuple[Floats, Floats]:
    """Gaussian mean over the points on both sides, and the factor by which it shrinks the noise."""
    reach = int(np.ceil(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    ones = np.ones_like(y)
    weight, total, squares = (
        convolve(values, weights)[reach:-reach] for values, weights in ((ones, kernel), (y, kernel), (ones, kernel**2))
    )
    return total / weight, np.sqrt(squares) / weight


def find_edge(y: Floats, start: float, noise: float) -> int | None:
    """The last point at which the loss, smoothed a little, is not above its start; None if that is the end."""
    smooth, _ = smoothed(np.minimum(y, start + 20 * noise), max(1.0, 0.02 * len(y)))
    inside = np.flatnonzero(smooth <= start + noise)
    return int(inside[-1]) if len(inside) and inside[-1] < len(y) - 1 else None


def edge_sigmas(x: Floats, y: Floats, edge: int, noise: float) -> float:
    """By how many standard errors the losses in the decade below ``x[edge]`` lie below those before it.

    0 where less than three points are on one side: nothing can be said then.
    """
    first = int(np.searchsorted(x, x[edge] / 10))
    before, below = y[:first], y[first : edge + 1]
    if min(len(before), len(below)) < 3:
        return 0.0
    return float((before.mean() - below.mean()) / (noise * np.sqrt(1 / len(before) + 1 / len(below))))


def crossing(x: Floats, y: Floats, level: float) -> float:
    """Where ``y`` first falls to ``level``, interpolated between two points."""
    at = int(np.argmax(y <= level))
    if at == 0:
        return float(x[0])
    share = (y[at - 1] - level) / (y[at - 1] - y[at])
    return float(x[at - 1] + share * (x[at] - x[at - 1]))


@dataclass(frozen=True)
class Reading:
    """All that the default rule asks of a curve of enough points.

    Attributes:
        fall: the descent at the width that blurs little, and only as much more as the noise asks for.
        noise: standard deviation from one batch to the next.
        sigmas: depth of the descent in standard errors, at the width that shows it best.
        strength: the depth over what the rule asks for at least; it abstains below 1.
        edge: the last point before the loss leaves for good, or None.
        below_edge: by how many standard errors the decade below the edge lies lower than what comes before it.
        done: log10 of the rate at which 95% of the descent is done.
        begun: whether the descent was under way at the first rates.
        late: how much to take off a log10 rate, because a sweep of few points per decade shows everything late.
        shapeless: whether there is no descent at all, lowest among the first points.
        rises: whether the loss is above its start from the first rates on.
    """

    fall: Fall
    noise: float
    sigmas: float
    strength: float
    edge: int | None
    below_edge: float
    done: float
    begun: bool
    late: float
    shapeless: bool
    rises: bool


def read_curve(x: Floats, raw: Floats) -> Reading | None:
    """What there is to see in a finite curve without outliers; None where it has less than ``MIN_POINTS``."""
    count = len(raw)
    if count < MIN_POINTS:
        return None
    noise = max(noise_of(raw), 1e-12 * float(np.abs(raw).max()), float(np.finfo(np.float64).tiny))  # rounding counts
    y = capped(raw, count)
    # The significance of the descent is that of the width that shows it best; its place is read at another one.
    sigmas = max(find_fall(y, noise, width * count).sigmas for width in WIDTHS)
    for width in WIDTHS[:3]:
        fall = find_fall(y, noise, width * count)
        if noise * fall.shrink <= 0.1 * fall.depth:
            break
    edge = find_edge(raw, fall.start, noise)
    log_x = np.log10(x)
    decades = max(float(log_x[-1] - log_x[0]), 1e-9)
    shapeless = fall.sigmas < 1 or fall.lowest < head(count)
    return Reading(
        fall=fall,
        noise=noise,
        sigmas=sigmas,
        strength=min(sigmas / MIN_SIGMAS, fall.depth / (MIN_DEPTH * noise)),
        edge=edge,
        below_edge=0.0 if edge is None else edge_sigmas(x, y, edge, noise),
        done=crossing(log_x, fall.smooth, fall.start - 0.95 * fall.depth),
        begun=bool(fall.start - fall.smooth[head(count) - 1] > max(0.2 * fall.depth, MIN_SIGMAS * noise * fall.shrink)),
        late=min(0.0, float(np.log10((count - 1) / decades / 200)) / 2),
        shapeless=shapeless,
        rises=bool(np.median(raw[count // 4 : count // 2]) > fall.start + noise),
    )


def leaves(y: Floats) -> int:
    """The first point from which on the loss is back at its starting level or above, for good; ``len(y)`` if none.

    The starting level is the mean of the first tenth. The loss is back where the sum of what it lies above a level,
    counted from a point to the end, is largest (Page's cumulative sum): noise averages out in it, and a batch or two
    decide nothing. The level is the starting level less twice the noise of a batch. A network that is dead stays at
    chance level, which may lie a little below where it started: a flat stretch at the end, or before an explosion,
    that won back four fifths of the descent counts as back. Short curves, and those that never fell, are compared with
    their start point by point.

    Source: E. S. Page, Continuous inspection schemes, Biometrika 41 (1954).
    """
    count = len(y)
    if count < 20:
        return _after(y <= y[0])
    first, finite = y[: head(count)], y[np.isfinite(y)]
    noise = noise_of(finite) if len(finite) > 2 else 0.0
    start = float(np.mean(first)) if np.all(np.isfinite(first)) else float(y[0])
    medians = _running_median(y, 5)
    depth = start - float(medians.min())
    if not depth > 2 * noise:  # also where nothing is finite
        return _after(medians <= start + 2 * noise)
    away = _after(medians < start - depth / 2)  # these are not back, whatever comes between them
    capped = np.minimum(np.where(np.isfinite(y), y, np.inf), start + 0.3 * depth)[away:]
    if len(capped) > 4:  # a dead network is noisier than one that learns
        noise = max(noise, noise_of(capped))
    back = away + _rise(capped, start - min(2 * noise, 0.2 * depth), noise)
    nearly = away + _rise(capped, start - 0.2 * depth, noise)
    return nearly if _is_flat(y[nearly:back]) else back


def _after(below: npt.NDArray[np.bool_]) -> int:
    """The index after the last point at which something holds."""
    places = np.flatnonzero(below)
    return int(places[-1]) + 1 if len(places) else 0


def _running_median(y: Floats, width: int) -> Floats:
    """The median of every ``width`` points, an odd number; what is not finite is above all else."""
    padded = np.pad(np.where(np.isfinite(y), y, np.inf), width // 2, mode="reflect")
    medians: Floats = np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)
    return medians


def _rise(y: Floats, level: float, noise: float) -> int:
    """Where the losses rise above a level to stay; ``len(y)`` where they do not by more than a batch's noise."""
    sums = np.cumsum((y - level)[::-1])[::-1]
    first = int(np.argmax(sums)) if len(sums) else 0
    return first if len(sums) and sums[first] > 2 * noise else len(y)


def _is_flat(y: Floats) -> bool:
    """Whether a stretch of losses goes nowhere, so far as their noise shows: its halves have the same level."""
    if len(y) < 5:
        return False
    left, right = np.array_split(y, 2)
    error = 1.25 * noise_of(y) * (2 / len(left)) ** 0.5
    return bool(abs(np.median(left) - np.median(right)) <= 4 * error + 1e-9 * float(np.abs(y).max()))
