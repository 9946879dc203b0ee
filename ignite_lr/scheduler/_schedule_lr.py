"""A schedule at work on an optimizer: ``ScheduleLR``."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ignite_lr.core.arguments import (
    Real,
    Whole,
    is_number,
)
from ignite_lr.core.host import read
from ignite_lr.schedules import (
    Function,
    Schedule,
    ScheduleFunction,
    from_dict,
)

__all__ = ["ScheduleLR"]

Rate = float | torch.Tensor

# Updates at which a callable is tried out: two to every doubling, so that neither a long warmup nor a long decay hides
# its peak.
_PROBES = (0, 1, *sorted({k << i for i in range(20) for k in (2, 3)}))


class ScheduleLR(LambdaLR):
    """A schedule applied to an optimizer: rate of an update = base rate x ``schedule(index of the update)``.

    A ``LambdaLR`` to all who ask (plain loops, Lightning, Transformers), with less work a step and a state that resumes
    exactly: one evaluation a step however many parameter groups share a schedule, the schedule in the code wins over a
    saved one, and loading a state writes the rate that is due, so that the order in which things are built and loaded
    does not matter.

    The base rate of a group is its ``initial_lr`` where there is one, otherwise its ``lr``. Rates that are tensors are
    filled in place. A parameter group added later gets a base rate of its own.

    Args:
        optimizer: the optimizer.
        schedule: any callable from the update index to a factor, finite and at least 0, or a list of one for each
            parameter group.
        absolute: take what the schedule returns for the learning rate itself, as in Keras; base rates are not used.
        last_epoch: index of the last update that was made, -1 for none: the next one is ``last_epoch + 1``.

    Raises:
        TypeError: if an argument is of the wrong type, or a schedule returns something that is no number.
        ValueError: if there is not one schedule a group, or a schedule returns a factor that is negative or not finite.

    Warns:
        UserWarning: if the schedule seems to return learning rates and not factors.

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
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}.")
        if not isinstance(absolute, bool):
            raise TypeError(f"absolute must be True or False, got {absolute!r}.")
        last = cast("int", Whole(-1).check("last_epoch", last_epoch))
        groups = optimizer.param_groups
        self._shared: ScheduleFunction | None = None
        if isinstance(schedule, list | tuple):
            if len(schedule) != len(groups):
                raise ValueError(
                    "schedule must be one, or a list of one for each parameter group, "
                    f"got {len(schedule)} schedules for {len(groups)} groups."
                )
            functions = [Function().check(f"schedule[{i}]", function) for i, function in enumerate(schedule)]
        else:
            self._shared = Function().check("schedule", schedule)
            functions = [self._shared] * len(groups)
        self.absolute = absolute
        for i, group in enumerate(groups):
            _checked_rate(f"lr of parameter group {i}", group["lr"])
            group.setdefault("initial_lr", _detached(group["lr"]))
        if not absolute:
            _warn_of_rates(functions, [group["initial_lr"] for group in groups])
        # Not by way of super().__init__(), which wraps optimizer.step only to warn of calls in the wrong order, and
        # refuses last_epoch where a group has no initial_lr.
        self.optimizer = optimizer
        self.lr_lambdas = functions
        self.last_epoch = last
        self._factor = 1.0
        self._written: list[Rate] | None = None
        self._step_count = 1  # read by others only, for PyTorch's check of the order of calls
        self._rebase([_based(group["initial_lr"], group) for group in groups])
        self._initial_step()

    @property
    def schedule(self) -> ScheduleFunction | list[ScheduleFunction]:
        """The schedule, or the list of them."""
        return self._shared if self._shared is not None else list(self.lr_lambdas)

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next update, and write its rate into the optimizer.

        Args:
            epoch: go to this update instead.

        Raises:
            TypeError: if the schedule returns something that is no number.
            ValueError: if it returns a factor that is negative or not finite, or a parameter group has no schedule.
        """
        step = self.last_epoch + 1 if epoch is None else epoch
        groups = self.optimizer.param_groups
        bases = self.base_lrs
        # loading a state into the optimizer replaces the list, adding a group makes it longer
        if groups is not self._groups or len(groups) != len(bases):
            self._meet_groups()
            bases = self.base_lrs
        schedule = self._simple
        first = groups[0]
        if schedule is not None and first["lr"].__class__ is float:
            factor = schedule(step)
            if factor.__class__ is not float or not 0.0 <= factor < math.inf:
                factor = _checked(factor, schedule, step)
            first["lr"] = bases[0] * factor
            if len(bases) > 1:  # a loop over one costs as much as all of the above
                # the lengths are the same, and saying so costs as much as one pass of the loop
                for group, base in zip(groups, bases):  # noqa: B905 - see above
                    group["lr"] = base * factor
            self._factor = factor
            self._written = None
        else:
            self._apply(self._rates(step))
        self.last_epoch = step

    def get_lr(self) -> list[Rate]:
        """The rates of the present update, one for each parameter group."""
        self._meet_groups()
        return self._rates(self.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The index of the update, the base rates and the schedule, all of them plain values."""
        self._settle()
        self._meet_groups()
        return {
            "last_epoch": self.last_epoch,
            "base_lrs": [_number(base) for base in self.base_lrs],
            "absolute": self.absolute,
            "schedule": self._description(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state, and write the rate that is due into the optimizer.

        The base rates are those of the state. The schedule stays the one given in the code.

        Args:
            state_dict: what :meth:`state_dict` returned, or the state of a ``LambdaLR``.

        Raises:
            TypeError: if it is no mapping, or a value in it is of the wrong type.
            ValueError: if something is missing in it, or it is for another number of parameter groups.

        Warns:
            UserWarning: if the saved schedule is not the one given in the code; the warning shows both.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, got {state_dict!r} of type {type(state_dict).__name__}.")
        missing = [key for key in ("last_epoch", "base_lrs") if key not in state_dict]
        if missing:
            raise ValueError(f"state_dict must have {' and '.join(missing)}, got {sorted(map(str, state_dict))}.")
        step = cast("int", Whole(-1).check("last_epoch of state_dict", state_dict["last_epoch"]))
        saved = state_dict["base_lrs"]
        if not isinstance(saved, list | tuple):
            raise TypeError(f"base_lrs of state_dict must be a list, got {saved!r} of type {type(saved).__name__}.")
        absolute = state_dict.get("absolute", self.absolute)
        if not isinstance(absolute, bool):
            raise TypeError(f"absolute of state_dict must be True or False, got {absolute!r}.")
        groups = self.optimizer.param_groups
        if len(saved) != len(groups):
            raise ValueError(
                "base_lrs of state_dict must have one rate for each parameter group of the optimizer, "
                f"got {len(saved)} rates for {len(groups)} groups."
            )
        self._meet_groups()
        bases = [_based(_checked_rate(f"base_lrs[{i}] of state_dict", rate), groups[i]) for i, rate in enumerate(saved)]
        # Before anything is changed. An inactive part of a SequentialLR stands before its update 0.
        rates = self._rates(step, bases) if step >= 0 else None
        self._compare(state_dict)
        self.last_epoch = step
        self._rebase(bases)
        for group, base in zip(groups, bases, strict=True):
            group["initial_lr"] = _detached(base)
        if rates is not None:
            self._apply(rates)
        driver = drivers.get(id(self))
        if driver is not None:
            driver.forget()

    def adopt_groups(self) -> None:
        """Give parameter groups that were added since the last step the rate of the present update.

        Raises:
            ValueError: if every group has a schedule of its own, or groups were taken away.
        """
        if len(self.optimizer.param_groups) != len(self.base_lrs):
            self._meet_groups()
            self._apply(self._rates(self.last_epoch))

    def _meet_groups(self) -> None:
        """See what has become of the parameter groups."""
        groups = self.optimizer.param_groups
        known = len(self.base_lrs)
        self._groups = groups
        if len(groups) == known:
            self._rebase([_based(base, group) for base, group in zip(self.base_lrs, groups, strict=True)])
            return
        if len(groups) < known:
            raise ValueError(f"the optimizer must keep its parameter groups, got {len(groups)} of {known}.")
        if self._shared is None:
            raise ValueError(
                f"schedule must have one for each parameter group: the optimizer now has {len(groups)} groups, and "
                f"{known} schedules were given. Give one schedule for all, or make a new ScheduleLR."
            )
        for i, group in enumerate(groups[known:], known):
            _checked_rate(f"lr of parameter group {i}", group["lr"])
            group.setdefault("initial_lr", _detached(group["lr"]))
        self.lr_lambdas.extend([self._shared] * (len(groups) - known))
        self._rebase([*self.base_lrs, *(_based(group["initial_lr"], group) for group in groups[known:])])

    def _rebase(self, bases: list[Rate]) -> None:
        self.base_lrs = bases
        self._groups = self.optimizer.param_groups
        # the schedule, where all rates are plain numbers that come from one factor
        simple = (
            not self.absolute
            and not any(isinstance(group["lr"], torch.Tensor) for group in self._groups)
            and not any(isinstance(base, torch.Tensor) for base in bases)
        )
        self._simple = self._shared if simple else None

    def _apply(self, rates: list[Rate]) -> None:
        for group, rate in zip(self._groups, rates, strict=True):
            _write(group, rate)
        self._last_lr = rates

    def _initial_step(self) -> None:
        # also called by PyTorch's SequentialLR
        self.step()

    @property
    def _last_lr(self) -> list[Rate]:
        # Worked out where it is asked for: a step has no use for it.
        if self._written is None:
            self._written = [base * self._factor for base in self.base_lrs]
        return self._written

    @_last_lr.setter
    def _last_lr(self, rates: list[Rate]) -> None:
        self._written = rates

    def _rates(self, step: int, bases: Sequence[Rate] | None = None) -> list[Rate]:
        """The rate of each group, from one evaluation of each different schedule."""
        values: dict[int, float] = {}
        for function in self.lr_lambdas:
            if id(function) not in values:
                values[id(function)] = _checked(function(step), function, step)
        if self.absolute:
            return [values[id(function)] for function in self.lr_lambdas]
        factors = (values[id(function)] for function in self.lr_lambdas)
        return [base * factor for base, factor in zip(bases or self.base_lrs, factors, strict=True)]

    def _settle(self) -> None:
        """Let a handler that drives this scheduler make the steps that are due."""
        driver = drivers.get(id(self))
        if driver is not None:
            driver.settle()

    def _description(self) -> Any:
        described = [_description(function) for function in self.lr_lambdas]
        if self._shared is None:
            return described
        return described[0] if described else None

    def _compare(self, saved: Mapping[str, Any]) -> None:
        if "schedule" not in saved:
            return
        theirs, ours = saved["schedule"], self._description()
        try:
            differs = bool(theirs != ours)
        except (ValueError, RuntimeError):  # an array, which compares item by item
            differs = True
        if differs:
            warnings.warn(
                f"the saved schedule is {_shown(theirs)}, the one given in the code is {_shown(ours)}: "
                "the one in the code is used.",
                stacklevel=3,
            )
        if saved.get("absolute", self.absolute) is not self.absolute:
            warnings.warn(
                f"the state was saved with absolute={saved['absolute']!r}, the code gives absolute={self.absolute!r}: "
                "the code is followed.",
                stacklevel=3,
            )


class Driver(Protocol):
    """What calls ``step()`` of a scheduler, and has to be asked before its state is read or replaced."""

    def settle(self) -> None:
        """Make the steps that are due."""

    def forget(self) -> None:
        """Drop the steps that are due: the state of the scheduler was replaced."""


# Who drives which scheduler, by its id, which the driver keeps in use. Weak, so that a dropped driver is forgotten.
drivers: weakref.WeakValueDictionary[int, Driver] = weakref.WeakValueDictionary()


def _checked(value: Any, function: ScheduleFunction, step: int) -> float:
    if not is_number(value):
        raise TypeError(
            f"a schedule must return a number, got {value!r} of type {type(value).__name__} "
            f"from {function!r} for update {step}."
        )
    factor = float(value)
    if not 0.0 <= factor < math.inf:
        raise ValueError(
            f"a schedule must return a finite number of at least 0, got {value!r} from {function!r} for update {step}."
        )
    return factor


def _checked_rate(name: str, rate: Any) -> Rate:
    # a tensor may lie on a device, where looking at it makes the host wait
    if isinstance(rate, torch.Tensor):
        return rate
    return cast("float", Real(minimum=0.0).check(name, rate))


def _detached(rate: Rate) -> Rate:
    return rate.detach().clone() if isinstance(rate, torch.Tensor) else rate


def _based(base: Rate, group: Mapping[str, Any]) -> Rate:
    """The base rate in the form of the group's rate, so that the product comes out the same before and after a load."""
    rate = group["lr"]
    if isinstance(rate, torch.Tensor):
        return torch.as_tensor(base, dtype=rate.dtype, device=rate.device).detach().clone()
    return _number(base)


def _number(rate: Rate) -> float:
    return read([rate])[0] if isinstance(rate, torch.Tensor) else float(rate)


def _write(group: dict[str, Any], rate: Rate) -> None:
    present = group["lr"]
    if isinstance(present, torch.Tensor):
        # in place, because a compiled or captured step holds on to this very tensor
        present.fill_(rate)
    else:
        group["lr"] = _number(rate)


def _description(function: ScheduleFunction) -> dict[str, Any] | None:
    if not isinstance(function, Schedule):
        return None
    try:
        return function.to_dict()
    except TypeError:  # a part of it is a plain function
        return None


def _shown(description: Any) -> str:
    if isinstance(description, list):
        return f"[{', '.join(map(_shown, description))}]"
    if description is None:
        return "a function"
    try:
        return repr(from_dict(description))
    except (TypeError, ValueError):  # of another version
        return repr(description)


def _warn_of_rates(functions: Sequence[ScheduleFunction], bases: Sequence[Rate]) -> None:
    """Say so, once, if what is meant for factors looks like learning rates."""
    tried: set[int] = set()
    for function, base in zip(functions, bases, strict=True):
        if id(function) in tried or (isinstance(base, torch.Tensor) and base.device.type != "cpu"):
            continue
        tried.add(id(function))
        rate, peak = _number(base), _sampled_peak(function)
        if 0.0 < peak < 0.2 and 0.0 < rate < 0.5 and 1 / 20 <= peak / rate <= 20:
            warnings.warn(
                f"schedule must return factors of the base rate, but its highest value, {peak:g}, looks like a "
                f"learning rate itself: multiplied by the base rate {rate:g} it makes {peak * rate:g}. "
                "If the schedule returns learning rates, give absolute=True.",
                stacklevel=3,
            )
            return


def _sampled_peak(function: ScheduleFunction) -> float:
    """The highest value at the updates tried, 0 where none of them is a number."""
    peak = 0.0
    for step in _PROBES:
        try:
            value = function(step)
        except Exception:  # what it can or cannot do so far ahead is nobody's business yet
            break
        if is_number(value) and math.isfinite(value):
            peak = max(peak, float(value))
    return peak
