"""The interactive picture of a range test: one HTML file with Bokeh inside."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from ignite_lr.core.figure import (
    BLACK,
    BLUE,
    COLORS,
    RED,
    finite,
)
from ignite_lr.range_test._picture import (
    RangeTestPicture,
)

__all__ = ["range_test_html"]


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
        active_drag="box_zoom",
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
            list(finite(low)),
            list(finite(high)),
            color=BLUE,
            alpha=0.15,
            legend_label=f"{len(picture.sweeps)} sweeps",
        )
    drawn = []
    columns = {f"lr_{group}": list(lrs) for group, lrs in enumerate(picture.lrs)}
    data = {**columns, "raw": list(finite(picture.losses)), "smoothed": list(finite(picture.smoothed))}
    source = models.ColumnDataSource(data)
    for group in range(len(picture.lrs)):
        color = COLORS[group % len(COLORS)] if several else BLUE
        name = f"group {group}, " if several else ""
        page.line(f"lr_{group}", "raw", source=source, color=color, alpha=0.4, legend_label=f"{name}raw")
        line = page.line(
            f"lr_{group}", "smoothed", source=source, color=color, line_width=2.5, legend_label=f"{name}smoothed"
        )
        drawn.append(line)
    rates = [(f"lr, group {group}" if several else "lr", f"@lr_{group}{{%.2e}}") for group in range(len(picture.lrs))]
    page.add_tools(
        models.HoverTool(
            renderers=drawn[:1],
            mode="vline",
            tooltips=[*rates, ("loss", "@raw{%.5g}"), ("smoothed", "@smoothed{%.5g}")],
            formatters={f"@{column}": "printf" for column in data},
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
