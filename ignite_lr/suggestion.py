"""Rules that read a learning rate off the curve of a range test.

Every rule is a pure function of ``lrs`` and ``losses``, two 1-d sequences of the same length:
positive, increasing learning rates and the training loss seen at each. ``RULES`` names them all.

- ``descent`` is the default rule. It reads **raw** losses and is the only one that abstains, by
  raising ``NoSuggestionError``. ``judge`` returns the same answer as a ``Verdict`` (rate,
  confidence, reason, interval) and never abstains by raising; ``judge_repeats`` does so for
  several sweeps over the same rates.
- ``steepest`` and the rules of fastai (``valley``, ``slide``, ``minimum``, ``steep``) read
  **smoothed** losses, as the originals do, and always answer.
- ``unstable_lr`` says from which rate on the loss never comes back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = Sequence[float] | npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]

MIN_CONFIDENCE = 0.5
"""Below this confidence the default rule abstains: the descent is less than ``MIN_SIGMAS`` standard errors deep, or
less than ``MIN_DEPTH`` of what one batch differs from the next. Twice that depth has the confidence 2/3."""

MIN_SIGMAS = 3.5
MIN_DEPTH = 0.75
"""Together they let about one flat curve in 50 pass where there are 50 or 100 points, one in 20 where there are 20."""

MIN_POINTS = 10
"""The default rule wants as many finite losses."""

_WIDTHS = (0.05, 0.075, 0.1, 0.2)
"""Widths of the smoothing (standard deviation of the Gaussian) as shares of the sweep."""


class NoSuggestionError(RuntimeError):
    """The default rule cannot name a rate; the message says why and what to change."""


@dataclass(frozen=True)
class Verdict:
    """What the default rule makes of a curve.

    Attributes:
        lr: the suggested learning rate, or None where the rule abstains.
        confidence: in [0, 1]; how far the descent stands out of the noise.
            ``lr`` is None below ``MIN_CONFIDENCE``.
        reason: one or two sentences: what was seen, and what to change where that would help.
        interval: smallest and largest rate that the repeats suggest; None for a single sweep.
    """

    lr: float | None
    confidence: float
    reason: str
    interval: tuple[float, float] | None = None


def valley(lrs: Numbers, losses: Numbers) -> float:
    """As fastai's ``valley``: the middle of the longest decreasing subsequence of the losses.

    The subsequence is found in O(n log n), the original takes O(n^2).

    Example:
        >>> valley([0.1, 0.2, 0.4, 0.8, 1.6, 3.2], [4.0, 5.0, 3.0, 2.0, 1.0, 9.0])
        0.2

    Source: fastai, ``callback/schedule.py``.
    """
    x, y = _finite_curve(lrs, losses)
    # Patience sorting on the negated losses: tails[k] is the smallest end of a rising sequence of
    # length k + 1. The point that first reaches the greatest length ends the sequence sought.
    tails: list[float] = []
    end = 0
    for index, value in enumerate((-y).tolist()):
        place = bisect_left(tails, value)
        if place == len(tails):
            tails.append(value)
            end = index
        else:
            tails[place] = value
    third = len(tails) / 3
    return float(x[end - len(tails) + int(third) + int(third / 2)])


def slide(lrs: Numbers, losses: Numbers) -> float:
    """As fastai's ``slide``: from the right, where two slopes 15 points apart first agree to 0.005.

    The threshold is absolute, so the answer depends on the scale of the losses. With fewer than
    16 points, where the original fails, it is the smallest rate.

    Source: fastai, ``callback/schedule.py``.
    """
    x, y = _finite_curve(lrs, losses)
    gap, threshold = 15, 0.005
    if len(x) <= gap:
        return float(x[0])
    slope = np.gradient(y)
    differs = np.abs(slope[gap:] - slope[:-gap]) > threshold
    agrees = np.flatnonzero(~differs)
    # The original remembers the last window that still differed; the very first if none does.
    left = min(agrees[-1] + 1 if len(agrees) else 0, len(differs) - 1)
    return float(x[left])


def minimum(lrs: Numbers, losses: Numbers) -> float:
    """As fastai's ``minimum``: a tenth of the rate with the smallest loss.

    Example:
        >>> minimum([0.1, 0.2, 0.4, 0.8], [3.0, 2.0, 1.0, 9.0])
        0.04

    Source: fastai, ``callback/schedule.py``.
    """
    x, y = _finite_curve(lrs, losses)
    return float(x[np.argmin(y)]) / 10


def steep(lrs: Numbers, losses: Numbers) -> float:
    """As fastai's ``steep``: where the loss falls fastest over log lr, wherever that is.

    Source: fastai, ``callback/schedule.py``.
    """
    x, y = _finite_curve(lrs, losses)
    return float(x[np.argmin(np.diff(y) / np.diff(np.log(x)))])


def steepest(lrs: Numbers, losses: Numbers) -> float:
    """Where the loss falls fastest over log lr, looking only before its minimum.

    Slopes are central differences. On a curve that has its minimum among the first two points
    there is nothing to differentiate, and the rate of the minimum is returned.
    """
    x, y = _finite_curve(lrs, losses)
    last = int(np.argmin(y))
    if last < 2:
        return float(x[last])
    log_x = np.log(x)
    slopes = (y[2 : last + 1] - y[: last - 1]) / (log_x[2 : last + 1] - log_x[: last - 1])
    return float(x[1 + np.argmin(slopes)])


def descent(lrs: Numbers, losses: Numbers) -> float:
    """The default rule: just below the end of the descent, and safely before the loss turns up.

    The descent is read off the raw losses, smoothed with a Gaussian over the points on both sides, so that the curve
    does not lag behind the rates. With ``lr_95`` the rate at which 95% of the descent is done, ``lr_lowest`` the one
    with the lowest loss, ``lr_edge`` the one from which on the loss stays above its start, and ``p`` the number of
    points per decade of rates::

        descent = sqrt(lr_95 * lr_lowest) * min(1, sqrt(p / 200))
        w = 1 / (1 + (s / 2) ** 2)
        suggestion = descent ** (1 - w) * (lr_edge / 8) ** w

    ``s`` is the strength of the descent: its depth over what the rule asks for at least, which is the smaller one of
    depth / (3.5 standard errors) and depth / (0.75 of what one batch differs from the next).

    Why so. The end of the descent is steep and hence easy to locate, but lies too low where the loss falls twice; the
    lowest point is where the sweep learnt most, but it wanders along a wide basin: their geometric mean. A sweep with
    few points per decade has no time to learn at the rates it passes, so its descent ends late, at rates too high for
    a training that stays there; the square root is half way between a descent that ends at a fixed rate and one that
    ends at a fixed sum of rates. A sweep of 300 points over eight decades has 37.5 points per decade and is divided by
    2.3. A shallow descent is one that the explosion cut short: it says little about where learning is best, and the
    edge says more.

    The answer does not change when losses are scaled or shifted, so negative losses are as good as any.

    Args:
        lrs: positive, increasing learning rates of the sweep.
        losses: raw (unsmoothed) losses, as many; they may end in non-finite values.

    Returns:
        the suggested learning rate.

    Raises:
        NoSuggestionError: if the confidence is below ``MIN_CONFIDENCE``; the message says what to change.
        ValueError: if the arguments are no curve.

    Note:
        No curve shows what the first updates of a fresh optimizer do, since the sweep makes them at its smallest
        rates. RAdam takes five plain gradient steps first: with losses in the thousands they can explode at a rate
        that the rest of the training would bear. Scale targets and features, or warm up.

    Example:
        >>> lrs = [10 ** (i / 20 - 6) for i in range(121)]
        >>> losses = [2.0 - 1.0 / (1 + (3e-3 / lr) ** 2) + (lr / 0.1) ** 2 for lr in lrs]
        >>> 1e-3 < descent(lrs, losses) < 3e-2
        True

    Source: ``benchmarks/README.md``: chosen on half of its tasks, reported on the other half.
    """
    verdict = judge(lrs, losses)
    if verdict.lr is None:
        raise NoSuggestionError(verdict.reason)
    return verdict.lr


def judge(lrs: Numbers, losses: Numbers) -> Verdict:
    """What the default rule makes of one sweep; takes what ``descent`` takes, and never abstains by raising."""
    return _read(*_ready(*_curve(lrs, losses)))


def judge_repeats(lrs: Numbers, curves: Sequence[Numbers]) -> Verdict:
    """What the default rule makes of several sweeps over the same rates.

    The suggestion is that of the mean curve, whose noise is smaller; the interval spans what the sweeps suggest one
    by one.

    Args:
        lrs: the rates of the longest sweep.
        curves: raw losses of each sweep. A sweep that is shorter than the longest counts as diverged from its end on.

    Raises:
        ValueError: if there is no sweep, or one of them is no curve.
    """
    if len(curves) == 0:
        raise ValueError("curves must hold the losses of at least one sweep, got none")
    x = _vector("lrs", lrs)
    ready = [_ready(*_curve(x[: len(losses)], losses)) for losses in curves]
    if len(ready) == 1:
        return _read(*ready[0])
    points = max(len(y) for _, y in ready)
    if points < MIN_POINTS:
        return _read(x[:points], np.zeros(points))
    pooled = np.mean([_capped(y, points) for _, y in ready], axis=0)
    verdict = _read(x[:points], pooled)
    single = [lr for lr in (_read(*curve).lr for curve in ready) if lr is not None]
    if verdict.lr is None or not single:
        return verdict
    interval = (min(*single, verdict.lr), max(*single, verdict.lr))
    said = f"{verdict.reason} (mean of {len(ready)} sweeps, {len(single)} of which support a suggestion alone)"
    return Verdict(verdict.lr, verdict.confidence, said, interval)


def _ready(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The curve up to its first non-finite loss, with single outlying batches replaced.

    An outlier is further from the median of its five neighbours than ten times what is usual.
    """
    finite = np.isfinite(y)
    count = len(y) if finite.all() else int(np.argmin(finite))
    x, y = x[:count], y[:count]
    if count < MIN_POINTS:
        return x, y
    local = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(y, 2, mode="edge"), 5), axis=1)
    off = np.abs(y - local)
    return x, np.where(off > 10 * np.median(off) / 0.6745, local, y)


