"""What an optimizer is told for one step: to divide its gradients, or not to take the step.

A fused optimizer divides its gradients by its attribute ``grad_scale`` and skips where ``found_inf`` is 1, both of
which it reads on the device. They are made for ``GradScaler``; here they save a pass over the gradients, and the host
a wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from ignite_lr.clipper._gradients import unscales
from ignite_lr.clipper._norm import is_distributed
from ignite_lr.clipper._step_guard import StepGuard

__all__ = ["StepOrders"]


class StepOrders:
    """What one handler tells an optimizer, fused or not, for the coming step; all of it is taken back after it.

    Args:
        optimizer: the optimizer.

    Attributes:
        aside: gradients that were set aside for the time of a step, with their parameters.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._guard: StepGuard | None = None
        self.aside: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __getstate__(self) -> dict[str, Any]:
        """A copy guards nothing: the guard belongs to the optimizer whose steps it wraps."""
        return {**vars(self), "_guard": None, "aside": []}

    def guard(self) -> None:
        """From now on, guard the optimizer's steps: behind a guarded one everything is taken back in any case."""
        if self._guard is None:
            self._guard = StepGuard.of(self._optimizer)
            self._guard.add(self._step_ended)

    def unguard(self) -> None:
        """Leave the optimizer as it was. Idempotent."""
        if self._guard is not None:
            self._guard.discard(self._step_ended)
            self._guard = None

    @property
    def guards(self) -> bool:
        """Whether the step under way is guarded."""
        return self._guard is not None and self._guard.active

    def obeys(self, gradients: Sequence[torch.Tensor]) -> bool:
        """Whether the coming step will divide and skip as it is told, and be cleaned up behind in any case."""
        if not self.guards or not unscales(self._optimizer):
            return False
        # a kernel for shards takes no plain tensor beside them
        return all(group.get("fused") for group in self._optimizer.param_groups) and not is_distributed(gradients)

    def divide(self, divisor: torch.Tensor) -> None:
        """Have the step divide its gradients by this 0-d tensor, beside what it divides them by already."""
        present = getattr(self._optimizer, "grad_scale", None)
        if present is not None:
            divisor = divisor * present.to(divisor.device, non_blocking=True)
        self._set("grad_scale", divisor.to(torch.float32))

    def skip_where(self, flag: torch.Tensor, gradients: Iterable[Sequence[torch.Tensor]]) -> bool:
        """Have the step change nothing where the 0-d bool tensor is true.

        Returns:
            False if this optimizer cannot be told so.
        """
        if not all(self.obeys(part) for part in gradients) or not self._make_momentum():
            return False
        present = getattr(self._optimizer, "found_inf", None)
        number = flag.to(torch.float32)
        self._set("found_inf", number if present is None else torch.maximum(number, present.to(number.device)))
        return True

    def skip(self) -> None:
        """Have the step under way not be taken. Does not return where the step is guarded.

        Around a guard, by ``type(optimizer).step(optimizer)`` say, all that can be done is to leave the step no
        gradients.
        """
        if self._guard is not None and self._guard.active:
            self._guard.leave()
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.aside.append((parameter, parameter.grad))
                    parameter.grad = None

    def undo(self) -> None:
        """Bring back the gradients that were set aside. Idempotent."""
        for parameter, gradient in self.aside:
            if parameter.grad is None:
                parameter.grad = gradient
        self.aside.clear()

    def _set(self, name: str, value: torch.Tensor) -> None:
        assert self._guard is not None  # obeys() said so
        self._guard.set(name, value)

    def _step_ended(self, raised: bool) -> None:
        self.undo()
        if raised and hasattr(self._optimizer, "found_inf"):
            # GradScaler put these there and does not come to take them away: its next step would be scaled twice
            for name in ("grad_scale", "found_inf"):
                vars(self._optimizer).pop(name, None)

    def _make_momentum(self) -> bool:
        """Make a first step of fused SGD one that can be skipped on the device; False where that is not possible.

        If its first step is skipped, PyTorch keeps momentum buffers that nothing was ever written to. Buffers of zeros
        give the same first step, as long as nothing is dampened.
        """
        if not isinstance(self._optimizer, torch.optim.SGD):
            return True
        for group in self._optimizer.param_groups:
            if group["momentum"] == 0:
                continue
            for parameter in group["params"]:
                state = self._optimizer.state[parameter]
                if parameter.grad is not None and state.get("momentum_buffer") is None:
                    if group["dampening"]:
                        return False
                    state["momentum_buffer"] = torch.zeros_like(parameter)
        return True
