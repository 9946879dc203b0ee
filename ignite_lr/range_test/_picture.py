"""What there is to see in a range test, as plain numbers: the same for every library that draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ignite_lr.range_test._curve import leading_lrs, text_of
from ignite_lr.range_test._verified import end_of
from ignite_lr.suggestion import MIN_CONFIDENCE, NoSuggestionError

__all__ = ["RangeTestPicture", "picture_of"]


@dataclass(frozen=True)
class RangeTestPicture:
    """The numbers in the picture of a range test.

    Attributes:
        lrs: for each parameter group that is drawn, the rate of each point.
        losses: the raw loss of each point.
        smoothed: the smoothed loss of each point.
        loss_name: for the y axis.
        log_lr: whether the x axis is logarithmic.
        default: the name of the default rule.
        suggestions: rule -> the rate of each drawn group, or None where the rule abstains; for the default rule what
            the trials decided, where there were any.
        confidence: of the default rule, in [0, 1].
        interval: the span that repeats suggest, or None.
        unstable_lr: where the loss leaves for good, or None.
        sweeps: of every sweep where there were several, its rates (first drawn group) and raw losses.
        note: a line that says why the sweep stopped.
        verified: of every rate that was tried, the rate of each drawn group, where its losses ended, and whether it
            learns.
        leader: the drawn group whose rates ``interval`` and ``unstable_lr`` are: the one with the largest.
    """

    lrs: Sequence[Sequence[float]]
    losses: Sequence[float]
    smoothed: Sequence[float]
    loss_name: str
    log_lr: bool
    default: str
    suggestions: Mapping[str, Sequence[float] | None]
    confidence: float
    interval: tuple[float, float] | None
    unstable_lr: float | None
    sweeps: Sequence[tuple[Sequence[float], Sequence[float]]]
    note: str
    verified: Sequence[tuple[Sequence[float], float, bool]] = ()
    leader: int = 0

    def part(self, skip_start: int, skip_end: int) -> slice:
        """The points that remain."""
        return slice(min(skip_start, len(self.losses)), max(len(self.losses) - skip_end, 0))

    def height(self, rate: float, group: int = 0) -> float:
        """The smoothed loss at a rate of a group, interpolated."""
        x, y = np.asarray(self.lrs[group], float), np.asarray(self.smoothed, float)
        good = np.isfinite(y)
        return float(np.interp(rate, x[good], y[good])) if good.any() else 0.0

    def y_range(self, part: slice) -> tuple[float, float] | None:
        """Where the interesting part is: an exploding loss would flatten everything else."""
        raw, smooth = np.asarray(self.losses[part], float), np.asarray(self.smoothed[part], float)
        good = np.isfinite(raw) & np.isfinite(smooth)
        if not good.any():
            return None
        raw, smooth = raw[good], smooth[good]
        lowest = int(np.argmin(smooth))
        before = raw[: lowest + 1]
        bottom, level = float(min(before.min(), smooth[lowest])), float(before.max())
        span = level - bottom or abs(level) or 1.0
        top = min(float(raw.max()), level + 0.6 * span)
        return bottom - 0.06 * span, max(top, level) + 0.06 * span

    def band(self) -> tuple[Sequence[float], np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
        """Rates, smallest and largest raw loss over the sweeps, as far as all of them came."""
        if not self.sweeps:
            return None
        points = min(len(losses) for _, losses in self.sweeps)
        losses = np.array([losses[:points] for _, losses in self.sweeps], dtype=np.float64)
        return self.sweeps[0][0][:points], losses.min(axis=0), losses.max(axis=0)

    def marks(self) -> list[tuple[str, Sequence[float]]]:
        """The rules to mark, the default one first, as far as they lie within the data.

        With several groups only the default one: seven rules times several groups would hide the curves.
        """
        if not self.losses:
            return []
        found = [(rule, rates) for rule, rates in self.suggestions.items() if rates is not None]
        found.sort(key=lambda mark: mark[0] != self.default)
        if len(self.lrs) > 1:
            found = [mark for mark in found if mark[0] == self.default]
        return [
            (rule, rates)
            for rule, rates in found
            if all(min(lrs) <= rate <= max(lrs) for rate, lrs in zip(rates, self.lrs, strict=True))
        ]

    def trials(self) -> list[tuple[str, list[tuple[Sequence[float], float]]]]:
        """The rates that were tried, those that learn and the others, each with a name for the legend."""
        named = (("tried: learns", True), ("tried: does not", False))
        groups = [(name, [(r, end) for r, end, learns in self.verified if learns is kind]) for name, kind in named]
        return [(name, trials) for name, trials in groups if trials]

    def unstable_label(self) -> str:
        """How the grey region is called: with several groups it is that of one of them."""
        return "unstable" if len(self.lrs) == 1 else f"unstable at the rates of group {self.leader}"

    def label(self, rule: str, rates: Sequence[float]) -> str:
        """How a suggestion is called in the legend."""
        text = ", ".join(f"{rate:.2e}" for rate in rates)
        if rule != self.default:
            return f"{rule}: {text}"
        said = ["verified"] if self.verified else []
        if self.confidence >= MIN_CONFIDENCE:  # else the rule abstained, and the rate is that of the trials alone
            said.append(f"confidence {self.confidence:.2f}")
        if self.interval is not None:
            said.append(f"{self.interval[0]:.1e} to {self.interval[1]:.1e}")
        return f"suggested: {text} ({', '.join(said)})"


def picture_of(result: Any, default: str, log_lr: bool) -> RangeTestPicture:
    """The numbers in the picture of a ``RangeTestResult``."""
    columns = list(zip(*map(_row, result.lrs), strict=True))
    groups = list(dict.fromkeys(columns))  # groups with the same rates are one line
    drawn = [columns.index(group) for group in groups]

    def rows(rate: Any) -> list[float] | None:
        return None if rate is None else [_row(rate)[group] for group in drawn]

    suggestions = result.suggestions()
    if result.verified:  # the trials decide, whatever the rule said
        try:
            suggestions[default] = result.suggestion()
        except NoSuggestionError:
            suggestions[default] = None
    size = f"{len(result.sweeps)} sweeps of up to " if result.sweeps else ""
    return RangeTestPicture(
        lrs=groups,
        losses=result.losses,
        smoothed=result.smoothed_losses,
        loss_name=result.loss_name,
        log_lr=log_lr,
        default=default,
        suggestions={name: rows(rate) for name, rate in suggestions.items()},
        confidence=result.confidence,
        interval=result.interval,
        unstable_lr=result.unstable_lr,
        sweeps=[(leading_lrs(sweep.lrs), sweep.losses) for sweep in result.sweeps],
        note=f"{size}{len(result.losses)} points, {result.iterations} iterations; "
        f"stopped by {result.stop_reason} at lr {text_of(result.stop_lr)}",
        verified=[(rows(trial.lr) or [], end_of(trial.losses), trial.learns) for trial in result.verified],
        leader=max(range(len(groups)), key=lambda group: groups[group][-1], default=0),
    )


def _row(rates: Any) -> Sequence[float]:
    return rates if isinstance(rates, tuple | list) else (rates,)
