"""Pictures with Matplotlib: plain numbers come in, axes or a figure go out.

Matplotlib is imported inside the functions, so that everything else works without it. Figures are made without
``pyplot``: they belong to no window, change no global state and need no display.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ignite_lr.range_picture import BLACK, BLUE, COLORS, RED, SKY, RangeTestPicture, finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["grad_norm_curve", "lr_history", "range_test", "schedule_curve"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def _axes(ax: Axes | None, width: float = 8.0, height: float = 4.5) -> Axes:
    if ax is not None:
        return ax
    return _figure(width, height).add_subplot()


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModuleNotFoundError(
            "drawing requires matplotlib to be installed: pip install matplotlib", name="matplotlib"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _plain(text: str) -> str:
    """A text of the user's as it is: Matplotlib takes what stands between dollar signs for a formula."""
    return text.replace("$", r"\$")


def _dress(ax: Axes, title: str | None, xlabel: str, ylabel: str) -> None:
    ax.set_xlabel(_plain(xlabel))
    ax.set_ylabel(_plain(ylabel))
    if title is not None:
        ax.set_title(_plain(title))
    ax.grid(True, which="major", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def schedule_curve(
    factors: Sequence[float],
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "update",
    ylabel: str = "factor",
) -> Axes:
    """Draw a schedule.

    Args:
        factors: the value at each update, from update 0.
        ax: axes to draw on; None makes a figure.
        title: over the picture.
        xlabel: under the x axis.
        ylabel: beside the y axis.

    Returns:
        the axes.

    Example:
        >>> schedule_curve([0.0, 0.5, 1.0, 0.5]).get_ylabel()
        'factor'
    """
    ax = _axes(ax, height=3.6)
    # a step, because a factor holds for the whole update and jumps are jumps
    many = len(factors) > 200
    ax.plot(np.arange(len(factors)), factors, color=BLUE, linewidth=1.8, drawstyle="default" if many else "steps-mid")
    _dress(ax, title, xlabel, ylabel)
    low, high = ax.get_ylim()
    if low > 0 or (len(factors) and min(factors) >= 0):
        ax.set_ylim(0, high)
    ax.margins(x=0.01)
    return ax


def lr_history(
    updates: Sequence[float],
    values: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "iteration",
    ylabel: str = "learning rate",
) -> Axes:
    """Draw recorded rates, one line for each tag.

    Args:
        updates: the x of each record, shared by all tags.
        values: tag -> the value at each record; NaN where a tag did not exist yet.
        ax: axes to draw on; None makes a figure.
        title: over the picture.
        xlabel: under the x axis.
        ylabel: beside the y axis.

    Returns:
        the axes.
    """
    ax = _axes(ax, height=3.6)
    for index, (tag, line) in enumerate(values.items()):
        ax.plot(
            updates,
            line,
            color=COLORS[index % len(COLORS)],
            linestyle=("-", "--", ":")[index // len(COLORS) % 3],
            linewidth=1.6,
            marker="o" if len(updates) == 1 else None,
            label=_plain(tag).lstrip("_") or "value",
        )
    _dress(ax, title, xlabel, ylabel)
    finite = [v for line in values.values() for v in line if math.isfinite(v) and v > 0]
    if finite and max(finite) / min(finite) > 100:
        ax.set_yscale("log")
    elif finite and min(finite) > 0:
        ax.set_ylim(0, max(finite) * 1.08)
    if len(values) > 1:
        ax.legend(frameon=False, fontsize="small")
    elif values:
        ax.set_ylabel(_plain(next(iter(values))))
    ax.margins(x=0.01)
    return ax


def grad_norm_curve(
    norms: Sequence[float],
    thresholds: Sequence[float],
    clipped: Sequence[bool],
    histogram_edges: Sequence[float],
    histogram_counts: Sequence[float],
    title: str | None = None,
    first_update: int = 0,
) -> Figure:
    """Draw gradient norms before clipping with the threshold, and their histogram.

    Args:
        norms: the norm of each update; non-finite ones leave a gap.
        thresholds: the threshold of each update.
        clipped: whether each update was clipped.
        histogram_edges: borders of the bins, one more than ``histogram_counts``; logarithmic or not.
        histogram_counts: how many norms lie in each bin.
        title: over the picture.
        first_update: the number of the first update drawn.

    Returns:
        the figure.
    """
    figure = _figure(9.0, 4.0)
    curve, histogram = figure.subplots(1, 2, width_ratios=(3, 1))
    x = np.arange(first_update, first_update + len(norms))
    y = np.asarray(norms, dtype=np.float64)
    hit = np.asarray(clipped, dtype=bool)
    finite = np.isfinite(y) & (y > 0)
    curve.plot(x, np.where(np.isfinite(y), y, np.nan), color=BLUE, linewidth=0.9, label="norm before clipping")
    curve.plot(x, thresholds, color=BLACK, linewidth=1.5, label="threshold")
    share = f" ({hit.mean():.1%})" if len(hit) else ""
    curve.plot(x[hit & finite], y[hit & finite], ".", color=RED, markersize=4, label=f"clipped{share}")
    _dress(curve, title, "update", "gradient norm")
    spread = y[finite].max() / y[finite].min() if finite.any() else 1.0
    if spread > 20:
        curve.set_yscale("log")
    curve.margins(x=0.01)
    curve.legend(frameon=False, fontsize="small")
    edges = np.asarray(histogram_edges, dtype=np.float64)
    counts = np.asarray(histogram_counts, dtype=np.float64)
    if len(counts):
        histogram.bar(
            edges[:-1], counts, width=np.diff(edges), align="edge", color=SKY, edgecolor="white", linewidth=0.4
        )
        widths = np.diff(edges)
        if edges[0] > 0 and widths.max() > 5 * widths.min():
            histogram.set_xscale("log")
        last = next((float(t) for t in reversed(thresholds) if math.isfinite(t)), None)
        if last is not None and edges[0] <= last <= edges[-1]:
            histogram.axvline(last, color=BLACK, linewidth=1.5)
    _dress(histogram, None, "gradient norm", "updates")
    return figure


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
    ax = _axes(ax, width=10.0, height=4.8)
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
    _dress(ax, None, "Learning rate", picture.loss_name)
    if suggestions and picture.suggestions.get(picture.default) is None:
        ax.plot([], [], linestyle="none", label="no suggestion")
    small: dict[str, Any] = {"fontsize": "x-small", "color": "#666666"}
    ax.text(0.0, 1.01, _plain(picture.note), transform=ax.transAxes, va="bottom", **small)
    if title is not None:
        ax.set_title(_plain(title), loc="left", pad=18)
    if own:
        # beside the curve, where it hides nothing
        ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    else:
        ax.legend(fontsize="small", loc="best", framealpha=0.9)
    return ax
