"""Clipping told on a device that the host does not wait for: from the norm to the metrics, in tensors.

The same story as in :mod:`~ignite_lr.clipper._on_host`, and the same record; but whether a step is an update, whether
it is clipped and what its threshold is are known to the device alone, so everything is worked out for each of them and
chosen by ``torch.where``. No value may be read here, except where ``on_nonfinite`` asks for it, and every tensor that
lasts is written in place, so that a CUDA graph can be captured over a step. Gradients that are not clipped are
multiplied, or divided, by exactly 1.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ignite_lr.clipper._gradients import EPSILON, Gradients, factor
from ignite_lr.clipper._norm import norm_of_norms, scale_
from ignite_lr.clipper._state import BINS_PER_DECADE, COUNTERS, LOWEST_DECADE, STRETCH, ClipRule, ClipState
from ignite_lr.clipper._step_orders import StepOrders
from ignite_lr.core import host

__all__ = ["DeviceRing", "DeviceRunningPercentile", "OnDevice", "sent"]

_FIRST_CAPACITY = 1024
# up to here a ring has its full size from the start, so that nothing needs to grow while a CUDA graph is captured
_FIXED_CAPACITY = 65536


class OnDevice:
    """Clips updates on a device, and keeps the record there.

    Args:
        rule: how thresholds are found.
        orders: what a fused optimizer is told for the coming step.
        state: where to start from.
        device: where the gradients are.

    Attributes:
        metrics: of the last update, 0-d tensors; empty before any.
        device: where the record lies.
        updates: how many there were at most; the device knows better.
    """

    def __init__(self, rule: ClipRule, orders: StepOrders, state: ClipState, device: torch.device) -> None:
        self.device = device
        self.metrics: dict[str, torch.Tensor] = {}
        self.updates = state.updates
        self._rule = rule
        self._orders = orders
        self._windows = [
            DeviceRunningPercentile(rule.window, device, norms, seen)
            for norms, seen in zip(state.windows, state.seen, strict=True)
        ]
        self._counters = sent(np.array([getattr(state, name) for name in COUNTERS], np.int64), device)
        self._threshold = torch.full((), state.threshold, dtype=torch.float64, device=device)
        self._histogram = sent(state.histogram, device)
        last = np.stack((state.norms, state.thresholds, state.decisions.astype(np.float64)), axis=1)
        self._last = DeviceRing(max(STRETCH, rule.window or 0), device, last)
        recent = int(state.decisions[-rule.window :].sum()) if rule.window else 0
        self._recent = torch.full((), recent, dtype=torch.int64, device=device)

    def clip(self, gradients: Gradients, names: Sequence[str], leave: Callable[[], object]) -> None:
        """Clip the gradients of the coming update, and count it.

        Args:
            gradients: with their norms.
            names: of the parameter groups, where their metrics are wanted.
            leave: called where the step must not be taken; need not return.

        Raises:
            RuntimeError: on a norm that is not finite, where that was asked for.
        """
        self.updates += 1
        rule, norm, apart = self._rule, gradients.whole, gradients.apart
        if gradients.found_inf is None:
            counts = torch.ones((), dtype=torch.bool, device=self.device)
        else:
            counts = gradients.found_inf.to(self.device, non_blocking=True).reshape(()) == 0
        no = torch.zeros_like(counts)
        if not gradients.parts:
            norm, limit = torch.zeros((), device=self.device), self._threshold.clone()
            self._count(norm, limit, counts=counts, clipped=no, skipped=no, zero=no)
            self._publish(norm, limit, names, {}, {}, counts)
            return
        finite, skipped, clipped = torch.isfinite(norm), no, no
        if rule.enabled and rule.on_nonfinite != "count":
            if rule.on_nonfinite == "skip" and self._orders.skip_where(finite.logical_not(), gradients.parts.values()):
                skipped = counts & finite.logical_not()
                counts = counts & finite
            elif self._refused(norm, counts):
                for name in ("nonfinite", "skipped"):
                    self._counters.select(0, COUNTERS.index(name)).add_(1)
                leave()
                return
        limits = {index: self.limit(index, part, counts) for index, part in gradients.norms.items()}
        if apart:
            self.limit(0, norm, counts)  # for the report
        limit = norm_of_norms(list(limits.values()), rule.norm_type) if apart else limits[0]
        if rule.enabled:
            above = torch.stack([gradients.norms[index] > limits[index] for index in limits]).any()
            clipped = counts & finite & above
            for index, part in gradients.parts.items():
                self._bring_down(part, gradients.norms[index], limits[index], apart)
        self._count(norm, limit, counts=counts, clipped=clipped, skipped=skipped, zero=counts & (norm == 0))
        self._publish(norm, limit, names, gradients.norms, limits, counts)

    def _refused(self, norm: torch.Tensor, counts: torch.Tensor) -> bool:
        """Read whether the step must not be taken."""
        value, counted = host.read([norm, counts])
        refused = bool(counted) and not math.isfinite(value)
        if refused and self._rule.on_nonfinite == "raise":
            raise RuntimeError(f"The gradient norm is {value}, and GradNormClipper was made with on_nonfinite='raise'.")
        return refused

    def limit(self, index: int, norm: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Add a 0-d norm, where it counts and is one, to the window ``index`` (0: of all gradients): its threshold.

        Returns:
            a fresh 0-d float64 tensor.
        """
        rule = self._rule
        while len(self._windows) <= index:
            self._windows.append(DeviceRunningPercentile(rule.window, self.device))
        window = self._windows[index]
        # zeros are no norms: enough of them would make a threshold of 0, and end the training
        window.add(norm, counts & torch.isfinite(norm) & (norm > 0))
        threshold = window.percentile(rule.percentile).clamp(max=rule.max_norm)
        if rule.warmup_updates:
            threshold = threshold.masked_fill(window.seen <= rule.warmup_updates, math.inf)
        return threshold

    def recent_frequency(self) -> torch.Tensor:
        """Share of the last ``window`` updates that were clipped, a fresh 0-d float64 tensor; 0 before any."""
        updates, clipped = self._counters.select(0, 0), self._counters.select(0, 1)
        if self._rule.window is None:
            return clipped / updates.clamp(min=1).to(torch.float64)
        return self._recent / updates.clamp(min=1, max=self._rule.window).to(torch.float64)

    def frequency_at_the_ceiling(self) -> torch.Tensor:
        """Share of the last updates, as far as they are kept, that ``max_norm`` clipped; fresh, 0-d."""
        _, thresholds, clipped = self._last.buffer.unbind(1)
        at_ceiling = (clipped > 0) & (thresholds >= self._rule.max_norm)
        return at_ceiling.sum() / self._last.length.clamp(min=1).to(torch.float64)

    def state(self) -> ClipState:
        """A copy of the record on the host; waits for the device."""
        rings = [self._last, *(window.ring for window in self._windows)]
        tensors = [self._counters, self._threshold, self._histogram, *(window.seen for window in self._windows)]
        copies = host.arrays([*tensors, *(tensor for ring in rings for tensor in ring.tensors())])
        kept = copies[len(tensors) :]
        last, *windows = [DeviceRing.values(*kept[i : i + 3]) for i in range(0, len(kept), 3)]
        return ClipState(
            **dict(zip(COUNTERS, host.listed(copies[0]), strict=True)),
            threshold=float(copies[1]),
            histogram=copies[2],
            norms=last[:, 0],
            thresholds=last[:, 1],
            decisions=last[:, 2] > 0,
            windows=windows,
            seen=[int(seen) for seen in copies[3 : len(tensors)]],
        )

    def _bring_down(self, part: Sequence[torch.Tensor], norm: torch.Tensor, limit: torch.Tensor, apart: bool) -> None:
        """Bring gradients of this norm to the limit where they are above it, or where the norm is NaN."""
        acts = (norm <= limit).logical_not() & torch.isfinite(limit)
        limit = limit.to(norm.dtype)
        if not apart and self._orders.obeys(part):
            self._orders.divide(torch.where(acts, (norm + EPSILON) / limit, 1.0))
        else:
            scale_(part, torch.where(acts, factor(norm, limit), 1.0))

    def _count(
        self,
        norm: torch.Tensor,
        threshold: torch.Tensor,
        *,
        counts: torch.Tensor,
        clipped: torch.Tensor,
        skipped: torch.Tensor,
        zero: torch.Tensor,
    ) -> None:
        finite = torch.isfinite(norm)
        nonfinite = (counts | skipped) & finite.logical_not()
        self._counters.add_(torch.stack((counts, clipped, nonfinite, zero, skipped)))
        torch.where(counts, threshold, self._threshold, out=self._threshold)
        wide = norm.to(torch.float64)
        place = (torch.log10(wide) - LOWEST_DECADE) * BINS_PER_DECADE
        # also brings what a logarithm makes of 0, inf and nan to an index
        bins = len(self._histogram)
        place = torch.nan_to_num(place, nan=-1.0, neginf=-1.0).floor().clamp(-1, bins - 2).to(torch.int64) + 1
        place = place.reshape(1)
        count = self._histogram.index_select(0, place) + (counts & finite & (norm > 0))
        self._histogram.index_copy_(0, place, count)
        if self._rule.window is not None:
            leaving = self._last.ago(self._rule.window)
            gone = torch.zeros_like(clipped) if leaving is None else (leaving.select(0, 2) > 0) & counts
            self._recent.add_(clipped.to(torch.int64) - gone.to(torch.int64))
        self._last.add(torch.stack((wide, threshold, clipped.to(torch.float64))), counts)

    def _publish(
        self,
        norm: torch.Tensor,
        limit: torch.Tensor,
        names: Sequence[str],
        norms: Mapping[int, torch.Tensor],
        limits: Mapping[int, torch.Tensor],
        counts: torch.Tensor,
    ) -> None:
        new = {"grad_norm": norm, "clip_threshold": limit, "clip_frequency": self.recent_frequency()}
        for index, name in enumerate(names, start=1):
            # a group without gradients has the norm 0, and keeps its threshold
            key = f"clip_threshold/{name}"
            new[f"grad_norm/{name}"] = norms[index] if index in norms else torch.zeros_like(norm)
            new[key] = limits[index] if index in limits else self.metrics.get(key, torch.full_like(limit, math.inf))
        # a step that turns out to be none leaves the metrics of the last update
        old = self.metrics
        self.metrics = {key: torch.where(counts, value, old.get(key, math.nan)) for key, value in new.items()}


