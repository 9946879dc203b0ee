"""The default rule: what it says about a curve, with how much confidence, and why.

Raw losses flow in, a ``Verdict`` flows out; ``descent`` is the same as a plain function that abstains by raising.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import starmap

import numpy as np

from ignite_lr.suggestion._curve import Floats, Numbers, checked, checked_sweeps
from ignite_lr.suggestion._fall import EDGE_SIGMAS, MIN_POINTS, Reading, capped, head, leaves, read_curve, ready
from ignite_lr.suggestion._peers import fastai_lr_finder, minimum, slide, steep, steepest, valley

__all__ = [
    "DEFAULT",
    "MIN_CONFIDENCE",
    "RULES",
    "NoSuggestionError",
    "Verdict",
    "descent",
    "judge",
    "judge_repeats",
    "unstable_lr",
]

MIN_CONFIDENCE = 0.5
"""Below this confidence the default rule abstains: the descent is less than ``MIN_SIGMAS`` standard errors deep, or
less than ``MIN_DEPTH`` of what one batch differs from the next, and not ``EDGE_SIGMAS`` deep just below the explosion
either, which has this very confidence. Twice that depth has the confidence 2/3."""


LOWER = "lower start_lr"
"""What every reason asks for whose curve is cut off at its first rates."""


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
    return _of_one(*checked(lrs, losses))


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
    given = checked_sweeps(lrs, curves)
    if len(given) == 1:
        return _of_one(*given[0])
    sweeps = list(starmap(ready, given))
    points = max(len(y) for _, y in sweeps)
    x = max((x for x, _ in sweeps), key=len)
    pooled = np.mean([capped(y, points) for _, y in sweeps], axis=0)
    reached = min(len(y) for _, y in given)
    mean = np.mean([y[:reached] for _, y in given], axis=0)
    verdict = _careful(_verdict(x, read_curve(x, pooled)), given[0][0][:reached], mean)
    single = [lr for own, y in given if (lr := _of_one(own, y).lr) is not None]
    if verdict.lr is None or not single:
        return verdict
    interval = (min(*single, verdict.lr), max(*single, verdict.lr))
    said = f"{verdict.reason} (mean of {len(sweeps)} sweeps, {len(single)} of which support a suggestion alone)"
    return Verdict(verdict.lr, verdict.confidence, said, interval)


def _of_one(lrs: Floats, losses: Floats) -> Verdict:
    """What the default rule says to a checked curve."""
    x, y = ready(lrs, losses)
    return _careful(_verdict(x, read_curve(x, y), cut=len(y) < len(losses)), lrs, losses)


def _careful(verdict: Verdict, x: Floats, y: Floats) -> Verdict:
    """Of two readings that contradict each other the careful one: no rate at which the loss is back at its start."""
    back = leaves(y) if verdict.lr is not None else len(x)
    if verdict.lr is None or back == len(x) or verdict.lr < x[back]:
        return verdict
    half = float(x[back]) / 2
    said = f"the descent speaks for {verdict.lr:.2g}, but from {x[back]:.2g} on the loss is back at its start"
    if half < x[0]:
        return Verdict(None, MIN_CONFIDENCE / 2, f"{said}: {LOWER}")
    return Verdict(half, MIN_CONFIDENCE, f"{said}, and the rate is half of that one")


def _verdict(x: Floats, seen: Reading | None, *, cut: bool = False) -> Verdict:
    """What the default rule says to a reading of a curve over the rates ``x``; ``cut``: the next loss is not finite."""
    if seen is None:
        said = f"the sweep has {len(x)} finite losses and the rule needs {MIN_POINTS}: {LOWER} or raise num_iter"
        if cut:
            said += f"; the next loss, after {len(x)}, is not finite: look at that batch of the data first"
        return Verdict(None, 0.0, said)
    fall, edge, strength = seen.fall, seen.edge, seen.strength
    confidence = 1 / (1 + 1 / strength) if strength > 0 else 0.0
    if strength < 1 and edge is not None and seen.below_edge >= EDGE_SIGMAS:
        lr = float(x[edge]) / 2 * 10**seen.late
        confidence = MIN_CONFIDENCE
        said = f"the loss falls only a little before it explodes at {x[edge]:.2g}, and the rate is a share of that one"
        said += "; to be sure, raise num_iter or the batch size, or sweep with repeats"
    elif strength < 1:
        return Verdict(None, confidence, _why_not(x, seen))
    elif fall.lowest < 3:  # what lies below the first rates is out of sight
        said = f"the loss turns up at {x[fall.lowest]:.2g}, within the first points of the sweep: {LOWER}"
        return Verdict(None, MIN_CONFIDENCE / 2, said)
    else:
        log_lr = (seen.done + min(np.log10(x[fall.lowest]), seen.done + 1)) / 2 + seen.late
        if edge is not None:
            weight = 1 / (1 + (strength / 2) ** 2)
            log_lr = (1 - weight) * log_lr + weight * (np.log10(x[edge]) - np.log10(8))
        lr = 10 ** float(log_lr)
        depth = f"{seen.sigmas:.0f}" if seen.sigmas < 1000 else "more than 1000"
        said = f"just below the end of the descent, {depth} standard errors deep, lowest at {x[fall.lowest]:.2g}"
        if fall.smooth[fall.lowest :].max() <= fall.smooth[fall.lowest] + 0.1 * fall.depth:
            # Half as far above the limit: the rate is a safe one, but a better one may lie beyond the sweep.
            confidence = (confidence + MIN_CONFIDENCE) / 2
            said += (
                f"; the sweep ended at {x[-1]:.2g} before the loss turned up: a larger end_lr may show a better rate"
            )
        if seen.begun:  # what lies before is out of sight: the start of the descent, and with it its depth
            confidence = (confidence + MIN_CONFIDENCE) / 2
            said += f"; the descent was under way at the first rate, {x[0]:.2g}: {LOWER} to see all of it"
    if lr < x[0]:
        said = (
            f"the descent was under way at the first rate, {x[0]:.2g}, and the best rate seems to lie below it: {LOWER}"
        )
        return Verdict(None, MIN_CONFIDENCE / 2, said)
    return Verdict(min(lr, float(x[-1])), confidence, said)


def _why_not(x: Floats, seen: Reading) -> str:
    """Why there is no suggestion, and what to change."""
    rates = f"between {x[0]:.2g} and {x[-1]:.2g}"
    if seen.shapeless and seen.rises:
        return f"the loss rises from the first rates on ({rates}): {LOWER}"
    if seen.edge is not None and seen.edge >= head(len(x)):
        rates += f"; it explodes at {x[seen.edge]:.2g}, and a tenth of that is the best guess there is"
    if seen.shapeless:
        return f"the model did not learn at any rate in this range ({rates}): widen it, or look at model, loss and data"
    return (
        f"the loss falls by {seen.fall.depth:.2g} only, {seen.fall.sigmas:.1f} standard errors, where batches differ "
        f"by {seen.noise:.2g} ({rates}): raise num_iter or the batch size, sweep with repeats, or widen the range"
    )


def unstable_lr(lrs: Numbers, losses: Numbers) -> float | None:
    """The smallest rate from which on the loss is back at its starting level or above, for good, or None.

    On curves of 20 points and more this is judged on running medians, within the noise of single batches: one lucky
    batch of a network that is dead moves nothing. A dead network returns to chance level, which may lie a little below
    the first losses. A non-finite loss is above every level.

    Args:
        lrs: positive, increasing learning rates.
        losses: as many losses, raw or smoothed.

    Raises:
        ValueError: if the arguments are no curve.

    Example:
        >>> unstable_lr([0.1, 0.2, 0.4, 0.8], [2.0, 1.0, 2.5, 9.0])
        0.4
    """
    x, y = checked(lrs, losses)
    first = leaves(y) if len(y) else 0
    return float(x[first]) if first < len(x) else None


DEFAULT = "descent"
RULES: dict[str, Callable[[Numbers, Numbers], float]] = {
    "descent": descent,
    "steepest": steepest,
    "valley": valley,
    "slide": slide,
    "minimum": minimum,
    "steep": steep,
    "fastai_lr_finder": fastai_lr_finder,
}
