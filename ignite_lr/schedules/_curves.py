"""Learning-rate schedules: pure functions from the update index to a factor of the base rate.

Every schedule is a frozen dataclass that is called with the index of an update, counted from 0, and returns the factor
which multiplies the base rate for that update. It holds no state, so that a resumed training needs the index only.

* Where there is a ``warmup_steps``, the factor first rises linearly from ``warmup_start`` at update 0 to the peak at
  update ``warmup_steps``, where the rest begins. ``total_steps`` includes the warmup; ``step_size`` and ``milestones``
  count from its end. A phase of length zero is skipped.
* A ``warmup_start`` of 0 makes the first update of the training one that changes nothing; 1e-3, say, does not.
* From its end on, a schedule holds its final value.
* Factors are finite and never negative. Arguments are checked when the schedule is made.

Example:
    >>> schedule = Cosine(total_steps=100, final_factor=0.1, warmup_steps=10)
    >>> [round(factor, 3) for factor in (schedule(0), schedule(10), schedule(55), schedule(100), schedule(1000))]
    [0.0, 1.0, 0.55, 0.1, 0.1]
    >>> from_dict(schedule.to_dict()) == schedule
    True
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Annotated

from ignite_lr.core.arguments import (
    Choice,
    Flag,
    Real,
    Whole,
)
from ignite_lr.schedules._compose import Clamp, Join, PiecewiseLinear, Scale, Shift, UpdateIndices
from ignite_lr.schedules._schedule import (
    Ending,
    Factor,
    Length,
    Limited,
    Positive,
    Schedule,
    ScheduleFunction,
    Steps,
    TotalSteps,
    Warmed,
    from_dict,
    get,
)
from ignite_lr.schedules._warmup import with_warmup

__all__ = [
    "Clamp",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Exponential",
    "InverseSqrt",
    "Join",
    "Linear",
    "MultiStep",
    "Noam",
    "OneCycle",
    "PiecewiseLinear",
    "Polynomial",
    "Scale",
    "Schedule",
    "ScheduleFunction",
    "Shift",
    "Step",
    "Tanh",
    "TriStage",
    "WarmupStableDecay",
    "from_dict",
    "get",
    "with_warmup",
]


@dataclass(frozen=True, repr=False)
class Constant(Warmed, name="constant"):
    """The same factor for ever: ``factor(t) = factor``.

    Args:
        factor: at least 0.
        warmup_steps: length of the warmup in updates, at least 0; it rises to ``factor``.
        warmup_start: factor at update 0, at least 0.

    Example:
        >>> Constant(0.5, warmup_steps=2).values(4)
        [0.0, 0.25, 0.5, 0.5]
    """

    factor: Factor = 1.0
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _peak(self) -> float:
        return self.factor

    def _factor(self, step: int) -> float:
        return self.factor


@dataclass(frozen=True, repr=False)
class Linear(Ending, name="linear"):
    """A straight line: ``factor(t) = 1 + (final_factor - 1) * p``, ``p = (t - warmup) / (total - warmup)``.

    Args:
        total_steps: update from which on the final factor holds, at least 1.
        final_factor: at least 0.
        warmup_steps: length of the warmup in updates, from 0 to ``total_steps``.
        warmup_start: factor at update 0, at least 0.

    Source: Transformers' ``get_linear_schedule_with_warmup``.

    Example:
        Linear to zero, as Bergsma et al. recommend it for pre-training ("Straight to Zero", arXiv:2502.15938):

        >>> pre_training = Linear(total_steps=100_000, warmup_steps=2_000)
        >>> [pre_training(t) for t in (0, 1_000, 2_000, 51_000, 100_000)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    total_steps: TotalSteps
    final_factor: Factor = 0.0
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _shape(self, progress: float) -> float:
        return 1.0 - progress


@dataclass(frozen=True, repr=False)
class Cosine(Ending, name="cosine"):
    """A half wave of a cosine, or more of it.

    ``factor(t) = final_factor + (1 - final_factor) * ((1 + cos(2 pi num_cycles p**k_decay)) / 2)**exponent``,
    ``p = (t - warmup) / (total - warmup)``.

    Args:
        total_steps: update from which on the last value holds, at least 1.
        final_factor: the lowest factor, at least 0.
        num_cycles: number of waves, above 0; 0.5 goes from the peak to the lowest factor once.
        exponent: of the wave, above 0 (optax).
        k_decay: of the progress, above 0; above 1 it stays high for longer (timm; Zhang and Li, arXiv:2004.05909).
        warmup_steps: length of the warmup in updates, from 0 to ``total_steps``.
        warmup_start: factor at update 0, at least 0.

    Source: Loshchilov and Hutter, "SGDR" (arXiv:1608.03983); the forms of Transformers, optax and timm.

    Example:
        A cosine to 10%, as Chinchilla was pre-trained (Hoffmann et al., arXiv:2203.15556):

        >>> pre_training = Cosine(total_steps=100_000, final_factor=0.1, warmup_steps=2_000)
        >>> [round(pre_training(t), 3) for t in (0, 2_000, 51_000, 100_000)]
        [0.0, 1.0, 0.55, 0.1]
    """

    total_steps: TotalSteps
    final_factor: Factor = 0.0
    num_cycles: Positive = 0.5
    exponent: Positive = 1.0
    k_decay: Positive = 1.0
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _shape(self, progress: float) -> float:
        if self.k_decay != 1.0:
            progress = progress**self.k_decay
        # the whole waves go first: a turn of many of them is beyond what a float resolves, or holds
        shape = 0.5 + 0.5 * math.cos(math.tau * (self.num_cycles * progress % 1.0))
        return shape if self.exponent == 1.0 else shape**self.exponent


@dataclass(frozen=True, repr=False)
class CosineRestarts(Limited, name="cosine_restarts"):
    """Half waves of a cosine, each beginning at its peak again.

    In cycle ``i`` from 0, ``factor(t) = cycle_decay**i * (final_factor + (1 - final_factor) * (1 + cos(pi c)) / 2)``,
    where ``c`` in [0, 1) is the share of the cycle that is done. Each cycle is ``cycle_mult`` times as long as the one
    before it, and together they fill what the warmup leaves of ``total_steps``; they need not be whole numbers long.

    Args:
        total_steps: update from which on the last value holds, above 0; may be fractional.
        num_cycles: how many, at least 1.
        cycle_mult: how much longer each cycle is, above 0.
        cycle_decay: how much lower each cycle is, its lowest factor included, above 0.
        final_factor: lowest factor of the first cycle, at least 0.
        warmup_steps: length of the warmup in updates, from 0 to ``total_steps``.
        warmup_start: factor at update 0, at least 0.

    Source: Loshchilov and Hutter, "SGDR" (arXiv:1608.03983); cycles of equal length as in Transformers'
    ``get_cosine_with_hard_restarts_schedule_with_warmup``, growing and sinking ones as in fairseq's ``cosine``.

    Example:
        >>> CosineRestarts(total_steps=12, num_cycles=2, cycle_mult=2.0, cycle_decay=0.5).values(5)[::4]
        [1.0, 0.5]
    """

    total_steps: Length
    num_cycles: Annotated[int, Whole(1)] = 1
    cycle_mult: Positive = 1.0
    cycle_decay: Positive = 1.0
    final_factor: Factor = 0.0
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _prepare(self) -> None:
        super()._prepare()
        try:
            finite = math.isfinite(self._starts[-1] + self._held)
        except OverflowError:
            finite = False
        if not finite:
            raise self._fail(
                "cycle_mult and cycle_decay must stay finite over all cycles, got "
                f"cycle_mult={self.cycle_mult!r}, cycle_decay={self.cycle_decay!r}, num_cycles={self.num_cycles!r}."
            )

    @cached_property
    def _starts(self) -> tuple[float, ...]:
        """Where the cycles begin, and where the last one ends."""
        span = self.total_steps - self.warmup_steps
        ends = list(accumulate(self.cycle_mult**i for i in range(self.num_cycles)))
        return tuple(_snap(self.warmup_steps + span * (end / ends[-1])) for end in (0.0, *ends))

    @cached_property
    def _held(self) -> float:
        held: float = self.cycle_decay ** (self.num_cycles - 1) * self.final_factor
        return held

    def _factor(self, step: int) -> float:
        if step >= self._starts[-1]:
            # where the warmup takes it all, the peak it leads to is still used, once
            return 1.0 if step == self.warmup_steps else self._held
        cycle = bisect_right(self._starts, step) - 1
        start = self._starts[cycle]
        done = (step - start) / (self._starts[cycle + 1] - start)
        wave = 0.5 * (1.0 + math.cos(math.pi * done))
        factor: float = self.cycle_decay**cycle * (self.final_factor + (1.0 - self.final_factor) * wave)
        return factor


def _snap(position: float) -> float:
    """Without the rounding error of a whole number: a restart that is due at an update must not come one later."""
    whole = round(position)
    return float(whole) if math.isclose(position, whole, rel_tol=1e-12) else position


@dataclass(frozen=True, repr=False)
class Polynomial(Ending, name="polynomial"):
    """A power of a straight line: ``factor(t) = final_factor + (1 - final_factor) * (1 - p)**power``.

    ``p = (t - warmup) / (total - warmup)``.

    Args:
        total_steps: update from which on the final factor holds, at least 1.
        power: above 0.
        final_factor: at least 0.
        warmup_steps: length of the warmup in updates, from 0 to ``total_steps``.
        warmup_start: factor at update 0, at least 0.

    Source: fairseq's ``polynomial_decay``, Transformers' ``get_polynomial_decay_schedule_with_warmup``.

    Example:
        >>> Polynomial(total_steps=10, power=2.0)(5)
        0.25
    """

    total_steps: TotalSteps
    power: Positive = 1.0
    final_factor: Factor = 0.0
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _shape(self, progress: float) -> float:
        left: float = (1.0 - progress) ** self.power
        return left


@dataclass(frozen=True, repr=False)
class InverseSqrt(Warmed, name="inverse_sqrt"):
    """One over the square root of the update: ``factor(t) = sqrt(timescale / (t - warmup + timescale))``.

    Without a ``timescale`` it is the length of the warmup, so that ``factor(t) = sqrt(warmup / t)``. It has no end.

    Args:
        warmup_steps: length of the warmup in updates, at least 0. Without a warmup, and without a ``timescale``, the
            curve is that of a warmup of one update, entered at its peak.
        warmup_start: factor at update 0, at least 0.
        timescale: updates after the peak that it takes to fall to 1/sqrt(2), above 0, or None.

    Source: fairseq's ``inverse_sqrt``; with a ``timescale``, Transformers' ``get_inverse_sqrt_schedule`` (which takes
    10,000 where there is no warmup); Vaswani et al., "Attention Is All You Need" (arXiv:1706.03762).

    Example:
        As in the pre-training of T5 (Raffel et al., arXiv:1910.10683), with a linear warmup:

        >>> pre_training = InverseSqrt(warmup_steps=10_000)
        >>> [pre_training(t) for t in (0, 5_000, 10_000, 40_000, 1_000_000)]
        [0.0, 0.5, 1.0, 0.5, 0.1]
    """

    warmup_steps: Steps
    warmup_start: Factor = 0.0
    timescale: Annotated[float | None, Real(above=0.0, or_none=True)] = None

    @cached_property
    def _scale(self) -> float:
        return self.timescale if self.timescale is not None else float(max(self.warmup_steps, 1))

    @cached_property
    def _offset(self) -> float:
        return self._scale - self.warmup_steps

    def _factor(self, step: int) -> float:
        return math.sqrt(self._scale / (step + self._offset))


@dataclass(frozen=True, repr=False)
class Noam(Schedule, name="noam"):
    """Up in a straight line, then down with the square root of the update.

    ``factor(t) = c * min((t + 1)**-0.5, (t + 1) * warmup**-1.5)`` with ``c = sqrt(warmup)``, so that the peak, at
    update ``warmup - 1``, is 1; with a ``model_dim`` ``c = model_dim**-0.5``, as in the paper. It has no end.

    Args:
        warmup_steps: length of the warmup in updates, at least 1.
        model_dim: width of the model, at least 1, or None.

    Source: Vaswani et al., "Attention Is All You Need" (arXiv:1706.03762), equation 3.

    Example:
        >>> Noam(warmup_steps=4).values(5)[:4], Noam(warmup_steps=4)(15)
        ([0.25, 0.5, 0.75, 1.0], 0.5)
    """

    warmup_steps: TotalSteps
    model_dim: Annotated[int | None, Whole(1, or_none=True)] = None

    @cached_property
    def _at_peak(self) -> float:
        return 1.0 if self.model_dim is None else 1.0 / math.sqrt(self.model_dim * self.warmup_steps)

    def _factor(self, step: int) -> float:
        update = step + 1
        if update < self.warmup_steps:
            return self._at_peak * (update / self.warmup_steps)
        return self._at_peak * math.sqrt(self.warmup_steps / update)


# 1 at a progress of 0, 0 at 1
_DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "sqrt": lambda progress: 1.0 - math.sqrt(progress),
}
_Shape = Annotated[str, Choice(tuple(_DECAYS))]


