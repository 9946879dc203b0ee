"""Remember plain Python values in place: containers keep their identity, and what is in them comes back."""

from __future__ import annotations

import copy
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ignite_lr.dry_run._tensors import Restore, TensorCopies

__all__ = ["ATOMS", "GENERATORS", "PLAIN", "Capture", "bind", "same"]

ATOMS = (type(None), bool, int, float, complex, str, bytes)
GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
PLAIN = (*ATOMS, dict, list, deque, set, tuple, torch.Tensor, np.ndarray, *GENERATORS)


class Capture:
    """Captures plain values: tensors, arrays, generators and containers of them. Other objects are left as they are."""

    def __init__(self, tensors: TensorCopies) -> None:
        self._tensors = tensors
        self._open: set[int] = set()  # what is being restored at the moment
        self._known: dict[int, tuple[Any, Restore]] = {}  # the value too, so that its id stays its own

    def __call__(self, value: Any) -> Restore:
        """Remember a value; what is returned puts it back and returns it."""
        if isinstance(value, ATOMS):
            return lambda: value
        if isinstance(value, torch.Tensor):
            return self._tensors.add(value)
        if id(value) in self._known:
            return self._known[id(value)][1]
        if type(value) in (dict, OrderedDict, defaultdict, Counter):
            return self._dict(value)
        if type(value) in (list, deque):
            return self._list(value)
        if type(value) is set:
            return self._set(value)
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, GENERATORS):
            return self._generator(value)
        return lambda: value

    def _remember(self, value: Any, restore: Restore) -> Restore:
        def once() -> Any:
            if id(value) in self._open:
                return value  # a container that holds itself
            self._open.add(id(value))
            try:
                return restore()
            finally:
                self._open.discard(id(value))

        self._known[id(value)] = (value, once)
        return once

    def _dict(self, value: dict[Any, Any]) -> Restore:
        items: list[tuple[Any, Restore]] = []

        def restore() -> dict[Any, Any]:
            before = {key: item() for key, item in items}
            value.clear()
            value.update(before)
            return value

        remembered = self._remember(value, restore)
        items += [(key, self(item)) for key, item in value.items()]
        return remembered

    def _list(self, value: list[Any] | deque[Any]) -> Restore:
        items: list[Restore] = []

        def restore() -> list[Any] | deque[Any]:
            before = [item() for item in items]
            value.clear()
            value.extend(before)
            return value

        remembered = self._remember(value, restore)
        items += [self(item) for item in value]
        return remembered

    def _set(self, value: set[Any]) -> Restore:
        before = frozenset(value)

        def restore() -> set[Any]:
            if value != before:
                value.clear()
                value.update(before)
            return value

        return self._remember(value, restore)

    def _tuple(self, value: tuple[Any, ...]) -> Restore:
        items: list[Restore] = []

        def restore() -> tuple[Any, ...]:
            for item in items:
                item()
            return value

        remembered = self._remember(value, restore)
        items += [self(item) for item in value if not isinstance(item, ATOMS)]
        return remembered

    def _array(self, value: np.ndarray[Any, Any]) -> Restore:
        before = value.copy()

        def restore() -> np.ndarray[Any, Any]:
            if value.flags.writeable:
                value[...] = before
            return value

        return self._remember(value, restore)

    def _generator(self, value: Any) -> Restore:
        write: Callable[[], Any]
        if isinstance(value, torch.Generator):
            write = bind(value.set_state, value.get_state())
        elif isinstance(value, random.Random):
            write = bind(value.setstate, value.getstate())
        elif isinstance(value, np.random.RandomState):
            write = bind(value.set_state, value.get_state())
        else:
            write = bind(setattr, value.bit_generator, "state", copy.deepcopy(value.bit_generator.state))

        def restore() -> Any:
            write()
            return value

        return self._remember(value, restore)


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
    return bool(left == right) if isinstance(left, (*ATOMS, set, frozenset)) else False
