"""Where the walk over a training ends: what is entered, and what is left alone.

Entered are the user's own objects, those of libraries, and PyTorch's modules, optimizers, schedulers, scalers and data
sets. Never entered are code, classes, modules in ``sys.modules``, files, threads, locks, engines, loggers and the
machinery of PyTorch, Ignite and of this package: what they hold is not a training's state, or not theirs alone.
"""

from __future__ import annotations

import argparse
import collections
import enum
import queue
import sys
import types
import weakref
from collections.abc import Iterator
from typing import Any

from ignite.engine import Engine
from torch import nn
from torch.utils.data.dataloader import _BaseDataLoaderIter

__all__ = ["has_attributes", "is_machinery", "is_opaque", "is_open", "slots_of"]

_OPEN_TORCH = ("torch.nn", "torch.optim", "torch.utils.data", "torch.amp", "torch.cuda.amp", "torch.distributions")
_OPEN_STANDARD = (
    argparse.Namespace,
    collections.UserDict,
    collections.UserList,
    queue.Queue,
    types.SimpleNamespace,
    weakref.WeakKeyDictionary,
    weakref.WeakValueDictionary,
)
# libraries whose objects are no state of a training, or keep it where no attribute shows it
_CLOSED = frozenset(
    {
        *("PIL", "clearml", "h5py", "ignite", "ignite_lr", "matplotlib", "mlflow", "neptune", "numpy", "pandas"),
        *("polyaxon", "pyarrow", "tensorboard", "tensorboardX", "visdom", "wandb"),
    }
)
# modules that keep in their attributes how far their own machinery is, which goes on elsewhere
_MACHINERY = ("torch.nn.parallel", "torch.distributed", "torch._dynamo", "torch.fx")


def is_open(kind: type) -> bool:
    """Whether the attributes of objects of this class, or of a function from its module, may be a training's state."""
    module = str(getattr(kind, "__module__", ""))
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names:
        return kind in _OPEN_STANDARD
    if isinstance(kind, type) and issubclass(
        kind, (Engine, types.ModuleType, type, enum.Enum, BaseException, _BaseDataLoaderIter)
    ):
        return False
    if package == "torch":
        return module.startswith(_OPEN_TORCH) and not module.startswith(_MACHINERY)
    return package not in _CLOSED


def is_opaque(kind: type) -> bool:
    """Whether objects of this class may have a state that no attribute shows: a generator, an extension's object."""
    if issubclass(kind, Iterator) and not kind.__dictoffset__:
        return True
    if not is_open(kind) or kind.__dictoffset__:
        return False
    return not any("__slots__" in vars(base) for base in kind.__mro__)


def is_machinery(module: nn.Module) -> bool:
    """Whether the attributes of a module are the notes of a library about what it is in the middle of."""
    return type(module).__module__.startswith(_MACHINERY)


def has_attributes(kind: type) -> bool:
    """Whether objects of this class have attributes."""
    return bool(kind.__dictoffset__ or slots_of(kind))


def slots_of(kind: type) -> list[Any]:
    """The descriptors of all attributes that a class keeps in slots."""
    return [
        member
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for member in vars(base).values()
        if isinstance(member, types.MemberDescriptorType)
    ]