@dataclass(frozen=True, repr=False)
class WarmupStableDecay(Warmed, name="warmup_stable_decay"):
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
class TriStage(Warmed, name="tri_stage"):
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
class OneCycle(Schedule, name="one_cycle"):
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
    def _phases(self) -> tuple[tuple[float, float, float, float], ...]:
        """Start, end, factor at the start and at the end of each."""
        rise = self.pct_start * self.total_steps
        ends = [(rise - 1.0, 1.0), (self.total_steps - 1.0, self._last)]
        if self.three_phase:
            ends.insert(1, (2.0 * rise - 2.0, self._first))
        phases: list[tuple[float, float, float, float]] = []
        start, before = 0.0, self._first
        for end, after in ends:
            if end > start:
                phases.append((start, end, before, after))
            # as in PyTorch, also where the rise would have ended before update 0
            start, before = end, after
        return tuple(phases)

    def _factor(self, step: int) -> float:
        for start, end, before, after in self._phases:
            if step <= end:
                progress = (step - start) / (end - start)
                if self.anneal == "cosine":
                    return after + 0.5 * (before - after) * (1.0 + math.cos(math.pi * progress))
                return before + (after - before) * progress
        return self._last


def _power(base: float, exponent: int) -> float:
    """``base**exponent``, held at the largest number where it would be none: factors are finite."""
    try:
        power: float = base**exponent
    except OverflowError:
        return sys.float_info.max
    return power


