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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ignite_lr.suggestion._curve import Floats, Numbers, curve, vector
from ignite_lr.suggestion._fall import (
    EDGE_SIGMAS,
    MIN_DEPTH,
    MIN_POINTS,
    MIN_SIGMAS,
    Fall,
    capped,
    crossing,
    edge_sigmas,
    find_edge,
    find_fall,
    head,
    noise_of,
    ready,
)
from ignite_lr.suggestion._peers import minimum, slide, steep, steepest, valley

__all__ = [
    "DEFAULT",
    "MIN_CONFIDENCE",
    "RULES",
    "NoSuggestionError",
    "Verdict",
    "descent",
    "judge",
    "judge_repeats",
    "minimum",
    "slide",
    "steep",
    "steepest",
    "unstable_lr",
    "valley",
]

MIN_CONFIDENCE = 0.5
"""Below this confidence the default rule abstains: the descent is less than ``MIN_SIGMAS`` standard errors deep, or
less than ``MIN_DEPTH`` of what one batch differs from the next, and not ``EDGE_SIGMAS`` deep just below the explosion
either, which has this very confidence. Twice that depth has the confidence 2/3."""

WIDTHS = (0.05, 0.075, 0.1, 0.2)
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

    Example:
        >>> lrs = [10 ** (i / 20 - 6) for i in range(121)]
        >>> verdict = judge(lrs, [2.0 - 1.0 / (1 + (3e-3 / lr) ** 2) + (lr / 0.1) ** 2 for lr in lrs])
        >>> verdict.lr == descent(lrs, [2.0 - 1.0 / (1 + (3e-3 / lr) ** 2) + (lr / 0.1) ** 2 for lr in lrs])
        True
    """

    lr: float | None
    confidence: float
    reason: str
    interval: tuple[float, float] | None = None


def descent(lrs: Numbers, losses: Numbers) -> float:
    """The default rule: just below the end of the descent, and safely before the loss turns up.

    The descent is read off the raw losses, smoothed with a Gaussian over the points on both sides, so that the curve
    does not lag behind the rates. With ``lr_95`` the rate at which 95% of the descent is done, ``lr_lowest`` the one
    with the lowest loss, ``lr_edge`` the one from which on the loss stays above its start, and ``p`` the number of
    points per decade of rates::

        late = min(1, sqrt(p / 200))
        descent = sqrt(lr_95 * min(lr_lowest, 10 * lr_95)) * late
        w = 1 / (1 + (s / 2) ** 2)
        suggestion = descent ** (1 - w) * (lr_edge / 8) ** w

    ``s`` is the strength of the descent: its depth over what the rule asks for at least, which is the smaller one of
    depth / (3.5 standard errors) and depth / (0.75 of what one batch differs from the next). Below 1 the rule
    abstains, unless the loss explodes and was over the last decade before 5 standard errors lower than until then: the
    suggestion is lr_edge / 2 * late there.

    Why so. The end of the descent is steep and hence easy to locate, but lies too low where the loss falls twice; the
    lowest point is where the sweep learnt most, but it wanders along a wide basin: their geometric mean, with the
    lowest point a decade away at most. A sweep with few points per decade has no time to learn, or to explode, at the
    rates it passes, so both come late, at rates too high for a training that stays there; the square root is half way
    between a descent that ends at a fixed rate and one that ends at a fixed sum of rates. A sweep of 300 points over
    eight decades has 37.5 points per decade and is divided by 2.3. A shallow descent is one that the explosion cut
    short: it says little about where learning is best, and the edge says more. The edge also says where to look, which
    shows descents that are too short to stand out of the whole curve.

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
    """What the default rule makes of one sweep; takes what ``descent`` takes, and never abstains by raising.

    Args:
        lrs: positive, increasing learning rates of the sweep.
        losses: raw (unsmoothed) losses, as many; they may end in non-finite values.

    Raises:
        ValueError: if the arguments are no curve.

    Example:
        >>> verdict = judge([10 ** (i / 20 - 6) for i in range(121)], [2.0] * 121)
        >>> verdict.lr is None, verdict.confidence
        (True, 0.0)
    """
    return _read(*ready(*curve(lrs, losses)))


def judge_repeats(lrs: Numbers, curves: Sequence[Numbers]) -> Verdict:
    """What the default rule makes of several sweeps over the same rates.

    The suggestion is that of the mean curve, whose noise is smaller; the interval spans what the sweeps suggest one
    by one.

    Args:
        lrs: the rates of the longest sweep.
        curves: raw losses of each sweep. A sweep that is shorter than the longest counts as diverged from its end on.

    Raises:
        ValueError: if there is no sweep, or one of them is no curve.

    Example:
        >>> lrs = [10 ** (i / 20 - 6) for i in range(121)]
        >>> losses = [2.0 - 1.0 / (1 + (3e-3 / lr) ** 2) + (lr / 0.1) ** 2 for lr in lrs]
        >>> low, high = judge_repeats(lrs, [losses, [loss + 1 for loss in losses]]).interval
        >>> low <= judge_repeats(lrs, [losses]).lr <= high
        True
    """
    if len(curves) == 0:
        raise ValueError("curves must hold the losses of at least one sweep, got none")
    x = vector("lrs", lrs)
    sweeps = [ready(*curve(x[: len(losses)], losses)) for losses in curves]
    if len(sweeps) == 1:
        return _read(*sweeps[0])
    points = max(len(y) for _, y in sweeps)
    if points < MIN_POINTS:
        return _read(x[:points], np.zeros(points))
    pooled = np.mean([capped(y, points) for _, y in sweeps], axis=0)
    verdict = _read(x[:points], pooled)
    single = [lr for lr in (_read(*sweep).lr for sweep in sweeps) if lr is not None]
    if verdict.lr is None or not single:
        return verdict
    interval = (min(*single, verdict.lr), max(*single, verdict.lr))
    said = f"{verdict.reason} (mean of {len(sweeps)} sweeps, {len(single)} of which support a suggestion alone)"
    return Verdict(verdict.lr, verdict.confidence, said, interval)


