"""A schedule as a picture: factors over updates."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ignite_lr.core.figure import BLUE, axes, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["schedule_curve", "shape_length"]


def schedule_curve(
    factors: Sequence[float],
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "update",
    ylabel: str = "factor",
    *,
    updates: Sequence[int] | None = None,
) -> Axes:
    """Draw a schedule.

    Args:
        factors: the value at each update.
        ax: axes to draw on; None makes a figure.
        title: over the picture.
        xlabel: under the x axis.
        ylabel: beside the y axis.
        updates: which updates these are; from update 0 on where None.

    Returns:
        the axes.

    Example:
        >>> schedule_curve([0.0, 0.5, 1.0, 0.5]).get_ylabel()
        'factor'
    """
    ax = axes(ax, title, height=3.6)
    # a step, because a factor holds for the whole update and jumps are jumps
    many = len(factors) > 200
    x = np.arange(len(factors)) if updates is None else updates
    ax.plot(x, factors, color=BLUE, linewidth=1.8, drawstyle="default" if many else "steps-mid")
    dress(ax, None if title is None else textwrap.fill(title, 60), xlabel, ylabel)
    low, high = ax.get_ylim()
    if low > 0 or (len(factors) and min(factors) >= 0):
        ax.set_ylim(0, high)
    ax.margins(x=0.01)
    return ax


def shape_length(arguments: Mapping[str, Any]) -> int:
    """How many updates show the whole shape of a schedule, from its arguments: a rough figure, for a picture.

    Its ``total_steps`` where it has them; else what its phases take, and some more.

    Example:
        >>> shape_length({"total_steps": 1000}), shape_length({"warmup_steps": 50, "factor": 1.0})
        (1050, 200)
    """
    if "total_steps" in arguments:
        return max(int(1.05 * arguments["total_steps"]), 2)
    phases = sum(n for name, n in arguments.items() if name.endswith(("_steps", "step_size")))
    length = 4 * phases if "decay_steps" not in arguments else int(1.1 * phases)
    for indices in (value for value in arguments.values() if isinstance(value, tuple)):
        if all(isinstance(index, int) for index in indices):  # milestones, or where parts begin
            phases = max(phases, *indices)
            length = max(length, int(1.5 * phases))
        elif isinstance(indices[0], tuple):  # points
            length = max(length, int(1.2 * indices[-1][0]))
    parts = [part for value in arguments.values() for part in (value if isinstance(value, tuple) else (value,))]
    inside = [phases + shape_length(vars(part)) for part in parts if hasattr(part, "__dataclass_fields__")]
    length = max(length, *inside, 0)
    return length if length > 1 else 100
