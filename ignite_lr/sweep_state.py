"""The state that an engine carries while a sweep borrows it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from ignite.engine import Engine, State
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

__all__ = ["private_state", "user_values"]


def private_state(engine: Engine, original: State, optimizer: Optimizer | None) -> State:
    """A fresh state with copies of what the user put into the engine's."""
    state = object.__new__(type(original))
    state.__dict__.update(State().__dict__)
    state.__dict__.update(user_values(engine, original, optimizer))
    return state


def user_values(engine: Engine, original: State, optimizer: Optimizer | None) -> dict[str, Any]:
    """Copies of what the user put into an engine's state; what must not be copied is shared."""
    # Known objects are shared, also where a copied one refers to them: a copied model would not be the trained one.
    shared: dict[int, Any] = {id(engine): engine}
    if optimizer is not None:
        shared[id(optimizer)] = optimizer
        shared.update({id(p): p for group in optimizer.param_groups for p in group["params"]})
    managed = {*vars(State()), "rng_states"} - {"metrics", "seed"}
    return {name: _copy_of(value, shared) for name, value in vars(original).items() if name not in managed}


def _copy_of(value: Any, shared: dict[int, Any]) -> Any:
    if isinstance(value, (Engine, nn.Module, Optimizer, DataLoader, torch.Generator)) or hasattr(value, "state_dict"):
        return value
    if isinstance(value, dict) and type(value) is dict:
        return {key: _copy_of(item, shared) for key, item in value.items()}
    try:
        return copy.deepcopy(value, dict(shared))
    except Exception:
        return value  # a file, a lock, a tensor with a graph: it can only be shared
