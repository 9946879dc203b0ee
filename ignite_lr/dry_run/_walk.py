"""One walk over the objects of a training, which remembers each of them by what it is.

It starts at what the user gave and follows references up to the border (see ``_border``). Of every object met it notes
how to put it back *in place*, flatly: a list is remembered with the objects that are in it, and these by themselves. So
nothing depends on how deep something hangs or by how many ways it can be reached, and identities stay.

What must never happen: that something met changes and neither comes back nor is named in :attr:`Walk.missed`.
"""

from __future__ import annotations

import array
import copy
import functools
import random
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset, Sampler

from ignite_lr.dry_run._border import has_attributes, is_machinery, is_opaque, is_open, slots_of
from ignite_lr.dry_run._samples import Samples
from ignite_lr.dry_run._tensors import Restore, TensorCopies, has_dispatch
from ignite_lr.dry_run._values import GENERATORS, are_atoms, bind, duplicate, is_atom, put_back, same

__all__ = ["Role", "Walk"]

# Iterators that a copy can stand in for: they know their place in what they go through.
_ITERATORS = frozenset(map(type, (iter([]), iter(()), iter(range(0)), iter(range(2**70)), iter(""), iter(b""))))
_MODULE_INTERNALS = frozenset(nn.Module().__dict__)
_MISSING = object()


