"""What a range test is to do: the arguments of ``LRFinder.attach``, checked, as plain numbers."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from torch.optim import Optimizer

from ignite_lr.core.arguments import AT_ONCE, Whole, is_scalar, shown
from ignite_lr.core.host import read
from ignite_lr.dry_run import DryRun
from ignite_lr.range_test import sweep_rates

__all__ = ["SweepPlan", "count"]


class SweepPlan:
    """What a sweep is to do: the checked arguments of ``LRFinder.attach``."""

    def __init__(
        self,
        optimizer: Optimizer,
        num_iter: int | None,
        start_lr: Any,
        end_lr: Any,
        step_mode: str,
        smooth_f: float,
        diverge_th: float,
        ratios: str | None,
        repeats: int,
        verify: int,
        skip_nonfinite: int = 0,
    ) -> None:
        self.smooth_f = number("smooth_f", smooth_f)
        if not 0 <= self.smooth_f < 1:
            raise ValueError(f"smooth_f is outside the range [0, 1], got {_said(smooth_f)}")
        self.diverge_th = number("diverge_th", diverge_th)
        if not self.diverge_th >= 1:
            raise ValueError(f"diverge_th should be larger than 1, got {_said(diverge_th)}")
        if not isinstance(step_mode, str) or step_mode not in ("exp", "linear"):
            raise ValueError(f"step_mode should be 'exp' or 'linear', but given {_said(step_mode)}")
        self.step_mode = step_mode
        self.num_iter = None if num_iter is None else count("if provided, num_iter", num_iter)
        self.repeats = count("repeats", repeats)
        self.verify = 0 if type(verify) is int and verify == 0 else count("verify", verify)
        self.skip_nonfinite = Whole(0).check("skip_nonfinite", skip_nonfinite) or 0
        self.present_start = start_lr is None
        self.starts, self.ends = _bounds(optimizer, start_lr, end_lr, step_mode, ratios)

    def points(self, engine: DryRun) -> int:
        """How many points this run is to have."""
        if self.num_iter is not None:
            return self.num_iter
        if engine.max_iters is not None:
            return count("max_iters", engine.max_iters)
        if engine.length is None:
            raise ValueError(
                "num_iter=None needs data with a length: give attach() a num_iter, or run() an epoch_length"
            )
        epochs = 1 if engine.max_epochs is None else count("max_epochs", engine.max_epochs)
        return count("num_iter=None: epoch_length x max_epochs", engine.length * epochs)

    def rates(self, num_iter: int) -> list[tuple[float, ...]]:
        """The rates of every point, for each parameter group."""
        return sweep_rates(self.starts, self.ends, num_iter, self.step_mode)


def _bounds(
    optimizer: Optimizer, start_lr: Any, end_lr: Any, step_mode: str, ratios: str | None
) -> tuple[list[float], list[float]]:
    """First and last rate of each parameter group."""
    present = [number("lr", group["lr"]) for group in optimizer.param_groups]
    if ratios is None:
        starts = present if start_lr is None else _per_group("start_lr", start_lr, len(present))
        ends = _per_group("end_lr", end_lr, len(present))
    elif isinstance(ratios, str) and ratios == "keep":
        largest = max(present)
        if not largest > 0:
            raise ValueError(f"ratios='keep' needs a parameter group with a positive lr, got {shown(present)}")
        for name, value in (("start_lr", start_lr), ("end_lr", end_lr)):
            if isinstance(value, (list, tuple)):
                raise ValueError(f"{name} must be one number with ratios='keep', got {shown(value)}")
        start = largest if start_lr is None else number("start_lr", start_lr)
        end = number("end_lr", end_lr)
        starts = [start * (lr / largest) for lr in present]
        ends = [end * (lr / largest) for lr in present]
    else:
        raise ValueError(f"ratios must be None or 'keep', got {shown(ratios)}")
    for group, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if ratios == "keep" and present[group] == 0:
            continue  # a frozen group stays frozen
        if not (math.isfinite(start) and math.isfinite(end)):
            raise ValueError(f"start_lr and end_lr must be finite, got start_lr={start} and end_lr={end}")
        if start >= end:
            raise ValueError(f"start_lr must be less than end_lr, start_lr={start} vs end_lr={end}")
        if start < 0 or (start == 0 and step_mode == "exp"):
            raise ValueError(f"start_lr must be positive for step_mode={step_mode!r}, got {start}")
    return starts, ends


def _per_group(name: str, value: Any, groups: int) -> list[float]:
    if isinstance(value, (list, tuple)):
        if len(value) != groups:
            raise ValueError(
                f"Number of values of {name} should be equal to optimizer values."
                f"{name} values:{len(value)} optimizer values: {groups}"
            )
        return [number(name, one) for one in value]
    return [number(name, value, "a float or list of floats")] * groups


def number(name: str, value: Any, kind: str = "a number") -> float:
    """A Python, NumPy or 0-d tensor number as a float."""
    is_bool = isinstance(value, bool)
    if is_scalar(value):
        return read([value])[0]
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, numbers.Real) and not is_bool:
        try:
            return float(value)
        except OverflowError as error:  # an int beyond all floats
            raise ValueError(f"{name} should be finite as a float, but given {_said(value)}") from error
    raise TypeError(f"{name} should be {kind}, but given {type(value)}")


def count(name: str, value: Any) -> int:
    """A positive integer."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} should be an integer, but give {_said(value)}")
    if value <= 0:
        raise ValueError(f"{name} should be positive, but give {_said(value)}")
    if value > AT_ONCE:
        raise ValueError(f"{name} should be at most {AT_ONCE:,}, but give {shown(int(value))}")
    return int(value)


def _said(value: Any) -> str:
    """A value as the errors of ``FastaiLRFinder`` have it, by ``str``, where that is short."""
    try:
        text = str(value)
    except Exception:  # an object whose own method raises, an integer of more digits than Python writes
        return shown(value)
    return text if len(text) <= 80 else shown(value)