def _read(x: Floats, y: Floats) -> Verdict:
    """The default rule on a finite curve without outliers."""
    count = len(y)
    if count < MIN_POINTS:
        said = f"the sweep has {count} finite losses and the rule needs {MIN_POINTS}: lower start_lr or raise num_iter"
        return Verdict(None, 0.0, said)
    noise = max(noise_of(y), 1e-12 * float(np.abs(y).max()), float(np.finfo(np.float64).tiny))  # rounding is noise too
    raw, y = y, capped(y, count)
    # The significance of the descent is that of the width that shows it best; its place is read at a width that
    # blurs little, and only as much more as the noise asks for.
    sigmas = max(find_fall(y, noise, width * count).sigmas for width in WIDTHS)
    for width in WIDTHS[:3]:
        fall = find_fall(y, noise, width * count)
        if noise * fall.shrink <= 0.1 * fall.depth:
            break
    strength = min(sigmas / MIN_SIGMAS, fall.depth / (MIN_DEPTH * noise))
    confidence = 1 / (1 + 1 / strength) if strength > 0 else 0.0
    lowest = fall.lowest
    edge = find_edge(raw, fall.start, noise)
    log_x = np.log10(x)
    decades = max(float(log_x[-1] - log_x[0]), 1e-9)
    late = min(0.0, float(np.log10((count - 1) / decades / 200)) / 2)
    if strength < 1 and edge is not None and edge_sigmas(x, y, edge, noise) >= EDGE_SIGMAS:
        said = f"the loss falls only a little before it explodes at {x[edge]:.2g}, and the rate is a share of that one"
        said += "; to be sure, raise num_iter or the batch size, or sweep with repeats"
        return Verdict(float(x[edge]) / 2 * 10**late, MIN_CONFIDENCE, said)
    if strength >= 1 and lowest < 3:  # what lies below the first rates is out of sight
        said = f"the loss turns up at {x[lowest]:.2g}, within the first points of the sweep: lower start_lr"
        return Verdict(None, MIN_CONFIDENCE / 2, said)
    if strength < 1:
        return Verdict(None, confidence, _why_not(x, raw, fall, noise))
    done = crossing(log_x, fall.smooth, fall.start - 0.95 * fall.depth)
    log_lr = (done + min(log_x[lowest], done + 1)) / 2 + late
    if edge is not None:
        weight = 1 / (1 + (strength / 2) ** 2)
        log_lr = (1 - weight) * log_lr + weight * (log_x[edge] - np.log10(8))
    lr = 10 ** float(log_lr)
    depth = f"{sigmas:.0f}" if sigmas < 1000 else "more than 1000"
    said = f"just below the end of the descent, {depth} standard errors deep, lowest at {x[lowest]:.2g}"
    turned = fall.smooth[lowest:].max() > fall.smooth[lowest] + 0.1 * fall.depth
    if not turned:
        # Half as far above the limit: the rate is a safe one, but a better one may lie beyond the sweep.
        confidence = (confidence + MIN_CONFIDENCE) / 2
        said += f"; the sweep ended at {x[-1]:.2g} before the loss turned up: a larger end_lr may show a better rate"
    if lr < x[0]:
        said += "; it lies below the first rate: lower start_lr to be sure"
    return Verdict(lr, confidence, said)


def _why_not(x: Floats, y: Floats, fall: Fall, noise: float) -> str:
    """Why there is no suggestion, and what to change."""
    seen = f"between {x[0]:.2g} and {x[-1]:.2g}"
    shapeless = fall.sigmas < 1 or fall.lowest < head(len(x))
    if shapeless and np.median(y[len(y) // 4 : len(y) // 2]) > fall.start + noise:
        return f"the loss rises from the first rates on ({seen}): lower start_lr"
    edge = find_edge(y, fall.start, noise)
    if edge is not None and edge >= head(len(x)):
        seen += f"; it explodes at {x[edge]:.2g}, and a tenth of that is the best guess there is"
    if shapeless:
        return f"the model did not learn at any rate in this range ({seen}): widen it, or look at model, loss and data"
    return (
        f"the loss falls by {fall.depth:.2g} only, {fall.sigmas:.1f} standard errors, where batches differ by "
        f"{noise:.2g} ({seen}): raise num_iter or the batch size, sweep with repeats, or widen the range"
    )


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
    x, y = curve(lrs, losses)
    if len(y) == 0:
        return None
    finite = y[np.isfinite(y)]
    margin = 2 * noise_of(finite) if len(finite) >= 20 else 0.0
    back = np.flatnonzero(y <= y[0] + margin)
    first = int(back[-1]) + 1 if len(back) else 0
    return float(x[first]) if first < len(x) else None


DEFAULT = "descent"
RULES: dict[str, Callable[[Numbers, Numbers], float]] = {
    "descent": descent,
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
    "minimum": minimum,
    "steep": steep,
}