Visit = Callable[["Walk", Any], None]


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
        self.missed: dict[str, None] = {}
        self.samples = Samples()
        self._tensors = tensors
        # what puts things back, in three stages: the id of the object, for whom, and the function
        self._first: list[tuple[int, str, Callable[[], Any]]] = []
        self._parts: list[tuple[int, str, Callable[[], Any]]] = []
        self._after: list[tuple[int, str, Callable[[], Any]]] = []
        self._known: dict[int, Any] = {}  # the objects too, so that their ids stay theirs
        self._data_ids: set[int] = set()
        self._plain_parameters: list[torch.Tensor] = []
        self._loaded: dict[int, set[str]] = {}  # which attributes load_state_dict has just set
        self._visits: dict[type, Visit | None] = {}
        self._pending: list[tuple[Any, Role]] = []
        self._owner = ""
        self._root: Any = None
        self._role = Role.TRAINING
        self._is_new = True

    def __call__(self, owner: str, root: Any, role: Role = Role.TRAINING) -> None:
        """Remember an object with all it refers to; ``owner`` is for error messages."""
        self._begin(owner, role)
        self._root = root
        self._keep(root)
        self._go_on()

    def attributes(self, owner: str, holder: Any, left_alone: Iterable[str]) -> None:
        """Remember the attributes of an object that is not entered otherwise, but for those ``left_alone``."""
        self._begin(owner, Role.THINGS)
        self._is_new = True
        self._namespace(holder, vars(holder), frozenset(left_alone))
        self._go_on()

    def skip(self, item: Any) -> None:
        """Never enter this object."""
        self._known[id(item)] = item

    def restore(self, failures: list[tuple[str, BaseException]], surroundings: bool) -> None:
        """Put everything back; what fails is added to ``failures`` and does not keep the rest from being restored."""
        self._loaded = {}
        self._run(self._first, failures, surroundings)
        self._tensors.write_all(() if surroundings else self._data_ids)
        self._run(self._parts, failures, surroundings)
        self._run(self._after, failures, surroundings)
        for parameter in self._plain_parameters:
            _forget_what_hangs_on(parameter)

    def _run(
        self, parts: list[tuple[int, str, Callable[[], Any]]], failures: list[tuple[str, BaseException]], all_of_them: bool
    ) -> None:
        for item, owner, part in parts:
            if all_of_them or item not in self._data_ids:
                try:
                    part()
                except BaseException as error:
                    failures.append((owner, error))

    def close(self) -> None:
        """Let go of everything, so that it is freed at once: what puts things back refers to this walk."""
        for held in (self.modules, self.optimizers, self.loaders, self._first, self._parts, self._after):
            held.clear()
        self._known.clear()
        self._loaded.clear()
        self._plain_parameters.clear()
        self._pending.clear()
        self._root = None
        self.samples.close()

    # -- the way through the graph

    def _begin(self, owner: str, role: Role) -> None:
        self._owner = self._tensors.owner = owner
        self._root = None
        self._role = role
        self._pending = []

    def _go_on(self) -> None:
        while self._pending:
            item, self._role = self._pending.pop()
            kind = type(item)
            if kind not in self._visits:
                self._visits[kind] = self._visit_for(kind)
            visit = self._visits[kind]
            known = id(item) in self._known
            if visit is None or (known and (self._role is not Role.DATA or id(item) in self._data_ids)):
                continue
            if issubclass(kind, (DataLoader, Dataset, Sampler)):
                self._role = Role.DATA
            elif issubclass(kind, (nn.Module, Optimizer)):
                if known:
                    continue
                self._role = Role.TRAINING
            if self._role is Role.DATA:
                self._data_ids.add(id(item))
            self._known[id(item)] = item
            self._is_new = not known
            visit(self, item)

    def _keep(self, item: Any) -> Any:
        """What stands for a value among the contents of its holder; the value itself is visited later."""
        kind = type(item)
        if is_atom(kind):
            return item
        if issubclass(kind, torch.Tensor):
            return self._tensor(item)
        if kind in _ITERATORS:
            return _Again(item)
        self._pending.append((item, self._role))
        return item

    def _keep_all(self, items: Iterable[tuple[Any, Any]]) -> dict[Any, Callable[[], Any]]:
        """Keep values; what stands for them, by key, where they do not stand for themselves."""
        kept = [(key, item, self._keep(item)) for key, item in items]
        return {key: stand_in for key, item, stand_in in kept if stand_in is not item}

    def _note(self, item: Any, restore: Callable[[], Any]) -> None:
        if self._is_new:
            self._parts.append((id(item), self._owner, restore))

    def _miss(self, item: Any) -> None:
        self.missed[f"{type(item).__module__}.{type(item).__qualname__} ({self._owner})"] = None

    def _visit_for(self, kind: type) -> Visit | None:
        for kinds, visit in _VISITS:
            if issubclass(kind, kinds):
                return visit
        if has_attributes(kind) or is_open(kind):
            return Walk._object
        return Walk._miss if is_opaque(kind) else None

    # -- tensors, arrays, generators

    def _tensor(self, tensor: torch.Tensor) -> Any:
        slot = self._tensors.known(tensor)
        if slot is None:
            if isinstance(tensor, UninitializedTensorMixin):
                raise ValueError(f"{self._owner}: a parameter must be initialized before a range test, but is lazy.")
            if self._role is not Role.TRAINING and not self.samples.within_budget(tensor):
                self.samples.watch(self._owner, tensor)
                return tensor
            slot = self._tensors.add(tensor)
            if not has_dispatch(tensor):
                self._what_hangs_on(tensor)
        if self._role is Role.DATA and not isinstance(tensor, nn.Parameter):
            self._data_ids.add(id(slot))
        return tensor if isinstance(tensor, nn.Parameter) else slot  # a parameter is held anyway

    def _what_hangs_on(self, tensor: torch.Tensor) -> None:
        there = [vars(tensor), tensor._backward_hooks, tensor._post_accumulate_grad_hooks]
        self._pending += [(mapping, self._role) for mapping in there if mapping]
        if isinstance(tensor, nn.Parameter) and not any(there):
            self._plain_parameters.append(tensor)

    def _array(self, value: np.ndarray[Any, Any]) -> None:
        if self._is_new and value.flags.writeable:
            if self._role is Role.TRAINING or self.samples.within_budget(value):
                self._note(value, bind(value.__setitem__, ..., value.copy()))
            else:
                self.samples.watch(self._owner, value)
        if value.dtype.hasobject:
            self._fixed(value.flat)

    def _generator(self, value: Any) -> None:
        if isinstance(value, torch.Generator):
            self._note(value, bind(value.set_state, value.get_state()))
        elif isinstance(value, random.SystemRandom):
            return
        elif isinstance(value, random.Random):
            self._note(value, bind(value.setstate, value.getstate()))
        elif isinstance(value, np.random.RandomState):
            self._note(value, bind(value.set_state, value.get_state()))
        else:
            bits = value if isinstance(value, np.random.BitGenerator) else value.bit_generator
            self._note(value, bind(setattr, bits, "state", copy.deepcopy(bits.state)))
        self._attributes_of(value)

    # -- containers

    def _dict(self, value: dict[Any, Any]) -> None:
        kind: Any = OrderedDict if isinstance(value, OrderedDict) else dict
        before = dict(kind.items(value))
        if not are_atoms(before):
            self._fixed(before)
        self._mapping(value, value, before)
        self._attributes_of(value)

    def _mapping(
        self, item: Any, live: dict[Any, Any], before: dict[Any, Any], adapt: Callable[[dict[Any, Any]], Any] | None = None
    ) -> None:
        """Note that ``live`` gets the contents ``before``, or what ``adapt`` makes of them when the time has come."""
        stand_ins = {} if are_atoms(before.values()) else self._keep_all(before.items())
        before.update(dict.fromkeys(stand_ins))

        def restore() -> None:
            contents = before | {key: give() for key, give in stand_ins.items()} if stand_ins else before
            put_back(live, contents if adapt is None else adapt(contents))

        self._note(item, restore)

    def _list(self, value: list[Any] | deque[Any]) -> None:
        before = list(list.__iter__(value) if isinstance(value, list) else deque.__iter__(value))
        stand_ins = {} if are_atoms(before) else self._keep_all(enumerate(before))
        for index in stand_ins:
            before[index] = None

        def restore() -> None:
            contents = list(before) if stand_ins else before
            for index, give in stand_ins.items():
                contents[index] = give()
            put_back(value, contents)

        self._note(value, restore)
        self._attributes_of(value)

    def _plain(self, value: Any) -> None:
        before = frozenset(value) if isinstance(value, set) else value[:]
        if isinstance(value, set):
            self._fixed(before)
        self._note(value, bind(put_back, value, before))
        self._attributes_of(value)

    def _fixed(self, values: Iterable[Any]) -> None:
        for item in values:
            self._keep(item)

    # -- objects

    def _object(self, value: Any) -> None:
        kind = type(value)
        scheduler = isinstance(value, LRScheduler)  # also this package's own
        if isinstance(value, DataLoader) and self._is_new:
            self.loaders.append(value)
        if is_open(kind) or scheduler:
            self._attributes_of(value, entered=True)
            if is_opaque(kind):
                self._miss(value)
        known = is_open(kind) or kind.__module__.startswith("ignite.") or value is self._root
        if known and not (scheduler or isinstance(value, torch.amp.GradScaler)) and _has_state(value):
            self._stateful(value)

    def _attributes_of(self, value: Any, *, entered: bool = False) -> None:
        kind = type(value)
        if not (entered or is_open(kind)):
            return
        if kind.__dictoffset__:
            self._namespace(value, object.__getattribute__(value, "__dict__"))
        for member in slots_of(kind):
            try:
                item = member.__get__(value)
            except AttributeError:
                self._note(value, bind(_empty, member, value))
            else:
                kept = self._keep(item)
                self._note(value, bind(_fill, member, value, kept, kept is not item))

    def _namespace(
        self, value: Any, attributes: dict[str, Any], left_alone: frozenset[str] = frozenset(), new_code_stays: bool = False
    ) -> None:
        before = {key: item for key, item in attributes.items() if key not in left_alone}

        def adapt(contents: dict[str, Any]) -> dict[str, Any]:
            loaded = self._loaded.get(id(value), ())
            if not (left_alone or new_code_stays or loaded):
                return contents
            stays = {
                key: item
                for key, item in attributes.items()
                if key in left_alone or key in loaded or (new_code_stays and key not in before and callable(item))
            }
            contents = contents | stays
            # each where it is, so that nothing has to move
            return {key: contents[key] for key in attributes if key in contents} | contents

        self._mapping(value, attributes, before, adapt)

    def _stateful(self, value: Any) -> None:
        """Through its own state; its attributes come back too, but for those that loading this state sets."""
        if not self._is_new:
            return
        try:
            before = duplicate(value.state_dict())
        except Exception as error:
            if value is self._root and self._role is Role.TRAINING:
                raise RuntimeError(
                    f"{self._owner}: the state of {type(value).__name__} cannot be copied: {error}"
                ) from error
            self._miss(value)
            return
        self._first.append((id(value), self._owner, bind(self._load, value, before)))

    def _load(self, value: Any, before: Any) -> None:
        # loading may have effects of its own, so it is left out where nothing happened
        if same(value.state_dict(), before):
            return
        attributes = getattr(value, "__dict__", {})
        was = dict(attributes)
        value.load_state_dict(duplicate(before))
        self._loaded[id(value)] = {key for key, item in attributes.items() if was.get(key, _MISSING) is not item}

    def _function(self, value: Any) -> None:
        if not is_open(value):
            return
        for cell in value.__closure__ or ():
            try:
                item = cell.cell_contents
            except ValueError:  # an empty one
                continue
            if isinstance(item, (list, dict, set, deque)):
                continue  # most often the notes of somebody who looks on
            kept = self._keep(item)
            self._note(value, bind(_fill_cell, cell, kept, kept is not item))
        self._fixed((*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()))
        if vars(value):
            self._namespace(value, vars(value))

    # -- what trains

    def _module(self, module: nn.Module) -> None:
        self.modules.append(module)
        attributes = vars(module)
        if hasattr(module, "reshard") and hasattr(module, "unshard"):
            # FSDP2 swaps a module's parameters while it computes; an exception may leave it in the middle of that
            self._first.append((id(module), self._owner, lambda: module.reshard()))  # type: ignore[operator]  # FSDP2's
        left_alone = frozenset(attributes.keys() - _MODULE_INTERNALS) if is_machinery(module) else frozenset[str]()
        self._namespace(module, attributes, left_alone)
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            extra = duplicate(module.get_extra_state())
            self._after.append((id(module), self._owner, bind(_set_extra_state, module, extra)))

    def _script(self, module: torch.jit.ScriptModule) -> None:
        """Compiled modules keep their values outside Python; the tensors are shared, all else is given back."""
        self.modules.append(module)
        hooks = {key: item for key, item in vars(module).items() if key in _MODULE_INTERNALS and isinstance(item, dict)}
        self._fixed(item for key, item in hooks.items() if key not in ("_parameters", "_buffers", "_modules"))
        self._fixed(module.parameters(recurse=False))
        self._fixed(module.children())
        self._note(module, bind(setattr, module, "training", module.training))
        inner = vars(module).get("_c")
        names = [] if inner is None else [name for name in module._concrete_type.get_attributes() if name != "training"]
        for name in names:
            item = inner.getattr(name)
            kept = self._keep(item) if isinstance(item, torch.Tensor) else duplicate(item)
            if not isinstance(kept, nn.Parameter):
                self._note(module, bind(_fill_script, inner, name, kept, isinstance(item, torch.Tensor)))

    def _optimizer(self, optimizer: Optimizer) -> None:
        self.optimizers.append(optimizer)
        attributes = vars(optimizer)
        # hooks of others are not its state, and patches such as a scheduler's are none of our business
        hooks = frozenset(key for key in attributes if key.startswith("_optimizer_"))
        self._namespace(optimizer, attributes, hooks, new_code_stays=True)


