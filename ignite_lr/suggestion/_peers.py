"""Suggestion rules of other packages, equal to the originals on the same curve, and the steepest descent.

They read smoothed losses and always answer.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from ignite_lr.suggestion._curve import Numbers, finite_curve


def valley(lrs: Numbers, losses: Numbers) -> float:
    """As fastai's ``valley``: the middle of the longest decreasing subsequence of the losses.

    The subsequence is found in O(n log n), the original takes O(n^2).

    Args:
        lrs: positive, increasing learning rates.
        losses: as many smoothed losses; what comes after a non-finite one is left out.

    Returns:
        the suggested learning rate.

    Raises:
        ValueError: if the arguments are no curve of at least two points.

    Example:
        >>> valley([0.1, 0.2, 0.4, 0.8, 1.6, 3.2], [4.0, 5.0, 3.0, 2.0, 1.0, 9.0])
        0.2

    Source: fastai, ``callback/schedule.py``.
    """
    x, y = finite_curve(lrs, losses)
    # Patience sorting on the negated losses: tails[k] is the smallest end of a rising sequence of
    # length k + 1. The point that first reaches the greatest length ends the sequence sought.
    tails: list[float] = []
    end = 0
    for index, value in enumerate(map(float, -y)):
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

    Args:
        lrs: positive, increasing learning rates.
        losses: as many smoothed losses; what comes after a non-finite one is left out.

    Returns:
        the suggested learning rate.

    Raises:
        ValueError: if the arguments are no curve of at least two points.

    Example:
        >>> lrs = [10 ** (i / 10 - 5) for i in range(50)]
        >>> 1e-5 <= slide(lrs, [2.0 - 1.5 / (1 + (1e-3 / lr) ** 2) + lr**2 for lr in lrs]) <= 1
        True

    Source: fastai, ``callback/schedule.py``.
    """
    x, y = finite_curve(lrs, losses)
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

    Args:
        lrs: positive, increasing learning rates.
        losses: as many smoothed losses; what comes after a non-finite one is left out.

    Returns:
        the suggested learning rate.

    Raises:
        ValueError: if the arguments are no curve of at least two points.

    Example:
        >>> minimum([0.1, 0.2, 0.4, 0.8], [3.0, 2.0, 1.0, 9.0])
        0.04

    Source: fastai, ``callback/schedule.py``.
    """
    x, y = finite_curve(lrs, losses)
    return float(x[np.argmin(y)]) / 10


def steep(lrs: Numbers, losses: Numbers) -> float:
    """As fastai's ``steep``: where the loss falls fastest over log lr, wherever that is.

    Args:
        lrs: positive, increasing learning rates.
        losses: as many smoothed losses; what comes after a non-finite one is left out.

    Returns:
        the suggested learning rate.

    Raises:
        ValueError: if the arguments are no curve of at least two points.

    Example:
        >>> steep([0.1, 0.2, 0.4, 0.8, 1.6], [3.0, 2.9, 1.0, 0.9, 9.0])
        0.2

    Source: fastai, ``callback/schedule.py``.
    """
    x, y = finite_curve(lrs, losses)
    return float(x[np.argmin(np.diff(y) / np.diff(np.log(x)))])


def steepest(lrs: Numbers, losses: Numbers) -> float:
    """Where the loss falls fastest over log lr, looking only before its minimum.

    Slopes are central differences. On a curve that has its minimum among the first two points
    there is nothing to differentiate, and the rate of the minimum is returned.

    Args:
        lrs: positive, increasing learning rates.
        losses: as many smoothed losses; what comes after a non-finite one is left out.

    Returns:
        the suggested learning rate.

    Raises:
        ValueError: if the arguments are no curve of at least two points.

    Example:
        >>> steepest([0.1, 0.2, 0.4, 0.8, 1.6], [3.0, 2.9, 1.0, 0.9, 9.0])
        0.2
    """
    x, y = finite_curve(lrs, losses)
    last = int(np.argmin(y))
    if last < 2:
        return float(x[last])
    log_x = np.log(x)
    slopes = (y[2 : last + 1] - y[: last - 1]) / (log_x[2 : last + 1] - log_x[: last - 1])
    return float(x[1 + np.argmin(slopes)])


def fastai_lr_finder(lrs: Numbers, losses: Numbers) -> float:
    """As Ignite's ``FastaiLRFinder``: where the loss falls most from point to point, before its minimum.

    Differences are over two points and in float32, as the original's. Where it refuses a curve, because the minimum is
    among the first two points, this is the rate of the minimum.

    Args:
        lrs: positive, increasing learning rates.
        losses: as many smoothed losses; what comes after a non-finite one is left out.

    Returns:
        the suggested learning rate.

    Raises:
        ValueError: if the arguments are no curve of at least two points.

    Example:
        >>> fastai_lr_finder([0.1, 0.2, 0.4, 0.8, 1.6], [3.0, 2.9, 1.0, 0.9, 9.0])
        0.2

    Source: pytorch-ignite, ``handlers/lr_finder.py``.
    """
    x, y = finite_curve(lrs, losses)
    single = y.astype(np.float32)
    last = int(np.argmin(single))
    if last < 2:
        return float(x[last])
    return float(x[1 + np.argmin((single[2 : last + 1] - single[: last - 1]) / 2)])
