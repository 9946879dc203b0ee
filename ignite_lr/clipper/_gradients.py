"""Clipping the gradients of one update after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from ignite_lr.clipper._norm import global_norm, norm_of_norms, plain, scale_
from ignite_lr.clipper._record import ClipRecord, DeviceClipRecord
from ignite_lr.clipper._rule import ClipRule
from ignite_lr.clipper._state import ClipState
from ignite_lr.clipper._step_orders import FusedStep, unscales
from ignite_lr.core import host

__all__ = ["OnNonfinite", "UpdateClipping"]

OnNonfinite = Literal["count", "skip", "raise"]

# what PyTorch adds to a norm before it divides by it
_EPSILON = 1e-6


def reads_freely(device: torch.device) -> bool:
    """Whether the host reads values on this device without waiting for anything."""
    return device.type == "cpu"


@dataclass(frozen=True)
class Gradients:
    """The gradients of one update, as they are limited.

    Attributes:
        parts: the gradients that are limited together, by window: 0 for all of them, 1 + i for those of group i.
        norms: their norms, unscaled.
        whole: the norm of all of them, a 0-d float32 tensor.
        found_inf: positive where a ``GradScaler`` is about to skip the step; None without one.
    """

    parts: Mapping[int, Sequence[torch.Tensor]]
    norms: Mapping[int, torch.Tensor]
    whole: torch.Tensor
    found_inf: torch.Tensor | None

    @property
    def apart(self) -> bool:
        """Whether groups are limited apart."""
        return 0 not in self.parts


class UpdateClipping:
    """Clips updates of one optimizer, and keeps the record.

    Norms of CPU gradients are judged on the host, where reading them is free; others on their device, so that the host
    does not wait.

    Args:
        optimizer: the optimizer.
        rule: how thresholds are found.
        norm_type: the p of the norm.
        on_nonfinite: what happens to an update whose norm is not finite.
        per_group: limit each parameter group by itself.
        enabled: False only measures.

    Attributes:
        record: what there has been.
        metrics: of the last update, 0-d tensors.
        fused: what a fused optimizer is told for the coming step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rule: ClipRule,
        norm_type: float,
        on_nonfinite: OnNonfinite,
        per_group: bool,
        enabled: bool,
    ) -> None:
        self.optimizer = optimizer
        self.rule = rule
        self.enabled = enabled
        self.on_nonfinite = on_nonfinite
        self.record: ClipRecord | DeviceClipRecord = ClipRecord(rule, ClipState())
        self.metrics: dict[str, torch.Tensor] = {}
        self.fused = FusedStep(optimizer)
        self._norm_type = norm_type
        self._per_group = per_group

    def state(self) -> ClipState:
        """The record on the host."""
        if isinstance(self.record, ClipRecord):
            return self.record.state()
        return DeviceClipRecord.state(*host.arrays(self.record.tensors()))

    def load(self, state: ClipState) -> None:
        """Go on from a record; it goes to the device, if it belongs there, with the next norm."""
        self.record = ClipRecord(self.rule, state)
        self.metrics = {}

    @torch.no_grad()
    def clip(self, skip: Callable[[], None]) -> None:
        """Clip the gradients of the coming update.

        Args:
            skip: called if the step will change nothing.

        Raises:
            RuntimeError: on a norm that is not finite, where that was asked for.
        """
        gradients = self._gradients()
        if gradients is None:
            return  # nothing to clip, nothing to count
        device = gradients.whole.device
        if reads_freely(device):
            if not isinstance(self.record, ClipRecord):
                self.load(self.state())
            self._clip_on_host(self.record, gradients, skip)  # type: ignore[arg-type] # load() made it so
            return
        if not isinstance(self.record, DeviceClipRecord) or self.record.device != device:
            self.record = DeviceClipRecord(self.rule, self.state(), device)
            self.metrics = {}
        self._clip_on_device(self.record, gradients, skip)

    def _gradients(self) -> Gradients | None:
        groups = self.optimizer.param_groups
        if self._per_group:
            parts = {i + 1: gradients for i, group in enumerate(groups) if (gradients := _gradients_of([group]))}
        else:
            parts = {0: _gradients_of(groups)}
        if not any(parts.values()):
            return None
        # The gradients are still scaled where the optimizer is to unscale them.
        scaled = unscales(self.optimizer)
        scale = getattr(self.optimizer, "grad_scale", None) if scaled else None
        found_inf = getattr(self.optimizer, "found_inf", None) if scaled else None
        norms: dict[int, torch.Tensor] = {}
        first: torch.device | None = None
        for index, part in parts.items():
            norm = global_norm(part, self._norm_type)
            if scale is not None:
                norm = norm / scale.to(norm.device, non_blocking=True)
            first = first or norm.device
            norms[index] = norm if norm.device == first else norm.to(first)
        whole = norms[0] if 0 in norms else norm_of_norms(list(norms.values()), self._norm_type)
        return Gradients(parts, norms, whole.to(torch.float32), None if found_inf is None else plain(found_inf))

    def _clip_on_host(self, record: ClipRecord, gradients: Gradients, skip: Callable[[], None]) -> None:
        if gradients.found_inf is not None and host.read([gradients.found_inf])[0]:
            return  # the scaler skips this step
        norms = gradients.norms
        values = dict(zip(norms, host.read([norm.to(torch.float32) for norm in norms.values()]), strict=True))
        value = host.read([gradients.whole])[0] if gradients.apart else values[0]
        finite = math.isfinite(value)
        if not finite and self.enabled:
            self._refuse(value)
            if self.on_nonfinite == "skip":
                self.fused.set_gradients_aside()
                skip()
                record.skip()
                return
        limits = {index: record.limit(index, norm) for index, norm in values.items()}
        if gradients.apart:
            record.limit(0, value)  # for the report
            limit = host.read(
                [norm_of_norms([torch.tensor(one, dtype=torch.float64) for one in limits.values()], self._norm_type)]
            )[0]
        else:
            limit = limits[0]
        clipped = self.enabled and finite and any(values[index] > limits[index] for index in limits)
        if self.enabled:
            for index, part in gradients.parts.items():
                # What PyTorch adds to the norm makes a factor below 1 also of a norm just below the threshold.
                if not values[index] + 2 * _EPSILON < limits[index] * (1 - _EPSILON):
                    self._limit(part, norms[index], limits[index], gradients.apart)
        record.update(value, limit, clipped)
        self.metrics = {
            "grad_norm": gradients.whole,
            "clip_threshold": torch.tensor(limit, dtype=torch.float64),
            "clip_frequency": torch.tensor(record.recent_frequency, dtype=torch.float64),
        }

    def _clip_on_device(self, record: DeviceClipRecord, gradients: Gradients, skip: Callable[[], None]) -> None:
        whole = gradients.whole
        if gradients.found_inf is None:
            counts = torch.ones((), dtype=torch.bool, device=whole.device)
        else:
            counts = gradients.found_inf.to(whole.device, non_blocking=True).reshape(()) == 0
        finite = torch.isfinite(whole)
        skipped = torch.zeros_like(counts)
        if self.enabled and self.on_nonfinite != "count":
            if self.on_nonfinite == "skip" and self.fused.skip_where(finite.logical_not(), gradients.parts.values()):
                skipped = counts & finite.logical_not()
            else:
                value, counted = host.read([whole, counts])
                if counted and not math.isfinite(value):
                    self._refuse(value)
                    self.fused.set_gradients_aside()
                    skip()
                    skipped = counts
            counts = counts & skipped.logical_not()
        norms = {index: norm.to(torch.float32) for index, norm in gradients.norms.items()}
        limits = {index: record.limit(index, norm, counts) for index, norm in norms.items()}
        if gradients.apart:
            record.limit(0, whole, counts)  # for the report
            limit = norm_of_norms(list(limits.values()), self._norm_type)
        else:
            limit = limits[0]
        clipped = torch.zeros_like(counts)
        if self.enabled:
            clipped = counts & finite & torch.stack([norms[index] > limits[index] for index in norms]).any()
            for index, part in gradients.parts.items():
                self._limit(part, gradients.norms[index], limits[index], gradients.apart)
        frequency = record.update(whole, limit, counts=counts, clipped=clipped, skipped=skipped)
        new = {"grad_norm": whole, "clip_threshold": limit, "clip_frequency": frequency}
        # a step that turns out to be none leaves the metrics of the last update
        old = self.metrics or {key: torch.full_like(value, math.nan) for key, value in new.items()}
        self.metrics = {key: torch.where(counts, value, old[key]) for key, value in new.items()}

    def _refuse(self, norm: float) -> None:
        if self.on_nonfinite == "raise":
            raise RuntimeError(f"The gradient norm is {norm}, and GradNormClipper was made with on_nonfinite='raise'.")

    def _limit(
        self, gradients: Sequence[torch.Tensor], norm: torch.Tensor, limit: float | torch.Tensor, apart: bool
    ) -> None:
        """Bring gradients of this norm to the limit, if they are above it."""
        unlimited: Any = None
        if isinstance(limit, torch.Tensor):
            unlimited = torch.isinf(limit)
            limit = limit.to(norm.dtype)
        elif math.isinf(limit):
            return
        if not apart and self.fused.obeys(gradients):
            divisor = ((norm + _EPSILON) / limit).clamp(min=1.0)
            self.fused.divide(divisor if unlimited is None else divisor.masked_fill(unlimited, 1.0))
            return
        # the order of clip_grads_with_norm_, for the same last bit
        factor = ((norm + _EPSILON).reciprocal() * limit).clamp(max=1.0)
        scale_(gradients, factor if unlimited is None else factor.masked_fill(unlimited, 1.0))


def _gradients_of(groups: Sequence[Mapping[str, Any]]) -> list[torch.Tensor]:
    return [gradient for group in groups for parameter in group["params"] if (gradient := parameter.grad) is not None]
