"""Capture and restore all that a dry run disturbs.

:class:`Snapshot` remembers values *in place*: what is restored is the very tensor, dict or list that was there, with
the values it had. Schedulers, EMA handlers and closures that hold on to a parameter group or a buffer never notice.
Copies of tensors lie on their own device, on another one, or in a file. What there is to capture, a walk finds.
"""

from __future__ import annotations

import functools
import os
import random
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ignite_lr.core.engine import INTERNALS, process_function
from ignite_lr.dry_run._tensors import TensorCopies
from ignite_lr.dry_run._values import GENERATORS, bind
from ignite_lr.dry_run._walk import Role, Walk

__all__ = ["Snapshot"]

_ENGINE_FLAGS = ("last_event_name", "should_terminate", "should_terminate_single_epoch", "should_interrupt")


class Snapshot:
    """What a training looked like, to be put back as often as needed.

    Args:
        objects: what to capture, by name, with all that they refer to. Engines are left alone; what has a
            ``state_dict`` and a ``load_state_dict`` gets its state through them, and only if something changed.
        to: where the copies of tensors lie: None for the device of each, a device, or a directory, which is made
            if it does not exist. The file in it is written atomically, read once as a proof, and gone after
            :meth:`close`, unless something could not be restored from it.

    Attributes:
        modules: all modules that were captured.
        optimizers: likewise.

    Raises:
        ValueError: if a module has uninitialized (lazy) parameters.
        RuntimeError: if an object's state cannot be copied, or not be read back from the directory.

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
        self._walk = Walk(self._tensors)
        self._random: list[Any] = []
        try:
            for name, item in objects.items():
                self.add(name, item)
            self._tensors.seal()
        except BaseException:
            self.close()
            raise

    @property
    def modules(self) -> list[nn.Module]:
        return self._walk.modules

    @property
    def optimizers(self) -> list[Optimizer]:
        return self._walk.optimizers

    @property
    def generators(self) -> list[Any]:
        """All random generators that were captured; the global ones are not among them."""
        return self._walk.generators

    @property
    def loaders(self) -> list[DataLoader[Any]]:
        """All data loaders among the data, also inside of others."""
        return self._walk.loaders

    def add(self, name: str, item: Any) -> None:
        """Capture one more object, under a name for error messages; once is enough for each."""
        if isinstance(item, nn.Module):
            _refuse_lazy_ones(name, item)
        # a generator of its own is where a sweep that is repeated reads on
        self._walk(name, item, Role.DATA if isinstance(item, GENERATORS) else Role.TRAINING)

    def add_trainer(self, name: str, trainer: Engine) -> None:
        """Capture the flags of an engine and what the user hung on it; its state and its handlers are left alone.

        The object whose method is the training step is one of the things of the trainer; what the closure of the
        training step holds is not.
        """
        # "run" is what a dry run puts there itself, and takes away
        self._walk.attributes(name, trainer, (INTERNALS - set(_ENGINE_FLAGS)) | {"run"})
        step = process_function(trainer)
        while isinstance(step, functools.partial):
            self._walk(name, (step.args, step.keywords), Role.THINGS)
            step = step.func
        if isinstance(step, types.FunctionType):
            self._walk.skip(step)
        else:
            self._walk(name, getattr(step, "__self__", step), Role.THINGS)

    def add_random_state(self, name: str = "random state") -> None:
        """Capture the global generators of Python, NumPy, PyTorch on the CPU and, once it is in use, on CUDA."""
        python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - theirs
        self._random.append((name, lambda: random.setstate(python)))
        self._random.append((name, lambda: np.random.set_state(numpy)))  # noqa: NPY002 - the state users may rely on
        self._random.append((name, lambda: torch.set_rng_state(cpu)))
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
            for index, state in enumerate(torch.cuda.get_rng_state_all()):
                self._random.append((name, bind(torch.cuda.set_rng_state, state, index)))

    def add_data(self, name: str, data: Any) -> None:
        """Capture the position and the random generators of a data loader, its samplers and its data set."""
        self._walk(name, data, Role.DATA)

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
        self._walk.restore(failures, surroundings)
        for name, part in self._random if surroundings else ():
            try:
                part()
            except BaseException as error:  # noqa: PERF203 - the rest is restored whatever happens to one
                failures.append((name, error))
        if self._tensors.failed and self._tensors.file is not None:
            failures.append(("snapshot", RuntimeError(f"what is missing is kept in {self._tensors.file}")))
        return failures

    def doubts(self) -> str | None:
        """What may not be as it was although nothing failed, for a warning after the last restore; None for nothing."""
        texts = []
        if self._walk.missed:
            texts.append(
                f"these cannot be captured, and go on from where the dry run left them: {_listed(self._walk.missed)}"
            )
        changed = self._walk.samples.changed()
        if changed:
            texts.append(f"arrays of {_listed(changed)} are too large to be copied, and the dry run changed them")
        return "; ".join(texts) or None

    def close(self) -> None:
        """Let go of the copies and remove the file, if there is one and it is not needed any more. Idempotent."""
        self._random = []
        self._walk.close()
        self._tensors.close()


def _listed(names: Any) -> str:
    shown = list(names)[:5]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _refuse_lazy_ones(name: str, module: nn.Module) -> None:
    for path, value in [*_direct(module)]:
        if isinstance(value, (UninitializedParameter, UninitializedBuffer)):
            raise ValueError(
                f"{name}: parameter {path!r} must be initialized before a range test, but is lazy: run one batch "
                "through the model first."
            )


def _direct(module: nn.Module) -> list[tuple[str, Any]]:
    if isinstance(module, torch.jit.ScriptModule):
        return []
    return [
        (f"{path}.{key}" if path else key, value)
        for path, part in module.named_modules()
        for key, value in [*part.__dict__.get("_parameters", {}).items(), *part.__dict__.get("_buffers", {}).items()]
    ]
