"""What every picture has in common: axes, colours, markers, texts as they are, and how it shows itself in a notebook.

A ``plot(ax=None, title=None)`` begins with ``ax = axes(ax, title)``, draws, ends with ``dress(ax, title, ...)`` and
returns ``ax``; its class shows itself with ``def _repr_png_(self): return png(self.plot)``. What follows from that:

- Where ``matplotlib.pyplot`` is imported already, new axes are pyplot's current ones, so that ``plt.show()``,
  ``plt.savefig()`` and notebooks find them. Where it is not, nobody looks there: the figure belongs to no window,
  changes no global state, needs no display, and its axes show it themselves as the last line of a notebook cell.
- What draws for itself (``_repr_png_``, a logger) takes ``private_figure`` or ``png``: pyplot never hears of these,
  and none stays open.

Matplotlib is imported inside the functions, so that everything else works without it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ignite_lr.core.arguments import Text, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLACK",
    "BLUE",
    "COLORS",
    "GRAY",
    "GREEN",
    "MARKERS",
    "OTHER_MARKER",
    "RED",
    "SKY",
    "axes",
    "dress",
    "figure",
    "finite",
    "legend",
    "plain",
    "png",
    "private_figure",
]

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
GRAY = "#999999"

COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, BLACK)

MARKERS = {
    "descent": ("o", "circle"),
    "steepest": ("s", "square"),
    "valley": ("^", "triangle"),
    "slide": ("v", "inverted_triangle"),
    "minimum": ("D", "diamond"),
    "steep": ("P", "plus"),
    "fastai_lr_finder": ("*", "star"),
}
"""The marker of each suggestion rule, for Matplotlib and for Bokeh: the same in every picture."""

OTHER_MARKER = ("h", "hex")
"""For what is none of these rules."""

WIDTH, HEIGHT = 6.4, 4.0
"""Inches. A picture 640 pixels wide is still read where a page shows it 400 wide."""


def axes(
    ax: Axes | None, title: str | None = None, *, width: float = WIDTH, height: float = HEIGHT, **options: Any
) -> Axes:
    """The axes given, or new ones on a figure of this size in inches.

    Call it before anything is drawn: what ``plot(ax, title)`` was given is checked here.

    Args:
        ax: what the user gave.
        title: likewise.
        width: of a new figure, in inches.
        height: likewise.
        options: further arguments for the new figure.

    Raises:
        ModuleNotFoundError: without Matplotlib.
        TypeError: if ``ax`` is neither Axes nor None, or ``title`` neither a string nor None.
    """
    Text(or_none=True).check("title", title)
    if ax is not None:
        from matplotlib.axes import Axes

        if not isinstance(ax, Axes):
            raise TypeError(f"ax must be a matplotlib.axes.Axes or None, got {shown(ax)} of type {type(ax).__name__}.")
        return ax
    made = figure(width, height, **options)
    new = made.add_subplot()
    if not _pyplot_in_use():
        # IPython asks the object for this method; nothing else would show a figure that pyplot does not know
        new._repr_png_ = partial(encoded, made)  # type: ignore[attr-defined]  # an attribute of ours on these axes
    return new


def figure(width: float = WIDTH, height: float = HEIGHT, **options: Any) -> Figure:
    """A new figure: pyplot's current one where pyplot is imported, else one that belongs to no window.

    Args:
        width: in inches.
        height: likewise.
        options: for ``matplotlib.figure.Figure``; they win over the size.

    Raises:
        ModuleNotFoundError: without Matplotlib.
    """
    if not _pyplot_in_use():
        return private_figure(width, height, **options)
    _figure_class()
    from matplotlib import pyplot

    return pyplot.figure(**{"figsize": (width, height), "layout": "constrained", **options})


def private_figure(width: float = WIDTH, height: float = HEIGHT, **options: Any) -> Figure:
    """A figure that pyplot never hears of; see :func:`figure`."""
    return _figure_class()(**{"figsize": (width, height), "layout": "constrained", **options})


def _pyplot_in_use() -> bool:
    return sys.modules.get("matplotlib.pyplot") is not None


def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModuleNotFoundError(
            "drawing requires matplotlib to be installed: pip install matplotlib", name="matplotlib"
        ) from error
    return Figure


def png(draw: Callable[[Axes], object], width: float = WIDTH, height: float = HEIGHT) -> bytes | None:
    """What ``draw(ax)`` draws, as a PNG for ``_repr_png_``; None without Matplotlib, where a repr has to do."""
    try:
        made = private_figure(width, height)
    except ModuleNotFoundError:
        return None
    draw(made.add_subplot())
    return encoded(made)


def encoded(made: Figure) -> bytes:
    """A figure as a PNG, with all that reaches beyond its axes."""
    file = io.BytesIO()
    made.savefig(file, format="png", dpi=100)
    return file.getvalue()


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


def legend(ax: Axes, columns: int = 2) -> None:
    """A legend under the axes, where it hides nothing; inside them where the figure would make no room for it."""
    layout = ax.figure.get_layout_engine() if hasattr(ax.figure, "get_layout_engine") else None
    if layout is None:
        ax.legend(fontsize="small", loc="best", framealpha=0.9)
    else:
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": columns}
        ax.legend(fontsize="small", frameon=False, handlelength=1.6, **below)


def finite(values: Sequence[float] | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Without the infinities, which would break the scale of the axis."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)
