"""What LRLogger is told to log: optimizers and clippers by name, and values of a parameter group."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

__all__ = ["check_options", "momentum_of", "named_clippers", "named_optimizers", "weight_decay_of"]


def check_options(
    momentum: object,
    weight_decay: object,
    tag: object,
    history: object,
    step: object,
    global_step_transform: object,
    on_error: object,
) -> None:
    """Raise unless these are what ``LRLogger`` takes by these names.

    Raises:
        TypeError: for an argument of the wrong type.
        ValueError: for a value out of range.
    """
    for argument, flag in (("momentum", momentum), ("weight_decay", weight_decay)):
        if not isinstance(flag, bool):
            raise TypeError(f"{argument} must be a bool, got {flag!r}.")
    if tag is not None and (not isinstance(tag, str) or not tag):
        raise TypeError(f"tag must be a non-empty str or None, got {tag!r}.")
    if isinstance(history, bool) or not isinstance(history, int):
        raise TypeError(f"history must be an int, got {history!r}.")
    if history < 0:
        raise ValueError(f"history must be at least 0 updates, got {history}.")
    if history > sys.maxsize:
        raise ValueError(f"history must be at most {sys.maxsize} updates, got {history}.")
    if not isinstance(step, str) or step not in ("iteration", "update"):
        raise ValueError(f'step must be "iteration" or "update", got {step!r}.')
    if global_step_transform is not None and not callable(global_step_transform):
        raise TypeError(f"global_step_transform must be callable or None, got {global_step_transform!r}.")
    if not isinstance(on_error, str) or on_error not in ("warn", "raise"):
        raise ValueError(f'on_error must be "warn" or "raise", got {on_error!r}.')


def named_optimizers(optimizer: Any) -> dict[str, Optimizer]:
    """Each optimizer by name; one alone is called by its class.

    Raises:
        TypeError: for something else than an optimizer or a dict of them.
        ValueError: for an optimizer without rates, or one that comes twice.
    """
    named = {type(optimizer).__name__: optimizer} if isinstance(optimizer, Optimizer) else optimizer
    if not isinstance(named, Mapping) or not named:
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer or a non-empty dict of them, got {type(optimizer).__name__}."
        )
    for name, one in named.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"optimizer must have non-empty str as names, got {name!r}.")
        if not isinstance(one, Optimizer):
            raise TypeError(f"optimizer[{name!r}] must be a torch.optim.Optimizer, got {type(one).__name__}.")
        if any("lr" not in group for group in one.param_groups):
            raise ValueError(f"optimizer[{name!r}] must have an 'lr' in each parameter group.")
    if len({id(one) for one in named.values()}) < len(named):
        raise ValueError(f"optimizer must name each optimizer once, got one of {sorted(named)} twice.")
    return dict(named)


def named_clippers(clipper: Any) -> list[tuple[Any, str]]:
    """Each clipper, with what goes before the names of its metrics.

    Raises:
        TypeError: for something else than a clipper or a list of them.
        ValueError: for clippers of the same name.
    """
    clippers = [] if clipper is None else list(clipper) if isinstance(clipper, (list, tuple)) else [clipper]
    for one in clippers:
        if not hasattr(one, "metrics"):
            raise TypeError(f"clipper must be a GradNormClipper or a list of them, got {type(one).__name__}.")
    names = [getattr(one, "name", "") for one in clippers]
    if len(set(names)) < len(names):
        raise ValueError(f"clipper must have a name of its own where there are several, got {names}.")
    return [(one, f"{name}_" if name else "") for one, name in zip(clippers, names, strict=True)]


def momentum_of(group: dict[str, Any]) -> Any:
    """The momentum of a parameter group, or None."""
    return group["betas"][0] if "betas" in group else group.get("momentum")


def weight_decay_of(group: dict[str, Any]) -> Any:
    """The weight decay of a parameter group, or None."""
    return group.get("weight_decay")
