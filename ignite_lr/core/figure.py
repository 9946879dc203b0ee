"""What every picture has in common: axes without a window, colours, and texts as they are.

Matplotlib is imported inside the functions, so that everything else works without it. Figures are made without
``pyplot``: they belong to no window, change no global state and need no display.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLACK", "BLUE", "COLORS", "RED", "SKY", "axes", "dress", "figure", "finite", "plain"]

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


def axes(ax: Axes | None, width: float = 8.0, height: float = 4.5) -> Axes:
    """The axes given, or new ones on a figure of this size in inches."""
    if ax is not None:
        return ax
    return figure(width, height).add_subplot()


def figure(width: float, height: float) -> Figure:
    """A figure that belongs to no window.

    Raises:
        ModuleNotFoundError: without Matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModuleNotFoundError(
            "drawing requires matplotlib to be installed: pip install matplotlib", name="matplotlib"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def plain(text: str) -> str:
    """A text of the user's as it is: Matplotlib takes what stands between dollar signs for a formula."""
    return text.replace("$", r"\$")


def dress(ax: Axes, title: str | None, xlabel: str, ylabel: str) -> None:
    """Labels, a quiet grid, and no more frame than needed."""
    ax.set_xlabel(plain(xlabel))
    ax.set_ylabel(plain(ylabel))
    if title is not None:
        ax.set_title(plain(title))
    ax.grid(True, which="major", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def finite(values: Sequence[float] | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Without the infinities, which would break the scale of the axis."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)
