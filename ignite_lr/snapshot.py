"""Capture and restore all that a range test disturbs.

:class:`Snapshot` remembers values *in place*: what is restored is the very tensor, dict or list that was there, with
the values it had. Schedulers, EMA handlers and closures that hold on to a parameter group or a buffer never notice.
Copies of tensors lie on their own device, on another one, or in a file.
"""

from __future__ import annotations

import copy
import os
import random
import tempfile
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.optim import Optimizer
from torch.utils.weak import TensorWeakRef

__all__ = ["Snapshot"]

# Puts one value back as it was and returns it.
Restore = Callable[[], Any]

_ATOMS = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS = (dict, OrderedDict, defaultdict, list, deque, set)
_GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
_MODULE_INTERNALS = frozenset(nn.Module().__dict__) - {"training", "_parameters", "_buffers"}
_ENGINE_INTERNALS = frozenset(Engine(lambda engine, batch: None).__dict__)
_ENGINE_FLAGS = ("last_event_name", "should_terminate", "should_terminate_single_epoch", "should_interrupt")


class Snapshot:
    """What a training looked like, to be put back as often as needed.

    Args:
        objects: what to capture, by name. Modules, optimizers and gradient scalers are captured in place; engines and
            whatever has no ``state_dict`` are left alone; everything else goes through ``state_dict`` and
            ``load_state_dict``, the latter only if something changed.
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
        self._tensors = _Tensors(to)
        self._walk = _Walk(self._tensors)
        self._parts: list[tuple[str, Restore]] = []
        self._surroundings: list[tuple[str, Restore]] = []
        self.modules: list[nn.Module] = []
        try:
            for name, item in objects.items():
                self.add(name, item)
            self._tensors.seal()
        except BaseException:
            self.close()
            raise

    def add(self, name: str, item: Any) -> None:
        """Capture one more object, under a name for error messages."""
        self._tensors.owner = name
        if isinstance(item, Engine):
            return
        if isinstance(item, nn.Module):
            self._add_module(name, item)
        elif isinstance(item, Optimizer):
            self._add_optimizer(name, item)
        elif isinstance(item, torch.amp.GradScaler):
            self._parts.append((name, self._walk(vars(item))))
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
        own = [key for key in vars(trainer) if key not in _ENGINE_INTERNALS]
        self.add_values(name, trainer, [*_ENGINE_FLAGS, *own])

        def forget_what_is_new() -> None:
            for key in [key for key in vars(trainer) if key not in _ENGINE_INTERNALS and key not in own]:
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
                self._surroundings.append((name, _bind(torch.cuda.set_rng_state, state, index)))

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
        for holder in (data, dataset):
            if hasattr(holder, "__dict__"):
                kinds = _GENERATORS if holder is data else (*_GENERATORS, *_ATOMS)
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
            except Exception as error:  # noqa: PERF203 - the rest is restored whatever happens to one
                failures.append((name, error))
        return failures

    def close(self) -> None:
        """Let go of the copies and remove the file, if there is one. Idempotent."""
        self._parts = []
        self._surroundings = []
        self.modules = []
        self._walk = _Walk(self._tensors)
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
                keys = [k for k, v in attributes.items() if k not in _MODULE_INTERNALS and isinstance(v, _PLAIN)]
            self.add_values(name, part, [*keys, "_parameters"])
            if type(part).get_extra_state is not nn.Module.get_extra_state:
                extra = copy.deepcopy(part.get_extra_state())
                self._parts.append((name, _bind(_set_extra_state, part, extra)))

    def _add_optimizer(self, name: str, optimizer: Optimizer) -> None:
        attributes = vars(optimizer)
        keys = [
            key
            for key, value in attributes.items()
            if key in ("state", "param_groups") or (isinstance(value, (*_ATOMS, torch.Tensor)) and key != "defaults")
        ]
        self.add_values(name, optimizer, keys)
        known = set(attributes)

        def forget_what_is_new() -> None:
            # what a scaler left there when the step raised; patches such as a scheduler's are none of our business
            for key in [key for key in attributes if key not in known]:
                if isinstance(attributes[key], (*_ATOMS, torch.Tensor)):
                    del attributes[key]

        self._parts.append((name, forget_what_is_new))
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
            if not _same(item.state_dict(), before):
                item.load_state_dict(copy.deepcopy(before))

        self._parts.append((name, restore))


_PLAIN = (*_ATOMS, *_CONTAINERS, tuple, torch.Tensor, np.ndarray, *_GENERATORS)


class _Walk:
    """Captures plain values: tensors, arrays, generators and containers of them. Other objects are left as they are."""

    def __init__(self, tensors: _Tensors) -> None:
        self._tensors = tensors
        self._known: dict[int, tuple[Any, Restore]] = {}  # the value too, so that its id stays its own

    def __call__(self, value: Any) -> Restore:
        if isinstance(value, _ATOMS):
            return lambda: value
        if isinstance(value, torch.Tensor):
            return self._tensors.add(value)
        if id(value) in self._known:
            return self._known[id(value)][1]
        if type(value) in (dict, OrderedDict, defaultdict):
            return self._dict(value)
        if type(value) in (list, deque):
            return self._list(value)
        if type(value) is set:
            return self._set(value)
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, _GENERATORS):
            return self._generator(value)
        return lambda: value

    def _remember(self, value: Any, restore: Restore) -> Restore:
        self._known[id(value)] = (value, restore)
        return restore

    def _dict(self, value: dict[Any, Any]) -> Restore:
        items: list[tuple[Any, Restore]] = []

        def restore() -> dict[Any, Any]:
            before = [(key, item()) for key, item in items]
            value.clear()
            value.update(before)
            return value

        self._remember(value, restore)
        items += [(key, self(item)) for key, item in value.items()]
        return restore

    def _list(self, value: list[Any] | deque[Any]) -> Restore:
        items: list[Restore] = []

        def restore() -> list[Any] | deque[Any]:
            before = [item() for item in items]
            value.clear()
            value.extend(before)
            return value

        self._remember(value, restore)
        items += [self(item) for item in value]
        return restore

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

        self._remember(value, restore)
        items += [self(item) for item in value if not isinstance(item, _ATOMS)]
        return restore

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
            write = _bind(value.set_state, value.get_state())
        elif isinstance(value, random.Random):
            write = _bind(value.setstate, value.getstate())
        elif isinstance(value, np.random.RandomState):
            write = _bind(value.set_state, value.get_state())
        else:
            write = _bind(setattr, value.bit_generator, "state", copy.deepcopy(value.bit_generator.state))

        def restore() -> Any:
            write()
            return value

        return self._remember(value, restore)


def _set_extra_state(module: nn.Module, extra: Any) -> None:
    module.set_extra_state(copy.deepcopy(extra))


def _bind(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: function(*args)


class _Tensors:
    """Copies of tensors, and the way back into the tensors they were taken from."""

    def __init__(self, to: torch.device | str | os.PathLike[str] | None) -> None:
        self.owner = ""
        self._device, self._directory = _place(to)
        self._made_directory = False
        self._file: Path | None = None
        self._copies: list[torch.Tensor | None] = []
        self._slots: dict[int, tuple[Any, Restore]] = {}
        self._failures: list[tuple[str, BaseException]] = []
        self._pass = 0
        self._last = False
        self._loaded: list[torch.Tensor] | None = None

    def add(self, tensor: torch.Tensor) -> Restore:
        """Capture a tensor with its gradient."""
        known = self._slots.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        # Weak for all but parameters: a state that the training replaces must not be kept alive beside its copy.
        reference = _strong(tensor) if isinstance(tensor, nn.Parameter) else TensorWeakRef(tensor)
        index = None if _overlaps_itself(tensor) else self._copy(tensor)
        owner, device = self.owner, tensor.device
        restore_gradient = self._gradient(tensor) if tensor.is_leaf else None
        requires_grad = tensor.requires_grad
        done = 0

        def restore() -> torch.Tensor:
            nonlocal done
            live = reference()
            if done == self._pass and live is not None:
                return live  # reached by another way already, such as a parameter of both model and optimizer
            done = self._pass
            if live is None:
                assert index is not None
                return self._give(index, device)
            try:
                if index is not None:
                    self._write(live, index)
                if live.is_leaf and live.requires_grad != requires_grad:
                    live.requires_grad_(requires_grad)
                if restore_gradient is not None:
                    restore_gradient(live)
            except Exception as error:
                self._failures.append((owner, error))
            return live

        self._slots[id(tensor)] = (reference, restore)
        return restore

    def seal(self) -> None:
        """Write the copies to their file, if that is where they belong."""
        if self._directory is None:
            return
        self._made_directory = not self._directory.exists()
        self._directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="range_test_", suffix=".tmp", dir=self._directory)
        self._file = Path(name)
        with os.fdopen(handle, "wb") as file:
            torch.save(self._copies, file)
            file.flush()
            os.fsync(file.fileno())
        complete = self._file.with_suffix(".pt")
        os.replace(self._file, complete)
        self._file = complete
        self._copies = [None] * len(self._copies)

    def begin(self, failures: list[tuple[str, BaseException]], last: bool) -> None:
        self._pass += 1
        self._failures = failures
        self._last = last
        self._loaded = None
        if self._file is not None:
            try:
                self._loaded = torch.load(self._file, map_location="cpu", weights_only=True)
            except Exception as error:
                failures.append((f"snapshot file {self._file}", error))

    def close(self) -> None:
        self._slots = {}
        self._copies = []
        self._loaded = None
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None
        if self._made_directory and self._directory is not None:
            with suppress(OSError):  # somebody else may keep files there by now
                self._directory.rmdir()
            self._made_directory = False

    def _copy(self, tensor: torch.Tensor) -> int:
        with torch.no_grad():
            local = _local(tensor.detach())
            device = torch.device("cpu") if self._directory is not None else self._device or local.device
            # the same device: clone keeps strides, and asks for no second copy
            copied = local.clone() if device == local.device else local.to(device, copy=True)
        self._copies.append(copied)
        return len(self._copies) - 1

    def _stored(self, index: int) -> torch.Tensor:
        stored = self._copies[index]
        if stored is not None:
            return stored
        if self._loaded is None:
            raise RuntimeError("its copy could not be read")
        return self._loaded[index]

    def _write(self, live: torch.Tensor, index: int) -> None:
        stored = self._stored(index)
        with torch.no_grad():
            target = _local(live.detach())
            if target.shape == stored.shape:
                target.copy_(stored)
            else:
                live.data = stored.to(target.device, copy=not self._last)

    def _give(self, index: int, device: torch.device) -> torch.Tensor:
        return self._stored(index).to(device, copy=not self._last)

    def _gradient(self, tensor: torch.Tensor) -> Callable[[torch.Tensor], None]:
        gradient = tensor.grad
        if gradient is None:
            return _clear_gradient
        reference = TensorWeakRef(gradient)
        index, device = self._copy(gradient), gradient.device
        sharded = _local(gradient) is not gradient

        def restore(live: torch.Tensor) -> None:
            before = reference()
            if before is None and sharded:
                # a DTensor needs its mesh and placements, which the present gradient or the parameter has
                before = live.grad if live.grad is not None else torch.zeros_like(live)
            if before is None:
                live.grad = self._give(index, device)
                return
            if before.layout == torch.strided:
                self._write(before, index)
            else:
                before = self._give(index, device)
            live.grad = before

        return restore


def _clear_gradient(tensor: torch.Tensor) -> None:
    tensor.grad = None


def _strong(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: tensor


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a sharded tensor, any other tensor as it is."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether several elements share memory (an expanded tensor): nothing can write to it, so it needs no copy."""
    if tensor.layout != torch.strided or _local(tensor) is not tensor:
        return False
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def _place(to: torch.device | str | os.PathLike[str] | None) -> tuple[torch.device | None, Path | None]:
    if to is None:
        return None, None
    if isinstance(to, torch.device):
        return to, None
    if isinstance(to, str):
        try:
            return torch.device(to), None
        except RuntimeError:
            return None, Path(to)
    if isinstance(to, os.PathLike):
        return None, Path(to)
    raise TypeError(f"snapshot_to must be None, a device or a directory, but given {type(to).__name__}")


def _restore_sharded(module: nn.Module) -> Restore:
    """FSDP2 swaps a module's parameters while it computes; an exception may leave it in the middle of that."""
    reshard = getattr(module, "reshard", None)
    if reshard is None or not hasattr(module, "unshard"):
        return lambda: None
    return lambda: reshard()


def _same(left: Any, right: Any) -> bool:
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
        return list(left) == list(right) and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple, deque)):
        return len(left) == len(right) and all(_same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right) if isinstance(left, (*_ATOMS, set, frozenset)) else False
