"""The same for any other number of the parameter groups: ``ScheduleParam``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch.optim import Optimizer

from ignite_lr.core.arguments import Flag, Real, Text, Whole, check_optimizer, check_state, is_number, shown
from ignite_lr.core.host import numbers
from ignite_lr.scheduler._driven import Driven
from ignite_lr.scheduler._factors import compare, described, factors_at, functions_for, warn_of
from ignite_lr.schedules import ScheduleFunction

__all__ = ["ScheduleParam"]


class ScheduleParam(Driven):
    """A schedule for weight decay, momentum or any other number of the parameter groups.

    Value of an update = base value x ``schedule(index of the update)``. It is stepped like :class:`ScheduleLR`, by hand
    or by an :class:`LRSchedulerHandler`, beside one for the rate or without. The base value of a group is kept in the
    group under ``"initial_" + name``, so that it is saved with the optimizer.

    Args:
        optimizer: the optimizer.
        name: the key in its parameter groups: "weight_decay", "momentum", "eps", ... Where groups have no "momentum",
            that is the first of their ``betas``.
        schedule: any callable from the update index to a factor, finite and at least 0, or a list of one for each
            parameter group.
        absolute: take what the schedule returns for the value itself; base values are not used.
        last_epoch: index of the last update that was made, -1 for none: the next one is ``last_epoch + 1``.

    Raises:
        TypeError: if an argument is of the wrong type, or a schedule returns something that is no number.
        ValueError: if there is no such number in the groups, there is not one schedule a group, or a schedule returns
            a factor that is negative or not finite.

    Warns:
        UserWarning: if the schedule is an object with a memory.

    Source: Ignite's param schedulers (``param_name``), fastai's ``moms``, optax's ``inject_hyperparams``.

    Example:
        The momentum of a one-cycle training, beside its rate:

        >>> from ignite_lr import ScheduleLR, schedules
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5, momentum=0.95)
        >>> one_cycle = schedules.OneCycle(total_steps=100)
        >>> rate = ScheduleLR(optimizer, one_cycle)
        >>> momentum = ScheduleParam(optimizer, "momentum", one_cycle.momentum(high=0.95, low=0.85), absolute=True)
        >>> for _ in range(29):
        ...     optimizer.step()
        ...     rate.step()
        ...     momentum.step()
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]
        (0.5, 0.85)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        name: str,
        schedule: ScheduleFunction | Sequence[ScheduleFunction],
        absolute: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = check_optimizer(optimizer)
        self.name = cast("str", Text(empty=False).check("name", name))
        self.absolute = Flag().check("absolute", absolute)
        super().__init__(cast("int", Whole(-1).check("last_epoch", last_epoch)))
        self._functions, self._shared = functions_for(schedule, len(optimizer.param_groups))
        warn_of(self._functions)
        self.step()

    @property
    def schedule(self) -> ScheduleFunction | list[ScheduleFunction]:
        """The schedule, or the list of them."""
        return self._shared if self._shared is not None else list(self._functions)

    @property
    def base_values(self) -> list[float]:
        """The base values: ``initial_<name>`` of each parameter group."""
        return [self._base(i, group) for i, group in enumerate(self.optimizer.param_groups)]

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next update, and write its values into the optimizer.

        Args:
            epoch: go to this update instead.

        Raises:
            TypeError: if the schedule returns something that is no number, or ``epoch`` is no integer.
            ValueError: if it returns a factor that is negative or not finite, ``epoch`` is negative, or a parameter
                group has no schedule.
        """
        step = self._position + 1 if epoch is None else cast("int", Whole(0).check("epoch", epoch))
        if not self.driven:
            self._moved_to(step)
        self.driven = False
        self._write(self._values(step, self.base_values))
        self._position = step

    def get_last_value(self) -> list[float]:
        """The values of the present update, one for each parameter group."""
        return self._values(self.last_epoch, self.base_values)

    def changed(self) -> bool:
        """Whether the optimizer has other values than those that are due: its state was loaded, a group was added."""
        return [_get(group, self.name) for group in self.optimizer.param_groups] != self._written

    def follow(self) -> None:
        """Write the values of the present update anew."""
        self._write(self._values(self.last_epoch, self.base_values))

    def __repr__(self) -> str:
        of = type(self.optimizer).__name__
        return f"ScheduleParam({of}, {self.name!r}, {self.schedule!r}, last_epoch={self.last_epoch})"

    def state_dict(self) -> dict[str, Any]:
        """The index of the update, the base values and the schedule, all of them plain values. Changes nothing."""
        return {
            "name": self.name,
            "last_epoch": self.last_epoch,
            "base_values": self.base_values,
            "absolute": self.absolute,
            "schedule": described(self._functions, self._shared),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state, and write the values that are due into the optimizer.

        Args:
            state_dict: what :meth:`state_dict` returned.

        Raises:
            TypeError: if it is no mapping, or a value in it is of the wrong type.
            ValueError: if something is missing in it, or it is for another name or number of parameter groups.

        Warns:
            UserWarning: if the saved schedule is not the one given in the code, which is used.
        """
        check_state(state_dict, "name", "last_epoch", "base_values")
        theirs = state_dict["name"]
        if not isinstance(theirs, str) or theirs != self.name:
            raise ValueError(f"name must be that of the saved state, {shown(theirs)}, got {shown(self.name)}.")
        step = cast("int", Whole(-1).check("last_epoch of state_dict", state_dict["last_epoch"]))
        groups, saved = self.optimizer.param_groups, state_dict["base_values"]
        if not isinstance(saved, list | tuple) or len(saved) != len(groups):
            raise ValueError(
                "base_values of state_dict must be a list with one value for each parameter group of the optimizer, "
                f"got {shown(saved)} for {len(groups)} groups."
            )
        bases = [cast("float", Real().check(f"base_values[{i}] of state_dict", value)) for i, value in enumerate(saved)]
        values = self._values(step, bases) if step >= 0 else None
        compare(state_dict, described(self._functions, self._shared), self.absolute)
        for group, base in zip(groups, bases, strict=True):
            group[f"initial_{self.name}"] = base
        self._moved_to(step, loaded=True)
        self._position = step
        if values is not None:
            self._write(values)

    def _values(self, step: int, bases: Sequence[float]) -> list[float]:
        if len(bases) != len(self._functions):
            if self._shared is None:
                raise ValueError(
                    f"schedule must have one for each parameter group: the optimizer now has {len(bases)} groups, and "
                    f"{len(self._functions)} schedules were given."
                )
            self._functions = [self._shared] * len(bases)
        factors = factors_at(self._functions, step)
        if self.absolute:
            return factors
        return [base * factor for base, factor in zip(bases, factors, strict=True)]

    def _write(self, values: list[float]) -> None:
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            _put(group, self.name, value)
        self._written = values

    def _base(self, index: int, group: dict[str, Any]) -> float:
        key = f"initial_{self.name}"
        if key not in group:
            present = _get(group, self.name)
            if not is_number(present):
                known = ", ".join(sorted(k for k, v in group.items() if is_number(v)))
                raise ValueError(
                    f"name must be that of a number in every parameter group, got {shown(self.name)}, which parameter "
                    f"group {index} has not among {known}."
                )
            group[key] = present
        return cast("float", Real().check(f"{key} of parameter group {index}", group[key]))


def _get(group: Mapping[str, Any], name: str) -> Any:
    value = group.get(name)
    if name == "momentum" and name not in group and group.get("betas"):
        value = group["betas"][0]
    return numbers([value])[0] if isinstance(value, torch.Tensor) else value


def _put(group: dict[str, Any], name: str, value: float) -> None:
    if name == "momentum" and name not in group:
        present, *rest = group["betas"]
        if not isinstance(present, torch.Tensor):
            group["betas"] = (value, *rest)
    else:
        present = group[name]
        if not isinstance(present, torch.Tensor):
            group[name] = value
    if isinstance(present, torch.Tensor):
        present.fill_(value)
