"""Schedules made of points, and schedules made of schedules."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any

from ignite_lr.core.arguments import Real, Whole, check_callable, check_items, shown
from ignite_lr.schedules._schedule import (
    Factor,
    Schedule,
    ScheduleFunction,
)

__all__ = ["Clamp", "Function", "Join", "PiecewiseLinear", "Scale", "Shift", "UpdateIndices"]


@dataclass(frozen=True)
class Function:
    """A schedule: any callable of the update index."""

    def check(self, name: str, value: Any) -> ScheduleFunction:
        """The schedule."""
        if isinstance(value, type):
            raise TypeError(f"{name} must be a schedule, got the class {value.__name__}: make an instance of it.")
        function: ScheduleFunction = check_callable(name, value)
        return function


@dataclass(frozen=True)
class Functions:
    """At least one schedule."""

    def check(self, name: str, value: Any) -> tuple[ScheduleFunction, ...]:
        """The schedules as a tuple."""
        functions = check_items(name, "a sequence of schedules", value)
        if not functions:
            raise ValueError(f"{name} must have at least one schedule, got {shown(value)}.")
        return tuple(Function().check(f"{name}[{i}]", function) for i, function in enumerate(functions))


@dataclass(frozen=True)
class Indices:
    """Update indices that never fall."""

    def check(self, name: str, value: Any) -> tuple[int, ...]:
        """The indices as a tuple."""
        indices = tuple(
            index
            for i, item in enumerate(check_items(name, "a sequence of update indices", value))
            if (index := Whole(0).check(f"{name}[{i}]", item)) is not None
        )
        for before, after in pairwise(indices):
            if after < before:
                raise ValueError(f"{name} must never fall from one to the next, got {before!r} before {after!r}.")
        return indices


@dataclass(frozen=True)
class Points:
    """Pairs of an update and a factor, in rising order of the updates."""

    def check(self, name: str, value: Any) -> tuple[tuple[float, float], ...]:
        """The points as a tuple of pairs."""
        points: list[tuple[float, float]] = []
        for i, item in enumerate(check_items(name, "a sequence of (update, factor) pairs", value)):
            pair = check_items(f"{name}[{i}]", "a sequence of an update and a factor", item)
            if len(pair) != 2:
                raise ValueError(f"{name}[{i}] must be an (update, factor) pair, got {shown(item)}.")
            update = Real(minimum=0.0).check(f"update of {name}[{i}]", pair[0])
            factor = Real(minimum=0.0).check(f"factor of {name}[{i}]", pair[1])
            assert update is not None
            assert factor is not None
            if points and update <= points[-1][0]:
                raise ValueError(
                    f"updates of {name} must rise from one to the next, got {points[-1][0]:g}, {update:g}."
                )
            points.append((update, factor))
        if not points:
            raise ValueError(f"{name} must have at least one (update, factor) pair, got {shown(value)}.")
        return tuple(points)


# a list is taken as well, and kept as a tuple
UpdateIndices = Annotated[Sequence[int], Indices()]


@dataclass(frozen=True, repr=False)
class PiecewiseLinear(Schedule, called="piecewise_linear"):
    """Straight lines from point to point.

    ``factor(t) = f_i + (f_{i+1} - f_i) * (t - t_i) / (t_{i+1} - t_i)`` for ``t_i <= t < t_{i+1}``; the first factor
    before the first point, the last one after the last.

    Args:
        points: pairs ``(t_i, f_i)`` of an update, rising, at least 0, and a factor, at least 0.

    Source: Ignite's ``PiecewiseLinear``, optax's ``piecewise_interpolate_schedule("linear", ...)``.

    Example:
        >>> PiecewiseLinear([(0, 0.0), (10, 1.0), (30, 0.5)])(20)
        0.75
    """

    points: Annotated[Sequence[tuple[float, float]], Points()]

    @cached_property
    def _updates(self) -> tuple[float, ...]:
        return tuple(update for update, _ in self.points)

    def _factor(self, step: int) -> float:
        i = bisect_right(self._updates, step)
        if i == 0:
            return self.points[0][1]
        if i == len(self.points):
            return self.points[-1][1]
        (before, low), (after, high) = self.points[i - 1], self.points[i]
        return low + (high - low) * ((step - before) / (after - before))


@dataclass(frozen=True, repr=False)
class Join(Schedule, called="join"):
    """Schedules one after the other.

    ``factor(t) = schedules[i](t - boundaries[i-1])`` for ``boundaries[i-1] <= t < boundaries[i]``: each part counts
    from its own 0, and part ``i + 1`` begins at update ``boundaries[i]``.

    Args:
        schedules: the parts, any callables.
        boundaries: the updates at which the second and all later parts begin, one fewer than parts, never falling.
            Two that are the same skip the part between them.

    Source: optax's ``join_schedules``.

    Example:
        >>> from ignite_lr.schedules import Constant, Linear
        >>> Join([Constant(), Linear(total_steps=10)], boundaries=[100]).values(106)[99:]
        [1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    """

    schedules: Annotated[Sequence[ScheduleFunction], Functions()]
    boundaries: UpdateIndices

    def _prepare(self) -> None:
        if len(self.boundaries) != len(self.schedules) - 1:
            raise self._fail(
                f"boundaries must be one fewer than schedules, "
                f"got {len(self.boundaries)} boundaries for {len(self.schedules)} schedules."
            )

    def _factor(self, step: int) -> float:
        i = bisect_right(self.boundaries, step)
        return self.schedules[i](step - self.boundaries[i - 1] if i else step)


@dataclass(frozen=True, repr=False)
class Scale(Schedule, called="scale"):
    """A schedule times a number: ``factor(t) = factor * schedule(t)``.

    Args:
        schedule: any callable.
        factor: at least 0.

    Example:
        >>> from ignite_lr.schedules import Linear
        >>> Scale(Linear(total_steps=10), 0.5)(0)
        0.5
    """

    schedule: Annotated[ScheduleFunction, Function()]
    factor: Factor

    def _factor(self, step: int) -> float:
        return self.factor * self.schedule(step)


@dataclass(frozen=True, repr=False)
class Shift(Schedule, called="shift"):
    """A schedule entered in the middle, or later: ``factor(t) = schedule(max(t + steps, 0))``.

    Args:
        schedule: any callable.
        steps: how many updates it is ahead. A negative number delays it, and its first value holds until it begins.

    Example:
        >>> from ignite_lr.schedules import Linear
        >>> Shift(Linear(total_steps=10), 4)(0), Shift(Linear(total_steps=10), -4).values(6)
        (0.6, [1.0, 1.0, 1.0, 1.0, 1.0, 0.9])
    """

    schedule: Annotated[ScheduleFunction, Function()]
    steps: Annotated[int, Whole()]

    def _factor(self, step: int) -> float:
        shifted = step + self.steps
        return self.schedule(shifted if shifted > 0 else 0)


@dataclass(frozen=True, repr=False)
class Clamp(Schedule, called="clamp"):
    """A schedule kept within bounds: ``factor(t) = min(max(schedule(t), lower), upper)``.

    Args:
        schedule: any callable.
        lower: at least 0.
        upper: at least ``lower``, or None for no upper bound.

    Example:
        >>> from ignite_lr.schedules import Exponential
        >>> Clamp(Exponential(gamma=0.5), lower=0.1).values(6)
        [1.0, 0.5, 0.25, 0.125, 0.1, 0.1]
    """

    schedule: Annotated[ScheduleFunction, Function()]
    lower: Factor = 0.0
    upper: Annotated[float | None, Real(minimum=0.0, or_none=True)] = None

    def _prepare(self) -> None:
        if self.upper is not None and self.upper < self.lower:
            raise self._fail(f"upper must be at least lower, got lower={self.lower!r} and upper={self.upper!r}.")

    def _factor(self, step: int) -> float:
        factor = self.schedule(step)
        if math.isnan(factor):
            return factor  # a comparison with it is always false, so that a bound would hide it
        if factor < self.lower:
            return self.lower
        if self.upper is not None and factor > self.upper:
            return self.upper
        return factor
