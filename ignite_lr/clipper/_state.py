"""What a clipper is told and what it remembers, in plain values: the rule, the record, the bins of the histogram.

Both stories, on the host and on a device, begin with a :class:`ClipState` and end in one; it is what is saved, what a
report is made of and what a picture shows. Everything saved is a number or a list of numbers, so that
``torch.load(weights_only=True)`` takes it, and ``torch.distributed.checkpoint`` too, which cannot load a tensor into
one of another shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from ignite_lr.core.arguments import Choice, Flag, Real, Whole, is_scalar, shown
from ignite_lr.core.host import arrays, listed, read

__all__ = [
    "BINS_PER_DECADE",
    "COUNTERS",
    "HISTOGRAM_EDGES",
    "LOWEST_DECADE",
    "STRETCH",
    "ClipRule",
    "ClipState",
    "OnNonfinite",
]

OnNonfinite = Literal["count", "skip", "raise"]

#: updates kept for a picture: as many as a picture can show
STRETCH = 4096

# Twenty bins a decade, a resolution of 12%, over all norms that occur; one more bin at each end for the rest.
BINS_PER_DECADE = 20
LOWEST_DECADE = -12
_HIGHEST_DECADE = 12

#: Edges of the histogram of norms, shape (483,): the first bin holds what is below 1e-12, the last what is above 1e12.
HISTOGRAM_EDGES: npt.NDArray[np.float64] = np.concatenate(
    (
        [0.0],
        10.0 ** (LOWEST_DECADE + np.arange((_HIGHEST_DECADE - LOWEST_DECADE) * BINS_PER_DECADE + 1) / BINS_PER_DECADE),
        [float(np.finfo(np.float64).max)],
    )
)

_FORMAT = 2
#: in the order in which a device keeps them
COUNTERS = ("updates", "clipped", "nonfinite", "zero", "skipped")
_LISTS = ("histogram", "norms", "thresholds", "decisions", "windows", "seen")


@dataclass(frozen=True)
class ClipRule:
    """The settings of a clipper, as :class:`~ignite_lr.clipper.GradNormClipper` explains them.

    Attributes:
        percentile: of the norms in the window, the present one included; 0 to 100.
        window: how many norms, and for the recent frequency how many updates, are looked back at; None for all.
        warmup_updates: there is no threshold before more norms than this.
        max_norm: a threshold is never above it; ``inf`` for no ceiling.
        norm_type: the p of the norm.
        on_nonfinite: what happens to an update whose norm is not finite.
        per_group: whether each parameter group is limited by itself.
        enabled: False only measures.
    """

    percentile: float = 90.0
    window: int | None = 1000
    warmup_updates: int = 0
    max_norm: float = math.inf
    norm_type: float = 2.0
    on_nonfinite: OnNonfinite = "count"
    per_group: bool = False
    enabled: bool = True

    @classmethod
    def checked(cls, **settings: Any) -> ClipRule:
        """The rule of these settings, where ``max_norm=None`` means no ceiling.

        Raises:
            TypeError: if one is of the wrong kind.
            ValueError: if one is out of range.

        Example:
            >>> ClipRule.checked(percentile=95, max_norm=None, norm_type="inf").norm_type
            inf
        """
        return cls(**{name: _RULES[name](name, value) for name, value in settings.items()})


def _positive(name: str, value: Any) -> float:
    """A number above 0, ``inf`` included, also as a 0-d tensor."""
    if is_scalar(value):
        value = read([value])[0]
    if isinstance(value, float | np.floating) and value == math.inf:
        return math.inf
    number: Any = Real(above=0.0).check(name, value)
    return float(number)


_RULES: dict[str, Any] = {
    "percentile": Real(0.0, 100.0).check,
    "window": Whole(1, or_none=True).check,
    "warmup_updates": Whole(0).check,
    "max_norm": lambda name, value: math.inf if value is None else _positive(name, value),
    "norm_type": lambda name, value: math.inf if isinstance(value, str) and value == "inf" else _positive(name, value),
    "on_nonfinite": Choice(("count", "skip", "raise")).check,
    "per_group": Flag().check,
    "enabled": Flag().check,
}


def _empty() -> npt.NDArray[np.float64]:
    return np.zeros(0)


@dataclass
class ClipState:
    """A record of clipping.

    Attributes:
        updates: updates of the optimizer.
        clipped: those of them that were clipped.
        nonfinite: updates and skipped steps whose norm was not finite.
        zero: updates whose norm was exactly 0; those without any gradient are not among them.
        skipped: steps that the clipper kept from being taken.
        threshold: that of the last update.
        histogram: int64 array of shape (482,): the norms of all updates, finite and above 0.
        norms: of the last updates, float64 array of shape (n,), oldest first: as many as the window has, at least
            4,096, as far as there were any.
        thresholds: those that these updates met, shape (n,).
        decisions: whether they were clipped, bool array of shape (n,).
        windows: norms in the window, oldest first: of all gradients, then of each group where groups are limited apart.
        seen: how many norms there have been for each window, also those that have left it.
    """

    updates: int = 0
    clipped: int = 0
    nonfinite: int = 0
    zero: int = 0
    skipped: int = 0
    threshold: float = math.inf
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(HISTOGRAM_EDGES) - 1, np.int64))
    norms: npt.NDArray[np.float64] = field(default_factory=_empty)
    thresholds: npt.NDArray[np.float64] = field(default_factory=_empty)
    decisions: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    windows: list[npt.NDArray[np.float64]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists of numbers."""
        plain: dict[str, Any] = {"format": _FORMAT, **{name: getattr(self, name) for name in COUNTERS}}
        plain["threshold"] = self.threshold
        for name in ("histogram", "norms", "thresholds", "decisions"):
            plain[name] = listed(getattr(self, name))
        return {**plain, "windows": [listed(norms) for norms in self.windows], "seen": list(self.seen)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> ClipState:
        """Read what :meth:`to_dict` made, here or in release 0.1.0.

        Raises:
            TypeError: if it is no mapping, or an entry is of another type.
            ValueError: if an entry is missing or cannot be true.
        """
        if not isinstance(saved, Mapping):
            raise TypeError(f"state_dict must be a mapping made by GradNormClipper.state_dict(), got {shown(saved)}.")
        if saved.get("format") == 1:
            saved = _of_format_1(saved)
        missing = sorted({"format", *COUNTERS, "threshold", *_LISTS} - set(saved))
        if missing:
            raise ValueError(f"state_dict must be made by GradNormClipper.state_dict(): it lacks {', '.join(missing)}.")
        if type(saved["format"]) is not int or saved["format"] != _FORMAT:
            raise ValueError(f"state_dict['format'] must be {_FORMAT}, got {shown(saved['format'])}.")
        whole = Whole(0)
        counters: dict[str, Any] = {name: whole.check(f"state_dict[{name!r}]", saved[name]) for name in COUNTERS}
        if counters["clipped"] > counters["updates"] or counters["skipped"] > counters["nonfinite"]:
            raise ValueError(
                f"state_dict counts more clipped than updates, or more skipped than nonfinite: {counters}."
            )
        threshold = saved["threshold"]
        if not isinstance(threshold, float) or threshold != math.inf:
            threshold = Real(0.0).check("state_dict['threshold']", threshold)
        state = cls(
            **counters,
            threshold=threshold,
            histogram=_array(saved, "histogram", np.int64),
            norms=_array(saved, "norms", np.float64),
            thresholds=_array(saved, "thresholds", np.float64),
            decisions=_array(saved, "decisions", np.bool_),
            windows=[_array(saved["windows"], i, np.float64) for i in range(_length(saved, "windows"))],
            seen=[whole.check("state_dict['seen']", saved["seen"][i]) or 0 for i in range(_length(saved, "seen"))],
        )
        state._check()
        return state

    def _check(self) -> None:
        """Refuse what cannot be true."""
        bins = len(HISTOGRAM_EDGES) - 1
        if len(self.histogram) != bins or self.histogram.min() < 0:
            raise ValueError(f"state_dict['histogram'] must hold {bins} counts, got {shown(listed(self.histogram))}.")
        if not len(self.norms) == len(self.thresholds) == len(self.decisions) <= self.updates:
            lengths = (len(self.norms), len(self.thresholds), len(self.decisions))
            raise ValueError(
                "state_dict['norms'], ['thresholds'] and ['decisions'] must be of one length and not outnumber the "
                f"{self.updates} updates, got {lengths}."
            )
        if len(self.seen) != len(self.windows):
            raise ValueError(f"state_dict['seen'] must hold {len(self.windows)} counts, got {len(self.seen)}.")
        for index, (norms, seen) in enumerate(zip(self.windows, self.seen, strict=True)):
            if not (np.isfinite(norms).all() and (norms >= 0).all()):
                raise ValueError(f"state_dict['windows'][{index}] must hold finite norms of at least 0.")
            if seen < len(norms):
                raise ValueError(
                    f"state_dict['seen'][{index}] must be at least the number of norms, {len(norms)}, got {seen}."
                )


def _length(saved: Mapping[str, Any], name: str) -> int:
    if not isinstance(saved[name], list | tuple):
        raise TypeError(f"state_dict[{name!r}] must be a list, got {shown(saved[name])}.")
    return len(saved[name])


def _array(saved: Mapping[str, Any] | Sequence[Any], key: Any, dtype: Any) -> npt.NDArray[Any]:
    """An entry as an array of one dimension."""
    value = saved[key]
    if isinstance(value, list | tuple) and all(isinstance(one, bool | int | float) for one in value):
        try:
            return np.array(value, dtype)
        except (OverflowError, ValueError) as error:  # for counts also NaN, which is no integer
            raise ValueError(f"state_dict: {key!r} must hold numbers below 2**63, got {shown(value)}.") from error
    raise TypeError(f"state_dict: {key!r} must be a list of numbers, got {shown(value)}.")


def _of_format_1(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The state that release 0.1.0 saved, whose lists were tensors and whose zeros were norms like any other."""
    try:
        norms, thresholds, clipped = _numbers(saved["stretch"]).reshape(-1, 3).T
        windows = [_numbers(window["norms"]) for window in saved["windows"]]
        return {
            **saved,
            "format": _FORMAT,
            "zero": 0,
            "histogram": listed(_numbers(saved["histogram"])),
            "norms": listed(norms),
            "thresholds": listed(thresholds),
            "decisions": listed(clipped > 0),
            "windows": [listed(norms[norms > 0]) for norms in windows],
            "seen": [window["seen"] for window in saved["windows"]],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"state_dict must be made by GradNormClipper.state_dict(), got {shown(saved)}.") from error


def _numbers(tensor: torch.Tensor) -> npt.NDArray[Any]:
    return arrays([tensor])[0]