_VISITS: tuple[tuple[Any, Visit | None], ...] = (
    (Engine, None),
    (torch.jit.ScriptModule, Walk._script),
    (nn.Module, Walk._module),
    (Optimizer, Walk._optimizer),
    (GENERATORS, Walk._generator),
    (np.ndarray, Walk._array),
    (dict, Walk._dict),
    ((list, deque), Walk._list),
    ((set, bytearray, array.array), Walk._plain),
    ((tuple, frozenset), Walk._fixed),
    (types.MappingProxyType, lambda walk, proxy: walk._fixed(proxy.values())),
    (types.FunctionType, Walk._function),
    (types.MethodType, lambda walk, method: walk._fixed((method.__self__, method.__func__))),
    (functools.partial, lambda walk, call: walk._fixed((call.func, call.args, call.keywords))),
)


class _Again:
    """Stands for an iterator: each time a fresh copy that goes on from the same place."""

    def __init__(self, iterator: Any) -> None:
        self._copy = copy.copy(iterator)

    def __call__(self) -> Any:
        return copy.copy(self._copy)


def _has_state(value: Any) -> bool:
    try:
        return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))
    except Exception:
        return False


def _empty(member: Any, value: Any) -> None:
    try:
        member.__delete__(value)
    except AttributeError:
        return  # it still is


def _fill(member: Any, value: Any, kept: Any, stands_in: bool) -> None:
    member.__set__(value, kept() if stands_in else kept)


def _fill_cell(cell: Any, kept: Any, stands_in: bool) -> None:
    cell.cell_contents = kept() if stands_in else kept


def _fill_script(inner: Any, name: str, kept: Any, stands_in: bool) -> None:
    value = kept() if stands_in else duplicate(kept)
    if not (stands_in and inner.getattr(name) is value):
        inner.setattr(name, value)


def _set_extra_state(module: nn.Module, extra: Any) -> None:
    if not same(module.get_extra_state(), extra):
        module.set_extra_state(duplicate(extra))


def _forget_what_hangs_on(parameter: torch.Tensor) -> None:
    """Take off the hooks and attributes of a parameter that had none."""
    for mapping in (parameter._backward_hooks, parameter._post_accumulate_grad_hooks):
        if mapping:
            mapping.clear()
    for name in [name for name in vars(parameter) if not name.startswith("_dynamo")]:
        del vars(parameter)[name]
