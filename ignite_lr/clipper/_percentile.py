"""The running percentile of gradient norms, on the host and on a device.

Both forms answer what ``numpy.percentile(window, p)`` (method "linear", in float64) would answer for the last
``window`` values, the newest included:

* :class:`RunningPercentile` keeps them in sorted blocks: one more value costs a binary search and a short shift;
* :class:`DeviceRunningPercentile` keeps them in a ring on a device and never asks the device for anything, so that it
  does not wait for it and can be captured in a CUDA graph.

Rank and interpolation follow Hyndman and Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50
(1996), definition 7.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from ignite_lr.clipper._device_ring import DeviceRing

__all__ = ["DeviceRunningPercentile", "RunningPercentile", "interpolate", "rank"]

# Short enough that a shift inside a block is cheap, long enough that a million values are about a hundred blocks.
_BLOCK = 8192


def rank(count: int, percentile: float) -> tuple[int, float]:
    """Where a percentile lies among ``count`` sorted values.

    Args:
        count: number of values, at least 1.
        percentile: 0 to 100.

    Returns:
        the 0-based rank below it, and the share (0 to 1) of the way to the next rank.

    Example:
        >>> rank(11, 25.0)
        (2, 0.5)
    """
    position = (count - 1) * (percentile / 100)
    below = math.floor(position)
    return below, position - below


def interpolate(lower: float, upper: float, weight: float) -> float:
    """The point ``weight`` (0 to 1) of the way from ``lower`` to ``upper``, rounded as NumPy rounds it.

    NumPy starts from the nearer end, which matters in the last bit.

    Example:
        >>> interpolate(1.0, 2.0, 0.25)
        1.25
    """
    difference = upper - lower
    return upper - difference * (1 - weight) if weight >= 0.5 else lower + difference * weight


class RunningPercentile:
    """Percentiles of the last ``window`` values, or of all of them, on the host.

    One more value costs O(log n) comparisons and a shift of at most 64 KiB; memory is 8 bytes a value.

    Args:
        window: how many values count, at least 1; None for all.
        values: values to start with, oldest first; of too many the newest are kept.
        seen: values added since the beginning; by default the number of ``values``.

    Attributes:
        seen: values added since the beginning, also those that have left the window.

    Example:
        >>> running = RunningPercentile(window=3)
        >>> for value in (9.0, 1.0, 2.0, 4.0):
        ...     running.add(value)
        >>> running.percentile(50.0)
        2.0
    """

    def __init__(self, window: int | None, values: Iterable[float] = (), seen: int | None = None) -> None:
        self._window = window
        self._order = array("f", values)
        self.seen = len(self._order) if seen is None else seen
        if window is not None and len(self._order) > window:
            del self._order[:-window]
        self._next = 0  # where the ring is written once it is full: there lies the oldest value
        ordered = np.sort(np.frombuffer(self._order, dtype=np.float32)) if self._order else np.empty(0, np.float32)
        self._blocks = [array("f", ordered[i : i + _BLOCK].tobytes()) for i in range(0, len(ordered), _BLOCK)]
        self._last = [block[-1] for block in self._blocks]

    def __len__(self) -> int:
        return len(self._order)

    def add(self, value: float) -> None:
        """Add one finite value; it is rounded to float32, and the oldest leaves a full window."""
        order = self._order
        if len(order) == self._window:
            self._remove(order[self._next])
            order[self._next] = value
            value = order[self._next]  # as rounded
            self._next = (self._next + 1) % len(order)
        else:
            order.append(value)
            value = order[-1]
        self._insert(value)
        self.seen += 1

    def percentile(self, percentile: float) -> float:
        """The percentile (0 to 100) of the values in the window.

        Raises:
            ValueError: if there are none.
        """
        if not self._order:
            raise ValueError("percentile() needs at least one value, and none has been added.")
        below, weight = rank(len(self._order), percentile)
        lower, upper = self._select(below)
        return interpolate(lower, upper, weight)

    def values(self) -> npt.NDArray[np.float32]:
        """A copy of the values in the window, oldest first."""
        if not self._order:
            return np.empty(0, np.float32)
        ring = np.frombuffer(self._order, dtype=np.float32)
        return np.concatenate((ring[self._next :], ring[: self._next]))

    def _insert(self, value: float) -> None:
        if not self._blocks:
            self._blocks.append(array("f", [value]))
            self._last.append(value)
            return
        index = min(bisect_left(self._last, value), len(self._last) - 1)
        block = self._blocks[index]
        insort(block, value)
        if len(block) > 2 * _BLOCK:
            self._blocks.insert(index + 1, block[_BLOCK:])
            self._last.insert(index + 1, block[-1])
            del block[_BLOCK:]
        self._last[index] = block[-1]

    def _remove(self, value: float) -> None:
        index = bisect_left(self._last, value)
        block = self._blocks[index]
        del block[bisect_left(block, value)]
        if block:
            self._last[index] = block[-1]
        else:
            del self._blocks[index], self._last[index]

    def _select(self, below: int) -> tuple[float, float]:
        """The values of ranks ``below`` and ``below + 1`` (the former twice if it is the last)."""
        # from the top, where the percentiles lie that norms are clipped at
        after = len(self._order) - below
        index = len(self._blocks) - 1
        while after > len(self._blocks[index]):
            after -= len(self._blocks[index])
            index -= 1
        block = self._blocks[index]
        place = len(block) - after
        lower = block[place]
        if place + 1 < len(block):
            return lower, block[place + 1]
        return lower, self._blocks[index + 1][0] if index + 1 < len(self._blocks) else lower


class DeviceRunningPercentile:
    """Percentiles of the last ``window`` values, or of all of them, as tensors on a device.

    Nothing is read by the host. With a ``window`` of up to 65,536 every tensor is written in place, so the calls can be
    captured in a CUDA graph; otherwise the ring grows now and then, and they cannot.

    Args:
        window: how many values count, at least 1; None for all.
        device: where everything lies.
        values: values to start with, oldest first; of too many the newest are kept.
        seen: values added since the beginning; by default the number of ``values``.

    Attributes:
        seen: values added since the beginning, also those that have left the window: a 0-d int64 tensor.
        ring: the values.
    """

    def __init__(
        self,
        window: int | None,
        device: torch.device,
        values: npt.NDArray[np.float32] | None = None,
        seen: int | None = None,
    ) -> None:
        values = np.empty(0, np.float32) if values is None else values
        # a place not yet written holds +inf, which sorts behind everything
        self.ring = DeviceRing(window, device, values, fill=math.inf)
        self.seen = torch.full((), len(values) if seen is None else seen, dtype=torch.int64, device=device)

    def add(self, value: torch.Tensor, counts: torch.Tensor) -> None:
        """Add a value where ``counts`` is true.

        Args:
            value: 0-d float tensor.
            counts: 0-d bool tensor; where false, nothing changes.
        """
        self.ring.add(value, counts)
        self.seen.add_(counts)

    def percentile(self, percentile: float) -> torch.Tensor:
        """The percentile (0 to 100) as a fresh 0-d float64 tensor; +inf while there are no values."""
        ordered = torch.sort(self.ring.buffer).values
        last = (self.ring.length - 1).clamp(min=0)
        position = last.to(torch.float64) * (percentile / 100)
        below = position.floor()
        ranks = torch.minimum(torch.stack((below, below + 1)).to(torch.int64), last)
        lower, upper = ordered.index_select(0, ranks).to(torch.float64).unbind()
        weight = position - below
        difference = upper - lower
        between = torch.where(weight >= 0.5, upper - difference * (1 - weight), lower + difference * weight)
        return between.masked_fill(self.ring.length == 0, math.inf)
