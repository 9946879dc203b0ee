"""The parts of the page, one after another, and the time axis that the records of a training share."""

from __future__ import annotations

import html
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ignite_lr.clipper import GradNormClipper
from ignite_lr.core.arguments import Text, shown
from ignite_lr.core.figure import BLACK, BLUE, COLORS, RED, SKY, finite
from ignite_lr.core.page import bokeh_models, write_page
from ignite_lr.logger import LRLogger
from ignite_lr.range_test import RangeTestResult
from ignite_lr.study import StudyResult

__all__ = ["run_report"]


def run_report(
    path: str | os.PathLike[str],
    *,
    range_test: RangeTestResult | None = None,
    study: StudyResult | None = None,
    logger: LRLogger | None = None,
    clipper: GradNormClipper | None = None,
    title: str | None = None,
) -> Path:
    """Write one page of a whole run: pictures to zoom and hover, and in words what follows from them.

    The file needs nothing else, not even a network. Rates and gradient norms share the axis of updates: zooming one
    zooms all.

    Args:
        path: the file.
        range_test: what was found.
        study: what was tried.
        logger: one with a ``history``: the rates over the updates.
        clipper: norms, thresholds, clipped updates, their histogram, and the advice.
        title: of the page.

    Returns:
        the path.

    Raises:
        ModuleNotFoundError: without Bokeh (``pip install bokeh``).
        TypeError: if something given is of another kind.
        ValueError: if nothing is given.

    Example:
        >>> lrs = [1e-4 * 10 ** (i / 20) for i in range(100)]
        >>> losses = tuple(2.0 - 1.5 * min(i / 60, 1.0) + max(0, i - 70) ** 2 / 100 for i in range(100))
        >>> found = RangeTestResult(tuple(lrs), losses, losses, "num_iter", lrs[-1])
        >>> run_report("run.html", range_test=found).name  # doctest: +SKIP
        'run.html'
    """
    given = (
        ("range_test", range_test, RangeTestResult),
        ("study", study, StudyResult),
        ("logger", logger, LRLogger),
        ("clipper", clipper, GradNormClipper),
    )
    for name, value, kind in given:
        if value is not None and not isinstance(value, kind):
            wrong = f"got {shown(value)} of type {type(value).__name__}."
            raise TypeError(f"{name} must be a {kind.__name__} or None, {wrong}")
    if all(value is None for _, value, _ in given):
        raise ValueError("one of range_test, study, logger and clipper must be given, got None for all of them.")
    heading = Text(or_none=True).check("title", title) or "Training run"
    models, figure = bokeh_models()
    column: Any = importlib.import_module("bokeh.layouts").column
    updates = models.DataRange1d(range_padding=0)
    parts = [_words(models, heading, [], level=1)]
    if range_test is not None:
        parts += [
            _words(models, "Range test", [_said(range_test), range_test.reason]),
            range_test.page("Loss over rate"),
        ]
    if study is not None:
        parts += [_words(models, "Study", _said(study).splitlines()), *study.page("Trials").children]
    if logger is not None:
        parts += _rates(models, figure, updates, logger, clipper is None)
    if clipper is not None:
        parts += _norms(models, figure, updates, clipper)
    return write_page(column(*parts, sizing_mode="stretch_width"), path, heading)


def _said(result: object) -> str:
    return repr(result).removeprefix(f"<{type(result).__name__}: ").removesuffix(">")


def _words(models: Any, heading: str, lines: Sequence[str], level: int = 2) -> Any:
    text = f"<h{level}>{html.escape(heading)}</h{level}>" + "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    # texts of the user's as they are: no formulas
    return models.Div(text=text, disable_math=True, sizing_mode="stretch_width", styles={"font-family": "sans-serif"})


def _over_updates(models: Any, figure: Any, updates: Any, name: str, **options: Any) -> Any:
    """An empty figure over the shared axis."""
    made = figure(
        frame_height=260,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        active_drag="box_zoom",
        x_axis_label="Update",
        x_range=updates,
        **options,
    )
    made.yaxis.axis_label = name
    made.xaxis.formatter = models.BasicTickFormatter(use_scientific=False)
    return made


