"""Clipping of gradients at a percentile of their recent norms: the handler itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine
from torch.optim import Optimizer

from ignite_lr.clipper._gradients import measured, names_of, unscales
from ignite_lr.clipper._on_device import OnDevice
from ignite_lr.clipper._on_host import OnHost
from ignite_lr.clipper._picture import HEIGHT, WIDTH, grad_norm_curve
from ignite_lr.clipper._report import ENOUGH, FULL, TOO_OFTEN, ClipReport, line, lower_the_rate, reported, too_often
from ignite_lr.clipper._state import HISTOGRAM_EDGES, STRETCH, ClipRule, ClipState, OnNonfinite
from ignite_lr.clipper._step_orders import StepOrders
from ignite_lr.core.arguments import Text, check_optimizer, check_trainer
from ignite_lr.core.attachment import Attachment
from ignite_lr.core.figure import png
from ignite_lr.core.host import Readback
from ignite_lr.core.notice import notice
from ignite_lr.core.subscription import Phase
from ignite_lr.core.updates import Updates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GradNormClipper"]

# on a device the share is looked at every so many updates, and the answer taken at the next look
_LOOK_EVERY = 100

# the clippers on a trainer by name, so that two do not write to the same metrics
_names: WeakKeyDictionary[Engine, WeakValueDictionary[str, GradNormClipper]] = WeakKeyDictionary()


class GradNormClipper:
    """Clips the gradients of each update to a percentile of recent gradient norms.

    Before each update the global norm of the gradients joins a window of the last ``window`` norms; where it is above
    the percentile of that window, all gradients are multiplied by ``threshold / norm``. So the threshold follows the
    training, and about ``1 - percentile / 100`` of the updates are clipped while the norms are stationary. An update
    that is not counted as clipped keeps every bit of its gradients; one that is gets what ``clip_grad_norm_`` makes of
    them. Norms of exactly zero and norms that are not finite are counted apart and never enter the window.

    Works between ``backward()`` and the update, whatever training step there is: with gradient accumulation, with
    ``GradScaler`` (a step it skips is no update), under DDP, with FSDP2. The update must be made inside the trainer's
    process function: one made in an event handler is not seen. A fused optimizer is left to do the multiplication
    itself, through its ``grad_scale``, which saves a pass over the gradients.

    Args:
        optimizer: whose gradients are clipped.
        percentile: 0 to 100. 90 limits the exceptional norms (the Tuning Playbook's start); AutoClip uses 10.
        window: how many of the last norms count, at least 1; None for all.
        warmup_updates: nothing is clipped before more norms than this.
        max_norm: a ceiling beside the percentile, in the unit of the norm, positive; a number or a 0-d tensor.
        norm_type: the p of the norm, positive; ``inf`` or ``"inf"`` for the largest element.
        on_nonfinite: what happens to an update whose norm is not finite. ``"count"``: it is counted and otherwise
            treated as ``clip_grad_norm_`` would. ``"skip"``: the step is not taken, and the optimizer is left exactly
            as it was: on CUDA a fused optimizer skips on the device (``found_inf``). ``"raise"``: ``RuntimeError``
            before the step. On CUDA "raise", and "skip" with an optimizer that is not fused, read one value on the host
            each update.
        per_group: clip each parameter group by a window of its own. The threshold is then the norm of the groups'
            thresholds, an update is clipped if a group was, and the metrics are there of each group too.
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
        max_norm: float | torch.Tensor | None = None,
        norm_type: float | str = 2.0,
        on_nonfinite: OnNonfinite = "count",
        per_group: bool = False,
        enabled: bool = True,
        name: str = "",
    ) -> None:
        self.optimizer = check_optimizer(optimizer)
        self._rule = ClipRule.checked(
            percentile=percentile,
            window=window,
            warmup_updates=warmup_updates,
            max_norm=max_norm,
            norm_type=norm_type,
            on_nonfinite=on_nonfinite,
            per_group=per_group,
            enabled=enabled,
        )
        self.name = Text().check("name", name) or ""
        if 0 < self._rule.percentile <= 1:
            notice(
                f"percentile={percentile} is close to the smallest of all norms, so nearly every update would be "
                f"clipped. Percentiles go from 0 to 100: write percentile={100 * self._rule.percentile:g} for that "
                f"share of the norms, and percentile=100.0, max_norm={percentile} for what "
                f"clip_grad_norm_(parameters, {percentile}) does."
            )
        self._orders = StepOrders(optimizer)
        self._story: OnHost | OnDevice = OnHost(self._rule, self._orders, ClipState())
        self._device: torch.device | None = None  # where the story is told; None before it is known
        self._attached = 0
        # a low percentile is meant to clip most updates
        self._watchful = self._rule.enabled and self._rule.percentile >= 50
        self._look: tuple[Readback, int] | None = None

    @property
    def metrics(self) -> dict[str, torch.Tensor]:
        """``grad_norm`` (unclipped), ``clip_threshold``, ``clip_frequency`` (of the last ``window`` updates).

        Those of the last update, as 0-d tensors on the device of the gradients, fresh for each; empty before any. With
        ``per_group`` also ``grad_norm/<group>`` and ``clip_threshold/<group>``, by the groups' ``"name"``, else
        ``group_<i>``. An update without gradients has the norm 0.
        """
        return self._story.metrics

    def attach(self, trainer: Engine) -> Attachment:
        """Clip the updates that ``trainer`` makes.

        Args:
            trainer: the engine whose process function calls ``optimizer.step()``.

        Returns:
            something with ``remove()``, also a context manager.

        Raises:
            RuntimeError: if it is attached to this trainer already.
            ValueError: if another clipper of the same ``name`` is attached to this trainer.
        """
        names = _names.setdefault(check_trainer(trainer), WeakValueDictionary())
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
            launched=self._orders.undo if self._rule.on_nonfinite == "skip" else None,
            completed=partial(self._publish, updates),
            removed=partial(self._detached, names),
        )
        names[self.name] = self
        # only these leave something on the optimizer for the time of the step, or end the step
        if self._rule.on_nonfinite == "skip" or unscales(self.optimizer):
            self._orders.guard()
        self._attached += 1
        return Attachment(f"GradNormClipper on {type(self.optimizer).__name__}", subscription.remove)

    def __repr__(self) -> str:
        name = f", name={self.name!r}" if self.name else ""
        of = type(self.optimizer).__name__
        return f"GradNormClipper({of}, percentile={self._rule.percentile:g}, window={self._rule.window}{name})"

    def __call__(self, engine: Engine) -> None:
        """Say that a clipper is attached, not added as an event handler: by then the update is done."""
        raise RuntimeError(
            "GradNormClipper must be attached with clipper.attach(trainer): it works in a hook of the optimizer. "
            "As an event handler it would come too late to clip anything."
        )

    def report(self) -> ClipReport:
        """What has been clipped so far. Reads from the device, where the norms are there."""
        return reported(self._story.state(), self._rule, self.name)

    def histogram(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The unclipped norms of all updates, finite and above 0, in logarithmic bins.

        Returns:
            the edges, shape (n + 1,), and the counts, shape (n,), from the first bin that is not empty to the last.
        """
        return _occupied(self._story.state())

    def plot(self, ax: Axes | None = None, title: str | None = None) -> Axes:
        """Draw norms and thresholds of up to 4,096 last updates, and the histogram of the norms of all.

        Args:
            ax: axes for the norms, with the histogram at their right; None for a new figure.
            title: of the picture.

        Returns:
            the axes of the norms; ``plot().figure.savefig("grad_norm.png")`` writes the picture.

        Raises:
            ModuleNotFoundError: without Matplotlib.
        """
        update, norm, threshold, clipped = self.recent().values()
        first = int(update[0]) if len(update) else 0
        return grad_norm_curve(norm, threshold, clipped, *self.histogram(), title, first, ax)

    def recent(self) -> dict[str, npt.NDArray[Any]]:
        """Up to 4,096 last updates as arrays of one length, for pictures of your own.

        ``"update"`` from 0, ``"norm"`` before clipping, ``"threshold"`` (NaN where there was none), ``"clipped"``.
        """
        state = self._story.state()
        norms, thresholds = state.norms[-STRETCH:], np.asarray(state.thresholds[-STRETCH:], dtype=np.float64)
        return {
            "update": np.arange(state.updates - len(norms), state.updates),
            "norm": np.asarray(norms, dtype=np.float64),
            "threshold": np.where(np.isinf(thresholds), np.nan, thresholds),
            "clipped": np.asarray(state.decisions[-STRETCH:], dtype=bool),
        }

    def _repr_png_(self) -> bytes | None:
        return png(self.plot, WIDTH, HEIGHT)

    def state_dict(self) -> dict[str, Any]:
        """Window, counters and histogram as numbers and lists of numbers."""
        return self._story.state().to_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the clipper that was saved stood.

        The settings are those of this clipper: into a smaller window the newest norms are taken. The device may differ.

        Raises:
            TypeError: if it is no mapping, or an entry is of another type.
            ValueError: if an entry is missing or cannot be true.
        """
        self._story = OnHost(self._rule, self._orders, ClipState.from_dict(state_dict))
        self._device = self._look = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or what is unpickled, is a clipper that is attached nowhere."""
        return {**vars(self), "_attached": 0, "_look": None}

    def _clip(self, updates: Updates) -> None:
        """Before an update: the norm, the threshold, the clipping and the record of it."""
        if updates.closure is not None:
            raise RuntimeError(
                "GradNormClipper cannot clip a step that is given a closure, as LBFGS is: the gradients are computed "
                "inside the step, after the last moment at which they could be clipped."
            )
        if self._orders.aside:
            self._orders.undo()  # a step that raised may have left it, where it was called around the guard
        rule = self._rule
        with torch.no_grad():
            gradients = measured(self.optimizer, rule.norm_type, rule.per_group)
            names = names_of(self.optimizer) if rule.per_group else ()
            # an update without gradients is told where the others were
            if gradients.whole.device != self._device and gradients.parts:
                self._move(gradients.whole.device)
            self._story.clip(gradients, names, partial(self._leave, updates))
        if self._watchful and self._story.updates % ENOUGH == 0:
            self._look_at_frequency()

    def _move(self, device: torch.device) -> None:
        """Tell the story where the gradients are."""
        self._device = device
        if not reads_freely(device):
            self._story = OnDevice(self._rule, self._orders, self._story.state(), device)
        elif not isinstance(self._story, OnHost):
            self._story = OnHost(self._rule, self._orders, self._story.state())

    def _leave(self, updates: Updates) -> None:
        """Have the coming step not be taken."""
        updates.skip()
        if self._orders.guards:
            updates.after_step()  # the step that is left comes to no other end
        self._orders.skip()

    def _publish(self, updates: Updates) -> None:
        trainer = updates.trainer
        if trainer is not None:
            prefix = f"{self.name}_" if self.name else ""
            for key, value in self.metrics.items():
                trainer.state.metrics[prefix + key] = value

    def _detached(self, names: WeakValueDictionary[str, GradNormClipper]) -> None:
        if names.get(self.name) is self:
            del names[self.name]
        self._attached -= 1
        if not self._attached:
            self._orders.unguard()

    def _look_at_frequency(self) -> None:
        """Warn once about too many clipped updates; without waiting for a device."""
        story, rule = self._story, self._rule
        if isinstance(story, OnHost):
            if max(story.recent_frequency, story.frequency) > TOO_OFTEN:
                self._say(too_often(story.state(), rule))
            return
        if story.updates % _LOOK_EVERY or (story.device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            return
        # the share is sent over now, and what was sent the last time has long arrived
        if self._look is not None:
            share, counted = self._look[0].value(), self._look[1]
            if share > line(rule.percentile, counted, len(self.optimizer.param_groups) if rule.per_group else 1):
                self._say(lower_the_rate(share, "recent"))
        # as too_often() does: before the window has been full for a while, only the ceiling tells
        window = rule.window or FULL
        told = story.recent_frequency() if story.updates >= 2 * window else story.frequency_at_the_ceiling()
        self._look = (Readback(told), min(rule.window or story.updates, story.updates))

    def _say(self, sentence: str) -> None:
        if sentence:
            self._watchful = False
            who = f"GradNormClipper {self.name!r}" if self.name else "GradNormClipper"
            notice(f"{who} on {type(self.optimizer).__name__}: {sentence}")


def reads_freely(device: torch.device) -> bool:
    """Whether the host reads values on this device without waiting for anything."""
    return device.type == "cpu"


def _occupied(state: ClipState) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    bins = np.flatnonzero(state.histogram)
    first, last = (bins[0], bins[-1]) if len(bins) else (0, 0)
    return HISTOGRAM_EDGES[first : last + 2].copy(), state.histogram[first : last + 1].copy()
