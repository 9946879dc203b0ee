"""A warmup in front of what already exists: any schedule, any PyTorch scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, overload

import torch
from torch.optim.lr_scheduler import LRScheduler

from ignite_lr.core.arguments import Real, Whole, check_state, wrong_type, wrong_value
from ignite_lr.core.host import numbers
from ignite_lr.core.rates import (
    Rate,
    add_follower,
    checked_rate,
    copied,
    in_form_of,
    same_rates,
    write,
    write_bases,
)
from ignite_lr.core.schedulers import parts_of
from ignite_lr.schedules._compose import Function, Join, PiecewiseLinear
from ignite_lr.schedules._schedule import Schedule, ScheduleFunction

__all__ = ["WarmupScheduler", "with_warmup"]


@overload
def with_warmup(
    schedule: LRScheduler, warmup_steps: int, warmup_start: float = 0.0, warmup_end: float | None = None
) -> WarmupScheduler: ...


@overload
def with_warmup(
    schedule: ScheduleFunction, warmup_steps: int, warmup_start: float = 0.0, warmup_end: float | None = None
) -> Schedule: ...


def with_warmup(
    schedule: ScheduleFunction | LRScheduler,
    warmup_steps: int,
    warmup_start: float = 0.0,
    warmup_end: float | None = None,
) -> Schedule | WarmupScheduler:
    """Put a linear warmup in front of a schedule or a PyTorch scheduler, which then begins ``warmup_steps`` later.

    Nothing of it is cut off: the whole is ``warmup_steps`` updates longer, as in the Deep Learning Tuning Playbook.

    Args:
        schedule: any callable from the update index to a factor, or a PyTorch scheduler that has not been stepped yet.
        warmup_steps: length of the warmup in updates, at least 0; its update ``warmup_steps`` is the first of
            ``schedule``.
        warmup_start: where it begins, at least 0: a factor of the base rate, for a scheduler of its first rate.
        warmup_end: where it leads, in the same units, at least 0; None: to the first value of ``schedule``.

    Returns:
        a schedule for a schedule, a scheduler for a scheduler.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an argument is out of range.

    Example:
        >>> from ignite_lr.schedules import Linear
        >>> with_warmup(Linear(total_steps=4), 2).values(7)
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
        >>> with_warmup(Linear(total_steps=4), 2, warmup_end=0.5).values(4)
        [0.0, 0.25, 1.0, 0.75]
    """
    steps = cast("int", Whole(0).check("warmup_steps", warmup_steps))
    start = cast("float", Real(minimum=0.0).check("warmup_start", warmup_start))
    end = Real(minimum=0.0, or_none=True).check("warmup_end", warmup_end)
    if isinstance(schedule, LRScheduler):
        return WarmupScheduler(schedule, steps, start, 1.0 if end is None else end)
    function = Function().check("schedule", schedule)
    if steps == 0:
        return Join((function,), ())
    return Join((PiecewiseLinear(((0, start), (steps, function(0) if end is None else end))), function), (steps,))


class WarmupScheduler(LRScheduler):
    """A PyTorch scheduler with a warmup in front; use :func:`with_warmup`.

    It follows the base rates of the optimizer (``initial_lr``) as ``ScheduleLR`` does, and has the scheduler inside
    follow.

    Args:
        scheduler: the scheduler, not stepped yet.
        warmup_steps: length of the warmup in updates.
        warmup_start: factor of the scheduler's first rate at update 0.
        warmup_end: factor that the warmup leads to.
    """

    absolute = False

    def __init__(self, scheduler: LRScheduler, warmup_steps: int, warmup_start: float, warmup_end: float = 1.0) -> None:
        self.scheduler = scheduler
        self.warmup_steps = warmup_steps
        self.warmup_start = warmup_start
        self.warmup_end = warmup_end
        self.first_lrs = [copied(group["lr"]) for group in scheduler.optimizer.param_groups]
        super().__init__(scheduler.optimizer)
        # what first_lrs were made of
        self._bases = [copied(group["initial_lr"]) for group in self.optimizer.param_groups]
        self._marks = self._marks_now()
        add_follower(self.optimizer, self)

    @property
    def loads(self) -> int:
        """How many states were loaded."""
        return self._loads

    _loads = 0

    def step(self, *metrics: Any) -> None:
        """Go on to the next update.

        Args:
            *metrics: passed on to the scheduler, once it is its turn.
        """
        self._step_count += 1
        if self.last_epoch >= 0 and self.changed():
            self.follow()  # many schedulers go on from the present rate
        self.last_epoch += 1
        if self.last_epoch > self.warmup_steps:
            self.scheduler.step(*metrics)
        else:
            self._write()
        self._last_lr = [copied(group["lr"]) for group in self.optimizer.param_groups]

    def get_lr(self) -> list[Rate]:
        """The rates of the present update."""
        return [copied(group["lr"]) for group in self.optimizer.param_groups]

    def owns(self) -> bool:
        """Whether the rates of the optimizer are those that were written last."""
        return same_rates(self.optimizer.param_groups, self._last_lr)

    def changed(self) -> bool:
        """Whether base rates or groups are no longer those that the present rates were made of."""
        now, then = self._marks_now(), self._marks
        return len(now) != len(then) or not all(map(_same_mark, now, then))

    def follow(self) -> None:
        """Write the rates of the present update anew, of the base rates as they are now."""
        ratios = self._meet_bases()
        inner: Any = self.scheduler
        if self.last_epoch <= self.warmup_steps:
            self._write()
        elif callable(getattr(inner, "follow", None)):
            inner.follow()
        else:
            for group, ratio in zip(self.optimizer.param_groups, ratios, strict=True):
                write(group, "lr", group["lr"] * ratio)
        self._last_lr = [copied(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """How far it has come, and the state of the scheduler."""
        return {
            "last_epoch": self.last_epoch,
            "step_count": self._step_count,
            "first_lrs": [copied(rate) for rate in self.first_lrs],
            "base_lrs": [copied(group.get("initial_lr", group["lr"])) for group in self.optimizer.param_groups],
            # inside another scheduler, the rates may be the other's
            "rates": numbers(self._last_lr) if self.owns() else None,
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state, and write the rates that are due into the optimizer.

        One whose rates were not the optimizer's when it was saved, as a part of another scheduler, writes none.

        Args:
            state_dict: what :meth:`state_dict` returned.

        Raises:
            TypeError: if it is no mapping, or a value in it is of the wrong type.
            ValueError: if something is missing in it, or it is for another number of parameter groups. The state of the
                scheduler inside is for that to judge.
        """
        check_state(state_dict, "last_epoch", "step_count", "first_lrs", "scheduler")
        groups = self.optimizer.param_groups
        position, steps = (
            cast("int", Whole(0).check(f"{key} of state_dict", state_dict[key])) for key in ("last_epoch", "step_count")
        )
        first, bases, rates = (
            None if state_dict.get(key) is None else _rates_of(key, state_dict[key], len(groups))
            for key in ("first_lrs", "base_lrs", "rates")
        )
        inner = state_dict["scheduler"]
        if first is None or not isinstance(inner, Mapping):
            raise wrong_type("first_lrs and scheduler of state_dict", "a list and a dict", [first, inner])
        # one of ours is checked before anything is changed; others take what they are given
        self.scheduler.load_state_dict(dict(inner))
        self.last_epoch, self._step_count, self.first_lrs = position, steps, first
        self._loads += 1
        self._bases = self._bases if bases is None else bases
        for group, base in zip(groups, self._bases, strict=True):
            group["initial_lr"] = in_form_of(group["lr"], copied(base))
        self._marks = self._marks_now()
        # The optimizer's own state has them too, and may have been loaded before this scheduler was made, which began
        # with the rates of update 0.
        if rates is not None and self.last_epoch <= self.warmup_steps:
            self._write()
        elif rates is not None and not callable(getattr(self.scheduler, "follow", None)):
            for group, rate in zip(groups, rates, strict=True):
                write(group, "lr", rate)
        self._last_lr = [copied(group["lr"]) for group in groups]

    def _write(self) -> None:
        """The rates of the warmup; at its end the scheduler finds its first rate, as it left it."""
        factor = 1.0
        if self.last_epoch < self.warmup_steps:
            factor = self.warmup_start + (self.warmup_end - self.warmup_start) * (self.last_epoch / self.warmup_steps)
        for group, first in zip(self.optimizer.param_groups, self.first_lrs, strict=True):
            write(group, "lr", first * factor)

    def _meet_bases(self) -> list[Any]:
        """See what has become of the base rates; returns how many times larger they are."""
        groups = self.optimizer.param_groups
        for group in groups[len(self._bases) :]:
            base = group.setdefault("initial_lr", copied(group["lr"]))
            self._bases.append(copied(base))
            self.first_lrs.append(copied(group["lr"]))
        ratios = [
            _ratio(group.setdefault("initial_lr", copied(base)), base)
            for group, base in zip(groups, self._bases, strict=True)
        ]
        self.first_lrs = [first * ratio for first, ratio in zip(self.first_lrs, ratios, strict=True)]
        if any(isinstance(ratio, torch.Tensor) or ratio != 1.0 for ratio in ratios):
            bases = [group["initial_lr"] for group in groups]
            for part in parts_of(self.scheduler):
                if not callable(getattr(part, "follow", None)):
                    write_bases(part, bases)
        self._bases = [copied(group["initial_lr"]) for group in groups]
        self._marks = self._marks_now()
        return ratios

    def _marks_now(self) -> list[tuple[Any, int]]:
        """By what a change of a base rate is known: itself, and how often it was written in place."""
        bases = [group.get("initial_lr") for group in self.optimizer.param_groups]
        return [(base, base._version if isinstance(base, torch.Tensor) else 0) for base in bases]


def _same_mark(one: tuple[Any, int], other: tuple[Any, int]) -> bool:
    if isinstance(one[0], torch.Tensor) or isinstance(other[0], torch.Tensor):
        return one[0] is other[0] and one[1] == other[1]  # not looked at, it may lie on a device
    return bool(one[0] == other[0])


def _rates_of(key: str, saved: Any, count: int) -> list[Rate]:
    """The rates that a state has under a key, one for each parameter group."""
    if not isinstance(saved, list | tuple) or len(saved) != count:
        raise wrong_value(f"{key} of state_dict", f"a list of {count} rates", saved)
    return [copied(checked_rate(f"{key}[{i}] of state_dict", rate)) for i, rate in enumerate(saved)]


def _ratio(now: Any, then: Any) -> Any:
    if isinstance(now, torch.Tensor) or isinstance(then, torch.Tensor):
        return torch.where(torch.as_tensor(then) == 0, 1.0, torch.as_tensor(now) / then)
    return now / then if then else 1.0
