"""The loss of an iteration, out of whatever the training step returned."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ignite_lr.core.host import read

__all__ = ["loss_in", "loss_of"]


def loss_in(output: Any, transform: Callable[[Any], Any]) -> float | None:
    """The loss that ``transform`` picks out of what a training step returned; None for a batch that it skipped."""
    try:
        value = transform(output)
    except (AttributeError, TypeError):
        if output is not None:
            raise
        return None  # there is nothing to pick it from
    return None if value is None else loss_of(value)


def loss_of(value: Any) -> float:
    """The loss that a training step returned, as a float."""
    if type(value) is float:  # the usual case, and what follows takes longer than all else in an iteration
        return value
    is_bool = isinstance(value, bool)
    is_complex = value.is_complex() if isinstance(value, torch.Tensor) else np.iscomplexobj(value)
    if isinstance(value, torch.Tensor) and not is_complex:
        if value.numel() != 1 or value.ndim > 1:
            raise ValueError(
                "if output of the engine is torch.Tensor, then it must be 0d torch.Tensor or 1d torch.Tensor with "
                f"1 element, but got torch.Tensor of shape {value.shape}."
            )
        return read([value])[0]
    if isinstance(value, np.ndarray) and value.size == 1 and value.ndim <= 1 and not is_complex:
        return float(value.reshape(())[()])
    if isinstance(value, numbers.Real) and not is_bool:
        return float(value)
    kind = f"type {type(value).__name__}"
    if is_complex and not isinstance(value, complex):
        kind += ", which is complex"
    raise TypeError(
        "output of the engine should be of type float or 0d torch.Tensor or 1d torch.Tensor with 1 element, but got "
        f"output of {kind}. Give attach() an output_transform that picks the loss, such as "
        'output_transform=lambda output: output["loss"].'
    )
