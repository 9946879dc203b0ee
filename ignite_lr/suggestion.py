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
"""Below this confidence the default rule abstains; it is a descent of ``MIN_SIGMAS``."""

MIN_SIGMAS = 5.0
MIN_POINTS = 10
DIVISOR = 4.0


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
    """fastai's ``valley``: the middle of the longest decreasing subsequence of the losses.

    The subsequence is found in O(n log n), the original takes O(n^2).

    Example:
        >>> valley([0.1, 0.2, 0.4, 0.8, 1.6, 3.2], [5.0, 4.0, 3.0, 2.0, 1.0, 9.0])
        0.4

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
    """fastai's ``slide``: from the right, where two slopes 15 points apart first agree to 0.005.

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
    """fastai's ``minimum``: a tenth of the rate with the smallest loss.

    Example:
        >>> minimum([0.1, 0.2, 0.4, 0.8], [3.0, 2.0, 1.0, 9.0])
        0.04

    Source: fastai, ``callback/schedule.py``.
    """
    x, y = _finite_curve(lrs, losses)
    return float(x[np.argmin(y)]) / 10


def steep(lrs: Numbers, losses: Numbers) -> float:
    """fastai's ``steep``: where the loss falls fastest over log lr, wherever that is.

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
    """The default rule: ``judge``, as a rate.

    Args:
        lrs: positive, increasing learning rates of the sweep.
        losses: raw (unsmoothed) losses, as many; they may end in non-finite values.

    Raises:
        NoSuggestionError: if the curve does not support a suggestion.
        ValueError: if the arguments are no curve.
    """
    verdict = judge(lrs, losses)
    if verdict.lr is None:
        raise NoSuggestionError(verdict.reason)
    return verdict.lr


def judge(lrs: Numbers, losses: Numbers) -> Verdict:
    """What the default rule makes of one sweep."""
    return judge_repeats(lrs, [losses])


def judge_repeats(lrs: Numbers, curves: Sequence[Numbers]) -> Verdict:
    """What the default rule makes of several sweeps over the same rates.

    Args:
        lrs: the rates of the longest sweep.
        curves: raw losses of each sweep; a sweep that stopped early is shorter than ``lrs``.
    """
    if len(curves) == 0:
        raise ValueError("curves must hold at least one sweep, got none")
    readings = []
    for losses in curves:
        x, y = _curve(np.asarray(lrs)[: len(losses)], losses)
        readings.append(_read(x, y))
    rates = [reading.lr for reading in readings if reading.lr is not None]
    if len(readings) == 1:
        return readings[0]
    confidence = float(np.median([reading.confidence for reading in readings]))
    if len(rates) * 2 <= len(readings):
        reason = next(reading.reason for reading in readings if reading.lr is None)
        return Verdict(None, min(confidence, MIN_CONFIDENCE * 0.99), reason)
    lr = float(np.exp(np.median(np.log(rates))))
    reason = f"the median of {len(rates)} of {len(readings)} sweeps"
    return Verdict(lr, max(confidence, MIN_CONFIDENCE), reason, (min(rates), max(rates)))


def _read(x: Floats, y: Floats) -> Verdict:
    finite = np.isfinite(y)
    count = len(y) if finite.all() else int(np.argmin(finite))
    x, y = x[:count], y[:count]
    if count < MIN_POINTS:
        return Verdict(None, 0.0, f"only {count} finite losses: lower start_lr or raise num_iter")
    sigma = _noise(y)
    head = max(3, count // 10)
    start = float(np.mean(y[:head]))
    width = max(1.0, 0.03 * count)
    capped = np.minimum(y, start + (start - y.min()))
    smooth, shrink = _smooth(capped, width)
    lowest = int(np.argmin(smooth))
    fall = start - float(smooth[lowest])
    error = sigma * np.hypot(shrink[lowest], head**-0.5)
    sigmas = fall / error if error > 0 else (np.inf if fall > 0 else 0.0)
    confidence = _confidence(float(sigmas))
    if sigmas < MIN_SIGMAS:
        return Verdict(None, confidence, f"the loss falls by {sigmas:.1f} standard errors only")
    lr = float(x[lowest]) / DIVISOR
    return Verdict(lr, confidence, f"a {DIVISOR:g}th of the rate with the lowest loss")


def _confidence(sigmas: float) -> float:
    if sigmas <= 0:
        return 0.0
    return 1.0 / (1.0 + MIN_SIGMAS / sigmas)


def _noise(y: Floats) -> float:
    """Standard deviation of the noise, from second differences, so that no trend counts."""
    bends = np.abs(y[1:-1] - (y[:-2] + y[2:]) / 2)
    return float(np.median(bends) / 0.6745 / 1.5**0.5)


def _smooth(y: Floats, width: float) -> tuple[Floats, Floats]:
    """Gaussian mean over neighbours on both sides, and the factor by which noise shrinks."""
    reach = int(np.ceil(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weight = np.convolve(np.ones_like(y), kernel)[reach:-reach]
    total = np.convolve(y, kernel)[reach:-reach]
    squares = np.convolve(np.ones_like(y), kernel**2)[reach:-reach]
    return total / weight, np.sqrt(squares) / weight


def unstable_lr(lrs: Numbers, losses: Numbers) -> float | None:
    """The smallest rate from which on the loss stays above its starting level, or None.

    Example:
        >>> unstable_lr([0.1, 0.2, 0.4, 0.8], [2.0, 1.0, 2.5, 9.0])
        0.4
    """
    x, y = _curve(lrs, losses)
    if len(y) == 0:
        return None
    back = np.flatnonzero(y <= y[0])
    last = int(back[-1]) if len(back) else -1
    return float(x[last + 1]) if last + 1 < len(x) else None


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
