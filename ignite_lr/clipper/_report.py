"""What a clipper has done, in numbers of the host, and what follows from them.

A pure function of the rule and the record. Every sentence is derived from figures that the report prints beside it, or
it is not said.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ignite_lr.clipper._state import ClipRule, ClipState

__all__ = ["ENOUGH", "FULL", "TOO_OFTEN", "ClipReport", "advice", "line", "lower_the_rate", "reported", "too_often"]

#: Above this share of clipped updates the learning rate is too high: Deep Learning Tuning Playbook, "How can
#: optimization failures be debugged and mitigated?".
TOO_OFTEN = 0.5
# medians of the older and newer half of the window that differ by more than this are called a drift
_DRIFT = 1.5
#: fewer updates than this say nothing
ENOUGH = 20
#: where all norms are kept, a window that never fills: from here on the thresholds are taken seriously
FULL = 1000


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
        norm_quantiles: norm at the percentiles 50, 90, 99 and at ``"max"`` of the unclipped norms in the window, which
            are finite and not zero; ``nan`` before any.
        nonfinite: steps whose norm was not finite.
        zero: updates whose norm was exactly 0; an update without any gradient is none of them.
        skipped: steps that the clipper kept from being taken, for their norm.
        advice: what follows, in words.
        name: that of the clipper.

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
    zero: int
    skipped: int
    advice: str
    name: str = ""

    def __str__(self) -> str:
        quantiles = ", ".join(f"{name}: {value:.4g}" for name, value in self.norm_quantiles.items())
        return (
            f"{self.name}{': ' if self.name else ''}{self.clipped} of {self.updates} updates clipped "
            f"({self.frequency:.1%}, recently {self.recent_frequency:.1%}, nominally {self.nominal_frequency:.1%}) "
            f"at threshold {self.threshold:.4g}\n"
            f"norm percentiles {quantiles}\n"
            f"{self.nonfinite} norms not finite, {self.skipped} steps skipped for it; {self.zero} norms exactly zero\n"
            f"{self.advice}"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def reported(state: ClipState, rule: ClipRule, name: str) -> ClipReport:
    """The report on a record that was kept by this rule."""
    return ClipReport(
        updates=state.updates,
        clipped=state.clipped,
        frequency=_frequency(state),
        recent_frequency=_recent_frequency(state, rule),
        nominal_frequency=1 - rule.percentile / 100,
        threshold=state.threshold,
        norm_quantiles=quantiles(state.windows[0] if state.windows else np.zeros(0)),
        nonfinite=state.nonfinite,
        zero=state.zero,
        skipped=state.skipped,
        advice=advice(state, rule),
        name=name,
    )


def quantiles(norms: npt.NDArray[np.float64]) -> dict[int | str, float]:
    """The percentiles that a report shows, of finite norms.

    Example:
        >>> quantiles(np.array([1.0, 2.0, 3.0]))["max"]
        3.0
    """
    if not len(norms):
        return {50: math.nan, 90: math.nan, 99: math.nan, "max": math.nan}
    at = [float(value) for value in np.percentile(norms, (50, 90, 99, 100))]
    return dict(zip((50, 90, 99, "max"), at, strict=True))


def line(percentile: float, updates: int, groups: int = 1) -> float:
    """The clip frequency above which the learning rate is too high, over this many updates.

    One half, and where chance alone comes near it as much more as chance makes of it: four standard deviations of a
    binomial. An update counts as clipped if one of its groups was. A percentile below 50 is meant to clip most updates,
    and too few updates say nothing; then there is no line.

    Example:
        >>> line(90.0, 1000), round(line(50.0, 1000), 3), line(10.0, 1000)
        (0.5, 0.563, inf)
    """
    if percentile < 50 or updates < ENOUGH:
        return math.inf
    nominal = 1 - (percentile / 100) ** groups
    return max(TOO_OFTEN, nominal + 4 * math.sqrt(nominal * (1 - nominal) / updates))


def too_often(state: ClipState, rule: ClipRule) -> str:
    """What to do where too many updates are clipped; nothing where they are not.

    Judged by the last ``window`` updates, by all of them where that is too few or where all norms are kept. While the
    window was not full, a norm above its percentile may only be one of many that rise at the start, so such a clip
    counts only where it was the ceiling that clipped.
    """
    window = rule.window
    lately = window is not None and min(window, len(state.decisions)) >= ENOUGH
    frequency = _recent_frequency(state, rule) if lately else _frequency(state)
    last = slice(-window if lately and window else None, None)
    norms, thresholds, clipped = state.norms[last], state.thresholds[last], state.decisions[last]
    number = np.arange(state.updates - len(norms), state.updates)
    groups = max(len(state.windows) - 1, 1)
    telling = clipped & ((number >= (window or FULL)) | ((thresholds >= rule.max_norm) & (groups == 1)))
    share = float(telling.mean()) if len(telling) else 0.0
    if share <= line(rule.percentile, len(telling), groups) or round(frequency, 3) <= TOO_OFTEN:
        return ""
    excess = float(np.median(norms[telling] / thresholds[telling]))
    return lower_the_rate(frequency, "recent" if lately else "all", excess)


def lower_the_rate(frequency: float, which: str, excess: float = math.nan) -> str:
    """The sentence about too many clipped updates.

    Args:
        frequency: how many were clipped, 0 to 1.
        which: updates it was.
        excess: norm / threshold of the typical clipped one; left out where it is not known or no different from 1.

    Example:
        >>> lower_the_rate(0.8, "recent", 4.0).partition(": ")[2]
        'among those the typical norm is 4 times the threshold, so try 1/4 of it.'
    """
    said = f"{frequency:.1%} of {which} updates were clipped; above {TOO_OFTEN:.0%} lower the learning rate instead"
    factor = f"{excess:.3g}"
    if not float(factor) > 1:
        return f"{said}."
    return f"{said}: among those the typical norm is {factor} times the threshold, so try 1/{factor} of it."


def advice(state: ClipState, rule: ClipRule) -> str:
    """What follows from the record of a clipper, in one sentence or more.

    Example:
        >>> advice(ClipState(), ClipRule())
        'No update yet.'
    """
    if not state.updates + state.skipped:
        return "No update yet."
    sentences = (too_often(state, rule), _drift(state, rule), _not_finite(state))
    return " ".join(filter(None, sentences)) or "Nothing to change."


def _drift(state: ClipState, rule: ClipRule) -> str:
    """Whether norms that rise or fall make more or fewer updates clipped than the percentile says."""
    if not rule.enabled or len(state.windows) != 1 or state.threshold >= rule.max_norm:
        return ""  # it is not the percentile that decides
    norms = state.windows[0]
    if len(norms) < ENOUGH or state.seen[0] - len(norms) < rule.warmup_updates:
        return ""
    before, after = (float(np.median(half)) for half in np.array_split(norms, 2))
    if max(before, after) <= _DRIFT * min(before, after):
        return ""
    # as they are printed
    nominal = round(1 - rule.percentile / 100, 3)
    frequencies = [round(frequency, 3) for frequency in (_frequency(state), _recent_frequency(state, rule))]
    if after > before and min(frequencies) > nominal:
        way, more = "rising", "more"
    elif after < before and max(frequencies) <= nominal / 2 and nominal:
        way, more = "falling", "fewer"
    else:
        return ""
    return (
        f"The norms are {way} (median {before:.3g}, then {after:.3g}), so {more} updates are clipped than "
        f"{100 * nominal:.3g}%; a shorter window follows them sooner."
    )


def _not_finite(state: ClipState) -> str:
    if not state.nonfinite:
        return ""
    share = state.nonfinite / (state.updates + state.skipped)
    said = f"{share:.1%}" if share >= 0.0005 else "Less than 0.1%"
    rest = "" if state.skipped else '; on_nonfinite="skip" keeps such a step from the weights'
    return f"{said} of the norms were not finite: lower the learning rate or look for an overflow{rest}."


def _frequency(state: ClipState) -> float:
    return state.clipped / state.updates if state.updates else 0.0


def _recent_frequency(state: ClipState, rule: ClipRule) -> float:
    if rule.window is None:
        return _frequency(state)
    decisions = state.decisions[-rule.window :]
    return float(decisions.mean()) if len(decisions) else 0.0