def _capped(y: Floats, points: int) -> Floats:
    """The losses, at most as far above the start as the lowest is below it, and so high after their end."""
    start = float(np.mean(y[: _head(len(y))])) if len(y) else 0.0
    top = 2 * start - float(y.min()) if len(y) else 0.0
    return np.concatenate([np.minimum(y, max(top, start)), np.full(points - len(y), max(top, start))])


def _head(count: int) -> int:
    """How many points at least make up the starting level."""
    return max(3, count // 10)


def _read(x: Floats, y: Floats) -> Verdict:
    """The default rule on a finite curve without outliers."""
    count = len(y)
    if count < MIN_POINTS:
        said = f"the sweep has {count} finite losses and the rule needs {MIN_POINTS}: lower start_lr or raise num_iter"
        return Verdict(None, 0.0, said)
    noise = max(_noise(y), 1e-12 * float(np.abs(y).max()), float(np.finfo(np.float64).tiny))  # rounding is noise too
    raw, y = y, _capped(y, count)
    # The significance of the descent is that of the width that shows it best; its place is read at a width that
    # blurs little, and only as much more as the noise asks for.
    sigmas = max(_fall(y, noise, width * count).sigmas for width in _WIDTHS)
    for width in _WIDTHS[:3]:
        fall = _fall(y, noise, width * count)
        if noise * fall.shrink <= 0.1 * fall.depth:
            break
    strength = min(sigmas / MIN_SIGMAS, fall.depth / (MIN_DEPTH * noise))
    confidence = 1 / (1 + 1 / strength) if strength > 0 else 0.0
    lowest = fall.lowest
    if strength >= 1 and lowest < 3:  # what lies below the first rates is out of sight
        said = f"the loss turns up at {x[lowest]:.2g}, within the first points of the sweep: lower start_lr"
        return Verdict(None, MIN_CONFIDENCE / 2, said)
    if strength < 1:
        return Verdict(None, confidence, _why_not(x, raw, fall, noise))
    log_x = np.log10(x)
    spacing = (log_x[-1] - log_x[0]) / (count - 1)
    done = _crossing(log_x, fall.smooth, fall.start - 0.95 * fall.depth)
    log_lr = (done + log_x[lowest]) / 2 + min(0.0, float(np.log10(1 / (200 * spacing))) / 2)
    edge = _edge(raw, fall.start, noise)
    if edge is not None:
        weight = 1 / (1 + (strength / 2) ** 2)
        log_lr = (1 - weight) * log_lr + weight * (log_x[edge] - np.log10(8))
    lr = 10 ** float(log_lr)
    said = f"just below the end of the descent, {sigmas:.0f} standard errors deep, lowest at {x[lowest]:.2g}"
    turned = fall.smooth[lowest:].max() > fall.smooth[lowest] + 0.1 * fall.depth
    if not turned:
        # Half as far above the limit: the rate is a safe one, but a better one may lie beyond the sweep.
        confidence = (confidence + MIN_CONFIDENCE) / 2
        said += f"; the sweep ended at {x[-1]:.2g} before the loss turned up: a larger end_lr may show a better rate"
    return Verdict(lr, confidence, said)


def _why_not(x: Floats, y: Floats, fall: _Fall, noise: float) -> str:
    """Why there is no suggestion, and what to change."""
    seen = f"between {x[0]:.2g} and {x[-1]:.2g}"
    edge = _edge(y, fall.start, noise)
    if edge is not None and edge >= _head(len(x)):
        seen += f"; it explodes at {x[edge]:.2g}, and a tenth of that is the best guess there is"
    if fall.sigmas < 1 or fall.lowest < _head(len(x)):
        if np.median(y[len(y) // 4 : len(y) // 2]) > fall.start + noise:
            return f"the loss rises from the first rates on ({seen}): lower start_lr"
        return f"the model did not learn at any rate in this range ({seen}): widen it, or look at model, loss and data"
    return (
        f"the loss falls by {fall.depth:.2g} only, {fall.sigmas:.1f} standard errors, where batches differ by "
        f"{noise:.2g} ({seen}): raise num_iter or the batch size, sweep with repeats, or widen the range"
    )


@dataclass(frozen=True)
class _Fall:
    """The descent that a curve shows when it is smoothed with one width."""

    smooth: Floats
    lowest: int
    shrink: float
    start: float
    depth: float
    sigmas: float


def _fall(y: Floats, noise: float, width: float) -> _Fall:
    """The descent from the starting level to the lowest point of the smoothed curve.

    The starting level is the mean of that many first losses that make the descent stand out most.
    """
    smooth, shrinks = _smooth(y, max(1.0, width))
    # What comes after an explosion, half as high above the start as the descent before it was deep, is another story.
    start = float(np.mean(y[: _head(len(y))]))
    fallen = start - np.minimum.accumulate(smooth)
    exploded = (fallen > noise * np.maximum(MIN_DEPTH, MIN_SIGMAS * shrinks)) & (smooth - start > 0.5 * fallen)
    lowest = int(np.argmin(smooth[: int(np.argmax(exploded))] if exploded.any() else smooth))
    shrink = float(shrinks[lowest])
    first = min(_head(len(y)), max(lowest, 1))
    counts = np.arange(first, max(lowest, first) + 1)
    levels = np.cumsum(y)[counts - 1] / counts
    depths = levels - smooth[lowest]
    sigmas = depths / (noise * np.hypot(shrink, counts**-0.5))
    best = int(np.argmax(sigmas))
    return _Fall(smooth, lowest, shrink, float(levels[best]), float(depths[best]), float(sigmas[best]))


def _noise(y: Floats) -> float:
    """Standard deviation of the noise, from second differences, so that no trend counts."""
    bends = np.abs(y[1:-1] - (y[:-2] + y[2:]) / 2)
    return float(np.median(bends) / 0.6745 / 1.5**0.5)


def _smooth(y: Floats, width: float) -> tuple[Floats, Floats]:
    """Gaussian mean over the points on both sides, and the factor by which it shrinks the noise."""
    reach = int(np.ceil(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    ones = np.ones_like(y)
    weight, total, squares = (
        np.convolve(values, weights)[reach:-reach]
        for values, weights in ((ones, kernel), (y, kernel), (ones, kernel**2))
    )
    return total / weight, np.sqrt(squares) / weight


def _edge(y: Floats, start: float, noise: float) -> int | None:
    """The last point at which the loss, smoothed a little, is not above its start; None if that is the end."""
    smooth, _ = _smooth(np.minimum(y, start + 20 * noise), max(1.0, 0.02 * len(y)))
    inside = np.flatnonzero(smooth <= start + noise)
    return int(inside[-1]) if len(inside) and inside[-1] < len(y) - 1 else None


def _crossing(x: Floats, y: Floats, level: float) -> float:
    """Where ``y`` first falls to ``level``, interpolated between two points."""
    at = int(np.argmax(y <= level))
    if at == 0:
        return float(x[0])
    share = (y[at - 1] - level) / (y[at - 1] - y[at])
    return float(x[at - 1] + share * (x[at] - x[at - 1]))


def unstable_lr(lrs: Numbers, losses: Numbers) -> float | None:
    """The smallest rate from which on the loss stays above its starting level, or None.

    The starting level is the first loss, and on curves of 20 points and more twice their noise above it. A non-finite
    loss is above every level.

    Args:
        lrs: positive, increasing learning rates.
        losses: as many losses, raw or smoothed.

    Raises:
        ValueError: if the arguments are no curve.

    Example:
        >>> unstable_lr([0.1, 0.2, 0.4, 0.8], [2.0, 1.0, 2.5, 9.0])
        0.4
    """
    x, y = _curve(lrs, losses)
    if len(y) == 0:
        return None
    finite = y[np.isfinite(y)]
    margin = 2 * _noise(finite) if len(finite) >= 20 else 0.0
    back = np.flatnonzero(y <= y[0] + margin)
    first = int(back[-1]) + 1 if len(back) else 0
    return float(x[first]) if first < len(x) else None


def _curve(lrs: Numbers, losses: Numbers) -> tuple[Floats, Floats]:
    x, y = (_vector(name, values) for name, values in (("lrs", lrs), ("losses", losses)))
    if len(x) != len(y):
        raise ValueError(f"lrs and losses must have the same length, got {len(x)} rates and {len(y)} losses")
    if not np.all(np.isfinite(x)) or np.any(x <= 0):
        wrong = x[~(np.isfinite(x) & (x > 0))][0]
        raise ValueError(f"lrs must be positive and finite, got {wrong}")
    falls = np.flatnonzero(np.diff(x) <= 0)
    if len(falls):
        raise ValueError(f"lrs must increase, got {x[falls[0] + 1]} after {x[falls[0]]} at index {falls[0] + 1}")
    return x, y


def _vector(name: str, values: Numbers) -> Floats:
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a sequence of numbers, got {values!r}") from None
    if vector.ndim != 1:
        raise ValueError(f"{name} must be 1-d, got shape {vector.shape}")
    return vector


def _finite_curve(lrs: Numbers, losses: Numbers) -> tuple[Floats, Floats]:
    """A curve for the rules that always answer: at least two points, cut at the first NaN."""
    x, y = _curve(lrs, losses)
    finite = np.isfinite(y)
    count = len(y) if finite.all() else int(np.argmin(finite))
    if count < 2:
        raise ValueError(f"losses must have at least 2 finite points to begin with, got {count}")
    return x[:count], y[:count]


DEFAULT = "descent"
RULES: dict[str, Callable[[Numbers, Numbers], float]] = {
    "descent": descent,
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
    "minimum": minimum,
    "steep": steep,
}
