"""Plain Python values: told apart, duplicated, compared."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch

__all__ = ["GENERATORS", "are_atoms", "bind", "duplicate", "is_atom", "same"]

GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_ATOMS = frozenset((*_PLAIN, *np.sctypeDict.values())) - {np.object_, np.void}
_ATOMS_AND_TUPLES = _ATOMS | {tuple}


def is_atom(kind: type) -> bool:
    """Whether values of this class are numbers, texts and the like, which nobody can change."""
    return kind in _ATOMS


def are_atoms(values: Iterable[Any]) -> bool:
    """Whether all values are numbers, texts and the like, or tuples of them, which nobody can change."""
    kinds = set(map(type, values))
    if kinds <= _ATOMS:
        return True
    if not kinds <= _ATOMS_AND_TUPLES:
        return False
    inner = [value for value in values if type(value) is tuple]
    return set(map(type, chain.from_iterable(inner))) <= _ATOMS


def duplicate(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """A deep copy that takes containers of plain values as a whole.

    Raises:
        Exception: whatever ``copy.deepcopy`` raises for what cannot be copied.
    """
    memo = {} if memo is None else memo
    kind = type(value)
    if kind in _ATOMS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    copied: Any
    if kind in (list, deque, set, tuple, frozenset) and are_atoms(value):
        copied = copy.copy(value)
    elif kind is dict and are_atoms(value.values()):
        copied = dict(value)
    elif kind is dict:
        copied = memo[id(value)] = {}
        for key, item in value.items():
            copied[key] = duplicate(item, memo)
    elif kind is list:
        copied = memo[id(value)] = []
        copied += [duplicate(item, memo) for item in value]
    elif kind is tuple:
        copied = tuple(duplicate(item, memo) for item in value)
    elif isinstance(value, torch.Tensor):
        copied = value.detach().clone() if not value.is_leaf else copy.deepcopy(value, memo)
    else:
        return copy.deepcopy(value, memo)  # which notes it in the memo itself
    memo[id(value)] = copied
    memo.setdefault(id(memo), []).append(value)  # kept alive, so that its id stays its own
    return copied


def bind(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """The call of a function with these arguments, for later."""
    return lambda: function(*args)


def same(left: Any, right: Any) -> bool:
    """Whether two states hold the same values; False where that cannot be told."""
    if isinstance(left, torch.Tensor) or isinstance(right, torch.Tensor):
        return (
            isinstance(left, torch.Tensor)
            and isinstance(right, torch.Tensor)
            and left.dtype == right.dtype
            and left.device == right.device
            and torch.equal(left, right)
        )
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return type(left) is type(right) and left.dtype == right.dtype and np.array_equal(left, right)
    if type(left) is not type(right):
        return False
    if isinstance(left, Mapping):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple, deque)):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right) if isinstance(left, (*_PLAIN, np.generic, set, frozenset)) else False
