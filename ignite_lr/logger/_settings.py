"""What LRLogger is told to log: optimizers and clippers by name, and values of a parameter group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ignite.engine import Engine
from torch.optim import Optimizer

from ignite_lr.core.arguments import Choice, Flag, Text, Whole, check_callable, check_optimizer, shown

__all__ = ["Settings", "momentum_of", "named_clippers", "named_optimizers", "weight_decay_of"]


@dataclass(frozen=True)
class Settings:
    """The options of ``LRLogger`` by the names that it gives them.

    Raises:
        TypeError: for an argument of the wrong type.
        ValueError: for a value out of range.
    """

    momentum: bool = False
    weight_decay: bool = False
    tag: str | None = None
    history: int = 0
    metrics: bool = False
    step: str = "iteration"
    global_step_transform: Callable[[Engine, Any], int] | None = None
    on_error: str = "warn"

    def __post_init__(self) -> None:
        for flag in ("momentum", "weight_decay", "metrics"):
            Flag().check(flag, getattr(self, flag))
        tag = Text(empty=False, or_none=True).check("tag", self.tag)
        if tag is not None and not tag.strip("/"):
            raise ValueError(f"tag must be more than slashes, got {shown(tag)}.")
        object.__setattr__(self, "history", Whole(minimum=0).check("history", self.history))  # an int of Python's
        Choice(("iteration", "update")).check("step", self.step)
        check_callable("global_step_transform", self.global_step_transform, or_none=True)
        Choice(("warn", "raise")).check("on_error", self.on_error)

    @property
    def prefix(self) -> str:
        """What goes before every tag."""
        return "" if self.tag is None else f"{self.tag.strip('/')}/"

    def kinds(self, optimizers: Mapping[str, Optimizer]) -> dict[str, Callable[[dict[str, Any]], Any]]:
        """What is recorded of each group besides the rate, by the first part of its tag.

        Raises:
            ValueError: if none of these optimizers has it.
        """
        kinds: dict[str, Callable[[dict[str, Any]], Any]] = {}
        if self.momentum:
            kinds["momentum"] = momentum_of
        if self.weight_decay:
            kinds["weight_decay"] = weight_decay_of
        for kind, value_of in kinds.items():
            if all(value_of(group) is None for one in optimizers.values() for group in one.param_groups):
                raise ValueError(f"{kind} must be False for optimizers that have none, got True.")
        return kinds


def named_optimizers(optimizer: Any) -> dict[str, Optimizer]:
    """Each optimizer by name; one alone is called by its class.

    Raises:
        TypeError: for something else than an optimizer or a dict of them.
        ValueError: for an optimizer without rates, or one that comes twice.
    """
    named = {type(optimizer).__name__: optimizer} if isinstance(optimizer, Optimizer) else optimizer
    if not isinstance(named, Mapping) or not named:
        raise TypeError(
            "optimizer must be a torch.optim.Optimizer or a non-empty dict of them, "
            f"got {shown(optimizer)} of type {type(optimizer).__name__}."
        )
    for name, one in named.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"optimizer must have non-empty str as names, got {shown(name)}.")
        check_optimizer(one, f"optimizer[{name!r}]")
        if any("lr" not in group for group in one.param_groups):
            raise ValueError(f"optimizer[{name!r}] must have an 'lr' in each parameter group, got one without.")
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
            raise TypeError(
                f"clipper must be a GradNormClipper or a list of them, got {shown(one)} of type {type(one).__name__}."
            )
    names = [getattr(one, "name", "") for one in clippers]
    if len(set(names)) < len(names):
        raise ValueError(f"clipper must have a name of its own where there are several, got {shown(names)}.")
    return [(one, f"{name}_" if name else "") for one, name in zip(clippers, names, strict=True)]


def momentum_of(group: dict[str, Any]) -> Any:
    """The momentum of a parameter group, or None."""
    return group["betas"][0] if "betas" in group else group.get("momentum")


def weight_decay_of(group: dict[str, Any]) -> Any:
    """The weight decay of a parameter group, or None."""
    return group.get("weight_decay")
