"""A schedule as a picture: factors over updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ignite_lr.core.figure import BLUE, axes, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["schedule_curve"]


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
    ax = axes(ax, height=3.6)
    # a step, because a factor holds for the whole update and jumps are jumps
    many = len(factors) > 200
    ax.plot(np.arange(len(factors)), factors, color=BLUE, linewidth=1.8, drawstyle="default" if many else "steps-mid")
    dress(ax, title, xlabel, ylabel)
    low, high = ax.get_ylim()
    if low > 0 or (len(factors) and min(factors) >= 0):
        ax.set_ylim(0, high)
    ax.margins(x=0.01)
    return ax
