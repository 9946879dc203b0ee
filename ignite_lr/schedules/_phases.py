"""Schedules of several phases: up, a plateau, down; and the cycle of rate and momentum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Annotated

from ignite_lr.core.arguments import Choice, Flag, Real
from ignite_lr.schedules._schedule import Factor, Positive, Schedule, Steps, TotalSteps
from ignite_lr.schedules._warmed import Warmed

__all__ = ["OneCycle", "OneCycleMomentum", "TriStage", "WarmupStableDecay"]

# 1 at a progress of 0, 0 at 1
_DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "sqrt": lambda progress: 1.0 - math.sqrt(progress),
}
_Shape = Annotated[str, Choice(tuple(_DECAYS))]


@dataclass(frozen=True, repr=False)
class WarmupStableDecay(Warmed, called="warmup_stable_decay"):
    """A warmup, a plateau at the peak, and a decay.

    ``factor(t) = final_factor + (1 - final_factor) * shape(p)`` in the decay, where ``p`` in [0, 1) is the share of the
    decay that is done, and the shape ``1 - p`` ("linear"), ``(1 + cos(pi p)) / 2`` ("cosine") or ``1 - sqrt(p)``
    ("sqrt"). The warmup is the mirror image: ``warmup_start + (1 - warmup_start) * shape(1 - p)``.

    Args:
        warmup_steps: length of the warmup in updates, at least 0.
        stable_steps: length of the plateau in updates, at least 0.
        decay_steps: length of the decay in updates, at least 0.
        decay: its shape: "linear", "cosine" or "sqrt".
        final_factor: factor after the decay, at least 0.
        warmup_start: factor at update 0, at least 0.
        warmup: shape of the warmup: "linear", "cosine" or "sqrt".

    Source: Hu et al., "MiniCPM" (arXiv:2404.06395); Transformers' ``get_wsd_schedule``.

    Example:
        With the 1-sqrt decay over the last fifth, which Hägele et al. find best for pre-training (arXiv:2405.18392):

        >>> pre_training = WarmupStableDecay(warmup_steps=2_000, stable_steps=78_000, decay_steps=20_000, decay="sqrt")
        >>> [pre_training(t) for t in (0, 1_000, 2_000, 80_000, 85_000, 100_000)]
        [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]
    """

    warmup_steps: Steps
    _: KW_ONLY
    stable_steps: Steps
    decay_steps: Steps
    decay: _Shape = "linear"
    final_factor: Factor = 0.0
    warmup_start: Factor = 0.0
    warmup: _Shape = "linear"

    @cached_property
    def _decay_from(self) -> int:
        return self.warmup_steps + self.stable_steps

    @cached_property
    def _hold_from(self) -> int:
        return self._decay_from + self.decay_steps

    def _warmup(self, step: int) -> float:
        if self.warmup == "linear" or step < 0:
            return super()._warmup(step)
        shape = _DECAYS[self.warmup](1.0 - step / self.warmup_steps)
        return self.warmup_start + (1.0 - self.warmup_start) * shape

    def _factor(self, step: int) -> float:
        if step >= self._hold_from:
            return self.final_factor
        if step < self._decay_from:
            return 1.0
        shape = _DECAYS[self.decay]((step - self._decay_from) / self.decay_steps)
        return self.final_factor + (1.0 - self.final_factor) * shape


@dataclass(frozen=True, repr=False)
class TriStage(Warmed, called="tri_stage"):
    """A warmup, a plateau at the peak, and an exponential decay.

    ``factor(t) = final_factor**p`` in the decay, where ``p`` in [0, 1) is the share of it that is done.

    Args:
        warmup_steps: length of the warmup in updates, at least 0.
        hold_steps: length of the plateau in updates, at least 0.
        decay_steps: length of the decay in updates, at least 0.
        warmup_start: factor at update 0, at least 0.
        final_factor: factor after the decay, above 0.

    Source: Park et al., "SpecAugment" (arXiv:1904.08779); fairseq's ``tri_stage``.

    Example:
        >>> schedule = TriStage(warmup_steps=10, hold_steps=20, decay_steps=40)
        >>> [round(schedule(t), 6) for t in (0, 10, 30, 50, 70)]
        [0.01, 1.0, 1.0, 0.1, 0.01]
    """

    warmup_steps: Steps
    _: KW_ONLY
    hold_steps: Steps
    decay_steps: Steps
    warmup_start: Factor = 0.01
    final_factor: Positive = 0.01

    @cached_property
    def _decay_from(self) -> int:
        return self.warmup_steps + self.hold_steps

    @cached_property
    def _hold_from(self) -> int:
        return self._decay_from + self.decay_steps

    @cached_property
    def _log_final(self) -> float:
        return math.log(self.final_factor)

    def _factor(self, step: int) -> float:
        if step >= self._hold_from:
            return self.final_factor
        if step < self._decay_from:
            return 1.0
        return math.exp(self._log_final * ((step - self._decay_from) / self.decay_steps))


@dataclass(frozen=True, repr=False)
class OneCycle(Schedule, called="one_cycle"):
    """Up to the peak and down to next to nothing, in two phases or three.

    From ``1 / div_factor`` to 1 over the first ``pct_start`` of the updates, then to ``1 / (div_factor *
    final_div_factor)``; with ``three_phase`` first back to ``1 / div_factor`` in as many updates as it took to rise.
    The factors are of the *highest* rate, so that is the rate to give the optimizer. The phases end where PyTorch's do:
    at updates ``pct_start * total_steps - 1``, with three of them at ``2 * pct_start * total_steps - 2``, and
    ``total_steps - 1``.

    Args:
        total_steps: length in updates, at least 1.
        pct_start: share of the updates that rise, from 0 to 1, with three phases to 0.5.
        div_factor: peak over first factor, above 0.
        final_div_factor: first over last factor, above 0.
        anneal: "cosine" or "linear".
        three_phase: whether there is a way down that mirrors the way up before the last phase.

    Source: Smith and Topin, "Super-Convergence" (arXiv:1708.07120); PyTorch's ``OneCycleLR``.

    Example:
        >>> schedule = OneCycle(total_steps=100)
        >>> [round(schedule(t), 6) for t in (0, 29, 99)]
        [0.04, 1.0, 4e-06]
    """

    total_steps: TotalSteps
    _: KW_ONLY
    pct_start: Annotated[float, Real(minimum=0.0, maximum=1.0)] = 0.3
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4
    anneal: Annotated[str, Choice(("cosine", "linear"))] = "cosine"
    three_phase: Annotated[bool, Flag()] = False

    def _prepare(self) -> None:
        if self.three_phase and self.pct_start > 0.5:
            raise self._fail(f"pct_start must be at most 0.5 with three phases, got {self.pct_start!r}.")
        if not (math.isfinite(self._first) and math.isfinite(self._last)):
            raise self._fail(
                "div_factor and final_div_factor must give finite factors, "
                f"got div_factor={self.div_factor!r} and final_div_factor={self.final_div_factor!r}."
            )

    @cached_property
    def _first(self) -> float:
        return 1.0 / self.div_factor

    @cached_property
    def _last(self) -> float:
        return self._first / self.final_div_factor

    @cached_property
    def _phases(self) -> _Phases:
        return _cycle(self, (self._first, 1.0, self._first, self._last))

    def _factor(self, step: int) -> float:
        return _in_phase(self._phases, self.anneal, step, self._last)

    def momentum(self, *, high: float = 0.95, low: float = 0.85) -> OneCycleMomentum:
        """The momentum that PyTorch's ``OneCycleLR`` gives beside these rates: down while they rise, and up again.

        Args:
            high: at the beginning and at the end, at least 0.
            low: where the rate has its peak, at least 0.

        Returns:
            a schedule of momentum itself, for ``ScheduleParam(optimizer, "momentum", ..., absolute=True)``.

        Example:
            >>> momentum = OneCycle(total_steps=100).momentum(high=0.95, low=0.85)
            >>> [round(momentum(t), 6) for t in (0, 29, 99)]
            [0.95, 0.85, 0.95]
        """
        return OneCycleMomentum(
            self.total_steps,
            pct_start=self.pct_start,
            anneal=self.anneal,
            three_phase=self.three_phase,
            high=high,
            low=low,
        )


@dataclass(frozen=True, repr=False)
class OneCycleMomentum(Schedule, called="one_cycle_momentum"):
    """The momentum of a one-cycle training; see :meth:`OneCycle.momentum`.

    Args:
        total_steps: length in updates, at least 1.
        pct_start: share of the updates in which it falls, from 0 to 1, with three phases to 0.5.
        anneal: "cosine" or "linear".
        three_phase: whether it is up again after as many updates as it took to fall.
        high: momentum at the beginning and at the end, at least 0.
        low: momentum at the peak of the rate, at least 0.

    Source: Smith and Topin, "Super-Convergence" (arXiv:1708.07120); PyTorch's ``OneCycleLR``.

    Example:
        >>> OneCycleMomentum(total_steps=100)(0)
        0.95
    """

    total_steps: TotalSteps
    _: KW_ONLY
    pct_start: Annotated[float, Real(minimum=0.0, maximum=1.0)] = 0.3
    anneal: Annotated[str, Choice(("cosine", "linear"))] = "cosine"
    three_phase: Annotated[bool, Flag()] = False
    high: Factor = 0.95
    low: Factor = 0.85

    @cached_property
    def _phases(self) -> _Phases:
        return _cycle(self, (self.high, self.low, self.high, self.high))

    def _factor(self, step: int) -> float:
        return _in_phase(self._phases, self.anneal, step, self.high)


_Phases = tuple[tuple[float, float, float, float], ...]


def _cycle(cycle: OneCycle | OneCycleMomentum, values: tuple[float, float, float, float]) -> _Phases:
    """Start, end, value at the start and at the end of each phase.

    Args:
        cycle: the lengths.
        values: at the start, at the peak of the rate, after the way down that mirrors the way up, and at the end.
    """
    first, peak, back, last = values
    rise = cycle.pct_start * cycle.total_steps
    ends = [(rise - 1.0, peak), (cycle.total_steps - 1.0, last)]
    if cycle.three_phase:
        ends.insert(1, (2.0 * rise - 2.0, back))
    phases: list[tuple[float, float, float, float]] = []
    start, before = 0.0, first
    for end, after in ends:
        if end > start:
            phases.append((start, end, before, after))
        # as in PyTorch, also where the rise would have ended before update 0
        start, before = end, after
    return tuple(phases)


def _in_phase(phases: _Phases, anneal: str, step: int, last: float) -> float:
    for start, end, before, after in phases:
        if step <= end:
            progress = (step - start) / (end - start)
            if anneal == "cosine":
                return after + 0.5 * (before - after) * (1.0 + math.cos(math.pi * progress))
            return before + (after - before) * progress
    return last
