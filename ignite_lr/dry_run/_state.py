"""The state that an engine carries while a sweep borrows it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from ignite.engine import Engine, State
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

__all__ = ["private_state", "stateful_values", "user_values"]


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
    shared.update({id(item): item for _, item in stateful_values(original)})
    return {name: _copy_of(value, shared) for name, value in _users(original).items()}


def stateful_values(state: State) -> Iterator[tuple[str, Any]]:
    """PyTorch generators and objects with a ``state_dict`` among what the user put into a state, also in containers.

    Yields:
        where it is, such as ``"scalers.main"``, and the object.
    """
    pending = list(_users(state).items())
    seen: set[int] = set()
    while pending:
        path, value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Generator) or hasattr(value, "state_dict"):
            yield path, value
        elif isinstance(value, Mapping):
            pending += [(f"{path}.{key}", item) for key, item in value.items()]
        elif isinstance(value, (list, tuple, set, frozenset, deque)):
            pending += [(f"{path}.{index}", item) for index, item in enumerate(value)]


def _users(state: State) -> dict[str, Any]:
    managed = {*vars(State()), "rng_states"} - {"metrics", "seed"}
    return {name: value for name, value in vars(state).items() if name not in managed}


def _copy_of(value: Any, shared: dict[int, Any]) -> Any:
    if isinstance(value, (Engine, nn.Module, Optimizer, DataLoader, torch.Generator)) or hasattr(value, "state_dict"):
        return value
    if isinstance(value, dict) and type(value) is dict:
        return {key: _copy_of(item, shared) for key, item in value.items()}
    try:
        return copy.deepcopy(value, dict(shared))
    except Exception:
        return value  # a file, a lock, a tensor with a graph: it can only be shared
