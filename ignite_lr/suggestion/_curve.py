"""What the suggestion rules read: losses over increasing learning rates, checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = Sequence[float] | npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]


def curve(lrs: Numbers, losses: Numbers) -> tuple[Floats, Floats]:
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


def vector(name: str, values: Numbers) -> Floats:
    """The argument ``name`` as a 1-d array of floats."""
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a sequence of numbers, got {values!r}") from None
    if numbers.ndim != 1:
        raise ValueError(f"{name} must be 1-d, got shape {numbers.shape}")
    return numbers


def finite_curve(lrs: Numbers, losses: Numbers) -> tuple[Floats, Floats]:
    """A curve for the rules that always answer: at least two points, cut at the first NaN."""
    x, y = curve(lrs, losses)
    finite = np.isfinite(y)
    count = len(y) if finite.all() else int(np.argmin(finite))
    if count < 2:
        raise ValueError(f"losses must have at least 2 finite points to begin with, got {count}")
    return x[:count], y[:count]
