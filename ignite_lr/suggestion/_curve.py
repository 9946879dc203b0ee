"""What the suggestion rules read: losses over increasing learning rates, checked."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = Sequence[float] | npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]


def checked(lrs: Numbers, losses: Numbers) -> tuple[Floats, Floats]:
    """Rates and losses as 1-d arrays of one length; the rates are positive, finite and increase.

    Raises:
        TypeError: if one of them holds no numbers.
        ValueError: if they are not such; names the argument, the rule and the value.
    """
    x, y = (vector(name, values) for name, values in (("lrs", lrs), ("losses", losses)))
    if len(x) != len(y):
        raise ValueError(f"lrs and losses must have the same length, got {len(x)} rates and {len(y)} losses")
    if not np.all(np.isfinite(x)) or np.any(x <= 0):
        wrong = x[~(np.isfinite(x) & (x > 0))][0]
        raise ValueError(f"lrs must be positive and finite, got {wrong}")
    falls = np.flatnonzero(np.diff(x) <= 0)
    if len(falls):
        raise ValueError(f"lrs must increase, got {x[falls[0] + 1]} after {x[falls[0]]} at index {falls[0] + 1}")
    return x, y


def checked_sweeps(lrs: Numbers, curves: Sequence[Numbers]) -> list[tuple[Floats, Floats]]:
    """Several sweeps over the same rates, at least one, each with those that it reached; as :func:`checked`."""
    x = vector("lrs", lrs)
    given: Any = curves
    try:
        sweeps = None if isinstance(given, str | bytes) else list(given)
    except Exception:  # no sequence, or an object whose own methods raise
        sweeps = None
    if sweeps is None:
        raise TypeError(f"curves must be a sequence of curves, got {_shown(curves)}")
    if not sweeps:
        raise ValueError("curves must hold the losses of at least one sweep, got none")
    losses = [vector(f"curves[{index}]", sweep) for index, sweep in enumerate(sweeps)]
    return [checked(x[: len(y)], y) for y in losses]


def vector(name: str, values: Numbers) -> Floats:
    """The argument ``name`` as a 1-d array of floats. Words and truth values are no numbers."""
    try:
        kind = np.asarray(values).dtype.kind
        if kind == "O" and any(isinstance(value, str | bytes | bool) for value in values):
            kind = "U"
        numbers = np.asarray(values, dtype=np.float64) if kind in "iufO" else None
    except Exception:  # lists of different lengths, numbers beyond all floats, objects whose own methods raise
        numbers = None
    if numbers is None:
        raise TypeError(f"{name} must be a sequence of numbers, got {_shown(values)}")
    if numbers.ndim != 1:
        raise ValueError(f"{name} must be 1-d, got shape {numbers.shape}")
    return numbers


def _shown(values: object) -> str:
    try:
        return reprlib.repr(values)[:240]
    except Exception:  # a repr of the user's own
        return f"an object of type {type(values).__name__}"


def finite_curve(lrs: Numbers, losses: Numbers) -> tuple[Floats, Floats]:
    """A curve for the rules that always answer: at least two points, cut at the first NaN."""
    x, y = checked(lrs, losses)
    finite = np.isfinite(y)
    count = len(y) if finite.all() else int(np.argmin(finite))
    if count < 2:
        raise ValueError(f"losses must have at least 2 finite points to begin with, got {count}")
    return x[:count], y[:count]