class DeviceRunningPercentile:
    """What ``numpy.percentile`` says of the last ``window`` values, or of all of them, as tensors on a device.

    With a ``window`` of up to 65,536 every tensor is written in place; otherwise the ring grows now and then.

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
        values: npt.NDArray[np.float64] | None = None,
        seen: int | None = None,
    ) -> None:
        values = np.empty(0) if values is None else values
        # a place not yet written holds +inf, which sorts behind everything
        self.ring = DeviceRing(window, device, values, fill=math.inf)
        self.seen = torch.full((), len(values) if seen is None else seen, dtype=torch.int64, device=device)

    def add(self, value: torch.Tensor, counts: torch.Tensor) -> None:
        """Add a 0-d value where the 0-d bool tensor ``counts`` is true."""
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


def sent(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy of an array on a device, made without waiting for it."""
    if not array.any():
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        return torch.zeros(array.shape, dtype=dtype, device=device)
    tensor = torch.tensor(array)
    if device.type == "cuda" and torch.cuda.is_available():
        tensor = tensor.pin_memory()  # from pageable memory the copy would be waited for
    return tensor.to(device, non_blocking=True)


class DeviceRing:
    """The last ``size`` values, or all of them.

    Every tensor is written in place, so that a CUDA graph can be captured over :meth:`add`; only where all values are
    kept, or more than 65,536, the buffer doubles now and then. The host never waits.

    Args:
        size: how many values are kept, at least 1; None for all.
        device: where they lie.
        values: array of shape (n, ...) of values to start with, oldest first; of too many the newest are kept.
        fill: what places not yet written hold.

    Attributes:
        buffer: tensor of shape (capacity, ...); the order is that of the ring.
        length: how many places are written, a 0-d int64 tensor.
    """

    def __init__(self, size: int | None, device: torch.device, values: npt.NDArray[Any], fill: float = 0.0) -> None:
        if size is not None:
            values = values[max(len(values) - size, 0) :]
        start = sent(values, device)
        self._size = size
        self._fill = fill
        if size is not None and size <= _FIXED_CAPACITY:
            capacity = size
        else:
            capacity = min(max(_FIRST_CAPACITY, 2 * len(values)), size or sys.maxsize)
        self.buffer = torch.cat((start, start.new_full((capacity - len(start), *start.shape[1:]), fill)))
        # never below the true length, and known without asking the device
        self._at_most = len(start)
        self.length = torch.full((), len(start), dtype=torch.int64, device=device)
        self._next = torch.full((), len(start) % capacity, dtype=torch.int64, device=device)

    def add(self, value: torch.Tensor, counts: torch.Tensor) -> None:
        """Add a value of shape (...) where the 0-d bool tensor ``counts`` is true."""
        capacity = len(self.buffer)
        if self._at_most == capacity and capacity != self._size:
            more = min(2 * capacity, self._size or sys.maxsize) - capacity
            self.buffer = torch.cat((self.buffer, self.buffer.new_full((more, *self.buffer.shape[1:]), self._fill)))
            self._next = self.length.clone()  # a full ring had come round to 0
            capacity += more
        self._at_most = min(self._at_most + 1, capacity)
        place = self._next.reshape(1)
        old = self.buffer.index_select(0, place)
        self.buffer.index_copy_(0, place, torch.where(counts, value.to(self.buffer.dtype), old))
        self.length.add_(counts).clamp_(max=capacity)
        self._next.add_(counts).remainder_(capacity)

    def ago(self, count: int) -> torch.Tensor | None:
        """What was added ``count`` values ago, or ``fill``; None where the ring has not grown to that size."""
        capacity = len(self.buffer)
        if count > capacity:
            return None
        return self.buffer.index_select(0, ((self._next - count) % capacity).reshape(1)).select(0, 0)

    def tensors(self) -> list[torch.Tensor]:
        """What :meth:`values` needs on the host, to be fetched together with other things."""
        return [self.buffer, self.length, self._next]

    @staticmethod
    def values(
        buffer: npt.NDArray[Any], length: npt.NDArray[np.int64], following: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        """The values, oldest first, from :meth:`tensors` brought to the host."""
        written, start = int(length), int(following)
        return np.concatenate((buffer[start:], buffer[:start])) if written == len(buffer) else buffer[:written]
