"""Gradient norms as a picture: norms, thresholds, clipped updates and the histogram."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ignite_lr.core.figure import BLACK, BLUE, RED, SKY, axes, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HEIGHT", "WIDTH", "grad_norm_curve"]

#: inches
WIDTH, HEIGHT = 9.0, 4.0


def grad_norm_curve(
    norms: npt.ArrayLike,
    thresholds: npt.ArrayLike,
    clipped: npt.ArrayLike,
    histogram_edges: npt.ArrayLike,
    histogram_counts: npt.ArrayLike,
    title: str | None = None,
    first_update: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw gradient norms before clipping with the threshold, and their histogram.

    Args:
        norms: the norm of each update; non-finite ones leave a gap.
        thresholds: the threshold of each update.
        clipped: whether each update was clipped.
        histogram_edges: borders of the bins, one more than ``histogram_counts``; logarithmic or not.
        histogram_counts: how many norms lie in each bin.
        title: over the picture.
        first_update: the number of the first update drawn.
        ax: where to draw, the histogram at its right; None for a new figure.

    Returns:
        the axes of the norms.
    """
    curve = axes(ax, title, width=WIDTH, height=HEIGHT)
    histogram = curve.inset_axes((1.12, 0.0, 0.28, 1.0))
    y, limits = np.asarray(norms, dtype=np.float64), np.asarray(thresholds, dtype=np.float64)
    x = np.arange(first_update, first_update + len(y))
    hit = np.asarray(clipped, dtype=bool)
    finite = np.isfinite(y) & (y > 0)
    curve.plot(x, np.where(np.isfinite(y), y, np.nan), color=BLUE, linewidth=0.9, label="norm before clipping")
    curve.plot(x, limits, color=BLACK, linewidth=1.5, label="threshold")
    share = f" ({hit.mean():.1%})" if len(hit) else ""
    curve.plot(x[hit & finite], y[hit & finite], ".", color=RED, markersize=4, label=f"clipped{share}")
    dress(curve, title, "update", "gradient norm")
    spread = y[finite].max() / y[finite].min() if finite.any() else 1.0
    if spread > 20:
        curve.set_yscale("log")
    curve.margins(x=0.01)
    curve.legend(frameon=False, fontsize="small")
    edges = np.asarray(histogram_edges, dtype=np.float64)
    counts = np.asarray(histogram_counts, dtype=np.float64)
    if len(counts):
        histogram.bar(
            edges[:-1], counts, width=np.diff(edges), align="edge", color=SKY, edgecolor="white", linewidth=0.4
        )
        widths = np.diff(edges)
        if edges[0] > 0 and widths.max() > 5 * widths.min():
            histogram.set_xscale("log")
        finite_limits = limits[np.isfinite(limits)]
        last = finite_limits[-1] if len(finite_limits) else math.nan
        if edges[0] <= last <= edges[-1]:
            histogram.axvline(last, color=BLACK, linewidth=1.5)
    dress(histogram, None, "gradient norm", "updates")
    return curve
