"""Small trainings, and the question whether one that saw a range test is the same as one that did not, bit for bit."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr import LRFinder


def digest(array: Any) -> str:
    """The bytes of an array, short enough to be read in a failure."""
    return f"{np.ravel(array)[:2]} {hashlib.sha256(array.tobytes()).hexdigest()[:12]}"


def frozen(value: Any, _open: tuple[int, ...] = ()) -> Any:
    """A comparable picture of a value: bytes of tensors and arrays, states of generators, contents of containers."""
    if id(value) in _open:
        return "itself"
    inner = (*_open, id(value))
    if isinstance(value, torch.Tensor):
        plain = value.detach().as_subclass(torch.Tensor)
        return ("tensor", str(plain.dtype), tuple(plain.shape), digest(plain.cpu().contiguous().numpy()))
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return frozen(value.tolist(), inner)
    if isinstance(value, (np.ndarray, np.generic)):
        return (type(value).__name__, str(value.dtype), np.shape(value), digest(value))
    if isinstance(value, torch.Generator):
        return frozen(value.get_state())
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return frozen(list(value.get_state()))
    if isinstance(value, (nn.Module, torch.jit.ScriptModule)):
        modes = {name: part.training for name, part in value.named_modules()}
        gradients = {name: p.grad for name, p in value.named_parameters()}
        needed = {name: p.requires_grad for name, p in value.named_parameters()}
        return frozen([value.state_dict(), modes, gradients, needed], inner)
    if hasattr(value, "state_dict"):
        return frozen(value.state_dict(), inner)
    if isinstance(value, dict):
        return [type(value).__name__, *((str(key), frozen(item, inner)) for key, item in value.items())]
    if isinstance(value, (list, tuple, deque)):
        return [type(value).__name__, *(frozen(item, inner) for item in value)]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return (type(value).__name__, value)
    if callable(value) and not hasattr(value, "__dict__"):
        return "function"
    return [type(value).__name__, frozen(vars(value), inner)] if hasattr(value, "__dict__") else str(type(value))


def difference(left: Any, right: Any, path: str = "") -> str | None:
    """Where two pictures differ first, or None."""
    if type(left) is type(right) and isinstance(left, (list, tuple)):
        if len(left) != len(right):
            return f"{path}: {len(left)} and {len(right)} items"
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            label = a[0] if isinstance(a, tuple) and len(a) == 2 and isinstance(a[0], str) else index
            found = difference(a, b, f"{path}/{label}")
            if found is not None:
                return found
        return None
    return None if left == right else f"{path}: {str(left)[:80]} and {str(right)[:80]}"


@dataclass
class Training:
    """A trainer with what its user would give a range test, and what else is looked at."""

    trainer: Engine
    to_save: dict[str, Any]
    data: Any
    more: Callable[[], Any] = lambda: None

    def picture(self) -> list[Any]:
        return [
            ("objects", frozen(self.to_save)),
            ("more", frozen(self.more())),
            ("python", random.getstate()),
            ("numpy", frozen(list(np.random.get_state()))),  # noqa: NPY002 - the global state is meant
            ("torch", frozen(torch.get_rng_state())),
        ]


def sweep(training: Training, **options: Any) -> tuple[LRFinder, list[str]]:
    """A range test of this training; the finder, and what was warned about beside the usual end of a sweep."""
    given = {"num_iter": 30, "start_lr": 1e-5, "end_lr": 1.0, **options}
    finder = LRFinder()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with finder.attach(training.trainer, training.to_save, **given) as engine:
            engine.run(training.data)
    said = [str(warning.message) for warning in caught]
    return finder, [text for text in said if "without loss diverging" not in text and "torch.jit" not in text]


def course(build: Callable[[], Training], swept: bool, before: int, after: int, **options: Any) -> list[Any]:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state is meant
    training = build()
    batches: list[Any] = []
    losses: list[Any] = []
    training.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda engine: batches.append(frozen(engine.state.batch))
    )
    training.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output))
    if before:
        training.trainer.run(training.data, max_epochs=before // 4, epoch_length=4)
    warned = sweep(training, **options)[1] if swept else []
    there = training.picture()
    training.trainer.run(training.data, max_epochs=(before + after) // 4, epoch_length=4)
    seen = [("after the block", there), ("batches", batches), ("losses", frozen(losses)), ("end", training.picture())]
    return [seen, warned]


def check_same(without: Any, with_sweep: Any) -> None:
    found = difference(without, with_sweep)
    if found is not None:
        pytest.fail(f"not the same without a sweep and with one: {found}", pytrace=False)


def same_as_without(build: Callable[[], Training], before: int = 0, after: int = 12, **options: Any) -> list[str]:
    """The training after a sweep must be the training without one; returns what the sweep warned about."""
    without, _ = course(build, False, before, after)
    with_sweep, warned = course(build, True, before, after, **options)
    check_same(without, with_sweep)
    return warned


def pairs(count: int = 64) -> TensorDataset:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x.sum(1, keepdim=True))


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))


def training_of(
    model: nn.Module,
    optimizer: Any = None,
    data: Any = None,
    first: Callable[[Engine], None] | None = None,
    more: Callable[[], Any] = lambda: None,
    **to_save: Any,
) -> Training:
    """Least squares; ``first`` is what the training step does before anything else."""
    if optimizer is None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step(engine: Engine, batch: Any) -> float:
        if first is not None:
            first(engine)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.item()

    data = DataLoader(pairs(), 8, shuffle=True) if data is None else data
    return Training(Engine(step), {"model": model, "optimizer": optimizer, **to_save}, data, more)
