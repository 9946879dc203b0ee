"""What a schedule says, checked: the way from any callable to a number that may become a rate."""

from __future__ import annotations

import functools
import itertools
import math
import types
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ignite_lr.core.arguments import is_number, shown
from ignite_lr.core.containers import put_back
from ignite_lr.core.host import numbers
from ignite_lr.core.notice import notice
from ignite_lr.core.rates import Rate
from ignite_lr.schedules import Function, Schedule, ScheduleFunction, from_dict

__all__ = ["checked", "compare", "described", "factors_at", "functions_for", "warn_of"]

# Updates at which a callable is tried out: two to every doubling, so that neither a long warmup nor a long decay hides
# its peak.
_PROBES = (0, 1, *sorted({k << i for i in range(20) for k in (2, 3)}))


def functions_for(schedule: Any, count: int) -> tuple[list[ScheduleFunction], ScheduleFunction | None]:
    """One schedule a group, and the one that they share, if they do.

    Raises:
        TypeError: if something is no schedule.
        ValueError: if a list has not one for each group.
    """
    if isinstance(schedule, list | tuple):
        if len(schedule) != count:
            raise ValueError(
                "schedule must be one, or a list of one for each parameter group, "
                f"got {len(schedule)} schedules for {count} groups."
            )
        return [Function().check(f"schedule[{i}]", function) for i, function in enumerate(schedule)], None
    shared = Function().check("schedule", schedule)
    return [shared] * count, shared


def checked(value: Any, function: ScheduleFunction, step: int) -> float:
    """What a schedule returned, as a float.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is negative or not finite.
    """
    if not is_number(value):
        raise TypeError(
            f"a schedule must return a number, got {shown(value)} of type {type(value).__name__} "
            f"from {shown(function)} for update {step}."
        )
    factor = float(value)
    if not 0.0 <= factor < math.inf:
        raise ValueError(
            f"a schedule must return a finite number of at least 0, got {shown(value)} from {shown(function)} "
            f"for update {step}."
        )
    return factor


def factors_at(functions: Sequence[ScheduleFunction], step: int) -> list[float]:
    """The factor of each group, from one evaluation of each different schedule.

    Raises:
        TypeError: if a schedule returns something that is no number.
        ValueError: if it returns one that is negative or not finite.
    """
    values: dict[int, float] = {}
    for function in functions:
        if id(function) not in values:
            values[id(function)] = checked(function(step), function, step)
    return [values[id(function)] for function in functions]


def described(functions: Sequence[ScheduleFunction], shared: ScheduleFunction | None) -> Any:
    """The schedules as plain values; None stands for what cannot be written down."""
    if shared is not None:
        return _description(shared)
    return [_description(function) for function in functions]


def _description(function: ScheduleFunction) -> dict[str, Any] | None:
    if not isinstance(function, Schedule):
        return None
    try:
        return function.to_dict()
    except TypeError:  # a part of it is a plain function
        return None


def compare(saved: Mapping[str, Any], ours: Any, absolute: bool) -> None:
    """Say so if a state was saved with another schedule than the one in the code."""
    if "schedule" not in saved:
        return
    theirs = saved["schedule"]
    try:
        differs = bool(theirs != ours)
    except (ValueError, RuntimeError):  # an array, which compares item by item; lists beyond all depth
        differs = True
    if differs:
        notice(
            f"the saved schedule is {_shown(theirs)}, the one given in the code is {_shown(ours)}: "
            "the one in the code is used."
        )
    if saved.get("absolute", absolute) is not absolute:
        notice(
            f"the state was saved with absolute={shown(saved['absolute'])}, the code gives absolute={absolute!r}: "
            "the code is followed."
        )


def _shown(description: Any) -> str:
    if description is None:
        return "a function"
    try:
        if isinstance(description, list):
            return f"[{', '.join(map(_shown, description))}]"
        return repr(from_dict(description))
    except (TypeError, ValueError, RecursionError):  # of another version
        return shown(description)


def _looks_like(peak: float, base: float, absolute: bool) -> str | None:
    """What is plausible in type and implausible in meaning, in words; None if nothing is."""
    if absolute:
        if peak >= 1.0 and 0.0 < base < 0.1:
            return (
                f"absolute=True takes what the schedule returns for the learning rate itself, but its highest value, "
                f"{peak:g}, looks like a factor: the optimizer was made with lr={base:g}. "
                "If the schedule returns factors, leave absolute out."
            )
    elif 0.0 < peak < 0.2 and 0.0 < base < 0.5 and 1 / 20 <= peak / base <= 20:
        return (
            f"schedule must return factors of the base rate, but its highest value, {peak:g}, looks like a "
            f"learning rate itself: multiplied by the base rate {base:g} it makes {peak * base:g}. "
            "If the schedule returns learning rates, give absolute=True."
        )
    return None


def _sampled_peak(function: ScheduleFunction) -> float:
    """The highest value at the updates tried, 0 where none of them is a number."""
    peak = 0.0
    # and where a schedule of ours turns
    turns = (
        [end for value in vars(function).values() for end in _whole(value)] if isinstance(function, Schedule) else []
    )
    for step in sorted({*_PROBES, *turns}):
        try:
            value = function(step)
        except Exception:  # what it can or cannot do so far ahead is nobody's business yet
            break
        if is_number(value) and math.isfinite(value):
            peak = max(peak, float(value))
    return peak


def _whole(argument: Any) -> list[int]:
    """The updates that an argument of a schedule may name."""
    several = argument if isinstance(argument, list | tuple) else [argument]
    return [value for value in several if type(value) is int and value >= 0]


_PURE = (Schedule, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type, functools.partial)


def warn_of(functions: Sequence[ScheduleFunction], bases: Sequence[Rate] = (), absolute: bool = False) -> None:
    """Say so of each different schedule if it has a memory; with base rates, once, if its factors look like rates.

    A base rate on a device is not looked at.
    """
    said = False
    tried: set[int] = set()
    for function, base in itertools.zip_longest(functions, bases):
        if id(function) in tried:
            continue
        tried.add(id(function))
        peak = _tried_out(function)
        if said or base is None or (isinstance(base, torch.Tensor) and base.device.type != "cpu"):
            continue
        message = _looks_like(peak, numbers([base])[0], absolute)
        if message is not None:
            said = True
            notice(message)


def _tried_out(function: ScheduleFunction) -> float:
    """The highest value; warns of an object that changes when it is called, which is left as it was.

    What such an object remembers is in no checkpoint.
    """
    owner = function.__self__ if isinstance(function, types.MethodType) else function
    attributes = getattr(owner, "__dict__", None)
    if isinstance(owner, _PURE) or not isinstance(attributes, dict):
        return _sampled_peak(function)
    before = dict(attributes)
    contents = {name: plain for name, value in before.items() if (plain := _plain(value)) is not None}
    peak = _sampled_peak(function)
    inside = [put_back(before[name], plain) for name, plain in contents.items()]
    changes = put_back(attributes, before) or any(inside)
    if changes or callable(getattr(function, "state_dict", None)):
        notice(
            f"schedule must be a pure function of the update, got {type(owner).__name__}, which has a memory of its "
            "own: it is in no state of the scheduler, so that a resumed training would go on differently."
        )
    return peak


def _plain(value: Any) -> Any:
    """The contents of a container that may be written in place; None of anything else."""
    kind = next((kind for kind in (dict, set, list, deque) if isinstance(value, kind)), None)
    return None if kind is None else kind(value)
