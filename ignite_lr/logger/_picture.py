"""Recorded rates as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ignite_lr.core.figure import COLORS, axes, dress, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["lr_history"]


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
            line,
            color=COLORS[index % len(COLORS)],
            linestyle=("-", "--", ":")[index // len(COLORS) % 3],
            linewidth=1.6,
            marker="o" if len(updates) == 1 else None,
            label=plain(tag).lstrip("_") or "value",
        )
    dress(ax, title, xlabel, ylabel)
    finite = [v for line in values.values() for v in line if math.isfinite(v) and v > 0]
    if finite and max(finite) / min(finite) > 100:
        ax.set_yscale("log")
    elif finite and min(finite) > 0:
        ax.set_ylim(0, max(finite) * 1.08)
    if len(values) > 1:
        ax.legend(frameon=False, fontsize="small")
    elif values:
        ax.set_ylabel(plain(next(iter(values))))
    ax.margins(x=0.01)
    return ax
