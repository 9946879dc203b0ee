"""Capture and restore all that a range test disturbs.

:class:`Snapshot` remembers values *in place*: what is restored is the very tensor, dict or list that was there, with
the values it had. Schedulers, EMA handlers and closures that hold on to a parameter group or a buffer never notice.
Copies of tensors lie on their own device, on another one, or in a file.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.optim import Optimizer
from torch.utils.data import Sampler

from ignite_lr.core.engine import INTERNALS
from ignite_lr.dry_run._tensors import Restore, TensorCopies
from ignite_lr.dry_run._values import ATOMS, GENERATORS, PLAIN, Capture, bind, same

__all__ = ["Snapshot"]

_MODULE_INTERNALS = frozenset(nn.Module().__dict__) - {"training", "_parameters", "_buffers"}
_ENGINE_FLAGS = ("last_event_name", "should_terminate", "should_terminate_single_epoch", "should_interrupt")


class Snapshot:
    """What a training looked like, to be put back as often as needed.

    Args:
        objects: what to capture, by name. Modules, optimizers, gradient scalers and random generators are captured
            in place; engines and whatever has no ``state_dict`` are left alone; everything else goes through
            ``state_dict`` and ``load_state_dict``, the latter only if something changed.
        to: where the copies of tensors lie: None for the device of each, a device, or a directory, which is made
            if it does not exist. The file in it is written atomically and gone after :meth:`close`.

    Raises:
        ValueError: if a module has uninitialized (lazy) parameters.
        RuntimeError: if an object's state cannot be copied.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> before = model.weight.detach().clone()
        >>> snapshot = Snapshot({"model": model})
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> snapshot.restore()
        []
        >>> bool((model.weight == before).all())
        True
        >>> snapshot.close()
    """

    def __init__(self, objects: Mapping[str, Any], to: torch.device | str | os.PathLike[str] | None = None) -> None:
        self._tensors = TensorCopies(to)
        self._walk = Capture(self._tensors)
        self._parts: list[tuple[str, Restore]] = []
        self._surroundings: list[tuple[str, Restore]] = []
        self._items: list[Any] = []
        self.modules: list[nn.Module] = []
        self.optimizers: list[Optimizer] = []
        try:
            for name, item in objects.items():
                self.add(name, item)
            self._tensors.seal()
        except BaseException:
            self.close()
            raise

    def add(self, name: str, item: Any) -> None:
        """Capture one more object, under a name for error messages; once is enough for each."""
        if isinstance(item, Engine) or any(item is known for known in self._items):
            return
        self._tensors.owner = name
        self._items.append(item)
        if isinstance(item, nn.Module):
            self._add_module(name, item)
        elif isinstance(item, Optimizer):
            self._add_optimizer(name, item)
        elif isinstance(item, torch.amp.GradScaler):
            self._parts.append((name, self._walk(vars(item))))
        elif isinstance(item, GENERATORS):
            self._surroundings.append((name, self._walk(item)))
        elif hasattr(item, "state_dict") and hasattr(item, "load_state_dict"):
            self._add_stateful(name, item)

    def add_values(self, name: str, holder: Any, keys: Iterable[str], *, surroundings: bool = False) -> None:
        """Capture the named attributes of ``holder``; those that it does not have are deleted on restore.

        Args:
            name: for error messages.
            holder: an object with a ``__dict__``.
            keys: the attributes.
            surroundings: whether they belong to what surrounds the training, see :meth:`restore`.
        """
        self._tensors.owner = name
        attributes = vars(holder)
        kept = {key: self._walk(attributes[key]) for key in keys if key in attributes}
        missing = [key for key in keys if key not in attributes]

        def restore() -> None:
            for key in missing:
                attributes.pop(key, None)
            for key, value in kept.items():
                attributes[key] = value()

        (self._surroundings if surroundings else self._parts).append((name, restore))

    def add_trainer(self, name: str, trainer: Engine) -> None:
        """Capture the flags of an engine and what the user hung on it; its state and its handlers are left alone."""
        own = [key for key in vars(trainer) if key not in INTERNALS]
        self.add_values(name, trainer, [*_ENGINE_FLAGS, *own])

        # "run" is what a sweep puts there itself, and takes away
        kept = {*INTERNALS, *own, "run"}

        def forget_what_is_new() -> None:
            for key in [key for key in vars(trainer) if key not in kept]:
                delattr(trainer, key)

        self._parts.append((name, forget_what_is_new))

    def add_random_state(self, name: str = "random state") -> None:
        """Capture the global generators of Python, NumPy, PyTorch on the CPU and, once it is in use, on CUDA."""
        python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - theirs
        self._surroundings.append((name, lambda: random.setstate(python)))
        self._surroundings.append((name, lambda: np.random.set_state(numpy)))  # noqa: NPY002 - the state users may rely on
        self._surroundings.append((name, lambda: torch.set_rng_state(cpu)))
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
            for index, state in enumerate(torch.cuda.get_rng_state_all()):
                self._surroundings.append((name, bind(torch.cuda.set_rng_state, state, index)))

    def add_data(self, name: str, data: Any) -> None:
        """Capture the position and the random generators of a data loader, its samplers and its data set."""
        dataset = getattr(data, "dataset", None)
        pending = [getattr(data, key, None) for key in ("sampler", "batch_sampler")]
        seen: list[Any] = []
        while pending:
            sampler = pending.pop()
            if sampler is None or not hasattr(sampler, "__dict__") or any(sampler is other for other in seen):
                continue
            seen.append(sampler)
            # a sampler often holds the data set itself, which is neither its position nor small
            self.add_values(
                name,
                sampler,
                [key for key, value in vars(sampler).items() if value is not dataset and key != "data_source"],
                surroundings=True,
            )
            pending += [getattr(sampler, key, None) for key in ("sampler", "batch_sampler")]
            pending += [value for value in vars(sampler).values() if isinstance(value, Sampler)]
        for holder in (data, dataset):
            if hasattr(holder, "__dict__"):
                kinds = GENERATORS if holder is data else (*GENERATORS, *ATOMS)
                keys = [key for key, value in vars(holder).items() if isinstance(value, kinds)]
                self.add_values(name, holder, keys, surroundings=True)

    def restore(self, *, last: bool = True, surroundings: bool = True) -> list[tuple[str, BaseException]]:
        """Put everything back; what fails does not keep the rest from being restored.

        Args:
            last: whether the copies may be given away, because they are not needed again.
            surroundings: whether to restore random states and the position in the data too, or the training alone.

        Returns:
            the name and the error of whatever could not be restored.
        """
        failures: list[tuple[str, BaseException]] = []
        self._tensors.begin(failures, last)
        for name, part in [*self._parts, *(self._surroundings if surroundings else ())]:
            try:
                part()
            except BaseException as error:  # noqa: PERF203 - the rest is restored whatever happens to one
                failures.append((name, error))
        return failures

    def close(self) -> None:
        """Let go of the copies and remove the file, if there is one. Idempotent."""
        self._parts = []
        self._surroundings = []
        self._items = []
        self.modules = []
        self.optimizers = []
        self._walk = Capture(self._tensors)
        self._tensors.close()

    def _add_module(self, name: str, module: nn.Module) -> None:
        lazy_kinds = (UninitializedParameter, UninitializedBuffer)
        for path, part in module.named_modules():
            lazy = [key for key, value in part._parameters.items() if isinstance(value, lazy_kinds)]
            if lazy:
                raise ValueError(
                    f"{name}: parameter {'.'.join(filter(None, [path, lazy[0]]))!r} must be initialized before a range "
                    "test, but is lazy: run one batch through the model first."
                )
            self.modules.append(part)
            self._parts.append((name, _restore_sharded(part)))
            attributes = vars(part)
            if type(part).__module__.startswith("torch."):
                # what PyTorch's own modules keep outside parameters and buffers is configuration
                keys = ["training", "_buffers"]
            else:
                keys = [k for k, v in attributes.items() if k not in _MODULE_INTERNALS and isinstance(v, PLAIN)]
                self._parts.append((name, bind(_forget_new, attributes, set(attributes), PLAIN)))
            self.add_values(name, part, [*keys, "_parameters"])
            if type(part).get_extra_state is not nn.Module.get_extra_state:
                extra = copy.deepcopy(part.get_extra_state())
                self._parts.append((name, bind(_set_extra_state, part, extra)))

    def _add_optimizer(self, name: str, optimizer: Optimizer) -> None:
        self.optimizers.append(optimizer)
        attributes = vars(optimizer)
        keys = [
            key
            for key, value in attributes.items()
            if key in ("state", "param_groups") or (isinstance(value, (*ATOMS, torch.Tensor)) and key != "defaults")
        ]
        self.add_values(name, optimizer, keys)
        # what a scaler left there when the step raised; patches such as a scheduler's are none of our business
        self._parts.append((name, bind(_forget_new, attributes, set(attributes), (*ATOMS, torch.Tensor))))
        for value in list(attributes.values()):
            if isinstance(value, Optimizer) and value is not optimizer:  # SAM, Lookahead, ZeroRedundancyOptimizer
                self._add_optimizer(name, value)

    def _add_stateful(self, name: str, item: Any) -> None:
        try:
            before = copy.deepcopy(item.state_dict())
        except Exception as error:
            raise RuntimeError(f"{name}: the state of {type(item).__name__} cannot be copied: {error}") from error

        def restore() -> None:
            # loading may have effects of its own, so it is left out where nothing happened
            if not same(item.state_dict(), before):
                item.load_state_dict(copy.deepcopy(before))

        self._parts.append((name, restore))


def _forget_new(attributes: dict[str, Any], known: set[str], kinds: tuple[type, ...]) -> None:
    """Delete the attributes of these kinds that came after the capture, such as a cache built by the first batch."""
    for key in [key for key, value in attributes.items() if key not in known and isinstance(value, kinds)]:
        del attributes[key]


def _set_extra_state(module: nn.Module, extra: Any) -> None:
    module.set_extra_state(copy.deepcopy(extra))


def _restore_sharded(module: nn.Module) -> Restore:
    """FSDP2 swaps a module's parameters while it computes; an exception may leave it in the middle of that."""
    reshard = getattr(module, "reshard", None)
    if reshard is None or not hasattr(module, "unshard"):
        return lambda: None
    return lambda: reshard()