def _below(made: Any) -> Any:
    """The figure with its legend under it, which hides what is clicked."""
    if made.legend:
        made.legend.click_policy = "hide"
        made.legend.label_text_font_size = "11px"
        made.legend.border_line_alpha = 0
        made.legend.location = "top_left"
        made.legend.padding = made.legend.spacing = 1
        made.add_layout(made.legend[0], "below")
    return made


def _rates(models: Any, figure: Any, updates: Any, logger: LRLogger, clipping: bool) -> list[Any]:
    """What was recorded, each kind in a figure of its own: rates and weight decay share no axis.

    Clipping is left out where a clipper shows it.
    """
    columns = logger.history()
    x = columns["update"]
    kinds: dict[str, list[str]] = {"Learning rate": []}
    for tag in columns:
        if tag not in ("step", "update"):
            names = {"momentum": "Momentum", "weight_decay": "Weight decay", "clip": "Clipping"}
            kind = next((names[part] for part in tag.split("/") if part in names), "Learning rate")
            kinds.setdefault(kind, []).append(tag)
    if not len(x):
        return [_words(models, "Rates", ["Nothing was recorded: LRLogger(..., history=n) keeps the last n updates."])]
    used = np.concatenate([columns[tag][np.isfinite(columns[tag])] for tag in kinds["Learning rate"]] or [np.zeros(1)])
    span = f"from {used.min():.3g} to {used.max():.3g}" if len(used) else "none"
    made: list[Any] = [_words(models, "Rates", [f"{len(x)} updates recorded; learning rates {span}."])]
    for kind, tags in kinds.items():
        if not tags or (kind == "Clipping" and not clipping):
            continue
        least = min((float(np.nanmin(columns[tag], initial=0.0)) for tag in tags), default=0.0)
        heights = models.DataRange1d(start=0) if least >= 0 else models.DataRange1d()
        drawn = _over_updates(models, figure, updates, kind, y_range=heights)
        for index, tag in enumerate(tags):
            color = COLORS[index % len(COLORS)]
            drawn.line(list(x), list(finite(columns[tag])), color=color, line_width=2, legend_label=tag)
        drawn.add_tools(models.HoverTool(mode="vline", tooltips=[("update", "@x"), ("value", "@y{%.4g}")]))
        drawn.select_one(models.HoverTool).formatters = {"@y": "printf"}
        made.append(_below(drawn))
    return made


def _norms(models: Any, figure: Any, updates: Any, clipper: GradNormClipper) -> list[Any]:
    """Norms with the threshold and what was clipped, and the histogram of all norms."""
    recent, (edges, counts) = clipper.recent(), clipper.histogram()
    norms, thresholds = finite(recent["norm"]), recent["threshold"]
    x = recent["update"] + 1  # updates are counted from 1 where they are recorded
    hit = recent["clipped"] & np.isfinite(norms)
    positive = norms[np.isfinite(norms) & (norms > 0)]
    log = len(positive) > 0 and positive.max() > 20 * positive.min()
    drawn = _over_updates(models, figure, updates, "Gradient norm", y_axis_type="log" if log else "linear")
    y = np.where(norms > 0, norms, np.nan) if log else norms
    drawn.line(list(x), list(y), color=BLUE, alpha=0.7, legend_label="norm before clipping")
    drawn.line(list(x), list(thresholds), color=BLACK, line_width=1.5, legend_label="threshold")
    drawn.scatter(list(x[hit]), list(y[hit]), color=RED, size=4, legend_label="clipped")
    parts = [_words(models, "Gradient norms", str(clipper.report()).splitlines()), _below(drawn)]
    if len(counts):
        wide = edges[0] > 0 and edges[-1] > 20 * edges[0]
        bars = figure(
            frame_height=180,
            sizing_mode="stretch_width",
            tools="pan,box_zoom,wheel_zoom,reset,save",
            x_axis_type="log" if wide else "linear",
            x_axis_label="Gradient norm",
            y_axis_label="Updates",
        )
        sides = {"left": list(edges[:-1]), "right": list(edges[1:]), "top": [float(n) for n in counts]}
        bars.quad(**sides, bottom=0, color=SKY, line_color="white")
        limits = thresholds[np.isfinite(thresholds)]
        if len(limits):
            bars.add_layout(models.Span(location=float(limits[-1]), dimension="height", line_color=BLACK))
        parts.append(bars)
    return parts
