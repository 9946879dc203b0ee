"""One pair of step hooks an optimizer, shared by everything of ours that watches it.

``torch.optim.Optimizer`` runs its hooks while it iterates over them, so none can be added or taken away from inside
one. Handlers need just that: a logger learns which trainer it belongs to only when that trainer takes its first step.
So the optimizer gets one pair of hooks, and who is told by them can change at any time.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import torch
from torch.optim import Optimizer

__all__ = ["Seeker", "StepHooks", "Watcher", "steps_on_stack"]


class Watcher(Protocol):
    """What is told of every step."""

    def before_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A step begins, called with these arguments."""

    def after_step(self) -> None:
        """The step came to its end."""


class Seeker(Protocol):
    """What looks for the trainer behind a step, until somebody sets ``found`` in the course of that step."""

    found: bool

    def seek(self) -> None:
        """Look for it. May add watchers, which are then told of this very step."""


# Held by the hooks, and so by the optimizer alone: it takes them with it.
_by_optimizer: weakref.WeakValueDictionary[int, StepHooks] = weakref.WeakValueDictionary()
# one that lets a thread in again: the collector may drop a logger in here, which takes its hooks off
_lock = threading.RLock()


class StepHooks:
    """The hooks on the steps of one optimizer. Use :meth:`of`.

    Watchers are told first, in the order in which they came, then seekers look.

    Attributes:
        suspensions: how many dry runs the optimizer is in at the moment: what is written to it is undone at their end.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = weakref.ref(optimizer)
        # tuples, replaced as a whole: whoever iterates over one is not disturbed
        self._watchers: tuple[Watcher, ...] = ()
        self._seekers: tuple[Seeker, ...] = ()
        self._handles: list[Any] = []
        self.suspensions = 0

    @classmethod
    def of(cls, optimizer: Optimizer) -> StepHooks:
        """The one instance for this optimizer, made when it is first asked for."""
        with _lock:  # searches attach in several threads at once
            hooks = _by_optimizer.get(id(optimizer))
            if hooks is None or hooks._optimizer() is not optimizer:
                hooks = _by_optimizer[id(optimizer)] = cls(optimizer)
            return hooks

    def watch(self, watcher: Watcher) -> None:
        """Tell ``watcher`` of every step from now on."""
        self._watchers = (*self._watchers, watcher)
        self._register()

    def seek(self, seeker: Seeker) -> None:
        """Let ``seeker`` look at every step from now on."""
        self._seekers = (*self._seekers, seeker)
        self._register()

    def remove(self, leaving: Watcher | Seeker) -> None:
        """Take a watcher or a seeker off; the last one takes the hooks with it. Idempotent."""
        self._watchers = tuple(watcher for watcher in self._watchers if watcher is not leaving)
        self._seekers = tuple(seeker for seeker in self._seekers if seeker is not leaving)
        optimizer = self._optimizer()
        if self._watchers or self._seekers or optimizer is None:
            return
        # Inside a step the hooks are being iterated over; left where they are, they do nothing.
        if not steps_on_stack(optimizer):
            for handle in self._handles:
                handle.remove()
            self._handles = []

    def watchers(self) -> tuple[Watcher, ...]:
        """Who is told of every step."""
        return self._watchers

    def _register(self) -> None:
        optimizer = self._optimizer()
        if not self._handles and optimizer is not None:
            if not _outside_graphs:
                for name, function in (("before", _before), ("after", _after)):
                    _outside_graphs[name] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]  # torch's
            make_hookable(optimizer)
            # bound methods, so that the optimizer holds what it calls
            self._handles = [
                optimizer.register_step_pre_hook(self._before),
                optimizer.register_step_post_hook(self._after),
            ]

    # One graph break a hook instead of a recompilation of the step when torch.compile traces it. The wrapper of
    # torch.compiler.disable costs as much as what it wraps, so an eager step goes around it. The question must be asked
    # by its full name: traced under a name imported from torch.compiler it is answered with no.

    def _before(self, _: Optimizer | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_dynamo_compiling():
            _outside_graphs["before"](self, args, kwargs)
            return
        for watcher in self._watchers:
            watcher.before_step(args, kwargs)
        if self._seekers:
            self._look(args, kwargs)

    def _after(self, _: Optimizer | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_dynamo_compiling():
            _outside_graphs["after"](self, args, kwargs)
            return
        for watcher in self._watchers:
            watcher.after_step()

    def _look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        told = self._watchers
        for seeker in self._seekers:
            if not seeker.found:
                seeker.seek()
            seeker.found = False
        if self._watchers is not told:
            for watcher in self._watchers:
                if watcher not in told:
                    watcher.before_step(args, kwargs)


def _before(hooks: StepHooks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    hooks._before(None, args, kwargs)


def _after(hooks: StepHooks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    hooks._after(None, args, kwargs)


# The two that no compiled step traces into. Made with the first hooks: asking for it loads all of torch._dynamo, which
# is no matter for an import, and which making an optimizer has done already.
_outside_graphs: dict[str, Callable[..., None]] = {}


def make_hookable(optimizer: Optimizer) -> None:
    """See to it that the step hooks of an optimizer are called, also where its class never called ``Optimizer``'s.

    Raises:
        TypeError: if they cannot be; it names the optimizer inside, if there is one.
    """
    kind = type(optimizer)
    forwards = kind.register_step_pre_hook is not Optimizer.register_step_pre_hook
    if not forwards:
        for name in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
            hooks = _own(optimizer, name)
            if hooks is None:
                inner = [f"optimizer.{key}, of class {type(value).__name__}" for key, value in inside(optimizer)]
                raise TypeError(
                    f"optimizer must be one whose steps can be hooked, got {kind.__name__}, whose __init__ does not "
                    f"call that of torch.optim.Optimizer: give {' or '.join(inner) or 'the optimizer inside it'}."
                )
            if type(hooks) is dict:  # a handle of PyTorch's refers to it weakly, which a plain one does not bear
                setattr(optimizer, name, OrderedDict(hooks))
        if not getattr(kind.step, "hooked", False):
            # PyTorch does this in Optimizer.__init__, else at the first zero_grad
            optimizer._patch_step_function()


def _own(optimizer: Optimizer, name: str) -> Any:
    """An attribute, not one that a wrapper passes on; ``vars`` finds it too, and slows every later look by a tenth."""
    try:
        return object.__getattribute__(optimizer, name)
    except AttributeError:
        return None


def inside(optimizer: Optimizer) -> list[tuple[str, Optimizer]]:
    """The optimizers that one wraps, by the names of its attributes."""
    return [(key, value) for key, value in vars(optimizer).items() if isinstance(value, Optimizer)]


def steps_on_stack(optimizer: Optimizer) -> int:
    """How many steps of this optimizer are under way: two where ``step()`` called ``super().step()``."""
    wrapper = getattr(type(optimizer).step, "__code__", None)
    steps = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        # every hooked step runs in the same wrapper, whichever class defines it
        if frame.f_code is wrapper and frame.f_locals.get("self") is optimizer:
            steps += 1
        frame = frame.f_back
    return steps
