"""How deep a noisy loss curve falls, where it is lowest, and where it leaves for good. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ignite_lr.suggestion._curve import Floats

MIN_SIGMAS = 3.5
MIN_DEPTH = 0.75
"""Together they let about one flat curve in 50 pass where there are 50 or 100 points, one in 20 where there are 20."""

EDGE_SIGMAS = 5.0
"""Asked for in the decade below the explosion: more than elsewhere, since the rate is then a guess."""

MIN_POINTS = 10
"""The default rule wants as many finite losses."""


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
