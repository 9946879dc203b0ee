"""How objects of each kind are remembered, and what they refer to.

A visit looks at one object: it has the walk keep what the object holds, and notes how to give that back.
"""

from __future__ import annotations

import array
import copy
import functools
import random
import types
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from ignite_lr.core.containers import put_back
from ignite_lr.dry_run._border import is_machinery, is_opaque, is_open
from ignite_lr.dry_run._values import GENERATORS, are_atoms, bind, duplicate, same

if TYPE_CHECKING:
    from ignite_lr.dry_run._walk import Walk

__all__ = ["VISITS", "Visit", "visit_object"]

Visit = Callable[["Walk", Any], None]

_MODULE_INTERNALS = frozenset(nn.Module().__dict__)
_MISSING = object()


def _array(walk: Walk, value: np.ndarray[Any, Any]) -> None:
    if walk.is_new and value.flags.writeable:
        if not walk.limited or walk.samples.within_budget(value):
            walk.note(value, bind(value.__setitem__, ..., value.copy()))
        else:
            walk.samples.watch(walk.owner, value)
    if value.dtype.hasobject:
        walk.keep_each(value.flat)


def _generator(walk: Walk, value: Any) -> None:
    if isinstance(value, random.SystemRandom):
        return  # it has no state
    walk.generators.append(value)
    if isinstance(value, torch.Generator):
        walk.note(value, bind(value.set_state, value.get_state()))
    elif isinstance(value, random.Random):
        walk.note(value, bind(value.setstate, value.getstate()))
    elif isinstance(value, np.random.RandomState):
        walk.note(value, bind(value.set_state, value.get_state()))
    else:
        bits = value if isinstance(value, np.random.BitGenerator) else value.bit_generator
        walk.note(value, bind(setattr, bits, "state", copy.deepcopy(bits.state)))
    walk.attributes_of(value)


def _dict(walk: Walk, value: dict[Any, Any]) -> None:
    kind: Any = OrderedDict if isinstance(value, OrderedDict) else dict
    before = dict(kind.items(value))
    if not are_atoms(before):
        walk.keep_each(before)
    walk.mapping(value, value, before)
    walk.attributes_of(value)


def _list(walk: Walk, value: list[Any] | deque[Any]) -> None:
    before = list(list.__iter__(value) if isinstance(value, list) else deque.__iter__(value))
    stand_ins = {} if are_atoms(before) else walk.keep_all(enumerate(before))
    for index in stand_ins:
        before[index] = None

    def restore() -> None:
        contents = list(before) if stand_ins else before
        for index, give in stand_ins.items():
            contents[index] = give()
        put_back(value, contents)

    walk.note(value, restore)
    walk.attributes_of(value)


def _plain(walk: Walk, value: Any) -> None:
    before = frozenset(value) if isinstance(value, set) else value[:]
    if isinstance(value, set):
        walk.keep_each(before)
    walk.note(value, bind(put_back, value, before))
    walk.attributes_of(value)


def visit_object(walk: Walk, value: Any) -> None:
    kind = type(value)
    scheduler = isinstance(value, LRScheduler)  # also this package's own
    if isinstance(value, DataLoader) and walk.is_new:
        walk.loaders.append(value)
    if is_open(kind) or scheduler:
        walk.attributes_of(value, entered=True)
        if is_opaque(kind):
            walk.miss(value)
    known = is_open(kind) or kind.__module__.startswith("ignite.") or value is walk.root
    if known and not (scheduler or isinstance(value, torch.amp.GradScaler)) and _has_state(value):
        _stateful(walk, value)


def _stateful(walk: Walk, value: Any) -> None:
    """Through its own state; its attributes come back too, but for those that loading this state sets."""
    if not walk.is_new:
        return
    try:
        before = duplicate(value.state_dict())
    except Exception as error:
        if value is walk.root and not walk.limited:
            raise RuntimeError(
                f"{walk.owner}: the state of {type(value).__name__} cannot be copied: {error}"
            ) from error
        walk.miss(value)
        return
    walk.first.append((id(value), walk.owner, bind(_load, walk, value, before)))


def _load(walk: Walk, value: Any, before: Any) -> None:
    # loading may have effects of its own, so it is left out where nothing happened
    if same(value.state_dict(), before):
        return
    attributes = getattr(value, "__dict__", {})
    was = dict(attributes)
    value.load_state_dict(duplicate(before))
    walk.loaded[id(value)] = {key for key, item in attributes.items() if was.get(key, _MISSING) is not item}


