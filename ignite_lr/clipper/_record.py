"""What is remembered about clipping: norms and the thresholds they give, counters, decisions, a histogram.

The same record in two forms: :class:`ClipRecord` on the host, and :class:`DeviceClipRecord` on a device that the host
does not wait for. Both are saved as, and start from, a :class:`~ignite_lr.clipper._state.ClipState`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ignite_lr.clipper._device_ring import DeviceRing, sent
from ignite_lr.clipper._percentile import DeviceRunningPercentile, RunningPercentile
from ignite_lr.clipper._rule import ClipRule
from ignite_lr.clipper._state import BINS, STRETCH, ClipState, NormWindow

__all__ = ["HISTOGRAM_EDGES", "ClipRecord", "DeviceClipRecord", "histogram_bin"]

# Twenty bins a decade, a resolution of 12%, over all norms that occur; one more bin at each end for the rest.
_BINS_PER_DECADE = 20
_LOWEST_DECADE = -12
_HIGHEST_DECADE = 12
_INNER_BINS = (_HIGHEST_DECADE - _LOWEST_DECADE) * _BINS_PER_DECADE
assert _INNER_BINS + 2 == BINS

#: Edges of the histogram of norms, shape (483,): the first bin holds what is below 1e-12, the last what is above 1e12.
HISTOGRAM_EDGES: npt.NDArray[np.float64] = np.concatenate(
    (
        [0.0],
        10.0 ** (_LOWEST_DECADE + np.arange(_INNER_BINS + 1) / _BINS_PER_DECADE),
        [float(np.finfo(np.float32).max)],
    )
)


def histogram_bin(norm: float) -> int:
    """The bin of :data:`HISTOGRAM_EDGES` that a finite norm falls into.

    Example:
        >>> histogram_bin(0.0), histogram_bin(1.0)
        (0, 241)
    """
    if norm < HISTOGRAM_EDGES[1]:
        return 0
    return min(int((math.log10(norm) - _LOWEST_DECADE) * _BINS_PER_DECADE) + 1, BINS - 1)


class ClipRecord:
    """The record on the host.

    Args:
        rule: how thresholds are found.
        state: where to start from; of more than the window holds the newest are kept.
    """

    def __init__(self, rule: ClipRule, state: ClipState) -> None:
        window = rule.window
        self._rule = rule
        self._windows = [RunningPercentile(window, w.norms, w.seen) for w in state.windows]
        self.updates = state.updates
        self.clipped = state.clipped
        self.nonfinite = state.nonfinite
        self.skipped = state.skipped
        self.threshold = state.threshold
        self._window = window
        self._decisions = bytearray(state.decisions[-window:].tobytes() if window else state.decisions.tobytes())
        self._next = 0  # where the ring is written once it is full
        self._recent = sum(self._decisions)
        self._histogram = state.histogram.copy()
        self._stretch: deque[tuple[float, float, bool]] = deque(map(tuple, state.stretch), maxlen=STRETCH)

    def limit(self, index: int, norm: float) -> float:
        """Add a norm, if it is finite, to the window ``index`` (0: the global norm), and find its threshold."""
        while len(self._windows) <= index:
            self._windows.append(RunningPercentile(self._rule.window))
        window = self._windows[index]
        if math.isfinite(norm):
            window.add(norm)
        if self._rule.warmup_updates and window.seen <= self._rule.warmup_updates:
            return math.inf
        # before the first finite norm there is no percentile
        return min(window.percentile(self._rule.percentile), self._rule.max_norm) if window else self._rule.max_norm

    def update(self, norm: float, threshold: float, clipped: bool) -> None:
        """Count one update with a norm, finite or not."""
        self.updates += 1
        self.clipped += clipped
        self.threshold = threshold
        self._recent += clipped
        if len(self._decisions) == self._window:
            self._recent -= self._decisions[self._next]
            self._decisions[self._next] = clipped
            self._next = (self._next + 1) % self._window
        else:
            self._decisions.append(clipped)
        if math.isfinite(norm):
            self._histogram[histogram_bin(norm)] += 1
        else:
            self.nonfinite += 1
        self._stretch.append((norm, threshold, clipped))

    def skip(self) -> None:
        """Count one step that was skipped for its norm."""
        self.nonfinite += 1
        self.skipped += 1

    @property
    def recent_updates(self) -> int:
        """How many updates the recent frequency is taken over."""
        return len(self._decisions)

    @property
    def recent_frequency(self) -> float:
        """Share of the last ``window`` updates that were clipped; 0 before any."""
        return self._recent / len(self._decisions) if self._decisions else 0.0

    def state(self) -> ClipState:
        """A copy of the record."""
        decisions = np.frombuffer(bytes(self._decisions), np.uint8)
        return ClipState(
            self.updates,
            self.clipped,
            self.nonfinite,
            self.skipped,
            self.threshold,
            decisions=np.concatenate((decisions[self._next :], decisions[: self._next])),
            histogram=self._histogram.copy(),
            stretch=np.array(self._stretch, np.float32).reshape(-1, 3),
            windows=[NormWindow(window.values(), window.seen) for window in self._windows],
        )


class DeviceClipRecord:
    """The record on a device: the same counts, made of tensors that only the device knows the values of.

    Args:
        rule: how thresholds are found.
        state: where to start from.
        device: where the record lies.
    """

    def __init__(self, rule: ClipRule, state: ClipState, device: torch.device) -> None:
        self.device = device
        self._rule = rule
        self._windows = [DeviceRunningPercentile(rule.window, device, w.norms, w.seen) for w in state.windows]
        counters = [state.updates, state.clipped, state.nonfinite, state.skipped]
        self._counters = sent(np.array(counters, np.int64), device)
        self.threshold = torch.full((), state.threshold, dtype=torch.float64, device=device)
        self._decisions = DeviceRing(rule.window, device, state.decisions)
        self._histogram = sent(state.histogram, device)
        self._stretch = DeviceRing(STRETCH, device, state.stretch)

    def limit(self, index: int, norm: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Add a norm, where it counts and is finite, to the window ``index`` (0: the global norm): its threshold.

        Args:
            index: the window.
            norm: 0-d float32 tensor.
            counts: 0-d bool tensor.

        Returns:
            a fresh 0-d float64 tensor.
        """
        while len(self._windows) <= index:
            self._windows.append(DeviceRunningPercentile(self._rule.window, self.device))
        window = self._windows[index]
        window.add(norm, counts & torch.isfinite(norm))
        threshold = window.percentile(self._rule.percentile).clamp(max=self._rule.max_norm)
        if self._rule.warmup_updates:
            threshold = threshold.masked_fill(window.seen <= self._rule.warmup_updates, math.inf)
        return threshold

    def update(
        self,
        norm: torch.Tensor,
        threshold: torch.Tensor,
        *,
        counts: torch.Tensor,
        clipped: torch.Tensor,
        skipped: torch.Tensor,
    ) -> torch.Tensor:
        """Count one step.

        Args:
            norm: 0-d float32 tensor, finite or not.
            threshold: 0-d float64 tensor.
            counts: whether the step was an update: a 0-d bool tensor, as the following.
            clipped: whether that update was clipped.
            skipped: whether the clipper skipped the step.

        Returns:
            the recent clip frequency, a fresh 0-d float64 tensor.
        """
        finite = torch.isfinite(norm)
        nonfinite = (counts | skipped) & finite.logical_not()
        self._counters.add_(torch.stack((counts, clipped, nonfinite, skipped)))
        torch.where(counts, threshold, self.threshold, out=self.threshold)
        self._decisions.add(clipped, counts)
        place = (torch.log10(norm.to(torch.float64)) - _LOWEST_DECADE) * _BINS_PER_DECADE
        # also brings what a logarithm makes of 0, inf and nan to an index
        place = torch.nan_to_num(place, nan=-1.0, neginf=-1.0).floor().clamp(-1, BINS - 2).to(torch.int64) + 1
        place = place.reshape(1)
        count = self._histogram.index_select(0, place) + (counts & finite)
        self._histogram.index_copy_(0, place, count)
        self._stretch.add(torch.stack((norm, threshold.to(norm.dtype), clipped.to(norm.dtype))), counts)
        return self.recent_frequency()

    def recent_frequency(self) -> torch.Tensor:
        """Share of the last ``window`` updates that were clipped; 0 before any."""
        recent = self._decisions.buffer.sum(dtype=torch.float64)
        return recent / self._decisions.length.clamp(min=1)

    def tensors(self) -> list[torch.Tensor]:
        """What :meth:`state` needs on the host, to be fetched together with other things."""
        return [
            self._counters,
            self.threshold,
            self._histogram,
            *self._decisions.tensors(),
            *self._stretch.tensors(),
            *(tensor for window in self._windows for tensor in (*window.ring.tensors(), window.seen)),
        ]

    @staticmethod
    def state(
        counters: npt.NDArray[np.int64],
        threshold: npt.NDArray[np.float64],
        histogram: npt.NDArray[np.int64],
        *rings: npt.NDArray[Any],
    ) -> ClipState:
        """The record from :meth:`tensors` brought to the host."""
        windows = [NormWindow(DeviceRing.values(*rings[i : i + 3]), int(rings[i + 3])) for i in range(6, len(rings), 4)]
        updates, clipped, nonfinite, skipped = (int(count) for count in counters)
        return ClipState(
            updates,
            clipped,
            nonfinite,
            skipped,
            float(threshold),
            decisions=DeviceRing.values(*rings[:3]),
            histogram=histogram,
            stretch=DeviceRing.values(*rings[3:6]),
            windows=windows,
        )
