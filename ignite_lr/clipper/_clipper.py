"""Clipping of gradients at a percentile of their recent norms."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine
from torch.optim import Optimizer

from ignite_lr.clipper._gradients import OnNonfinite, UpdateClipping
from ignite_lr.clipper._picture import grad_norm_curve
from ignite_lr.clipper._record import HISTOGRAM_EDGES, ClipRecord
from ignite_lr.clipper._report import (
    TOO_OFTEN,
    ClipReport,
    advise,
    judged,
    line,
    quantiles,
    too_often,
    typical_excess,
)
from ignite_lr.clipper._rule import ClipRule, check_positive
from ignite_lr.clipper._state import ClipState
from ignite_lr.clipper._step_orders import unscales
from ignite_lr.core.host import Readback
from ignite_lr.core.updates import Phase, Subscription, Updates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ClipReport", "GradNormClipper"]

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
        rule = ClipRule.checked(percentile, window, warmup_updates, max_norm)
        check_positive("norm_type", norm_type)
        if not isinstance(on_nonfinite, str) or on_nonfinite not in get_args(OnNonfinite):
            raise ValueError(f"on_nonfinite must be one of {get_args(OnNonfinite)}, got {on_nonfinite!r}.")
        for argument, flag in (("per_group", per_group), ("enabled", enabled)):
            if not isinstance(flag, bool):
                raise TypeError(f"{argument} must be a bool, got {type(flag).__name__}: {flag!r}.")
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, got {type(name).__name__}: {name!r}.")
        self.optimizer = optimizer
        self.name = name
        self._clipping = UpdateClipping(optimizer, rule, float(norm_type), on_nonfinite, per_group, enabled)
        self._attached = 0
        self._warned = False
        self._looks = 0
        self._look: tuple[Readback, int] | None = None

    @property
    def metrics(self) -> dict[str, torch.Tensor]:
        """``grad_norm`` (unclipped), ``clip_threshold``, ``clip_frequency`` (of the last ``window`` updates).

        Those of the last update, as 0-d tensors on the device of the gradients, fresh for each; empty before any.
        """
        return self._clipping.metrics

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
            launched=self._clipping.fused.undo,
            completed=partial(self._publish, updates),
        )
        names[self.name] = self
        # only these leave something on the optimizer for the time of the step
        if self._clipping.on_nonfinite == "skip" or unscales(self.optimizer):
            self._clipping.fused.guard()
        self._attached += 1
        return ClipperAttachment(self, subscription, names)

    def __call__(self, engine: Engine) -> None:
        """Say that a clipper is attached, not added as an event handler: by then the update is done."""
        raise RuntimeError(
            "GradNormClipper must be attached with clipper.attach(trainer): it works in a hook of the optimizer. "
            "As an event handler it would come too late to clip anything."
        )

    def report(self) -> ClipReport:
        """What has been clipped so far. Reads from the device, where the norms are there."""
        state = self._clipping.state()
        norms = state.windows[0].norms if state.windows else np.zeros(0, np.float32)
        frequency = state.clipped / state.updates if state.updates else 0.0
        counted = len(state.decisions)
        recent_frequency = float(state.decisions.mean()) if counted else 0.0
        weighed, over = judged(recent_frequency, counted, state.clipped, state.updates)
        return ClipReport(
            updates=state.updates,
            clipped=state.clipped,
            frequency=frequency,
            recent_frequency=recent_frequency,
            nominal_frequency=1 - self._clipping.rule.percentile / 100,
            threshold=state.threshold,
            norm_quantiles=quantiles(norms),
            nonfinite=state.nonfinite,
            skipped=state.skipped,
            advice=advise(
                updates=state.updates,
                skipped=state.skipped,
                nonfinite=state.nonfinite,
                frequency=weighed,
                counted=over,
                percentile=self._clipping.rule.percentile,
                excess=_excess(state, over),
                norms=norms,
            ),
        )

    def histogram(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The unclipped finite norms of all updates, in logarithmic bins.

        Returns:
            the edges, shape (n + 1,), and the counts, shape (n,), from the first bin that is not empty to the last.
        """
        counts = self._clipping.state().histogram
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
        state = self._clipping.state()
        norms, thresholds, clipped = state.stretch.T.astype(np.float64)
        edges, counts = self.histogram()
        figure: Figure = grad_norm_curve(
            list(norms),
            list(np.where(np.isinf(thresholds), np.nan, thresholds)),
            list(clipped > 0),
            list(edges),
            list(counts),
            title=title,
            first_update=state.updates - len(norms),
        )
        return figure

    def state_dict(self) -> dict[str, Any]:
        """Window, counters and histogram as numbers and CPU tensors."""
        return self._clipping.state().to_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the clipper that was saved stood.

        The settings are those of this clipper: into a smaller window the newest norms are taken. The device may differ.

        Raises:
            TypeError: if it is no mapping, or an entry is of another type.
            ValueError: if an entry is missing or cannot be true.
        """
        self._clipping.load(ClipState.from_dict(state_dict))
        self._look = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or what is unpickled, is a clipper that is attached nowhere."""
        return {**vars(self), "_attached": 0, "_look": None}

    def _publish(self, updates: Updates) -> None:
        trainer = updates.trainer
        if trainer is not None:
            prefix = f"{self.name}_" if self.name else ""
            for key, value in self.metrics.items():
                trainer.state.metrics[prefix + key] = value

    def _clip(self, updates: Updates) -> None:
        if updates.closure is not None:
            raise RuntimeError(
                "GradNormClipper cannot clip a step that is given a closure, as LBFGS is: the gradients are computed "
                "inside the step, after the last moment at which they could be clipped."
            )
        self._clipping.fused.undo()  # what a step that raised may have left where it was called around the guard
        self._clipping.clip(updates.skip)
        if not self._warned:
            self._look_at_frequency()

    def _look_at_frequency(self) -> None:
        """Warn once about too many clipped updates; without waiting for a device."""
        record = self._clipping.record
        percentile = self._clipping.rule.percentile
        if isinstance(record, ClipRecord):
            frequency, counted = judged(record.recent_frequency, record.recent_updates, record.clipped, record.updates)
            # the line is never below one half, and seldom worth its square root
            if frequency > TOO_OFTEN and frequency > line(percentile, counted):
                self._warn(frequency, _excess(record.state(), counted))
            return
        self._looks += 1
        if self._looks % _LOOK_EVERY or (record.device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            return
        # the share is sent over now, and what was sent the last time has long arrived
        if self._look is not None:
            frequency, counted = self._look[0].value(), self._look[1]
            if frequency > line(percentile, counted):
                self._warn(frequency, math.nan)
        # updates are no more than steps; with fewer the line would be a little higher
        window = self._clipping.rule.window or self._looks
        self._look = (Readback(record.recent_frequency()), min(window, self._looks))

    def _warn(self, frequency: float, excess: float) -> None:
        self._warned = True
        warnings.warn(too_often(frequency, excess), stacklevel=2)


def _excess(state: ClipState, updates: int) -> float:
    """How far the typical norm of the last updates exceeds its threshold."""
    norms, thresholds, _ = state.stretch[max(len(state.stretch) - updates, 0) :].T
    return typical_excess(norms, thresholds)


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
        self._removed = False

    def remove(self) -> None:
        """Take the clipper off the trainer and its optimizer. Idempotent."""
        if self._removed:
            return
        self._removed = True
        self._subscription.remove()
        if self._names.get(self._clipper.name) is self._clipper:
            del self._names[self._clipper.name]
        self._clipper._attached -= 1
        if not self._clipper._attached:
            self._clipper._clipping.fused.unguard()

    def __enter__(self) -> ClipperAttachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()
