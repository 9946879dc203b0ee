"""Curves: schedules that follow one formula after their warmup."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import accumulate
from typing import Annotated

from ignite_lr.core.arguments import (
    AT_ONCE,
    MOST,
    Real,
    Whole,
)
from ignite_lr.schedules._compose import UpdateIndices
from ignite_lr.schedules._schedule import Factor, Length, Positive, Schedule, Steps, TotalSteps
from ignite_lr.schedules._warmed import Ending, Limited, Warmed

__all__ = [
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "Noam",
    "Polynomial",
    "Step",
    "Tanh",
]


@dataclass(frozen=True, repr=False)
class Constant(Warmed, called="constant"):
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
    _: KW_ONLY
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _peak(self) -> float:
        return self.factor

    def _factor(self, step: int) -> float:
        return self.factor


@dataclass(frozen=True, repr=False)
class Linear(Ending, called="linear"):
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
    _: KW_ONLY
    final_factor: Factor = 0.0
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _shape(self, progress: float) -> float:
        return 1.0 - progress


@dataclass(frozen=True, repr=False)
class Cosine(Ending, called="cosine"):
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
    _: KW_ONLY
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
class CosineRestarts(Limited, called="cosine_restarts"):
    """Half waves of a cosine, each beginning at its peak again.

    In cycle ``i`` from 0, ``factor(t) = cycle_decay**i * (final_factor + (1 - final_factor) * (1 + cos(pi c)) / 2)``,
    where ``c`` in [0, 1) is the share of the cycle that is done. Each cycle is ``cycle_mult`` times as long as the one
    before it, and together they fill what the warmup leaves of ``total_steps``; they need not be whole numbers long.

    Args:
        total_steps: update from which on the last value holds, above 0; may be fractional.
        num_cycles: how many, from 1 to 10,000,000.
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
    _: KW_ONLY
    num_cycles: Annotated[int, Whole(1, maximum=AT_ONCE)] = 1
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
            return self._held
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
class Polynomial(Ending, called="polynomial"):
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
    _: KW_ONLY
    power: Positive = 1.0
    final_factor: Factor = 0.0
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _shape(self, progress: float) -> float:
        left: float = (1.0 - progress) ** self.power
        return left


@dataclass(frozen=True, repr=False)
class InverseSqrt(Warmed, called="inverse_sqrt"):
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
    _: KW_ONLY
    warmup_start: Factor = 0.0
    timescale: Annotated[float | None, Real(above=0.0, or_none=True)] = None

    @cached_property
    def _scale(self) -> float:
        return self.timescale if self.timescale is not None else float(max(self.warmup_steps, 1))

    def _factor(self, step: int) -> float:
        return math.sqrt(self._scale / (step - self.warmup_steps + self._scale))


@dataclass(frozen=True, repr=False)
class Noam(Schedule, called="noam"):
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
    _: KW_ONLY
    model_dim: Annotated[int | None, Whole(1, or_none=True)] = None

    @cached_property
    def _at_peak(self) -> float:
        return 1.0 if self.model_dim is None else 1.0 / math.sqrt(self.model_dim * self.warmup_steps)

    def _factor(self, step: int) -> float:
        update = step + 1
        if update < self.warmup_steps:
            return self._at_peak * (update / self.warmup_steps)
        return self._at_peak * math.sqrt(self.warmup_steps / update)


def _power(base: float, exponent: int) -> float:
    """``base**exponent``, held at the largest number where it would be none: factors are finite.

    Raises:
        OverflowError: if the exponent is beyond what a float holds.
    """
    if exponent > MOST:
        raise OverflowError
    try:
        power: float = base**exponent
    except OverflowError:
        return sys.float_info.max
    return power


@dataclass(frozen=True, repr=False)
class Exponential(Warmed, called="exponential"):
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
    _: KW_ONLY
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _factor(self, step: int) -> float:
        return _power(self.gamma, step - self.warmup_steps)


@dataclass(frozen=True, repr=False)
class Step(Warmed, called="step"):
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
    _: KW_ONLY
    gamma: Positive = 0.1
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _factor(self, step: int) -> float:
        return _power(self.gamma, (step - self.warmup_steps) // self.step_size)


@dataclass(frozen=True, repr=False)
class MultiStep(Warmed, called="multi_step"):
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
    _: KW_ONLY
    gamma: Positive = 0.1
    warmup_steps: Steps = 0
    warmup_start: Factor = 0.0

    def _factor(self, step: int) -> float:
        return _power(self.gamma, bisect_right(self.milestones, step - self.warmup_steps))


@dataclass(frozen=True, repr=False)
class Tanh(Ending, called="tanh"):
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
    _: KW_ONLY
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
