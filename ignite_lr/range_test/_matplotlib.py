"""Pictures with Matplotlib: plain numbers come in, axes or a figure go out.

Matplotlib is imported inside the functions, so that everything else works without it. Figures are made without
``pyplot``: they belong to no window, change no global state and need no display.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ignite_lr.core.figure import BLACK, BLUE, COLORS, RED, axes, dress, finite, plain
from ignite_lr.range_test._picture import RangeTestPicture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["range_test"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


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
    own = ax is None
    ax = axes(ax, title, width=10.0, height=4.8)
    part = picture.part(skip_start, skip_end)
    shown = [lr for lrs in picture.lrs for lr in lrs[part] if lr > 0 or not picture.log_lr]
    raw = np.asarray(picture.losses[part], dtype=np.float64)
    smooth = np.asarray(picture.smoothed[part], dtype=np.float64)
    several = len(picture.lrs) > 1
    band = picture.band()
    if band is not None:
        lrs, low, high = band
        ax.fill_between(lrs, low, high, color=BLUE, alpha=0.15, linewidth=0, label=f"{len(picture.sweeps)} sweeps")
        for sweep_lrs, losses in picture.sweeps:
            ax.plot(sweep_lrs, finite(losses), color=BLUE, alpha=0.25, linewidth=0.6)
    for group, lrs in enumerate(picture.lrs):
        color = COLORS[group % len(COLORS)] if several else BLUE
        name = f"group {group}, " if several else ""
        single = "." if len(raw) < 60 else None
        ax.plot(lrs[part], finite(raw), color=color, alpha=0.35, linewidth=0.9, marker=single, label=f"{name}raw")
        ax.plot(lrs[part], finite(smooth), color=color, linewidth=2.0, label=f"{name}smoothed")
    if suggestions and len(raw):
        marks = [(rule, rates) for rule, rates in picture.suggestions.items() if rates is not None]
        marks.sort(key=lambda mark: mark[0] != picture.default)
        for index, (rule, rates) in enumerate(marks):
            main = rule == picture.default
            if several and not main:
                continue  # seven rules times several groups would hide the curves
            for group, rate in enumerate(rates):
                ax.plot(
                    rate,
                    picture.height(rate, group),
                    linestyle="none",
                    marker="o" if main else MARKERS[index % len(MARKERS)],
                    markersize=11 if main else 7,
                    markerfacecolor=RED if main else "white",
                    markeredgecolor=RED if main else BLACK,
                    zorder=6 if main else 5,
                    label=picture.label(rule, rates) if group == 0 else None,
                )
                if main:
                    ax.axvline(rate, color=RED, linewidth=1.2, linestyle="--", zorder=1)
                shown.append(rate)
        if picture.interval is not None:
            ax.axvspan(*picture.interval, color=RED, alpha=0.12, linewidth=0)
    if shown:
        left, right = min(shown), max(shown)
        if picture.unstable_lr is not None and picture.unstable_lr < right:
            ax.axvspan(picture.unstable_lr, right, color="#999999", alpha=0.25, linewidth=0, label="unstable", zorder=0)
        if picture.log_lr:
            ax.set_xscale("log")
        if left < right:
            ax.set_xlim(left, right)
    limits = picture.y_range(part)
    if limits is not None:
        ax.set_ylim(*limits)
    dress(ax, None, "Learning rate", picture.loss_name)
    if suggestions and picture.suggestions.get(picture.default) is None:
        ax.plot([], [], linestyle="none", label="no suggestion")
    small: dict[str, Any] = {"fontsize": "x-small", "color": "#666666"}
    ax.text(0.0, 1.01, plain(picture.note), transform=ax.transAxes, va="bottom", **small)
    if title is not None:
        ax.set_title(plain(title), loc="left", pad=18)
    if own:
        # beside the curve, where it hides nothing
        ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    else:
        ax.legend(fontsize="small", loc="best", framealpha=0.9)
    return ax
