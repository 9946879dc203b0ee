"""All that a clipper remembers, on the host, in the form in which it is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ignite_lr.core.host import arrays

__all__ = ["BINS", "STRETCH", "ClipState", "NormWindow"]

#: bins of the histogram of norms
BINS = 482
#: updates kept for a picture: as many as a picture can show
STRETCH = 4096

_FORMAT = 1
# what a counter on a device holds
_MOST = 2**63 - 1
_COUNTERS = ("updates", "clipped", "nonfinite", "skipped")


@dataclass
class NormWindow:
    """Norms in a window.

    Attributes:
        norms: float32 array, oldest first.
        seen: norms there have been, also those that have left the window.
    """

    norms: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    seen: int = 0


@dataclass
class ClipState:
    """A record of clipping.

    Attributes:
        updates: updates of the optimizer.
        clipped: those of them that were clipped.
        nonfinite: updates and skipped steps whose norm was not finite.
        skipped: steps that the clipper made change nothing.
        threshold: that of the last update.
        decisions: uint8 array, 1 where one of the last updates was clipped, oldest first.
        histogram: int64 array of shape (482,): finite norms of all updates.
        stretch: float32 array of shape (n, 3): norm, threshold and decision of up to 4,096 last updates, oldest first.
        windows: of the global norm, then of each parameter group where groups are clipped apart.
    """

    updates: int = 0
    clipped: int = 0
    nonfinite: int = 0
    skipped: int = 0
    threshold: float = math.inf
    decisions: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    stretch: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    windows: list[NormWindow] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Numbers and tensors only, so that ``torch.load(weights_only=True)`` takes it."""
        return {
            "format": _FORMAT,
            **{name: getattr(self, name) for name in _COUNTERS},
            "threshold": self.threshold,
            "decisions": torch.from_numpy(self.decisions.copy()),
            "histogram": torch.from_numpy(self.histogram.copy()),
            "stretch": torch.from_numpy(self.stretch.copy()),
            "windows": [{"norms": torch.from_numpy(w.norms.copy()), "seen": w.seen} for w in self.windows],
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> ClipState:
        """Read what :meth:`to_dict` made, wherever its tensors lie now.

        Raises:
            TypeError: if it is no mapping, or an entry is of another type.
            ValueError: if an entry is missing or cannot be true.
        """
        if not isinstance(saved, Mapping):
            raise TypeError(f"state_dict must be a mapping made by GradNormClipper.state_dict(), got {_kind(saved)}.")
        expected = {"format", *_COUNTERS, "threshold", "decisions", "histogram", "stretch", "windows"}
        missing = sorted(expected - set(saved))
        if missing:
            raise ValueError(f"state_dict must be made by GradNormClipper.state_dict(): it lacks {', '.join(missing)}.")
        if type(saved["format"]) is not int or saved["format"] != _FORMAT:
            raise ValueError(f"state_dict['format'] must be {_FORMAT}, got {saved['format']!r}.")
        counters = {name: _count(saved[name], f"state_dict[{name!r}]") for name in _COUNTERS}
        if counters["clipped"] > counters["updates"] or counters["skipped"] > counters["nonfinite"]:
            raise ValueError(
                f"state_dict counts more clipped than updates, or more skipped than nonfinite: {counters}."
            )
        threshold = saved["threshold"]
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise TypeError(f"state_dict['threshold'] must be a number, got {_kind(threshold)}.")
        if not 0 <= threshold <= math.inf or (isinstance(threshold, int) and threshold > _MOST):
            raise ValueError(f"state_dict['threshold'] must be a float of at least 0, got {threshold}.")
        decisions = _array(saved["decisions"], torch.uint8, (None,), "state_dict['decisions']")
        histogram = _array(saved["histogram"], torch.int64, (BINS,), "state_dict['histogram']")
        stretch = _array(saved["stretch"], torch.float32, (None, 3), "state_dict['stretch']")
        if len(decisions) and decisions.max() > 1:
            raise ValueError(f"state_dict['decisions'] must hold 0 and 1 only, got {decisions.max()}.")
        if len(histogram) and histogram.min() < 0:
            raise ValueError(f"state_dict['histogram'] must not be negative, got {histogram.min()}.")
        if not isinstance(saved["windows"], list | tuple):
            raise TypeError(f"state_dict['windows'] must be a list, got {_kind(saved['windows'])}.")
        windows = [_window(w, f"state_dict['windows'][{i}]") for i, w in enumerate(saved["windows"])]
        if counters["updates"] > counters["nonfinite"] and not windows:
            raise ValueError(f"state_dict['windows'] must hold the norms of {counters['updates']} updates, got none.")
        if len(decisions) > counters["updates"]:
            raise ValueError(
                f"state_dict['decisions'] must not outnumber the {counters['updates']} updates, got {len(decisions)}."
            )
        return cls(
            **counters,
            threshold=float(threshold),
            decisions=decisions,
            histogram=histogram,
            stretch=stretch[-STRETCH:],
            windows=windows,
        )


def _kind(value: object) -> str:
    return f"{type(value).__name__}: {value!r:.80}"


def _count(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {_kind(value)}.")
    if not 0 <= value <= _MOST:
        raise ValueError(f"{name} must be at least 0 and below 2**63, got {value}.")
    return value


def _array(value: object, dtype: torch.dtype, shape: tuple[int | None, ...], name: str) -> npt.NDArray[Any]:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {_kind(value)}.")
    fits = value.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, value.shape, strict=True))
    if value.dtype != dtype or not fits:
        wanted = tuple("n" if n is None else n for n in shape)
        raise ValueError(
            f"{name} must be a tensor of {dtype} and shape {wanted}, got {value.dtype} and {tuple(value.shape)}."
        )
    return arrays([value])[0]


def _window(value: object, name: str) -> NormWindow:
    if not isinstance(value, Mapping) or not {"norms", "seen"} <= set(value):
        raise ValueError(f"{name} must be a mapping with 'norms' and 'seen', got {_kind(value)}.")
    norms = _array(value["norms"], torch.float32, (None,), f"{name}['norms']")
    if not (np.isfinite(norms).all() and (norms >= 0).all()):
        raise ValueError(f"{name}['norms'] must be finite and at least 0.")
    seen = _count(value["seen"], f"{name}['seen']")
    if seen < len(norms):
        raise ValueError(f"{name}['seen'] must be at least the number of norms, {len(norms)}, got {seen}.")
    return NormWindow(norms, seen)
