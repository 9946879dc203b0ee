"""Clipping told on the host, where reading a norm costs nothing: from the norm to the metrics, in plain numbers.

In flow the gradients of an update with their norms (:class:`~ignite_lr.clipper._gradients.Gradients`); each norm joins
its window, the window's percentile is the threshold, and gradients above it are brought down to it. Out flow metrics
and a :class:`~ignite_lr.clipper._state.ClipState`. An update that is not counted as clipped must leave this file with
every bit of its gradients as it was: it is compared, not multiplied by one.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter

import numpy as np
import numpy.typing as npt
import torch

from ignite_lr.clipper._gradients import EPSILON, Gradients, factor
from ignite_lr.clipper._norm import scale_
from ignite_lr.clipper._state import BINS_PER_DECADE, HISTOGRAM_EDGES, LOWEST_DECADE, STRETCH, ClipRule, ClipState
from ignite_lr.clipper._step_orders import StepOrders
from ignite_lr.core import host

__all__ = ["OnHost", "RunningPercentile", "histogram_bin", "interpolate", "rank"]

# Short enough that a shift inside a block is cheap, long enough that a million values are about a hundred blocks.
_BLOCK = 8192
_LARGEST = itemgetter(-1)


class OnHost:
    """Clips updates on the host, and keeps the record.

    Args:
        rule: how thresholds are found.
        orders: what a fused optimizer is told for the coming step.
        state: where to start from; of more than the window holds the newest are kept.

    Attributes:
        metrics: of the last update, 0-d tensors; empty before any.
        updates: how many there were, as the other counters.
    """

    def __init__(self, rule: ClipRule, orders: StepOrders, state: ClipState) -> None:
        self._rule = rule
        self._orders = orders
        self.metrics: dict[str, torch.Tensor] = {}
        self.updates = state.updates
        self.clipped = state.clipped
        self.nonfinite = state.nonfinite
        self.zero = state.zero
        self.skipped = state.skipped
        self.threshold = state.threshold
        window = rule.window
        self._windows = [
            RunningPercentile(window, norms, seen) for norms, seen in zip(state.windows, state.seen, strict=True)
        ]
        self._histogram = host.listed(state.histogram)
        last = zip(host.listed(state.norms), host.listed(state.thresholds), host.listed(state.decisions), strict=True)
        self._last: deque[tuple[float, float, bool]] = deque(last, maxlen=max(STRETCH, window or 0))
        # clipped ones among the last ``window`` updates, kept up to date because it is asked for at each of them
        self._recent = int(state.decisions[-window:].sum()) if window else 0

    def clip(self, gradients: Gradients, names: Sequence[str], leave: Callable[[], object]) -> None:
        """Clip the gradients of the coming update, and count it.

        Args:
            gradients: with their norms.
            names: of the parameter groups, where their metrics are wanted.
            leave: called where the step must not be taken; need not return.

        Raises:
            RuntimeError: on a norm that is not finite, where that was asked for.
        """
        if gradients.found_inf is not None and host.read([gradients.found_inf])[0]:
            return  # the scaler skips this step
        if not gradients.parts:
            self._count(0.0, self.threshold, False)
            self._publish(gradients.whole, names, {}, {})
            return
        rule, apart = self._rule, gradients.apart
        norms = dict(zip(gradients.norms, host.read(list(gradients.norms.values())), strict=True))
        norm = host.read([gradients.whole])[0] if apart else norms[0]
        finite = math.isfinite(norm)
        if rule.enabled and not finite:
            if rule.on_nonfinite == "raise":
                raise RuntimeError(
                    f"The gradient norm is {norm}, and GradNormClipper was made with on_nonfinite='raise'."
                )
            if rule.on_nonfinite == "skip":
                self.nonfinite += 1
                self.skipped += 1
                leave()
                return
        limits = {index: self.limit(index, value) for index, value in norms.items()}
        if apart:
            self.limit(0, norm)  # for the report
        limit = _norm_of(list(limits.values()), rule.norm_type) if apart else limits[0]
        clipped = False
        if rule.enabled:
            for index, part in gradients.parts.items():
                # also where the norm is NaN, which is compared with nothing
                if limits[index] < math.inf and not norms[index] <= limits[index]:
                    clipped = finite
                    self._bring_down(part, gradients.norms[index], limits[index], apart)
        if norm == 0.0:
            self.zero += 1
        elif finite:
            self._histogram[histogram_bin(norm)] += 1
        else:
            self.nonfinite += 1
        self._count(norm, limit, clipped)
        self._publish(gradients.whole, names, gradients.norms, limits)

    def limit(self, index: int, norm: float) -> float:
        """Add a norm, if there is one, to the window ``index`` (0: of all gradients), and find its threshold."""
        rule = self._rule
        while len(self._windows) <= index:
            self._windows.append(RunningPercentile(rule.window))
        window = self._windows[index]
        # zeros are no norms: enough of them would make a threshold of 0, and end the training
        if 0.0 < norm < math.inf:
            window.add(norm)
        if rule.warmup_updates and window.seen <= rule.warmup_updates:
            return math.inf
        return min(window.percentile(rule.percentile), rule.max_norm) if len(window) else rule.max_norm

    @property
    def frequency(self) -> float:
        """Share of all updates that were clipped; 0 before any."""
        return self.clipped / self.updates if self.updates else 0.0

    @property
    def recent_frequency(self) -> float:
        """Share of the last ``window`` updates that were clipped; 0 before any."""
        window = self._rule.window
        if window is None:
            return self.frequency
        return self._recent / min(len(self._last), window) if self._last else 0.0

    def state(self) -> ClipState:
        """A copy of the record."""
        last = np.array(self._last, np.float64).reshape(-1, 3)
        return ClipState(
            self.updates,
            self.clipped,
            self.nonfinite,
            self.zero,
            self.skipped,
            self.threshold,
            histogram=np.array(self._histogram, np.int64),
            norms=last[:, 0],
            thresholds=last[:, 1],
            decisions=last[:, 2] > 0,
            windows=[window.values() for window in self._windows],
            seen=[window.seen for window in self._windows],
        )

    def _bring_down(self, part: Sequence[torch.Tensor], norm: torch.Tensor, limit: float, apart: bool) -> None:
        if not apart and self._orders.obeys(part):
            self._orders.divide((norm + EPSILON) / limit)
        else:
            scale_(part, factor(norm, limit))

    def _count(self, norm: float, threshold: float, clipped: bool) -> None:
        self.updates += 1
        self.clipped += clipped
        self.threshold = threshold
        window = self._rule.window
        if window is not None:
            self._recent += clipped
            if len(self._last) >= window:
                self._recent -= self._last[-window][2]
        self._last.append((norm, threshold, clipped))

    def _publish(
        self, norm: torch.Tensor, names: Sequence[str], norms: Mapping[int, torch.Tensor], limits: Mapping[int, float]
    ) -> None:
        old = self.metrics
        self.metrics = {
            "grad_norm": norm,
            "clip_threshold": _number(self.threshold),
            "clip_frequency": _number(self.recent_frequency),
        }
        for index, name in enumerate(names, start=1):
            # a group without gradients has the norm 0, and keeps its threshold
            self.metrics[f"grad_norm/{name}"] = norms[index] if index in norms else torch.zeros(())
            key = f"clip_threshold/{name}"
            self.metrics[key] = _number(limits[index]) if index in limits else old.get(key, _number(math.inf))


def _number(value: float) -> torch.Tensor:
    return torch.scalar_tensor(value, dtype=torch.float64)


def _norm_of(limits: Sequence[float], norm_type: float) -> float:
    """The norm of numbers, some of them possibly ``inf``."""
    largest = max(limits)
    if largest in (0.0, math.inf) or norm_type == math.inf:
        return largest
    total = sum(math.pow(limit / largest, norm_type) for limit in limits)
    return largest * math.pow(total, 1.0 / norm_type)


def histogram_bin(norm: float) -> int:
    """The bin of the histogram that a finite norm falls into.

    Example:
        >>> histogram_bin(1e-13), histogram_bin(1.0)
        (0, 241)
    """
    if norm < HISTOGRAM_EDGES[1]:
        return 0
    return min(int((math.log10(norm) - LOWEST_DECADE) * BINS_PER_DECADE) + 1, len(HISTOGRAM_EDGES) - 2)


def rank(count: int, percentile: float) -> tuple[int, float]:
    """Where a percentile lies among ``count`` sorted values.

    Rank and interpolation follow Hyndman and Fan, "Sample Quantiles in Statistical Packages", The American Statistician
    50 (1996), definition 7.

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
    """What ``numpy.percentile`` says of the last ``window`` values, or of all of them.

    They are kept sorted, in blocks: one more value costs O(log n) comparisons and a shift of at most 128 KiB; memory is
    16 bytes a value.

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
        self._order = array("d", values)
        self.seen = len(self._order) if seen is None else seen
        if window is not None and len(self._order) > window:
            del self._order[:-window]
        self._next = 0  # where the ring is written once it is full: there lies the oldest value
        ordered = np.sort(self.values())
        # always one, even if nothing is in it
        self._blocks = [array("d", ordered[i : i + _BLOCK].tobytes()) for i in range(0, max(len(ordered), 1), _BLOCK)]

    def __len__(self) -> int:
        return len(self._order)

    def add(self, value: float) -> None:
        """Add one finite value; the oldest leaves a full window."""
        order = self._order
        if len(order) == self._window:
            oldest = order[self._next]
            index = self._block_of(oldest)
            block = self._blocks[index]
            del block[bisect_left(block, oldest)]
            if not block and len(self._blocks) > 1:
                del self._blocks[index]
            order[self._next] = value
            self._next = (self._next + 1) % len(order)
        else:
            order.append(value)
        index = self._block_of(value)
        block = self._blocks[index]
        insort(block, value)
        if len(block) > 2 * _BLOCK:
            self._blocks.insert(index + 1, block[_BLOCK:])
            del block[_BLOCK:]
        self.seen += 1

    def percentile(self, percentile: float) -> float:
        """The percentile (0 to 100) of the values in the window.

        Raises:
            ValueError: if there are none.
        """
        if not self._order:
            raise ValueError("percentile() needs at least one value, and none has been added.")
        below, weight = rank(len(self._order), percentile)
        # from the nearer end
        blocks, place = self._blocks, below
        if 2 * below < len(self._order):
            index = 0
            while place >= len(blocks[index]):
                place -= len(blocks[index])
                index += 1
        else:
            index, place = len(blocks) - 1, place - len(self._order) + len(blocks[-1])
            while place < 0:
                index -= 1
                place += len(blocks[index])
        block = blocks[index]
        if place + 1 < len(block):
            return interpolate(block[place], block[place + 1], weight)
        upper = blocks[index + 1][0] if index + 1 < len(blocks) else block[place]
        return interpolate(block[place], upper, weight)

    def values(self) -> npt.NDArray[np.float64]:
        """A copy of the values in the window, oldest first."""
        ring = np.array(self._order, np.float64)
        return np.concatenate((ring[self._next :], ring[: self._next]))

    def _block_of(self, value: float) -> int:
        """The block that this value is in, or would go into."""
        if len(self._blocks) == 1:
            return 0
        return min(bisect_left(self._blocks, value, key=_LARGEST), len(self._blocks) - 1)