def _function(walk: Walk, value: Any) -> None:
    if not is_open(value):
        return
    for cell in value.__closure__ or ():
        try:
            item = cell.cell_contents
        except ValueError:  # an empty one
            continue
        if isinstance(item, (list, dict, set, deque)):
            continue  # most often the notes of somebody who looks on
        kept = walk.keep(item)
        walk.note(value, bind(_fill_cell, cell, kept, kept is not item))
    walk.keep_each((*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()))
    if vars(value):
        walk.namespace(value, vars(value))


def _module(walk: Walk, module: nn.Module) -> None:
    walk.modules.append(module)
    attributes = vars(module)
    if hasattr(module, "reshard") and hasattr(module, "unshard"):
        # FSDP2 swaps a module's parameters while it computes; an exception may leave it in the middle of that
        walk.first.append((id(module), walk.owner, lambda: module.reshard()))  # type: ignore[operator]  # FSDP2's
    if is_machinery(module):
        walk.namespace(module, attributes, lambda key, item: key not in _MODULE_INTERNALS)
    else:
        walk.namespace(module, attributes)
    if type(module).get_extra_state is not nn.Module.get_extra_state:
        extra = duplicate(module.get_extra_state())
        walk.after.append((id(module), walk.owner, bind(_set_extra_state, module, extra)))


def _script(walk: Walk, module: torch.jit.ScriptModule) -> None:
    """Compiled modules keep their values outside Python; the tensors are shared, all else is given back."""
    walk.modules.append(module)
    hooks = {key: item for key, item in vars(module).items() if key in _MODULE_INTERNALS and isinstance(item, dict)}
    walk.keep_each(item for key, item in hooks.items() if key not in ("_parameters", "_buffers", "_modules"))
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    walk.held += tensors  # Python's side of them goes and comes, in PyTorch 2.6 under another identity
    walk.keep_each((*tensors, *module.children()))
    walk.note(module, bind(setattr, module, "training", module.training))
    inner: Any = vars(module).get("_c")
    names = [] if inner is None else [name for name in module._concrete_type.get_attributes() if name != "training"]
    for name in names:
        item = inner.getattr(name)
        walk.held.append(item)
        kept = walk.keep(item) if isinstance(item, torch.Tensor) else duplicate(item)
        if not isinstance(kept, nn.Parameter):
            walk.note(module, bind(_fill_script, inner, name, kept, isinstance(item, torch.Tensor)))


def _optimizer(walk: Walk, optimizer: Optimizer) -> None:
    walk.optimizers.append(optimizer)
    attributes = vars(optimizer)
    # hooks of others are not its state, and patches such as a scheduler's are none of our business
    known = frozenset(attributes)
    walk.namespace(
        optimizer,
        attributes,
        lambda key, item: key.startswith("_optimizer_") or (key not in known and callable(item)),
    )


def _has_state(value: Any) -> bool:
    try:
        return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))
    except Exception:
        return False


def _fill_cell(cell: Any, kept: Any, stands_in: bool) -> None:
    cell.cell_contents = kept() if stands_in else kept


def _fill_script(inner: Any, name: str, kept: Any, stands_in: bool) -> None:
    value = kept() if stands_in else duplicate(kept)
    if not (stands_in and inner.getattr(name) is value):
        inner.setattr(name, value)


def _set_extra_state(module: nn.Module, extra: Any) -> None:
    if not same(module.get_extra_state(), extra):
        module.set_extra_state(duplicate(extra))


VISITS: tuple[tuple[Any, Visit | None], ...] = (
    (Engine, None),
    (torch.jit.ScriptModule, _script),
    (nn.Module, _module),
    (Optimizer, _optimizer),
    (GENERATORS, _generator),
    (np.ndarray, _array),
    (dict, _dict),
    ((list, deque), _list),
    ((set, bytearray, array.array), _plain),
    ((tuple, frozenset), lambda walk, values: walk.keep_each(values)),
    (types.MappingProxyType, lambda walk, proxy: walk.keep_each(proxy.values())),
    (types.FunctionType, _function),
    (types.MethodType, lambda walk, method: walk.keep_each((method.__self__, method.__func__))),
    (functools.partial, lambda walk, call: walk.keep_each((call.func, call.args, call.keywords))),
)
