"""What a data set holds: copied while it is small, looked at afterwards where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ignite_lr.dry_run._values import same

__all__ = ["Samples"]

_BUDGET = 64 * 2**20  # bytes of a data set's arrays that are copied
_SAMPLE = 4096  # elements of a larger one that are compared


class Samples:
    """Watches arrays that are too large to be copied for nothing: training does not change its data, as a rule."""

    def __init__(self) -> None:
        self._left = _BUDGET
        self._watched: list[tuple[str, Callable[[], Any], Any]] = []

    def within_budget(self, array: Any) -> bool:
        """Whether there is room for a copy; if so, it is taken."""
        size = int(array.nbytes)
        if size > self._left:
            return False
        self._left -= size
        return True

    def watch(self, owner: str, array: torch.Tensor | np.ndarray[Any, Any]) -> None:
        """Take a sample, to be compared later."""
        step = tuple(slice(None, None, max(1, size // _each(array.ndim))) for size in array.shape)

        def sample() -> Any:
            part = array[step]
            return part.detach().clone() if isinstance(part, torch.Tensor) else np.array(part)

        self._watched.append((owner, sample, sample()))

    def changed(self) -> list[str]:
        """To whom the arrays belong that are not any more what they were."""
        return list(dict.fromkeys(owner for owner, sample, before in self._watched if not same(sample(), before)))

    def close(self) -> None:
        """Let go of everything."""
        self._watched = []


def _each(dimensions: int) -> int:
    return max(1, math.floor(math.pow(_SAMPLE, 1 / max(dimensions, 1))))