@dataclass(frozen=True, repr=False)
class Exponential(Warmed, name="exponential"):
    """A constant ratio from update to update: ``factor(t) = gamma**(t - warmup)``. It has no end.

    Args:
        gamma: the ratio, above 0; above 1 it grows without bounds.
        warmup_steps: length of the warmup in updates, at least 0.
        warmup_start: factor at update 0, at least 0.

    Source: PyTorch's ``ExponentialLR``, optax's ``warmup_exponential_decay_schedule``.

    Example:
        >>> Exponential(gamma=0.5).values(4)
        [1.0, 0.5, 0.25, 0.125]
    """

    gamma: Positive
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _factor(self, step: int) -> float:
        return _power(self.gamma, step - self.warmup_steps)


@dataclass(frozen=True, repr=False)
class Step(Warmed, name="step"):
    """A drop after every ``step_size`` updates: ``factor(t) = gamma**floor((t - warmup) / step_size)``. It has no end.

    Args:
        step_size: updates between two drops, and from the end of the warmup to the first one, at least 1.
        gamma: what a drop multiplies by, above 0.
        warmup_steps: length of the warmup in updates, at least 0; it rises to 1.
        warmup_start: factor at update 0, at least 0.

    Source: PyTorch's ``StepLR``; with a warmup, fairseq's ``step`` and timm's ``StepLRScheduler``.

    Example:
        >>> Step(step_size=2, gamma=0.5).values(5)
        [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    step_size: TotalSteps
    gamma: Positive = 0.1
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _factor(self, step: int) -> float:
        return _power(self.gamma, (step - self.warmup_steps) // self.step_size)


@dataclass(frozen=True, repr=False)
class MultiStep(Warmed, name="multi_step"):
    """A drop at each milestone: ``factor(t) = gamma**(number of milestones <= t - warmup)``.

    Args:
        milestones: the updates of the drops, counted from the end of the warmup; they never fall, and one that is there
            twice counts twice.
        gamma: what a drop multiplies by, above 0.
        warmup_steps: length of the warmup in updates, at least 0; it rises to 1.
        warmup_start: factor at update 0, at least 0.

    Source: PyTorch's ``MultiStepLR``; with a warmup, timm's ``MultiStepLRScheduler``.

    Example:
        >>> MultiStep(milestones=[2, 3], gamma=0.5).values(5)
        [1.0, 1.0, 0.5, 0.25, 0.25]
    """

    milestones: UpdateIndices
    gamma: Positive = 0.1
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _factor(self, step: int) -> float:
        return _power(self.gamma, bisect_right(self.milestones, step - self.warmup_steps))


@dataclass(frozen=True, repr=False)
class Tanh(Ending, name="tanh"):
    """A stretch of a hyperbolic tangent.

    ``factor(t) = final_factor + (1 - final_factor) * (1 - tanh(lower * (1 - p) + upper * p)) / 2``,
    ``p = (t - warmup) / (total - warmup)``. At ``total_steps`` it drops to ``final_factor``, which it comes near to
    but does not reach.

    Args:
        total_steps: update from which on the final factor holds, at least 1.
        lower: where the stretch begins, below ``upper``.
        upper: where it ends.
        final_factor: at least 0.
        warmup_steps: length of the warmup in updates, from 0 to ``total_steps``.
        warmup_start: factor at update 0, at least 0.

    Source: Hsueh et al., "Stochastic Gradient Descent with Hyperbolic-Tangent Decay" (arXiv:1806.01593); timm's
    ``TanhLRScheduler``.

    Example:
        >>> round(Tanh(total_steps=100)(70), 6)
        0.5
    """

    total_steps: TotalSteps
    lower: Annotated[float, Real()] = -7.0
    upper: Annotated[float, Real()] = 3.0
    final_factor: Factor = 0.0
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _prepare(self) -> None:
        if self.lower >= self.upper:
            raise self._fail(f"lower must be below upper, got lower={self.lower!r} and upper={self.upper!r}.")
        super()._prepare()

    def _shape(self, progress: float) -> float:
        return 0.5 * (1.0 - math.tanh(self.lower * (1.0 - progress) + self.upper * progress))

    def _shape_at_end(self) -> float:
        return 0.0
