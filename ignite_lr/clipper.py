"""Clipping of gradients at a percentile of their recent norms."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine
from torch.optim import Optimizer

from ignite_lr import host
from ignite_lr.clip_record import HISTOGRAM_EDGES, ClipRecord, ClipRule, DeviceClipRecord
from ignite_lr.clip_report import TOO_OFTEN, ClipReport, advise, quantiles, too_often
from ignite_lr.clip_state import ClipState
from ignite_lr.grad_norm import global_norm, norm_of_norms, scale_
from ignite_lr.step_guard import StepChanges, StepGuard
from ignite_lr.updates import Phase, Subscription, Updates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ClipReport", "GradNormClipper"]

OnNonfinite = Literal["count", "skip", "raise"]

# what PyTorch adds to a norm before it divides by it
_EPSILON = 1e-6
# the share of clipped updates is not judged on fewer updates than this
_ENOUGH = 20
# on a device the share is looked at every so many steps, and the answer taken at the next look
_LOOK_EVERY = 100

# the clippers on a trainer by name, so that two do not write to the same metrics
_names: WeakKeyDictionary[Engine, WeakValueDictionary[str, GradNormClipper]] = WeakKeyDictionary()


class GradNormClipper:
    """Clips the gradients of each update to a percentile of recent gradient norms.

    Before each update the global norm of the gradients joins a window of the last ``window`` norms; where it is above
    the percentile of that window, all gradients are multiplied by ``threshold / norm``. So the threshold follows the
    training, and about ``1 - percentile / 100`` of the updates are clipped while the norms are stationary.

    Works between ``backward()`` and the update, whatever training step there is: with gradient accumulation, with
    ``GradScaler`` (a step it skips is no update), under DDP, with FSDP2. A fused optimizer is left to do the
    multiplication itself, through its ``grad_scale``, which saves a pass over the gradients.

    Args:
        optimizer: whose gradients are clipped.
        percentile: 0 to 100. 90 limits the exceptional norms (the Tuning Playbook's start); AutoClip uses 10.
        window: how many of the last norms count, at least 1; None for all.
        warmup_updates: nothing is clipped before more norms than this.
        max_norm: a ceiling beside the percentile, in the unit of the norm, positive.
        norm_type: the p of the norm, positive, may be ``inf``.
        on_nonfinite: what happens to an update whose norm is not finite. ``"count"``: it is counted and otherwise
            treated as ``clip_grad_norm_`` would. ``"skip"``: the step changes nothing, exactly: on CUDA a fused
            optimizer skips on the device (``found_inf``), from any other the gradients are set aside for the step.
            ``"raise"``: ``RuntimeError`` before the step. On CUDA "raise", and "skip" with an optimizer that is not
            fused, read one value on the host each update.
        per_group: clip each parameter group by a window of its own. The metrics are then of all groups together:
            the threshold is the norm of the groups' thresholds, and an update is clipped if a group was.
        enabled: False only measures and reports.
        name: put before the keys in ``trainer.state.metrics``, with an underscore; needed for several clippers on one
            trainer.

    Attributes:
        metrics: ``grad_norm`` (unclipped), ``clip_threshold`` and ``clip_frequency`` (of the last ``window`` updates),
            those of the last update, as 0-d tensors on the device of the gradients; empty before any update.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if an argument is out of range.

    Source: Seetharaman et al., "AutoClip: Adaptive Gradient Clipping for Source Separation Networks", 2020.

    Example:
        >>> import torch
        >>> from ignite.engine import create_supervised_trainer
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
        >>> clipper = GradNormClipper(optimizer, percentile=90.0, window=1000)
        >>> _ = clipper.attach(trainer)
        >>> _ = trainer.run([(torch.ones(4, 2), torch.ones(4, 1))] * 5)
        >>> clipper.report().updates
        5
    """

    def __init__(
        self,
        optimizer: Optimizer,
        percentile: float = 90.0,
        window: int | None = 1000,
        *,
        warmup_updates: int = 0,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        on_nonfinite: OnNonfinite = "count",
        per_group: bool = False,
        enabled: bool = True,
        name: str = "",
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}.")
        _check_number("percentile", percentile)
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile must be between 0 and 100, got {percentile}.")
        if window is not None:
            _check_integer("window", window, 1, " or None")
        _check_integer("warmup_updates", warmup_updates, 0)
        for argument, value in (("max_norm", max_norm), ("norm_type", norm_type)):
            if argument == "max_norm" and value is None:
                continue
            _check_number(argument, value)
            if not value > 0:  # type: ignore[operator] # None was passed over
                raise ValueError(f"{argument} must be positive, got {value}.")
        if on_nonfinite not in get_args(OnNonfinite):
            raise ValueError(f"on_nonfinite must be one of {get_args(OnNonfinite)}, got {on_nonfinite!r}.")
        for argument, flag in (("per_group", per_group), ("enabled", enabled)):
            if not isinstance(flag, bool):
                raise TypeError(f"{argument} must be a bool, got {type(flag).__name__}: {flag!r}.")
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {type(name).__name__}: {name!r}.")
        self.optimizer = optimizer
        self.enabled = enabled
        self.name = name
        self.metrics: dict[str, torch.Tensor] = {}
        ceiling = math.inf if max_norm is None else float(max_norm)
        self._rule = ClipRule(float(percentile), None if window is None else int(window), int(warmup_updates), ceiling)
        self._norm_type = float(norm_type)
        self._on_nonfinite = on_nonfinite
        self._per_group = per_group
        self._record: ClipRecord | DeviceClipRecord = ClipRecord(self._rule, ClipState())
        self._changes = StepChanges(optimizer)
        self._guard: StepGuard | None = None
        self._warned = False
        self._looks = 0
        self._look: host.Readback | None = None

    def attach(self, trainer: Engine) -> ClipperAttachment:
        """Clip the updates that ``trainer`` makes.

        Args:
            trainer: the engine whose process function calls ``optimizer.step()``.

        Returns:
            something with ``remove()``, also a context manager.

        Raises:
            RuntimeError: if it is attached to this trainer already.
            ValueError: if another clipper of the same ``name`` is attached to this trainer.
        """
        if not isinstance(trainer, Engine):
            raise TypeError(f"trainer must be an ignite Engine, got {type(trainer).__name__}.")
        names = _names.setdefault(trainer, WeakValueDictionary())
        if names.get(self.name, self) is not self:
            raise ValueError(
                f"name must differ between the clippers of one trainer, and {self.name!r} is taken: "
                f"two would write to the same metrics."
            )
        updates = Updates.of(trainer, self.optimizer)
        subscription = updates.subscribe(
            self,
            Phase.PROTECT,
            before=partial(self._clip, updates),
            launched=self._changes.undo,
            completed=partial(self._publish, updates),
        )
        names[self.name] = self
        # A step hook alone cannot clean up behind a step that raises.
        if self._on_nonfinite == "skip" or _scales_itself(self.optimizer):
            self._guard = StepGuard.of(self.optimizer)
            self._guard.add(self._step_ended)
        return ClipperAttachment(self, subscription, names)

    def __call__(self, engine: Engine) -> None:
        """Say that a clipper is attached, not added as an event handler: by then the update is done."""
        raise RuntimeError(
            "GradNormClipper must be attached with clipper.attach(trainer): it works in a hook of the optimizer. "
            "As an event handler it would come too late to clip anything."
        )

    def report(self) -> ClipReport:
        """What has been clipped so far. Reads from the device, where the norms are there."""
        state = self._state()
        norms = state.windows[0].norms if state.windows else np.zeros(0, np.float32)
        recent_frequency = float(state.decisions.mean()) if len(state.decisions) else 0.0
        return ClipReport(
            updates=state.updates,
            clipped=state.clipped,
            frequency=state.clipped / state.updates if state.updates else 0.0,
            recent_frequency=recent_frequency,
            nominal_frequency=1 - self._rule.percentile / 100,
            threshold=state.threshold,
            norm_quantiles=quantiles(norms),
            nonfinite=state.nonfinite,
            skipped=state.skipped,
            advice=advise(
                updates=state.updates,
                recent_frequency=recent_frequency,
                percentile=self._rule.percentile,
                threshold=state.threshold,
                norms=norms,
                nonfinite=state.nonfinite,
                skipped=state.skipped,
            ),
        )

    def histogram(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The unclipped finite norms of all updates, in logarithmic bins.

        Returns:
            the edges, shape (n + 1,), and the counts, shape (n,), from the first bin that is not empty to the last.
        """
        counts = self._state().histogram
        occupied = np.flatnonzero(counts)
        first, last = (occupied[0], occupied[-1]) if len(occupied) else (0, 0)
        return HISTOGRAM_EDGES[first : last + 2].copy(), counts[first : last + 1].copy()

    def plot(self, title: str | None = None) -> Figure:
        """Draw norms and thresholds of up to 4,096 last updates, and the histogram of the norms of all.

        Args:
            title: of the picture.

        Returns:
            a Matplotlib figure; ``plot().savefig("grad_norm.png")`` writes it.
        """
        from ignite_lr import plotting  # Matplotlib is needed for pictures only

        norms, thresholds, clipped = self._state().stretch.T.astype(np.float64)
        figure: Figure = plotting.grad_norm_curve(norms, thresholds, clipped > 0, *self.histogram(), title=title)
        return figure

    def state_dict(self) -> dict[str, Any]:
        """Window, counters and histogram as numbers and CPU tensors."""
        return self._state().to_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the clipper that was saved stood.

        The settings are those of this clipper: into a smaller window the newest norms are taken. The device may differ.

        Raises:
            TypeError: if it is no mapping, or an entry is of another type.
            ValueError: if an entry is missing or cannot be true.
        """
        # goes to the device, if it belongs there, with the next norm
        self._record = ClipRecord(self._rule, ClipState.from_dict(state_dict))
        self.metrics = {}
        self._look = None

    def _state(self) -> ClipState:
        if isinstance(self._record, ClipRecord):
            return self._record.state()
        return DeviceClipRecord.state(*host.arrays(self._record.tensors()))

    def _publish(self, updates: Updates) -> None:
        trainer = updates.trainer
        if trainer is not None:
            prefix = f"{self.name}_" if self.name else ""
            for key, value in self.metrics.items():
                trainer.state.metrics[prefix + key] = value

    def _step_ended(self, raised: bool) -> None:
        self._changes.undo()
        if raised and hasattr(self.optimizer, "found_inf"):
            # A GradScaler put these there, and no longer comes to take them away: they would scale its next step twice.
            for name in ("grad_scale", "found_inf"):
                vars(self.optimizer).pop(name, None)

    @torch.no_grad()
    def _clip(self, updates: Updates) -> None:
        if updates.closure is not None:
            raise RuntimeError(
                "GradNormClipper cannot clip a step that is given a closure, as LBFGS is: the gradients are computed "
                "inside the step, after the last moment at which they could be clipped."
            )
        self._changes.undo()  # what an earlier step that raised may have left
        groups = [[p.grad for p in group["params"] if p.grad is not None] for group in self.optimizer.param_groups]
        gradients = [gradient for group in groups for gradient in group]
        if not gradients:
            return  # nothing to clip, nothing to count
        # The gradients are still scaled where the optimizer is to unscale them.
        scales = _scales_itself(self.optimizer)
        scale = getattr(self.optimizer, "grad_scale", None) if scales else None
        found_inf = getattr(self.optimizer, "found_inf", None) if scales else None
        parts = {i + 1: group for i, group in enumerate(groups) if group} if self._per_group else {0: gradients}
        norms = {}
        for index, part in parts.items():
            norm = global_norm(part, self._norm_type)
            norms[index] = norm if scale is None else norm / scale.to(norm.device, non_blocking=True)
        if norms[next(iter(norms))].device.type == "cpu":
            self._clip_on_host(updates, parts, norms, found_inf)
        else:
            self._clip_on_device(updates, parts, norms, found_inf)

    def _clip_on_host(
        self,
        updates: Updates,
        parts: Mapping[int, Sequence[torch.Tensor]],
        norms: Mapping[int, torch.Tensor],
        found_inf: torch.Tensor | None,
    ) -> None:
        if not isinstance(self._record, ClipRecord):
            self._record = ClipRecord(self._rule, self._state())
        record = self._record
        if found_inf is not None and host.read([found_inf])[0]:
            return  # the scaler skips this step
        whole = norms[0] if 0 in norms else norm_of_norms(list(norms.values()), self._norm_type)
        whole = whole.to(torch.float32)
        values = dict(zip(norms, host.read([norm.to(torch.float32) for norm in norms.values()]), strict=True))
        value = values[0] if 0 in values else host.read([whole])[0]
        if not math.isfinite(value) and self.enabled:
            if self._on_nonfinite == "raise":
                raise RuntimeError(_nonfinite_message(value))
            if self._on_nonfinite == "skip":
                self._changes.set_gradients_aside()
                updates.skip()
                record.skip()
                return
        limits = {index: record.limit(index, value) for index, value in values.items()}
        limit = limits[0] if 0 in limits else _norm_of(list(limits.values()), self._norm_type)
        if 0 not in limits:
            record.limit(0, value)  # for the report
        clipped = False
        if self.enabled:
            clipped = math.isfinite(value) and any(values[index] > limits[index] for index in limits)
            for index, part in parts.items():
                # What PyTorch adds to the norm makes a factor below 1 also of a norm just below the threshold.
                if not values[index] + 2 * _EPSILON < limits[index] * (1 - _EPSILON):
                    self._scale(part, norms[index], limits[index])
        record.update(value, limit, clipped)
        self.metrics = {
            "grad_norm": whole,
            "clip_threshold": torch.tensor(limit, dtype=torch.float64),
            "clip_frequency": torch.tensor(record.recent_frequency, dtype=torch.float64),
        }
        if not self._warned and record.updates >= _ENOUGH:
            self._judge(record.recent_frequency)

    def _clip_on_device(
        self,
        updates: Updates,
        parts: Mapping[int, Sequence[torch.Tensor]],
        norms: Mapping[int, torch.Tensor],
        found_inf: torch.Tensor | None,
    ) -> None:
        device = norms[next(iter(norms))].device
        if not isinstance(self._record, DeviceClipRecord) or self._record.device != device:
            self._record = DeviceClipRecord(self._rule, self._state(), device)
        record = self._record
        if found_inf is None:
            counts = torch.ones((), dtype=torch.bool, device=device)
        else:
            counts = found_inf.to(device, non_blocking=True).reshape(()) == 0
        whole = norms[0] if 0 in norms else norm_of_norms(list(norms.values()), self._norm_type)
        whole = whole.to(torch.float32)
        finite = torch.isfinite(whole)
        skipped = torch.zeros_like(counts)
        if self.enabled and self._on_nonfinite != "count":
            on_device = self._on_nonfinite == "skip" and self._optimizer_scales() and _make_momentum(self.optimizer)
            if on_device:
                skipped = counts & ~finite
                flag = (~finite).to(torch.float32)
                self._changes.set("found_inf", flag if found_inf is None else torch.maximum(flag, found_inf.to(device)))
            else:
                value, counted = host.read([whole, counts])
                if counted and not math.isfinite(value):
                    if self._on_nonfinite == "raise":
                        raise RuntimeError(_nonfinite_message(value))
                    self._changes.set_gradients_aside()
                    updates.skip()
                    skipped = torch.ones_like(counts)
            counts = counts & ~skipped
        limits = {index: record.limit(index, norm.to(torch.float32), counts) for index, norm in norms.items()}
        if 0 in limits:
            limit = limits[0]
        else:
            limit = norm_of_norms(list(limits.values()), self._norm_type)
            record.limit(0, whole, counts)  # for the report
        clipped = torch.zeros_like(counts)
        if self.enabled:
            over = [norm.to(torch.float32) > limits[index] for index, norm in norms.items()]
            clipped = counts & finite & torch.stack(over).any()
            for index, part in parts.items():
                self._scale(part, norms[index], limits[index])
        frequency = record.update(whole, limit, counts=counts, clipped=clipped, skipped=skipped)
        new = {"grad_norm": whole, "clip_threshold": limit, "clip_frequency": frequency}
        # a step that turns out to be none leaves the metrics of the last update
        self.metrics = {key: torch.where(counts, value, self.metrics.get(key, math.nan)) for key, value in new.items()}
        if not self._warned:
            self._look_at(frequency)

    def _optimizer_scales(self) -> bool:
        """Whether the coming step can be told to divide or skip, and will be cleaned up behind."""
        groups = self.optimizer.param_groups
        return self._guard is not None and self._guard.active and all(group.get("fused") for group in groups)

    def _scale(self, gradients: Sequence[torch.Tensor], norm: torch.Tensor, limit: float | torch.Tensor) -> None:
        """Bring gradients of this norm to the limit, if they are above it."""
        if isinstance(limit, torch.Tensor):
            limited = ~torch.isinf(limit)
            limit = limit.to(norm.dtype)
        elif math.isinf(limit):
            return
        else:
            limited = None
        if self._optimizer_scales() and not self._per_group:
            factor = ((norm + _EPSILON) / limit).clamp(min=1.0)
            if limited is not None:
                factor = torch.where(limited, factor, 1.0)
            before = getattr(self.optimizer, "grad_scale", None)
            factor = factor if before is None else factor * before.to(norm.device, non_blocking=True)
            self._changes.set("grad_scale", factor.to(torch.float32))
            return
        # in the order of clip_grads_with_norm_, for the same last bit
        factor = (limit / (norm + _EPSILON)).clamp(max=1.0)
        scale_(gradients, factor if limited is None else torch.where(limited, factor, 1.0))

    def _judge(self, recent_frequency: float) -> None:
        if recent_frequency > TOO_OFTEN and self._rule.percentile >= 50:
            self._warned = True
            state = self._state()
            warnings.warn(too_often(recent_frequency, state.threshold, state.windows[0].norms), stacklevel=2)

    def _look_at(self, frequency: torch.Tensor) -> None:
        """On a device: have the share sent over, and judge the one that was sent long ago."""
        self._looks += 1
        if self._looks % _LOOK_EVERY or (frequency.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        if self._look is not None:
            self._judge(self._look.value())
        self._look = host.Readback(frequency)


class ClipperAttachment:
    """What ties a clipper to a trainer: ``remove()`` undoes it. Also a context manager."""

    def __init__(
        self,
        clipper: GradNormClipper,
        subscription: Subscription,
        names: WeakValueDictionary[str, GradNormClipper],
    ) -> None:
        self._clipper = clipper
        self._subscription = subscription
        self._names = names

    def remove(self) -> None:
        """Take the clipper off the trainer and its optimizer. Idempotent."""
        self._subscription.remove()
        if self._names.get(self._clipper.name) is self._clipper:
            del self._names[self._clipper.name]
        if self._clipper._guard is not None:
            self._clipper._guard.discard(self._clipper._step_ended)
            self._clipper._guard = None

    def __enter__(self) -> ClipperAttachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


def _scales_itself(optimizer: Optimizer) -> bool:
    """Whether the optimizer's kernels unscale gradients and skip steps themselves, as fused ones do."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _make_momentum(optimizer: Optimizer) -> bool:
    """Make a fused SGD's first step one that can be skipped on the device; False where that is not possible.

    If the first step is skipped, PyTorch keeps the momentum buffers it made for it without ever having written to them.
    Buffers of zeros give the same first step, as long as nothing is dampened.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return True
    for group in optimizer.param_groups:
        if group["momentum"] == 0:
            continue
        for parameter in group["params"]:
            if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                if group["dampening"]:
                    return False
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return True


def _norm_of(values: Sequence[float], norm_type: float) -> float:
    if math.isinf(norm_type) or any(math.isinf(value) for value in values):
        return max(values)
    total: float = math.fsum(value**norm_type for value in values) ** (1 / norm_type)
    return total


def _nonfinite_message(norm: float) -> str:
    return f"The gradient norm is {norm}, and GradNormClipper was made with on_nonfinite='raise'."


def _check_number(argument: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{argument} must be a number, got {type(value).__name__}: {value!r}.")


def _check_integer(argument: str, value: object, least: int, otherwise: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{argument} must be an int{otherwise}, got {type(value).__name__}: {value!r}.")
    if int(value) < least:
        raise ValueError(f"{argument} must be at least {least}{otherwise}, got {value}.")
