"""A warmup in front of what already exists: any schedule, any PyTorch scheduler."""

from __future__ import annotations

from typing import Any, cast, overload

import torch
from torch.optim.lr_scheduler import LRScheduler

from ignite_lr.core.arguments import (
    Real,
    Whole,
)
from ignite_lr.schedules._compose import Function, Join, PiecewiseLinear
from ignite_lr.schedules._schedule import (
    Schedule,
    ScheduleFunction,
)

__all__ = ["WarmupScheduler", "with_warmup"]


@overload
def with_warmup(schedule: LRScheduler, warmup_steps: int, warmup_start: float = 0.0) -> WarmupScheduler: ...


@overload
def with_warmup(schedule: ScheduleFunction, warmup_steps: int, warmup_start: float = 0.0) -> Schedule: ...


def with_warmup(
    schedule: ScheduleFunction | LRScheduler, warmup_steps: int, warmup_start: float = 0.0
) -> Schedule | WarmupScheduler:
    """Put a linear warmup in front of a schedule or a PyTorch scheduler, which then begins ``warmup_steps`` later.

    Nothing of it is cut off: the whole is ``warmup_steps`` updates longer, as in the Deep Learning Tuning Playbook.

    Args:
        schedule: any callable from the update index to a factor, or a PyTorch scheduler that has not been stepped yet.
        warmup_steps: length of the warmup in updates, at least 0; its update ``warmup_steps`` is the first of
            ``schedule``.
        warmup_start: where it begins, at least 0: a factor of the base rate, for a scheduler of its first rate.

    Returns:
        a schedule for a schedule, a scheduler for a scheduler.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an argument is out of range.

    Example:
        >>> from ignite_lr.schedules import Linear
        >>> with_warmup(Linear(total_steps=4), 2).values(7)
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    steps = cast("int", Whole(0).check("warmup_steps", warmup_steps))
    start = cast("float", Real(minimum=0.0).check("warmup_start", warmup_start))
    if isinstance(schedule, LRScheduler):
        return WarmupScheduler(schedule, steps, start)
    function = Function().check("schedule", schedule)
    if steps == 0:
        return Join((function,), ())
    return Join((PiecewiseLinear(((0, start), (steps, function(0)))), function), (steps,))


class WarmupScheduler(LRScheduler):
    """A PyTorch scheduler with a warmup in front; use :func:`with_warmup`.

    Args:
        scheduler: the scheduler, not stepped yet.
        warmup_steps: length of the warmup in updates.
        warmup_start: factor of the scheduler's first rate at update 0.
    """

    def __init__(self, scheduler: LRScheduler, warmup_steps: int, warmup_start: float) -> None:
        self.scheduler = scheduler
        self.warmup_steps = warmup_steps
        self.warmup_start = warmup_start
        self.first_lrs = [_copied(group["lr"]) for group in scheduler.optimizer.param_groups]
        super().__init__(scheduler.optimizer)

    def step(self, *metrics: Any) -> None:
        """Go on to the next update.

        Args:
            *metrics: passed on to the scheduler, once it is its turn.
        """
        self._step_count += 1
        self.last_epoch += 1
        if self.last_epoch > self.warmup_steps:
            self.scheduler.step(*metrics)
        else:
            # at its end the scheduler finds its first rate, as it left it
            share = self.last_epoch / self.warmup_steps if self.warmup_steps else 1.0
            factor = self.warmup_start + (1.0 - self.warmup_start) * share
            for group, first in zip(self.optimizer.param_groups, self.first_lrs, strict=True):
                if isinstance(group["lr"], torch.Tensor):
                    group["lr"].fill_(first * factor)
                else:
                    group["lr"] = first * factor
        self._last_lr = [_copied(group["lr"]) for group in self.optimizer.param_groups]

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rates of the present update."""
        return [_copied(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """How far it has come, and the state of the scheduler."""
        return {
            "last_epoch": self.last_epoch,
            "step_count": self._step_count,
            "first_lrs": [_copied(rate) for rate in self.first_lrs],
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state; the optimizer's rates are in the optimizer's own.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["step_count"]
        self.first_lrs = [_copied(rate) for rate in state_dict["first_lrs"]]
        self.scheduler.load_state_dict(state_dict["scheduler"])


def _copied(rate: Any) -> Any:
    return rate.detach().clone() if isinstance(rate, torch.Tensor) else rate
