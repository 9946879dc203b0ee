"""One walk over the objects of a training, which remembers each of them by what it is.

It starts at what the user gave and follows references up to the border (see ``_border``). Of every object met it notes
how to put it back *in place*, flatly: a list is remembered with the objects that are in it, and these by themselves. So
nothing depends on how deep something hangs or by how many ways it can be reached, and identities stay.

What must never happen: that something met changes and neither comes back nor is named in :attr:`Walk.missed`.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from ignite_lr.core.containers import put_back
from ignite_lr.dry_run._batches import is_one_shot
from ignite_lr.dry_run._border import has_attributes, is_opaque, is_open, slots_of
from ignite_lr.dry_run._samples import Samples
from ignite_lr.dry_run._tensors import TensorCopies, has_dispatch
from ignite_lr.dry_run._values import are_atoms, bind, is_atom
from ignite_lr.dry_run._visits import VISITS, Visit, visit_object

__all__ = ["Role", "Walk"]

# Iterators that a copy can stand in for: they know their place in what they go through.
_ITERATORS = frozenset(map(type, (iter([]), iter(()), iter(range(0)), iter(range(2**70)), iter(""), iter(b""))))


class Role(Enum):
    """As what an object is met."""

    TRAINING = 0  # comes back with the training, whatever its size
    THINGS = 1  # likewise, but large arrays only as far as those of a data set: what hangs on the trainer
    DATA = 2  # surroundings: repeats of a sweep read on


class Walk:
    """Remembers objects and everything that they refer to.

    Args:
        tensors: takes the copies of tensors.

    Attributes:
        modules, optimizers, loaders: those that were met.
        missed: what was met and cannot be put back.
        samples: of arrays that were not copied.
    """

    def __init__(self, tensors: TensorCopies) -> None:
        self.modules: list[nn.Module] = []
        self.optimizers: list[Optimizer] = []
        self.loaders: list[DataLoader[Any]] = []
        self.generators: list[Any] = []
        self.missed: dict[str, None] = {}
        self.samples = Samples()
        self._tensors = tensors
        # what puts things back, in three stages: the id of the object, for whom, and the function
        self.first: list[tuple[int, str, Callable[[], Any]]] = []
        self._parts: list[tuple[int, str, Callable[[], Any]]] = []
        self.after: list[tuple[int, str, Callable[[], Any]]] = []
        self.held: list[Any] = []  # what is to keep its identity until the end
        self._known: dict[int, Any] = {}  # the objects too, so that their ids stay theirs
        self._data_ids: set[int] = set()
        self._plain_parameters: list[torch.Tensor] = []
        self.loaded: dict[int, set[str]] = {}  # which attributes load_state_dict has just set
        self._visits: dict[type, Visit | None] = {}
        self._pending: list[tuple[Any, Role]] = []
        self.owner = ""
        self.root: Any = None
        self.role = Role.TRAINING
        self.is_new = True

    def __call__(self, owner: str, root: Any, role: Role = Role.TRAINING) -> None:
        """Remember an object with all it refers to; ``owner`` is for error messages."""
        self._begin(owner, role)
        self.root = root
        self.keep(root)
        self._go_on()

    def attributes(self, owner: str, holder: Any, left_alone: Collection[str]) -> None:
        """Remember the attributes of an object that is not entered otherwise, but for those ``left_alone``."""
        self._begin(owner, Role.THINGS)
        self.is_new = True
        self.namespace(holder, vars(holder), lambda key, item: key in left_alone)
        self._go_on()

    @property
    def limited(self) -> bool:
        """Whether arrays are copied only while they are small, at this point of the way."""
        return self.role is not Role.TRAINING

    def skip(self, item: Any) -> None:
        """Never enter this object."""
        self._known[id(item)] = item

    def restore(self, failures: list[tuple[str, BaseException]], surroundings: bool) -> None:
        """Put everything back; what fails is added to ``failures`` and does not keep the rest from being restored."""
        self.loaded = {}
        self._run(self.first, failures, surroundings)
        self._tensors.write_all(() if surroundings else self._data_ids)
        self._run(self._parts, failures, surroundings)
        self._run(self.after, failures, surroundings)
        for parameter in self._plain_parameters:
            _forget_what_hangs_on(parameter)

    def _run(
        self,
        parts: list[tuple[int, str, Callable[[], Any]]],
        failures: list[tuple[str, BaseException]],
        all_of_them: bool,
    ) -> None:
        for item, owner, part in parts:
            if all_of_them or item not in self._data_ids:
                try:
                    part()
                except BaseException as error:
                    failures.append((owner, error))

    def close(self) -> None:
        """Let go of everything, so that it is freed at once: what puts things back refers to this walk."""
        for held in (self.modules, self.optimizers, self.loaders, self.generators, self.first, self._parts, self.after):
            held.clear()
        self._known.clear()
        self.loaded.clear()
        self._plain_parameters.clear()
        self.held.clear()
        self._pending.clear()
        self.root = None
        self.samples.close()

    # -- the way through the graph

    def _begin(self, owner: str, role: Role) -> None:
        self.owner = self._tensors.owner = owner
        self.root = None
        self.role = role
        self._pending = []

    def _go_on(self) -> None:
        with _uncollected():
            while self._pending:
                item, self.role = self._pending.pop()
                kind = type(item)
                if kind not in self._visits:
                    self._visits[kind] = self._visit_for(kind)
                visit = self._visits[kind]
                known = id(item) in self._known
                if visit is None or (known and (self.role is not Role.DATA or id(item) in self._data_ids)):
                    continue
                if issubclass(kind, (DataLoader, Dataset, Sampler)):
                    self.role = Role.DATA
                elif issubclass(kind, (nn.Module, Optimizer)):
                    if known:
                        continue
                    self.role = Role.TRAINING
                if self.role is Role.DATA:
                    self._data_ids.add(id(item))
                self._known[id(item)] = item
                self.is_new = not known
                visit(self, item)

    def keep(self, item: Any) -> Any:
        """What stands for a value among the contents of its holder; the value itself is visited later."""
        kind = type(item)
        if is_atom(kind):
            return item
        if issubclass(kind, torch.Tensor):
            return self._tensor(item)
        if kind in _ITERATORS:
            return _Again(item)
        self._pending.append((item, self.role))
        return item

    def keep_all(self, items: Iterable[tuple[Any, Any]]) -> dict[Any, Callable[[], Any]]:
        """Keep values; what stands for them, by key, where they do not stand for themselves."""
        kept = [(key, item, self.keep(item)) for key, item in items]
        return {key: stand_in for key, item, stand_in in kept if stand_in is not item}

    def note(self, item: Any, restore: Callable[[], Any]) -> None:
        if self.is_new:
            self._parts.append((id(item), self.owner, restore))

    def miss(self, item: Any) -> None:
        if not (item is self.root and self.role is Role.DATA and is_one_shot(item)):  # of which its reader warns
            self.missed[f"{type(item).__module__}.{type(item).__qualname__} ({self.owner})"] = None

    def _visit_for(self, kind: type) -> Visit | None:
        for kinds, visit in VISITS:
            if issubclass(kind, kinds):
                return visit
        if has_attributes(kind) or is_open(kind):
            return visit_object
        return Walk.miss if is_opaque(kind) else None

    # -- tensors, arrays, generators

    def _tensor(self, tensor: torch.Tensor) -> Any:
        slot = self._tensors.known(tensor)
        if slot is None:
            if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
                raise ValueError(f"{self.owner}: a parameter must be initialized before a range test, but is lazy.")
            if self.limited and not self.samples.within_budget(tensor):
                self.samples.watch(self.owner, tensor)
                return tensor
            slot = self._tensors.add(tensor)
            if not has_dispatch(tensor):
                self._what_hangs_on(tensor)
        if self.role is Role.DATA and not isinstance(tensor, nn.Parameter):
            self._data_ids.add(id(slot))
        return tensor if isinstance(tensor, nn.Parameter) else slot  # a parameter is held anyway

    def _what_hangs_on(self, tensor: torch.Tensor) -> None:
        there = [vars(tensor), tensor._backward_hooks, tensor._post_accumulate_grad_hooks]
        self._pending += [(mapping, self.role) for mapping in there if mapping]
        if isinstance(tensor, nn.Parameter) and not any(there):
            self._plain_parameters.append(tensor)

    # -- containers

    def mapping(
        self,
        item: Any,
        live: dict[Any, Any],
        before: dict[Any, Any],
        adapt: Callable[[dict[Any, Any]], Any] | None = None,
    ) -> None:
        """Note that ``live`` gets the contents ``before``, or what ``adapt`` makes of them when the time has come."""
        stand_ins = {} if are_atoms(before.values()) else self.keep_all(before.items())
        before.update(dict.fromkeys(stand_ins))

        def restore() -> None:
            contents = before | {key: give() for key, give in stand_ins.items()} if stand_ins else before
            put_back(live, contents if adapt is None else adapt(contents))

        self.note(item, restore)

    def keep_each(self, values: Iterable[Any]) -> None:
        for item in values:
            self.keep(item)

    # -- objects

    def attributes_of(self, value: Any, *, entered: bool = False) -> None:
        kind = type(value)
        if not (entered or is_open(kind)):
            return
        if kind.__dictoffset__:
            self.namespace(value, object.__getattribute__(value, "__dict__"))
        for member in slots_of(kind):
            try:
                item = member.__get__(value)
            except AttributeError:  # noqa: PERF203 - how an empty slot is told
                self.note(value, bind(_empty, member, value))
            else:
                kept = self.keep(item)
                self.note(value, bind(_fill, member, value, kept, kept is not item))

    def namespace(
        self, value: Any, attributes: dict[str, Any], spared: Callable[[str, Any], bool] = lambda key, item: False
    ) -> None:
        """Remember the attributes of ``value``, but for those that are not its state."""
        before = {key: item for key, item in attributes.items() if not spared(key, item)}

        def adapt(contents: dict[str, Any]) -> dict[str, Any]:
            loaded = self.loaded.get(id(value), ())
            stays = {key: item for key, item in attributes.items() if key in loaded or spared(key, item)}
            if not stays:
                return contents
            contents = contents | stays
            # each where it is, so that nothing has to move
            return {key: contents[key] for key in attributes if key in contents} | contents

        self.mapping(value, attributes, before, adapt)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is made here, and the collector would go through all that is noted, time and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class _Again:
    """Stands for an iterator: each time a fresh copy that goes on from the same place."""

    def __init__(self, iterator: Any) -> None:
        self._copy = copy.copy(iterator)

    def __call__(self) -> Any:
        return copy.copy(self._copy)


def _empty(member: Any, value: Any) -> None:
    try:
        member.__delete__(value)
    except AttributeError:
        return  # it still is


def _fill(member: Any, value: Any, kept: Any, stands_in: bool) -> None:
    member.__set__(value, kept() if stands_in else kept)


def _forget_what_hangs_on(parameter: torch.Tensor) -> None:
    """Take off the hooks and attributes of a parameter that had none."""
    for mapping in (parameter._backward_hooks, parameter._post_accumulate_grad_hooks):
        if mapping:
            mapping.clear()
    for name in [name for name in vars(parameter) if not name.startswith("_dynamo")]:
        del vars(parameter)[name]
