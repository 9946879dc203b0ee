"""Optimizers that nobody mentioned, but that the training step uses: found when they step for the first time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ignite_lr.dry_run._snapshot import Snapshot

__all__ = ["Strays"]


class Strays:
    """Has every optimizer of the training captured right before its first step, so that what trains is restored.

    An optimizer belongs to the training if the training step's own thread steps it, if it shares a parameter with what
    was captured, or if autograd steps it in a thread of its own while the training step runs. Any other training that
    goes on beside this one is left alone.

    Args:
        mentioned: the optimizer that the dry run is about.
        snapshot: what captures.
        found: called with each, after it was captured.
    """

    def __init__(self, mentioned: Optimizer, snapshot: Snapshot, found: Callable[[Optimizer], object]) -> None:
        self._mentioned = mentioned
        self._snapshot = snapshot
        self._found = found
        self._inside: int | None = None  # the thread inside the training step
        self.stepped: list[Optimizer] = []  # all that stepped but the one that was mentioned
        self._uncompiled: Callable[[Optimizer], None] = torch.compiler.disable(self._look)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._handle = register_optimizer_step_pre_hook(self._before_step)

    @contextmanager
    def training_step(self) -> Iterator[None]:
        """Around the training step."""
        self._inside = threading.get_ident()
        try:
            yield
        finally:
            self._inside = None

    def remove(self) -> None:
        """Look no longer."""
        self._handle.remove()
        self.stepped = []
        del self._found, self._uncompiled  # which refer to the engine, and to this object

    def instead_of_updates(self, iterations: int) -> str:
        """What to say when the mentioned optimizer was not stepped in so many iterations."""
        text = (
            f"{iterations} iterations without an update of the swept optimizer: the training step never calls the "
            f"step() of this {type(self._mentioned).__name__}"
        )
        if not self.stepped:
            return (
                f"{text} (first_step() and second_step(), and a step in an event handler, are none), it or a "
                "GradScaler skips every one, or the optimizer in to_save is not the one that trains"
            )
        parts = vars(self._mentioned).items()
        names = [key for key, value in parts if any(value is other for other in self.stepped)]
        kinds = ", ".join(dict.fromkeys(type(other).__name__ for other in self.stepped))
        whose = f", its {names[0]}" if names else ""
        return f"{text}, but that of {kinds}{whose}: give the optimizer that trains in to_save"

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if torch.compiler.is_dynamo_compiling():
            self._uncompiled(optimizer)
        elif optimizer is not self._mentioned:
            self._look(optimizer)

    def _look(self, optimizer: Optimizer) -> None:
        if optimizer is self._mentioned or any(optimizer is known for known in self.stepped):
            return
        if not self._is_ours(optimizer):
            return
        self.stepped.append(optimizer)
        if not any(optimizer is known for known in self._snapshot.optimizers):
            self._snapshot.add(f"{type(optimizer).__name__} of the training step, not in to_save", optimizer)
        self._found(optimizer)

    def _is_ours(self, optimizer: Optimizer) -> bool:
        if self._inside is None:
            return False
        if self._inside == threading.get_ident():
            return True
        if isinstance(threading.current_thread(), threading._DummyThread) and torch._C._current_graph_task_id() != -1:
            return True  # autograd's own thread, in a hook of a backward pass
        modules, optimizers = self._snapshot.modules, self._snapshot.optimizers
        known = {id(p) for module in modules for p in module.parameters(recurse=False)}
        known |= {id(p) for other in optimizers for group in other.param_groups for p in group["params"]}
        return any(id(p) in known for group in optimizer.param_groups for p in group["params"])
