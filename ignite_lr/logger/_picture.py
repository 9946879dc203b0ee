"""Recorded rates as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ignite_lr.core.figure import COLORS, axes, dress, finite, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["height_of", "lr_history", "panels"]


def height_of(kinds: Mapping[str, object]) -> float:
    """Of a picture with axes for so many kinds, in inches."""
    return 3.6 + 1.8 * (len(kinds) - 1)


def panels(
    ax: Axes,
    steps: Sequence[float],
    kinds: Mapping[str, Mapping[str, Sequence[float]]],
    title: str | None = None,
    xlabel: str = "iteration",
) -> Axes:
    """Draw each kind of values on an axis of its own: a weight decay is no learning rate.

    Args:
        ax: for the first kind; the others get axes under it, in the same figure, where this one is alone.
        steps: the x of each record.
        kinds: what the axis is called -> tag -> the value at each record.
        title: over the picture.
        xlabel: under the lowest x axis.

    Returns:
        the axes of the first kind.
    """
    lines = dict(kinds)
    if len(lines) > 1:
        grid = ax.figure.add_gridspec(len(lines), 1)
        ax.set_subplotspec(grid[0])
        for row, (name, values) in enumerate(list(lines.items())[1:], start=1):
            below = ax.figure.add_subplot(grid[row], sharex=ax)
            last = row == len(lines) - 1
            lr_history(steps, values, below, None, xlabel if last else "", name)
        xlabel = ""
    name = next(iter(lines))
    return lr_history(steps, lines[name], ax, title, xlabel, name)


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
    ax = axes(ax, title, height=3.6)
    for index, (tag, line) in enumerate(values.items()):
        ax.plot(
            updates,
            finite(line),
            color=COLORS[index % len(COLORS)],
            linestyle=("-", "--", ":")[index // len(COLORS) % 3],
            linewidth=1.6,
            marker="o" if len(updates) == 1 else None,
            label=plain(tag).lstrip("_") or "value",
        )
    dress(ax, title, xlabel, ylabel)
    positive = [v for line in values.values() for v in line if math.isfinite(v) and v > 0]
    if positive and max(positive) / min(positive) > 100:
        ax.set_yscale("log")
    elif positive and min(positive) > 0:
        ax.set_ylim(0, max(positive) * 1.08)
    if len(values) > 1:
        ax.legend(frameon=False, fontsize="small")
    elif values:
        ax.set_ylabel(plain(next(iter(values))))
    ax.margins(x=0.01)
    return ax
