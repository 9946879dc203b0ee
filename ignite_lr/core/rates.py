"""Learning rates of parameter groups, read and written in one place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

__all__ = ["set_rates"]


def set_rates(optimizer: Optimizer, rates: Iterable[float], *, initial: bool = False) -> None:
    """Write one rate to each parameter group; a rate held as a tensor is filled in place.

    Args:
        optimizer: whose groups.
        rates: as many rates as groups.
        initial: whether to write ``initial_lr`` too, where a scheduler has put one.
    """
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if type(group["lr"]) is float:
            group["lr"] = rate  # the usual case, several times an iteration of a sweep
        else:
            _write(group, "lr", rate)
        if initial and "initial_lr" in group:
            _write(group, "initial_lr", rate)


def _write(group: dict[str, Any], key: str, rate: float) -> None:
    if isinstance(group[key], torch.Tensor):
        group[key].fill_(rate)
    else:
        group[key] = rate
