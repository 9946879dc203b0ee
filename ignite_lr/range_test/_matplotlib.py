"""The picture of a range test with Matplotlib: plain numbers come in, axes go out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ignite_lr.core.figure import (
    BLACK,
    BLUE,
    COLORS,
    GRAY,
    GREEN,
    MARKERS,
    OTHER_MARKER,
    RED,
    axes,
    dress,
    finite,
    legend,
    plain,
)
from ignite_lr.range_test._picture import RangeTestPicture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SIZE", "range_test"]

SIZE = (6.4, 5.0)
"""Inches, with the legend under the curve."""


def range_test(
    picture: RangeTestPicture,
    ax: Axes | None = None,
    title: str | None = None,
    *,
    skip_start: int = 0,
    skip_end: int = 0,
    suggestions: bool = True,
) -> Axes:
    """Draw a range test with Matplotlib; see ``RangeTestResult.plot``."""
    ax = axes(ax, title, width=SIZE[0], height=SIZE[1])
    part = picture.part(skip_start, skip_end)
    shown = [lr for lrs in picture.lrs for lr in lrs[part] if lr > 0 or not picture.log_lr]
    _curves(ax, picture, part)
    limits = picture.y_range(part)
    if suggestions and shown:
        shown += _suggestions(ax, picture)
        _trials(ax, picture, limits)
        if picture.interval is not None:
            ax.axvspan(*picture.interval, color=RED, alpha=0.12, linewidth=0)
    if shown:
        left, right = min(shown), max(shown)
        if picture.unstable_lr is not None and picture.unstable_lr < right:
            grey: dict[str, Any] = {"color": GRAY, "alpha": 0.25, "linewidth": 0, "zorder": 0}
            ax.axvspan(max(picture.unstable_lr, left), right, label=picture.unstable_label(), **grey)
        if picture.log_lr:
            ax.set_xscale("log")
        if left < right:
            ax.set_xlim(left, right)
    if limits is not None:
        ax.set_ylim(*limits)
    dress(ax, None, "Learning rate", picture.loss_name)
    if suggestions and picture.suggestions.get(picture.default) is None:
        ax.plot([], [], linestyle="none", label="no suggestion")
    small: dict[str, Any] = {"fontsize": "x-small", "color": "#666666"}
    ax.text(0.0, 1.01, plain(picture.note), transform=ax.transAxes, va="bottom", **small)
    if title is not None:
        ax.set_title(plain(title), loc="left", pad=18)
    legend(ax)
    return ax


def _curves(ax: Axes, picture: RangeTestPicture, part: slice) -> None:
    raw, smooth = finite(picture.losses[part]), finite(picture.smoothed[part])
    band = picture.band()
    if band is not None:
        lrs, low, high = band
        ax.fill_between(lrs, low, high, color=BLUE, alpha=0.15, linewidth=0, label=f"{len(picture.sweeps)} sweeps")
        for sweep_lrs, losses in picture.sweeps:
            ax.plot(sweep_lrs, finite(losses), color=BLUE, alpha=0.25, linewidth=0.6)
    several = len(picture.lrs) > 1
    for group, lrs in enumerate(picture.lrs):
        color = COLORS[group % len(COLORS)] if several else BLUE
        name = f"group {group}, " if several else ""
        single = "." if len(raw) < 60 else None
        ax.plot(lrs[part], raw, color=color, alpha=0.35, linewidth=0.9, marker=single, label=f"{name}raw")
        ax.plot(lrs[part], smooth, color=color, linewidth=2.0, label=f"{name}smoothed")


def _suggestions(ax: Axes, picture: RangeTestPicture) -> list[float]:
    """Mark what the rules suggest; the rates that are marked."""
    marked: list[float] = []
    for rule, rates in picture.marks():
        main = rule == picture.default
        for group, rate in enumerate(rates):
            ax.plot(
                rate,
                picture.height(rate, group),
                linestyle="none",
                marker=MARKERS.get(rule, OTHER_MARKER)[0],
                markersize=11 if main else 7,
                markerfacecolor=RED if main else "white",
                markeredgecolor=RED if main else BLACK,
                zorder=6 if main else 5,
                label=picture.label(rule, rates) if group == 0 else None,
            )
            if main:
                ax.axvline(rate, color=RED, linewidth=1.2, linestyle="--", zorder=1)
        marked += rates
    return marked


def _trials(ax: Axes, picture: RangeTestPicture, limits: tuple[float, float] | None) -> None:
    """Where the losses of the rates that were tried ended; at the rim where that is beyond the picture."""
    low, high = limits or (0.0, 1.0)
    for name, trials in picture.trials():
        learns = name.endswith("learns")
        ends = [np.clip(end if np.isfinite(end) else high, low, high) for _, end in trials]
        ax.plot(
            [rates[picture.leader] for rates, _ in trials],
            ends,
            linestyle="none",
            marker=">" if learns else "X",
            markersize=7,
            markerfacecolor=GREEN if learns else "white",
            markeredgecolor=GREEN if learns else GRAY,
            clip_on=False,
            zorder=7,
            label=name,
        )
