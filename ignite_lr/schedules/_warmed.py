"""Schedules with a warmup in front, with a length that includes it, with a factor that they end at."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ignite_lr.core.arguments import shown
from ignite_lr.schedules._schedule import Schedule

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Ending", "Limited", "Warmed"]


@dataclass(frozen=True, repr=False)
class Warmed(Schedule):
    """A schedule with a linear warmup in front; subclasses have ``warmup_steps`` and ``warmup_start``.

    ``factor(t) = warmup_start + (peak - warmup_start) * t / warmup_steps`` for ``t < warmup_steps``.
    """

    if TYPE_CHECKING:

        @property
        def warmup_steps(self) -> int:
            """Length of the warmup in updates."""

        @property
        def warmup_start(self) -> float:
            """Factor at update 0."""

    @overload
    def __call__(self, step: int) -> float: ...

    @overload
    def __call__(self, step: npt.NDArray[Any]) -> npt.NDArray[np.float64]: ...

    def __call__(self, step: Any) -> Any:
        """As for every schedule."""
        if step.__class__ is not int:
            return self._other(step)
        # one comparison on the way to what is most of a training: without a warmup, only a negative step is below
        if step < self.warmup_steps:
            return self._warmup(step)
        try:
            return self._factor(step)
        except OverflowError as error:  # an integer beyond all floats
            raise self._too_large(step) from error

    def _at(self, step: Any) -> float:
        return self._warmup(step) if step < self.warmup_steps else self._factor(step)

    def _warmup(self, step: int) -> float:
        if step < 0:
            raise self._fail(f"step must be at least 0, got {shown(step)}.")
        start = self.warmup_start
        return start + (self._peak() - start) * (step / self.warmup_steps)

    def _peak(self) -> float:
        """Where the warmup leads."""
        return 1.0


@dataclass(frozen=True, repr=False)
class Limited(Warmed):
    """A schedule with a warmup that its ``total_steps`` include."""

    if TYPE_CHECKING:

        @property
        def total_steps(self) -> float:
            """Update from which on the final factor holds."""

    def _prepare(self) -> None:
        if self.warmup_steps > self.total_steps:
            raise self._fail(
                "warmup_steps must be at most total_steps, which include it, "
                f"got warmup_steps={self.warmup_steps!r} and total_steps={self.total_steps!r}."
            )


@dataclass(frozen=True, repr=False)
class Ending(Limited):
    """A schedule that goes from 1 at the end of its warmup to its final factor at ``total_steps``.

    ``factor(t) = final_factor + (1 - final_factor) * shape(p)`` with ``p = (t - warmup_steps) / (total_steps -
    warmup_steps)``; subclasses have ``total_steps`` and ``final_factor``, and say what the shape is.
    """

    if TYPE_CHECKING:

        @property
        def final_factor(self) -> float:
            """That factor."""

    @cached_property
    def _span(self) -> float:
        return self.total_steps - self.warmup_steps or 1

    @cached_property
    def _held(self) -> float:
        return self.final_factor + (1.0 - self.final_factor) * self._shape_at_end()

    def _factor(self, step: int) -> float:
        if step >= self.total_steps:
            return self._held
        final = self.final_factor
        return final + (1.0 - final) * self._shape((step - self.warmup_steps) / self._span)

    @abstractmethod
    def _shape(self, progress: float) -> float:
        """From 1 at a progress of 0, never below 0."""

    def _shape_at_end(self) -> float:
        return self._shape(1.0)
