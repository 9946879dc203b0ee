"""The interactive page of a study: the objective over the rate beside the curves, linked."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from ignite_lr.core.arguments import Text
from ignite_lr.core.figure import BLACK, BLUE, GRAY, RED, finite
from ignite_lr.core.page import bokeh_models, write_page
from ignite_lr.study._picture import StudyPicture

__all__ = ["study_html", "study_page"]

# both sources have one row a trial, so the row that is hovered in one picture is the row to light in the other
_LIGHT = """
const index = cb_data.index;
const lit = new Set([...index.indices, ...Object.keys(index.multiline_indices).map(Number)]);
const dim = lit.size ? 0.3 : 1;
const {rest_width, rest_alpha, rest_size} = source.data;
source.data.width = rest_width.map((width, i) => lit.has(i) ? 4 : width);
source.data.alpha = rest_alpha.map((alpha, i) => lit.has(i) ? 1 : dim * alpha);
source.data.size = rest_size.map((size, i) => lit.has(i) ? 16 : size);
source.change.emit();
"""


def study_html(picture: StudyPicture, path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Write a study as one HTML file with Bokeh; see ``StudyResult.to_html``."""
    return write_page(study_page(picture, title), path, "Study" if title is None else title)


def study_page(picture: StudyPicture, title: str | None = None) -> Any:
    """Both pictures side by side, as models of Bokeh."""
    heading = Text(or_none=True).check("title", title)
    heading = "Study" if heading is None else heading
    models, figure = bokeh_models()
    row: Any = importlib.import_module("bokeh.layouts").row
    source = models.ColumnDataSource(_columns(picture))
    common = {"height": 480, "tools": "pan,box_zoom,wheel_zoom,reset,save", "sizing_mode": "stretch_width"}
    axis = figure(
        x_axis_type="linear" if picture.warmup_axis else "log",
        x_axis_label=picture.x_name,
        y_axis_label=picture.value_name,
        **common,
    )
    spans = [(x, span) for x, span in zip(picture.x, picture.spans(), strict=True) if span is not None]
    axis.segment(
        [x for x, _ in spans],
        [span[0] for _, span in spans],
        [x for x, _ in spans],
        [span[1] for _, span in spans],
        line_color=BLUE,
        line_alpha=0.4,
        line_width=5,
    )
    points = axis.scatter(
        "x", "y", source=source, size="size", marker="marker", color="point_color", line_width=2, name="trials"
    )
    if picture.unstable_lr is not None and not picture.warmup_axis:
        axis.add_layout(models.BoxAnnotation(left=picture.unstable_lr, fill_color=GRAY, fill_alpha=0.2))
    curves = figure(x_axis_label="Update", y_axis_label="Training loss, smoothed", **common)
    lines = curves.multi_line(
        "updates", "losses", source=source, color="color", line_width="width", line_alpha="alpha", name="curves"
    )
    limits = picture.curve_range()
    if limits is not None:
        curves.y_range.start, curves.y_range.end = limits
    # plain text: Bokeh too takes what stands between dollar signs for a formula
    for page, text in ((axis, heading), (curves, "Hover a trial to light its curve")):
        page.add_layout(models.Title(text=models.PlainText(text), text_font_size="14px", text_color=BLACK), "above")
    says = [("trial", "@name"), ("lr", "@lr{%.3g}"), ("outcome", "@outcome"), ("objective", "@objective")]
    light = models.CustomJS(args={"source": source}, code=_LIGHT)
    for page, renderer in ((axis, points), (curves, lines)):
        page.add_tools(
            models.HoverTool(renderers=[renderer], tooltips=says, formatters={"@lr": "printf"}, callback=light)
        )
    return row(axis, curves, sizing_mode="stretch_width")


def _columns(picture: StudyPicture) -> dict[str, list[Any]]:
    """One row a trial, in the order of the picture."""
    trials, best = picture.trials, picture.best
    rows = range(len(trials))
    widths, alphas, sizes = (
        [4.0 if i == best else 1.5 for i in rows],
        [1.0 if i == best else 0.6 for i in rows],
        [14 if i == best else 9 for i in rows],
    )
    return {
        "name": [r.trial.label for r in trials],
        "lr": [r.trial.lr for r in trials],
        "outcome": [r.outcome if r.feasible or r.outcome != "completed" else "completed, infeasible" for r in trials],
        "objective": [f"{r.objective:.5g}" for r in trials],
        "x": picture.x,
        "y": picture.heights(),
        "marker": ["circle" if r.feasible else "x" for r in trials],
        "point_color": [RED if i == best else BLUE if trials[i].feasible else BLACK for i in rows],
        "color": [RED if i == best else GRAY for i in rows],
        "updates": [list(range(1, len(r.losses) + 1)) for r in trials],
        "losses": [list(finite(r.smoothed_losses)) for r in trials],
        "width": list(widths),
        "rest_width": widths,
        "alpha": list(alphas),
        "rest_alpha": alphas,
        "size": list(sizes),
        "rest_size": sizes,
    }
