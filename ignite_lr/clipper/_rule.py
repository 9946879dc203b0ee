"""How a clipping threshold follows from norms: the settings, and what they must be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

__all__ = ["ClipRule", "check_positive"]


@dataclass(frozen=True)
class ClipRule:
    """How a threshold follows from norms.

    Attributes:
        percentile: of the norms in the window, the present one included; 0 to 100.
        window: how many norms, and for the recent frequency how many updates, are looked back at; None for all.
        warmup_updates: there is no threshold before more norms than this.
        max_norm: a threshold is never above it.
    """

    percentile: float = 90.0
    window: int | None = 1000
    warmup_updates: int = 0
    max_norm: float = math.inf

    @classmethod
    def checked(cls, percentile: float, window: int | None, warmup_updates: int, max_norm: float | None) -> ClipRule:
        """The rule of these settings, where ``max_norm=None`` means no ceiling.

        Raises:
            TypeError: if one is of the wrong kind.
            ValueError: if one is out of range.

        Example:
            >>> ClipRule.checked(90, 1000, 0, None)
            ClipRule(percentile=90.0, window=1000, warmup_updates=0, max_norm=inf)
        """
        _check_number("percentile", percentile)
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile must be between 0 and 100, got {percentile}.")
        if window is not None:
            _check_integer("window", window, 1, " or None")
        _check_integer("warmup_updates", warmup_updates, 0)
        if max_norm is not None:
            check_positive("max_norm", max_norm)
        return cls(
            float(percentile),
            None if window is None else int(window),
            int(warmup_updates),
            math.inf if max_norm is None else float(max_norm),
        )


def check_positive(argument: str, value: float) -> None:
    """Raise unless ``value`` is a positive number, ``inf`` included."""
    _check_number(argument, value)
    if not value > 0:
        raise ValueError(f"{argument} must be positive, got {value}.")


def _check_number(argument: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{argument} must be a number, got {type(value).__name__}: {value!r}.")
    try:
        float(value)
    except OverflowError as error:  # an int or a Fraction beyond all floats
        raise ValueError(f"{argument} must be finite as a float, or inf, got {value}.") from error


def _check_integer(argument: str, value: object, least: int, otherwise: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{argument} must be an int{otherwise}, got {type(value).__name__}: {value!r}.")
    if int(value) < least:
        raise ValueError(f"{argument} must be at least {least}{otherwise}, got {value}.")
