"""The interactive picture of a range test with Bokeh: plain numbers come in, one HTML file goes out."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from ignite_lr.core.arguments import Text
from ignite_lr.core.figure import BLACK, BLUE, COLORS, GRAY, GREEN, MARKERS, OTHER_MARKER, RED, finite
from ignite_lr.core.page import bokeh_models, write_page
from ignite_lr.range_test._picture import RangeTestPicture

__all__ = ["range_test_html", "range_test_page"]


def range_test_html(picture: RangeTestPicture, path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Write a range test as one HTML file with Bokeh; see ``RangeTestResult.to_html``."""
    return write_page(range_test_page(picture, title), path, "Range test" if title is None else title)


def range_test_page(picture: RangeTestPicture, title: str | None = None) -> Any:
    """A range test as a figure of Bokeh."""
    Text(or_none=True).check("title", title)
    models, figure = bokeh_models()
    page = figure(
        x_axis_type="log" if picture.log_lr else "linear",
        sizing_mode="stretch_width",
        frame_height=360,
        tools="pan,box_zoom,wheel_zoom,reset,save",
        active_drag="box_zoom",
        x_axis_label="Learning rate",
        y_axis_label=picture.loss_name,
    )
    # plain text: Bokeh too takes what stands between dollar signs for a formula
    heading = "Range test" if title is None else title
    for text, size, color in ((picture.note, "10px", "#666666"), (heading, "16px", BLACK)):
        page.add_layout(models.Title(text=models.PlainText(text), text_font_size=size, text_color=color), "above")
    limits = picture.y_range(slice(None))
    _curves(page, models, picture)
    shown = [lr for lrs in picture.lrs for lr in lrs if lr > 0 or not picture.log_lr]
    shown += _suggestions(page, picture, limits)
    _trials(page, picture, limits)
    if picture.unstable_lr is not None and shown and picture.unstable_lr < max(shown):
        region = {"left": picture.unstable_lr, "right": max(shown), **_tall(limits)}
        page.quad(
            **region, color=GRAY, alpha=0.25, line_width=0, level="underlay", legend_label=picture.unstable_label()
        )
    if len(set(shown)) > 1:
        page.x_range.start, page.x_range.end = min(shown), max(shown)
    if limits is not None:
        page.y_range.start, page.y_range.end = limits
    if page.legend:
        page.legend.click_policy = "hide"
        page.legend.label_text_font_size = "11px"
        page.legend.border_line_alpha = 0
        page.legend.location = "top_left"
        page.legend.padding = page.legend.spacing = 1
        page.add_layout(page.legend[0], "below")  # beside the curve it would leave none of it on a phone
    return page


def _tall(limits: tuple[float, float] | None) -> dict[str, float]:
    """From far below to far above the picture, so that a region stays whole after panning."""
    low, high = limits or (0.0, 1.0)
    return {"bottom": low - 1000 * (high - low), "top": high + 1000 * (high - low)}


def _curves(page: Any, models: Any, picture: RangeTestPicture) -> None:
    several = len(picture.lrs) > 1
    columns = {f"lr_{group}": list(lrs) for group, lrs in enumerate(picture.lrs)}
    data = {**columns, "raw": list(finite(picture.losses)), "smoothed": list(finite(picture.smoothed))}
    source = models.ColumnDataSource(data)
    drawn = []
    for group in range(len(picture.lrs)):
        color = COLORS[group % len(COLORS)] if several else BLUE
        name = f"group {group}, " if several else ""
        page.line(f"lr_{group}", "raw", source=source, color=color, alpha=0.4, legend_label=f"{name}raw")
        drawn.append(
            page.line(
                f"lr_{group}", "smoothed", source=source, color=color, line_width=2.5, legend_label=f"{name}smoothed"
            )
        )
    band = picture.band()
    if band is not None:
        lrs, low, high = map(list, (band[0], finite(band[1]), finite(band[2])))
        page.varea(lrs, low, high, color=BLUE, alpha=0.15, legend_label=f"{len(picture.sweeps)} sweeps")
    rates = [(f"lr, group {group}" if several else "lr", f"@lr_{group}{{%.2e}}") for group in range(len(picture.lrs))]
    page.add_tools(
        models.HoverTool(
            renderers=drawn[:1],
            mode="vline",
            tooltips=[*rates, ("loss", "@raw{%.5g}"), ("smoothed", "@smoothed{%.5g}")],
            formatters={f"@{column}": "printf" for column in data},
        )
    )


def _suggestions(page: Any, picture: RangeTestPicture, limits: tuple[float, float] | None) -> list[float]:
    """Mark what the rules suggest; the rates that are marked. One legend entry hides all of a rule's marks."""
    marked: list[float] = []
    for rule, found in picture.marks():
        main = rule == picture.default
        label = picture.label(rule, found)
        heights = [picture.height(rate, group) for group, rate in enumerate(found)]
        page.scatter(
            list(found),
            heights,
            size=14 if main else 10,
            marker=MARKERS.get(rule, OTHER_MARKER)[1],
            fill_color=RED if main else "white",
            line_color=RED if main else BLACK,
            legend_label=label,
        )
        if main:
            both = [list(found) * 2, heights * 2, [math.pi / 2] * len(found) + [-math.pi / 2] * len(found)]
            page.ray(x=both[0], y=both[1], angle=both[2], length=0, color=RED, line_dash="dashed", legend_label=label)
            if picture.interval is not None:
                span = {"left": picture.interval[0], "right": picture.interval[1], **_tall(limits)}
                page.quad(**span, color=RED, alpha=0.12, line_width=0, level="underlay", legend_label=label)
        marked += found
    if picture.losses and picture.suggestions.get(picture.default) is None:
        page.scatter([], [], size=0, color="white", legend_label="no suggestion")
    return marked


def _trials(page: Any, picture: RangeTestPicture, limits: tuple[float, float] | None) -> None:
    low, high = limits or (0.0, 1.0)
    for name, trials in picture.trials():
        learns = name.endswith("learns")
        page.scatter(
            [rates[picture.leader] for rates, _ in trials],
            [min(max(end, low), high) if math.isfinite(end) else high for _, end in trials],
            size=10,
            marker="hex" if learns else "x",
            fill_color=GREEN,
            line_color=GREEN if learns else "#666666",
            legend_label=name,
        )
