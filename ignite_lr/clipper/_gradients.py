"""The gradients of one update: which are limited together, how large they are, and how they are brought to a limit.

What flows in is an optimizer about to step; what flows out are norms, still where the gradients are. Nothing here
decides or reads anything: that is done by the two stories that follow, on the host and on a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from ignite_lr.clipper._norm import global_norm, norm_of_norms, plain

__all__ = ["EPSILON", "Gradients", "factor", "measured", "names_of", "unscales"]

# what PyTorch adds to a norm before it divides by it
EPSILON = 1e-6


@dataclass(frozen=True)
class Gradients:
    """The gradients of one update, as they are limited.

    Attributes:
        parts: the gradients that are limited together, by window: 0 for all of them, 1 + i for those of group i; no
            parts where there are none.
        norms: their norms, unscaled, 0-d tensors: float64 where gradients are, else float32.
        whole: the norm of all of them.
        apart: whether groups are limited apart.
        found_inf: positive where a ``GradScaler`` is about to skip the step; None without one.
    """

    parts: Mapping[int, Sequence[torch.Tensor]]
    norms: Mapping[int, torch.Tensor]
    whole: torch.Tensor
    apart: bool = False
    found_inf: torch.Tensor | None = None


def unscales(optimizer: Optimizer) -> bool:
    """Whether the optimizer unscales gradients itself, so that they are still scaled when the step begins."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def measured(optimizer: Optimizer, norm_type: float, per_group: bool) -> Gradients:
    """The gradients that the optimizer is about to apply, and their norms; no parts where there are none."""
    groups = optimizer.param_groups
    # The gradients are still scaled where the optimizer is to unscale them.
    scale, found_inf = None, None
    if unscales(optimizer):
        scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    if per_group:
        parts = {i + 1: gradients for i, group in enumerate(groups) if (gradients := _of([group]))}
    else:
        parts = {0: gradients} if (gradients := _of(groups)) else {}
    norms: dict[int, torch.Tensor] = {}
    first: torch.device | None = None
    for index, part in parts.items():
        norm = global_norm(part, norm_type)
        if scale is not None:
            norm = norm / scale.to(norm.device, non_blocking=True)
        first = first or norm.device
        norms[index] = norm if norm.device == first else norm.to(first)
    whole = norms.get(0)
    if whole is None:
        whole = norm_of_norms(list(norms.values()), norm_type) if norms else torch.zeros(())
    return Gradients(parts, norms, whole, per_group, None if found_inf is None else plain(found_inf))


def names_of(optimizer: Optimizer) -> list[str]:
    """What the parameter groups are called: by their names, else by their numbers; no two alike."""
    names: list[str] = []
    for index, group in enumerate(optimizer.param_groups):
        name = str(group.get("name") or f"group_{index}")
        names.append(f"{name}_{index}" if name in names else name)
    return names


def factor(norm: torch.Tensor, limit: float | torch.Tensor) -> torch.Tensor:
    """What gradients of this norm are multiplied by to have the limit; in PyTorch's order, for the same last bit."""
    return ((norm + EPSILON).reciprocal() * limit).clamp(max=1.0)


def _of(groups: Sequence[Mapping[str, Any]]) -> list[torch.Tensor]:
    return [gradient for group in groups for parameter in group["params"] if (gradient := parameter.grad) is not None]
