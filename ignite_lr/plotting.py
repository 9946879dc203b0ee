"""Pictures. Plain numbers come in, Matplotlib axes or an HTML file with Bokeh go out.

Matplotlib and Bokeh are imported inside the functions, so that everything else works without them. Figures are made
without ``pyplot``: they belong to no window, change no global state and need no display.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RangeTestPicture", "grad_norm_curve", "lr_history", "range_test", "range_test_html", "schedule_curve"]

# Okabe and Ito's palette: told apart also by the colour-blind, and in print
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#222222",
)
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, BLACK)
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
        suggestions: rule -> the rate of each drawn group, or None where the rule abstains.
        confidence: of the default rule, in [0, 1].
        interval: the span that repeats suggest, or None.
        unstable_lr: where the loss leaves for good, or None.
        sweeps: of every sweep where there were several, its rates (first drawn group) and raw losses.
        note: a line that says why the sweep stopped.
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
        before = raw[: max(lowest + 1, min(5, len(raw)))]
        bottom, level = float(min(raw[: lowest + 1].min(), smooth.min())), float(before.max())
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

    def label(self, rule: str, rates: Sequence[float]) -> str:
        """How a suggestion is called in the legend."""
        text = ", ".join(f"{rate:.2e}" for rate in rates)
        if rule != self.default:
            return f"{rule}: {text}"
        span = "" if self.interval is None else f", {self.interval[0]:.1e} to {self.interval[1]:.1e}"
        return f"suggested: {text} (confidence {self.confidence:.2f}{span})"


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
    ax = _axes(ax, width=9.0, height=5.0)
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
            ax.plot(sweep_lrs, _finite(losses), color=BLUE, alpha=0.25, linewidth=0.6)
    for group, lrs in enumerate(picture.lrs):
        color = COLORS[group % len(COLORS)] if several else BLUE
        name = f"group {group}, " if several else ""
        single = "." if len(raw) < 60 else None
        ax.plot(lrs[part], _finite(raw), color=color, alpha=0.35, linewidth=0.9, marker=single, label=f"{name}raw")
        ax.plot(lrs[part], _finite(smooth), color=color, linewidth=2.0, label=f"{name}smoothed")
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
    _dress(ax, title, "Learning rate", picture.loss_name)
    if suggestions and picture.suggestions.get(picture.default) is None:
        ax.plot([], [], linestyle="none", label="no suggestion")
    ax.text(
        1.0,
        1.0,
        _plain(picture.note),
        transform=ax.transAxes,
        ha="right",
        va="bottom",
        fontsize="x-small",
        color="#666666",
    )
    ax.legend(fontsize="small", loc="best", framealpha=0.9)
    return ax


def _finite(values: Sequence[float] | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Without the infinities, which would break the scale of the axis."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def range_test_html(picture: RangeTestPicture, path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Write a range test as one HTML file with Bokeh; see ``RangeTestResult.to_html``."""
    try:
        # its annotations do not know what its constructors take
        models: Any = importlib.import_module("bokeh.models")
        figure: Any = importlib.import_module("bokeh.plotting").figure
        from bokeh.embed import file_html
        from bokeh.resources import INLINE
    except ImportError as error:
        raise ModuleNotFoundError(
            "to_html requires bokeh to be installed: pip install ignite_lr[html]", name="bokeh"
        ) from error
    shown = [lr for lrs in picture.lrs for lr in lrs if lr > 0 or not picture.log_lr]
    page = figure(
        x_axis_type="log" if picture.log_lr else "linear",
        sizing_mode="stretch_width",
        height=520,
        tools="pan,box_zoom,wheel_zoom,reset,save",
        x_axis_label="Learning rate",
        y_axis_label=picture.loss_name,
    )
    # plain text: Bokeh too takes what stands between dollar signs for a formula
    heading = "Range test" if title is None else title
    for text, size, color in ((picture.note, "10px", "#666666"), (heading, "16px", BLACK)):
        page.add_layout(models.Title(text=models.PlainText(text), text_font_size=size, text_color=color), "above")
    several = len(picture.lrs) > 1
    band = picture.band()
    if band is not None:
        lrs, low, high = band
        page.varea(
            list(lrs),
            list(_finite(low)),
            list(_finite(high)),
            color=BLUE,
            alpha=0.15,
            legend_label=f"{len(picture.sweeps)} sweeps",
        )
    drawn = []
    columns = {f"lr_{group}": list(lrs) for group, lrs in enumerate(picture.lrs)}
    data = {**columns, "raw": list(_finite(picture.losses)), "smoothed": list(_finite(picture.smoothed))}
    source = models.ColumnDataSource(data)
    for group in range(len(picture.lrs)):
        color = COLORS[group % len(COLORS)] if several else BLUE
        name = f"group {group}, " if several else ""
        page.line(f"lr_{group}", "raw", source=source, color=color, alpha=0.4, legend_label=f"{name}raw")
        line = page.line(
            f"lr_{group}", "smoothed", source=source, color=color, line_width=2.5, legend_label=f"{name}smoothed"
        )
        drawn.append(line)
    rates = [
        (f"lr, group {group}" if several else "lr", f"@lr_{group}{{0.00e+0}}") for group in range(len(picture.lrs))
    ]
    page.add_tools(
        models.HoverTool(
            renderers=drawn[:1],
            mode="vline",
            tooltips=[*rates, ("loss", "@raw{0.0000}"), ("smoothed", "@smoothed{0.0000}")],
        )
    )
    marks = [(rule, found) for rule, found in picture.suggestions.items() if found is not None]
    marks.sort(key=lambda mark: mark[0] != picture.default)
    shapes = ("circle", "square", "triangle", "diamond", "inverted_triangle", "plus", "x", "star")
    for index, (rule, found) in enumerate(marks if len(picture.losses) else ()):
        main = rule == picture.default
        if several and not main:
            continue
        page.scatter(
            list(found),
            [picture.height(rate, group) for group, rate in enumerate(found)],
            size=14 if main else 10,
            marker=shapes[index % len(shapes)],
            fill_color=RED if main else "white",
            line_color=RED if main else BLACK,
            legend_label=picture.label(rule, found),
        )
        shown += found
        if main:
            for rate in found:
                page.add_layout(models.Span(location=rate, dimension="height", line_color=RED, line_dash="dashed"))
    if picture.interval is not None:
        page.add_layout(
            models.BoxAnnotation(left=picture.interval[0], right=picture.interval[1], fill_color=RED, fill_alpha=0.12)
        )
    if picture.unstable_lr is not None:
        page.add_layout(models.BoxAnnotation(left=picture.unstable_lr, fill_color="#999999", fill_alpha=0.25))
    if len(set(shown)) > 1:
        page.x_range.start, page.x_range.end = min(shown), max(shown)
    limits = picture.y_range(slice(None))
    if limits is not None:
        page.y_range.start, page.y_range.end = limits
    if page.legend:
        page.legend.click_policy = "hide"
        page.add_layout(page.legend[0], "right")
    target = Path(path)
    target.write_text(file_html(page, INLINE, title=heading), encoding="utf-8")
    return target
