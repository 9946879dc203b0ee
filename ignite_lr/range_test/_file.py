"""The file format of a range test: JSON after RFC 8259, non-finite numbers as strings."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ignite_lr.core.arguments import Flag, Text, Whole, check_path, shown
from ignite_lr.range_test._curve import SweepCurve
from ignite_lr.range_test._verified import VerifiedRate

__all__ = ["read_result", "write_result"]

_FORMAT = "ignite_lr.RangeTestResult"
_VERSION = 1
_SWEEP_FIELDS = tuple(field.name for field in fields(SweepCurve))
_FIELDS = (*_SWEEP_FIELDS, "iterations", "step_mode", "loss_name")
_TRIAL_FIELDS = ("lr", "losses", "learns")  # of each verified rate; files of results without are as they always were
_TEXTS = {"stop_reason", "step_mode", "loss_name"}


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, (float, np.floating)):  # a result made by hand may hold NumPy's
        return float(value) if math.isfinite(value) else repr(float(value))
    return value


def _checked(name: str, value: Any) -> Any:
    """A field as it was written; the file may be anybody's."""
    if name in _TEXTS:
        return Text().check(name, value)
    if name == "iterations":
        return Whole(0).check(name, value)
    if name != "stop_lr" and not isinstance(value, list):
        raise TypeError(f"{name} must be a list, got {shown(value)}.")
    return _numbers(name, value)


def _numbers(name: str, value: Any) -> Any:
    """A number, a list of numbers, or a list of lists of them: no deeper."""
    if not isinstance(value, list):
        return _number(name, value)
    return tuple(
        tuple(_number(name, one) for one in item) if isinstance(item, list) else _number(name, item) for item in value
    )


def _number(name: str, value: Any) -> float:
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"{name} must hold numbers, got {shown(value)}.")


def _row(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{name} must be a list, got {shown(value)}.")
    return tuple(_number(name, one) for one in value)


def _trial(content: Any) -> VerifiedRate:
    given = content["lr"]
    rate = _row("lr of verified", given) if isinstance(given, list) else _number("lr of verified", given)
    losses = _row("losses of verified", content["losses"])
    if not isinstance(content["learns"], bool):
        raise TypeError(f"learns of verified must be true or false, got {shown(content['learns'])}.")
    return VerifiedRate(rate, losses, content["learns"])


def _check_shapes(curves: Iterable[Any], tried: Sequence[Any]) -> None:
    for curve in curves:
        if not len(curve["lrs"]) == len(curve["losses"]) == len(curve["smoothed_losses"]):
            raise ValueError("lrs, losses and smoothed_losses must have the same length")
        if any(isinstance(loss, tuple) for loss in (*curve["losses"], *curve["smoothed_losses"])):
            raise ValueError("losses and smoothed_losses must hold one number a point")
        rates = [*curve["lrs"], curve["stop_lr"], *tried]
        nested = any(isinstance(one, tuple) for rate in rates if isinstance(rate, tuple) for one in rate)
        sizes = {len(rate) if isinstance(rate, tuple) else None for rate in rates}
        if nested or len(sizes) != 1 or 0 in sizes:
            raise ValueError("lrs, stop_lr and verified must hold one rate a point, or one for each parameter group")


def write_result(result: Any, path: str | os.PathLike[str]) -> Path:
    """Write the fields of a ``RangeTestResult``; see its ``save``."""
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        **{name: getattr(result, name) for name in _FIELDS},
        "sweeps": [{name: getattr(sweep, name) for name in _SWEEP_FIELDS} for sweep in result.sweeps],
    }
    if result.present_start:
        content["present_start"] = True
    if result.verified:
        content["verified"] = [{name: getattr(rate, name) for name in _TRIAL_FIELDS} for rate in result.verified]
    if result.control:
        content["control"] = result.control
    target = check_path(path)
    target.write_text(json.dumps(_to_json(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return target


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a ``RangeTestResult``; see its ``load``."""
    target = check_path(path)
    name = repr(os.fspath(path))
    try:
        content = json.loads(target.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        raise ValueError(f"{name} is no range test result: not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{name} is no range test result: it has no format {_FORMAT!r}")
    if content.get("version") != _VERSION:
        raise ValueError(
            f"{name} has version {shown(content.get('version'))} of the format, this release reads version {_VERSION}"
        )
    try:
        values = {field: _checked(field, content[field]) for field in _FIELDS}
        sweeps = tuple(
            SweepCurve(**{field: _checked(field, sweep[field]) for field in _SWEEP_FIELDS})
            for sweep in content["sweeps"]
        )
        verified = tuple(_trial(trial) for trial in content.get("verified", ()))
        _check_shapes([values, *map(vars, sweeps)], [values["stop_lr"], *(trial.lr for trial in verified)])
        values["control"] = _row("control", content.get("control", []))
        values["present_start"] = Flag().check("present_start", content.get("present_start", False))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name} is no range test result: {error!r}") from error
    return {**values, "sweeps": sweeps, "verified": verified}
