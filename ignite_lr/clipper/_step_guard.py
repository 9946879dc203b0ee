"""What lasts for one ``optimizer.step()``, and is cleaned up behind it however it ends.

A step post hook does not run when the step raises, be it in the kernel or in another hook. What must not outlive a
step, such as a clipping factor that a fused optimizer would apply once more, is therefore undone in a ``finally``
around ``optimizer.step``.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch.optim import Optimizer

__all__ = ["StepGuard"]

_ABSENT = object()


class _StepLeft(BaseException):
    """Leaves a step from within one of its hooks; past ``except Exception`` of a wrapper around the optimizer."""


# Held by the wrapper, and so by the optimizer alone: it takes its guard with it.
_by_optimizer: weakref.WeakValueDictionary[int, StepGuard] = weakref.WeakValueDictionary()


class StepGuard:
    """A wrapper around the ``step`` of one optimizer. Use :meth:`of`.

    It keeps the name, the signature and the marks of what it wraps: ``GradScaler`` looks at the signature, PyTorch's
    schedulers at a mark, and they take the function out of the bound method to wrap it in turn.

    Attributes:
        active: whether a guarded step is on its way, so that what is put on the optimizer now will be cleaned up.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.active = False
        self._clean_ups: list[Callable[[bool], None]] = []
        self._before: dict[str, Any] = {}
        self._optimizer = weakref.ref(optimizer)
        self._wrapper: Any = None
        self._wrapped: Any = None

    @classmethod
    def of(cls, optimizer: Optimizer) -> StepGuard:
        """The one guard of this optimizer, made when it is first asked for."""
        guard = _by_optimizer.get(id(optimizer))
        if guard is None or guard._optimizer() is not optimizer:
            guard = _by_optimizer[id(optimizer)] = cls(optimizer)
        return guard

    def add(self, clean_up: Callable[[bool], None]) -> None:
        """Have ``clean_up(raised)`` called after every step."""
        if not self._clean_ups:
            self._install()
        self._clean_ups.append(clean_up)

    def set(self, name: str, value: object) -> None:
        """Set an attribute of the optimizer until the step under way has ended.

        It is kept here how the attribute was before the first of several handlers set it.
        """
        optimizer = self._optimizer()
        assert self.active  # or nothing would clean up
        assert optimizer is not None  # it is in its step
        self._before.setdefault(name, getattr(optimizer, name, _ABSENT))
        setattr(optimizer, name, value)

    def leave(self) -> NoReturn:
        """End the step under way before it does anything; for use in a pre hook, which it does not return to."""
        assert self.active  # or nothing would catch it
        raise _StepLeft

    def discard(self, clean_up: Callable[[bool], None]) -> None:
        """Take one back; the last one takes the wrapper with it."""
        if clean_up in self._clean_ups:
            self._clean_ups.remove(clean_up)
            if not self._clean_ups:
                self._uninstall()

    def _install(self) -> None:
        optimizer = self._optimizer()
        assert optimizer is not None  # whoever asked for the guard holds it
        present: Any = optimizer.step
        bound = isinstance(present, types.MethodType)
        function = present.__func__ if bound else present
        guard = self

        @functools.wraps(function)
        def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
            if not guard._clean_ups or guard.active:
                return function(self, *args, **kwargs) if bound else function(*args, **kwargs)
            guard.active = raised = True
            try:
                result = function(self, *args, **kwargs) if bound else function(*args, **kwargs)
                raised = False
                return result
            except _StepLeft:
                raised = False
                return None
            finally:
                guard.active = False
                guard._restore(self)
                for clean_up in guard._clean_ups:
                    clean_up(raised)

        # What the step calls is compiled as before, this frame is not: its only content is the ``finally``.
        skipped = torch.compiler.disable(step, recursive=False)  # type: ignore[no-untyped-call] # untyped in PyTorch
        self._wrapped = optimizer.__dict__.get("step")
        self._wrapper = types.MethodType(skipped, optimizer)
        optimizer.step = self._wrapper  # type: ignore[method-assign] # a wrapper for this instance alone is the point

    def _restore(self, optimizer: Optimizer) -> None:
        for name, value in self._before.items():
            if value is not _ABSENT:
                setattr(optimizer, name, value)
            else:
                vars(optimizer).pop(name, None)
        self._before.clear()

    def _uninstall(self) -> None:
        optimizer = self._optimizer()
        if optimizer is None or optimizer.__dict__.get("step") is not self._wrapper:
            return  # someone wrapped the wrapper: it stays below theirs, and without clean-ups only passes on
        if self._wrapped is None:
            del optimizer.step
        else:
            optimizer.step = self._wrapped  # type: ignore[method-assign] # as it was before
        self._wrapper = self._wrapped = None
