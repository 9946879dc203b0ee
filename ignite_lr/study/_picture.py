"""The pictures of a study: what there is to see as plain numbers, and Matplotlib's way to draw it."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ignite_lr.core.figure import BLACK, BLUE, GRAY, RED, axes, dress, finite, legend, plain, png
from ignite_lr.study._runs import Settings, TrialResult, objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["StudyPicture", "draw_axis", "draw_curves", "page_of"]


@dataclass(frozen=True)
class StudyPicture:
    """What there is to see in a study, the same for every library that draws it.

    Attributes:
        trials: by rate.
        best: the position of the best one, or None.
        unstable_lr: where rates begin to fail, or None.
        warmup_axis: whether all rates are the same, and the x axis is the length of the warmup.
        value_name: for the axis of the objective.
        top_is_bad: whether a large objective is a bad one.
    """

    trials: Sequence[TrialResult]
    best: int | None
    unstable_lr: float | None
    warmup_axis: bool
    value_name: str
    top_is_bad: bool

    @classmethod
    def of(
        cls, trials: Sequence[TrialResult], best: TrialResult | None, unstable_lr: float | None, settings: Settings
    ) -> StudyPicture:
        """The picture of some trials, which come by rate."""
        warmups = len({result.trial.lr for result in trials}) == 1 and any(r.warmup_steps for r in trials)
        return cls(
            trials=trials,
            best=next((index for index, result in enumerate(trials) if result is best), None),
            unstable_lr=unstable_lr,
            warmup_axis=warmups,
            value_name="Validation" if settings.validated else "Training loss at the end",
            top_is_bad=settings.mode == "min",
        )

    @property
    def x_name(self) -> str:
        """For the x axis."""
        return "Warmup, updates" if self.warmup_axis else "Learning rate"

    @property
    def x(self) -> list[float]:
        """Where each trial lies on the x axis."""
        return [float(r.warmup_steps) if self.warmup_axis else r.trial.lr for r in self.trials]

    def spans(self) -> list[tuple[float, float] | None]:
        """The smallest and the largest objective of the repeats of each feasible trial, or None."""
        spans: list[tuple[float, float] | None] = []
        for result in self.trials:
            values = [objective(run, self.value_name == "Validation") for run in result.repeats]
            values = [value for value in values if math.isfinite(value) and result.feasible]
            spans.append((min(values), max(values)) if len(values) > 1 else None)
        return spans

    def heights(self) -> list[float]:
        """How high each trial is drawn: at its objective; infeasible ones at the bad end of what the others reach."""
        values = [r.objective for r in self.trials if r.feasible and math.isfinite(r.objective)]
        for span in self.spans():
            values += span or ()
        if not values:
            return [0.0] * len(self.trials)
        low, high = min(values), max(values)
        room = 0.15 * (high - low or abs(high) or 1.0)
        bad = high + room if self.top_is_bad else low - room
        return [r.objective if r.feasible and math.isfinite(r.objective) else bad for r in self.trials]

    def curve_range(self) -> tuple[float, float] | None:
        """Where the interesting part of the curves is: one that explodes would flatten everything else."""
        firsts = [r.losses[0] for r in self.trials if r.losses and math.isfinite(r.losses[0])]
        lows = [min(filter(math.isfinite, r.smoothed_losses), default=math.inf) for r in self.trials]
        if not firsts or not math.isfinite(min(lows)):
            return None
        low, high = min(lows), max(firsts)
        room = high - low or abs(high) or 1.0
        return low - 0.06 * room, high + 0.4 * room


def draw_axis(picture: StudyPicture, ax: Axes | None, title: str | None) -> Axes:
    """The objective over the rate; see ``StudyResult.plot``."""
    ax = axes(ax, title)
    x, y = np.asarray(picture.x), np.asarray(picture.heights())
    able = np.array([r.feasible for r in picture.trials], dtype=bool)
    for at, span in zip(x, picture.spans(), strict=True):
        if span is not None:
            ax.vlines(at, *span, color=BLUE, alpha=0.4, linewidth=5, zorder=2)
    if able.any():
        ax.plot(x[able], y[able], "o", color=BLUE, markersize=7, label="feasible", zorder=3)
    if not able.all():
        ax.plot(x[~able], y[~able], "x", color=BLACK, markersize=8, markeredgewidth=2, label="infeasible", zorder=3)
    if picture.best is not None:
        best = picture.trials[picture.best]
        label = f"best: {best.trial.label} ({best.objective:.4g})"
        ax.plot(x[picture.best], y[picture.best], "o", color=RED, markersize=11, label=plain(label), zorder=4)
    if picture.unstable_lr is not None and not picture.warmup_axis:
        # to the edge of the axes, so that nothing looks safe that was not tried
        ax.axvspan(picture.unstable_lr, float(x.max()) * 1.2, color=GRAY, alpha=0.2, linewidth=0, label="unstable")
    if picture.warmup_axis:
        ax.set_xscale("symlog", linthresh=1)
    elif len(x):
        ax.set_xscale("log")
    dress(ax, title, picture.x_name, picture.value_name)
    if len(x):
        legend(ax)
    return ax


def draw_curves(picture: StudyPicture, ax: Axes | None, title: str | None) -> Axes:
    """The curves of all trials; see ``StudyResult.plot_curves``."""
    ax = axes(ax, title)
    order = [index for index in range(len(picture.trials)) if index != picture.best]
    labelled: set[str] = set()
    for index in order + ([] if picture.best is None else [picture.best]):
        result = picture.trials[index]
        if index == picture.best:
            style, color, label = "-", RED, f"best: {result.trial.label}"
        else:
            kind = "feasible" if result.feasible else "infeasible"
            style, color, label = ("-" if result.feasible else ":"), GRAY, "_" if kind in labelled else kind
            labelled.add(kind)
        width = 2.2 if index == picture.best else 1.1
        curve = finite(result.smoothed_losses)
        ax.plot(np.arange(1, len(curve) + 1), curve, style, color=color, linewidth=width, label=plain(label))
    limits = picture.curve_range()
    if limits is not None:
        ax.set_ylim(*limits)
    dress(ax, title, "Update", "Training loss, smoothed")
    if order or picture.best is not None:
        legend(ax)
    return ax


def page_of(picture: StudyPicture, says: str, findings: Sequence[tuple[str, str]]) -> str:
    """A study as a notebook shows it: a line, the picture, the table, the findings."""
    rows = "".join(
        f"<tr><td>{html.escape(r.trial.label)}</td><td>{r.trial.lr:.3g}</td><td>{r.outcome}</td>"
        f"<td>{'yes' if r.feasible else 'no'}</td><td>{r.objective:.4g}</td><td>{r.rise:.3g}</td>"
        f"<td>{r.updates}</td></tr>"
        for r in picture.trials
    )
    heads = "".join(
        f"<th>{name}</th>" for name in ("name", "lr", "outcome", "feasible", "objective", "rise", "updates")
    )
    said = "".join(f"<li><b>{html.escape(kind)}</b>: {html.escape(text)}</li>" for kind, text in findings)
    image = ""
    if (picture_bytes := png(lambda ax: draw_axis(picture, ax, None))) is not None:
        encoded = base64.b64encode(picture_bytes).decode("ascii")
        image = f'<img alt="objective over rate" src="data:image/png;base64,{encoded}">'
    return (
        f"<div><p>{html.escape(says)}</p>{image}<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        f"<ul>{said}</ul></div>"
    )
