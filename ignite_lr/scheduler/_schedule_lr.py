"""A schedule at work on an optimizer: ``ScheduleLR``."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ignite_lr.core.arguments import Flag, Whole, check_optimizer, check_state, shown, wrong_type
from ignite_lr.core.host import numbers
from ignite_lr.core.rates import (
    Rate,
    add_follower,
    checked_rate,
    copied,
    in_form_of,
    same_rates,
    separate_rates,
    write,
)
from ignite_lr.scheduler._driven import Driven
from ignite_lr.scheduler._factors import checked, compare, described, factors_at, functions_for, warn_of
from ignite_lr.schedules import ScheduleFunction

__all__ = ["ScheduleLR"]

# looked up once
_INFINITE = math.inf
_base_of = itemgetter("initial_lr")


class ScheduleLR(Driven, LambdaLR):
    """A schedule applied to an optimizer: rate of an update = base rate x ``schedule(index of the update)``.

    A ``LambdaLR`` to all who ask (plain loops, Lightning, Transformers), with less work a step and a state that resumes
    exactly: one evaluation a step however many parameter groups share a schedule, the schedule in the code wins over a
    saved one, and loading a state writes the rate that is due, so that the order in which things are built and loaded
    does not matter.

    The base rate of a group is its ``initial_lr``, nowhere else; where there is none it is made from its ``lr``.
    Whoever writes it is followed, from the next step on, with :class:`LRSchedulerHandler` from the next update on.
    Rates that are tensors are filled in place. A parameter group added later gets a base rate of its own.

    Args:
        optimizer: the optimizer.
        schedule: any callable from the update index to a factor, finite and at least 0, or a list of one for each
            parameter group.
        absolute: take what the schedule returns for the learning rate itself, as in Keras; base rates are not used.
        last_epoch: index of the last update that was made, -1 for none: the next one is ``last_epoch + 1``.

    Raises:
        TypeError: if an argument is of the wrong type, or a schedule returns something that is no number.
        ValueError: if there is not one schedule a group, a schedule returns a factor that is negative or not finite, or
            a rate of the optimizer is.

    Warns:
        UserWarning: if the schedule seems to return learning rates and not factors, with ``absolute`` the reverse; if
            it is an object with a memory.

    Example:
        >>> from ignite_lr import schedules
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
        >>> scheduler = ScheduleLR(optimizer, schedules.Linear(total_steps=10))
        >>> for _ in range(5):
        ...     optimizer.step()
        ...     scheduler.step()
        >>> scheduler.get_last_lr()
        [0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: ScheduleFunction | Sequence[ScheduleFunction],
        absolute: bool = False,
        last_epoch: int = -1,
    ) -> None:
        check_optimizer(optimizer)
        self.absolute = Flag().check("absolute", absolute)
        last = cast("int", Whole(-1).check("last_epoch", last_epoch))
        groups = optimizer.param_groups
        self._functions, self._shared = functions_for(schedule, len(groups))
        # Not by way of LambdaLR.__init__(), which wraps optimizer.step only to warn of calls in the wrong order, and
        # refuses last_epoch where a group has no initial_lr.
        Driven.__init__(self, last)
        self.optimizer = optimizer
        self._factor = 1.0
        self._written: list[Rate] | None = []
        self._step_count = 1  # read by others only, for PyTorch's check of the order of calls
        self._groups: list[dict[str, Any]] = []
        self._bases: list[Rate] = []
        for i, group in enumerate(groups):
            checked_rate(f"lr of parameter group {i}", group["lr"])
        self._meet_groups()
        warn_of(self._functions, self._bases, self.absolute)
        self._initial_step()
        add_follower(optimizer, self)

    @property
    def schedule(self) -> ScheduleFunction | list[ScheduleFunction]:
        """The schedule, or the list of them."""
        return self._shared if self._shared is not None else list(self._functions)

    @property
    def base_lrs(self) -> list[Rate]:
        """The base rates: ``initial_lr`` of each parameter group, read and written there."""
        return [group.get("initial_lr", group["lr"]) for group in self.optimizer.param_groups]

    @base_lrs.setter
    def base_lrs(self, rates: list[Rate]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["initial_lr"] = copied(rate)

    @property  # type: ignore[override]  # a list could be written to
    def lr_lambdas(self) -> tuple[ScheduleFunction, ...]:
        """The schedule of each parameter group. Read-only: make a new ``ScheduleLR`` for others."""
        return tuple(self._functions)

    @lr_lambdas.setter
    def lr_lambdas(self, functions: object) -> None:
        raise AttributeError("lr_lambdas of a ScheduleLR cannot be replaced: make a new ScheduleLR with the schedule.")

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next update, and write its rate into the optimizer.

        Args:
            epoch: go to this update instead.

        Raises:
            TypeError: if the schedule returns something that is no number, or ``epoch`` is no integer.
            ValueError: if it returns a factor that is negative or not finite, ``epoch`` or a base rate is that, or a
                parameter group has no schedule.
        """
        step = self._position + 1 if epoch is None else cast("int", Whole(0).check("epoch", epoch))
        groups = self.optimizer.param_groups
        if not self.driven:
            self._moved_to(step)
            if self.changed():
                self._meet_groups()
        self.driven = False
        # loading a state into the optimizer replaces the list, adding a group makes it longer
        if groups is not self._groups or len(groups) != self._count:
            self._meet_groups()
        schedule = self._simple
        if schedule is None or groups[0]["lr"].__class__ is not float:
            self._meet_groups()
            self._apply(self._rates(step))
            self._position = step
            return
        factor = schedule(step)
        if factor.__class__ is not float or not 0.0 <= factor < _INFINITE:
            factor = checked(factor, schedule, step)
        base = self._base
        if base is not None:
            rate = base * factor
            for group in groups:
                group["lr"] = rate
        else:
            # the lengths are the same, and saying so costs as much as one pass of the loop
            for group, base in zip(groups, self._bases):  # noqa: B905 - see above
                group["lr"] = base * factor
        self._factor = factor
        self._written = None
        self._position = step

    def __repr__(self) -> str:
        return f"ScheduleLR({type(self.optimizer).__name__}, {self.schedule!r}, last_epoch={self.last_epoch})"

    def get_lr(self) -> list[Rate]:
        """The rates of the present update, one for each parameter group."""
        self._meet_groups()
        return self._rates(self.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The index of the update, the base rates and the schedule, all of them plain values. Changes nothing."""
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": numbers(self.base_lrs),
            "absolute": self.absolute,
            "schedule": described(self._functions, self._shared),
            # inside another scheduler, the rates may be the other's
            "in_use": self.owns(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state, and write the rate that is due into the optimizer.

        The base rates are those of the state. The schedule stays the one given in the code. A scheduler whose rate was
        not the optimizer's when it was saved, as a part of another one that is not its turn, writes none.

        Args:
            state_dict: what :meth:`state_dict` returned, or the state of a ``LambdaLR``.

        Raises:
            TypeError: if it is no mapping, or a value in it is of the wrong type.
            ValueError: if something is missing in it, it is that of another class, or for another number of parameter
                groups.

        Warns:
            UserWarning: if the saved schedule is not the one given in the code; the warning shows both.
        """
        check_state(state_dict, "last_epoch", "base_lrs")
        if "schedule" not in state_dict and "lr_lambdas" not in state_dict:
            raise ValueError(
                "state_dict must be that of a ScheduleLR or LambdaLR, "
                f"got one with {shown(sorted(map(shown, state_dict)))}."
            )
        step = cast("int", Whole(-1).check("last_epoch of state_dict", state_dict["last_epoch"]))
        saved = state_dict["base_lrs"]
        if not isinstance(saved, list | tuple):
            raise wrong_type("base_lrs of state_dict", "a list", saved)
        Flag().check("absolute of state_dict", state_dict.get("absolute", self.absolute))
        in_use = Flag().check("in_use of state_dict", state_dict.get("in_use", True))
        groups = self.optimizer.param_groups
        if len(saved) != len(groups):
            raise ValueError(
                "base_lrs of state_dict must have one rate for each parameter group of the optimizer, "
                f"got {len(saved)} rates for {len(groups)} groups."
            )
        self._meet_groups()
        bases = [
            copied(in_form_of(group["lr"], checked_rate(f"base_lrs[{i}] of state_dict", rate)))
            for i, (group, rate) in enumerate(zip(groups, saved, strict=True))
        ]
        # Before anything is changed. An inactive part of a SequentialLR stands before its update 0.
        rates = self._rates(step, bases) if step >= 0 else None
        compare(state_dict, described(self._functions, self._shared), self.absolute)
        self._moved_to(step, loaded=True)
        self._position = step
        self.base_lrs = bases
        self._meet_groups()
        if rates is not None and in_use:
            self._apply(rates)
            self._hold()
        elif rates is not None:
            self._written = rates

    def owns(self) -> bool:
        """Whether the rates of the optimizer are those that this scheduler wrote last."""
        return same_rates(self.optimizer.param_groups, self._last_lr)

    def changed(self) -> bool:
        """Whether base rates or groups are no longer those that the present rates were made of."""
        groups, bases = self.optimizer.param_groups, self._bases
        if groups is not self._groups or len(groups) != self._count:
            return True
        if self._simple is None:
            same = all(group["initial_lr"] is base for group, base in zip(groups, bases, strict=True))
            return not same or self._versions != _versions(bases)
        # asked before every update, most often of one group; a list compares its numbers by identity first
        return groups[0]["initial_lr"] is not bases[0] if self._count == 1 else [*map(_base_of, groups)] != bases

    def follow(self) -> None:
        """Write the rates of the present update anew, of the base rates as they are now."""
        self._meet_groups()
        if self.last_epoch >= 0:
            self._apply(self._rates(self.last_epoch))

    def _meet_groups(self) -> None:
        """See what has become of the parameter groups and of their base rates."""
        separate_rates(self.optimizer)  # also after loading, which may bring one tensor for all back
        groups, before, known = self.optimizer.param_groups, self._groups, len(self._bases)
        if len(groups) < known:
            raise ValueError(f"the optimizer must keep its parameter groups, got {len(groups)} of {known}.")
        if len(groups) > len(self._functions):
            if self._shared is None:
                raise ValueError(
                    f"schedule must have one for each parameter group: the optimizer now has {len(groups)} groups, and "
                    f"{len(self._functions)} schedules were given. Give one schedule for all, or make a new ScheduleLR."
                )
            self._functions = [self._shared] * len(groups)
        bases: list[Rate] = []
        for i, group in enumerate(groups):
            # a loaded state of an optimizer that had no scheduler has none; the group that it replaces had
            source = before[i] if i < known and "initial_lr" not in group else group
            base: Any = source.get("initial_lr")
            if base is None:
                base = copied(checked_rate(f"lr of parameter group {i}", group["lr"]))
            base = in_form_of(group["lr"], checked_rate(f"initial_lr of parameter group {i}", base))
            if group.get("initial_lr") is not base:
                group["initial_lr"] = base
            bases.append(base)
        self._groups, self._bases, self._versions = groups, bases, _versions(bases)
        self._count = len(groups)
        # the schedule, where all rates are plain numbers that come from one factor
        simple = not self.absolute and not any(
            isinstance(rate, torch.Tensor) for rate in (*bases, *(group["lr"] for group in groups))
        )
        self._simple = self._shared if simple else None
        # the base rate that all groups have, as they do where they differ in weight decay alone
        self._base = bases[0] if simple and bases.count(bases[0]) == len(bases) else None

    def _rates(self, step: int, bases: Sequence[Rate] | None = None) -> list[Rate]:
        """The rate of each group, from one evaluation of each different schedule."""
        factors = factors_at(self._functions, step)
        if self.absolute:
            return list(factors)
        return [base * factor for base, factor in zip(bases or self._bases, factors, strict=True)]

    def _apply(self, rates: list[Rate]) -> None:
        for group, rate in zip(self._groups, rates, strict=True):
            write(group, "lr", rate)
        self._written = rates

    def _initial_step(self) -> None:
        # also called by PyTorch's SequentialLR
        self.step()

    def _hold(self) -> None:
        """Write the rate that is due once more where the optimizer's state is loaded after the schedule's."""
        scheduler, due = weakref.ref(self), self.last_epoch

        def again(_: Optimizer) -> None:
            me = scheduler()
            # the groups from before the load, which tell whether the rates have become another scheduler's meanwhile
            if me is not None and me.last_epoch == due and same_rates(me._groups, me._last_lr):
                me.follow()

        handle = getattr(self, "_handle", None)
        if handle is not None:
            handle.remove()
        try:
            self._handle: Any = self.optimizer.register_load_state_dict_post_hook(again)
        except (AttributeError, TypeError):  # one that never called Optimizer.__init__
            self._handle = None

    @property
    def _last_lr(self) -> list[Rate]:
        # Worked out where it is asked for: a step has no use for it.
        if self._written is None:
            self._written = [base * self._factor for base in self._bases]
        return self._written

    @_last_lr.setter
    def _last_lr(self, rates: list[Rate]) -> None:
        self._written = rates


def _versions(bases: Sequence[Rate]) -> list[int]:
    """What tells of a tensor that was written in place."""
    return [base._version for base in bases if isinstance(base, torch.Tensor)]
