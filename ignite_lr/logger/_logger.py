"""The learning rates, and what goes with them, as the updates used them: for experiment loggers and for pictures."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ignite.engine import Engine, Events
from torch.optim import Optimizer

from ignite_lr.core.engine import running_trainers
from ignite_lr.core.step_hooks import StepHooks
from ignite_lr.logger._history import columns, restore, state_of
from ignite_lr.logger._output import LogOutput
from ignite_lr.logger._picture import lr_history
from ignite_lr.logger._record import Source
from ignite_lr.logger._settings import (
    check_options,
    momentum_of,
    named_clippers,
    named_optimizers,
    weight_decay_of,
)
from ignite_lr.logger._watch import LoggerAttachment, Watch, while_alive

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LRLogger"]


class LRLogger:
    """Logs the learning rates that the updates of an optimizer really used. An Ignite log handler.

    What an event writes was captured between ``backward()`` and the update, after a scheduler's step that was due and
    after clipping, in whatever order the handlers were attached. An update is written once: events in between, in
    accumulation iterations for example, write nothing. Values on a device stay there until an event fires, and then all
    of them are read in one copy. Only rank 0 writes, and nobody waits for it.

    Tags: ``lr/<optimizer>``, with several parameter groups ``lr/<optimizer>/<group>``, and so for ``momentum`` and
    ``weight_decay``. A group is called by its ``"name"``, else ``group_<index>``. A tag once used is kept, and a group
    added in mid-run gets a tag of its own beside it. The clipper's metrics are ``clip/<metric>``, by the names that
    they have in ``trainer.state.metrics``. Its histogram of unclipped norms goes to TensorBoard at the end of each
    epoch and of the run, as ``clip/grad_norm_histogram``.

    Args:
        optimizer: the optimizer, or several of them by name. One alone is named by its class.
        clipper: a :class:`~ignite_lr.GradNormClipper` or a list of them, whose metrics go with the updates of their
            optimizer.
        momentum: also log ``momentum``, or the first of ``betas``.
        weight_decay: also log ``weight_decay``.
        tag: a prefix for all tags: ``<tag>/lr/...``.
        history: how many of the last updates to keep for :meth:`history` and :meth:`plot`, on their device.
        step: what the x axis counts: ``"iteration"`` of the trainer, where the curves of one run lie together, or
            ``"update"`` of the optimizer. Both count from 1.
        global_step_transform: a function of the engine and the event that gives the x of what the event writes, instead
            of ``step``.
        on_error: what to do when a logger fails, because the disk is full or the server gone: ``"warn"`` once, leave
            that logger alone from then on and go on with the training, or ``"raise"``.

    Raises:
        TypeError: for an argument of the wrong type.
        ValueError: for a value out of range, names used twice, or ``momentum`` or ``weight_decay`` of optimizers that
            have none.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from ignite.engine import create_supervised_trainer
        >>> from ignite_lr.logger import JSONLinesLogger
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
        >>> logger = JSONLinesLogger(tempfile.mkdtemp() + "/rates.jsonl")
        >>> handle = logger.attach(
        ...     trainer, log_handler=LRLogger(optimizer), event_name=Events.ITERATION_COMPLETED(every=2)
        ... )
        >>> state = trainer.run([(torch.ones(4, 2), torch.ones(4, 1))] * 4)
        >>> logger.close()
        >>> print(logger.path.read_text(), end="")
        {"step": 2, "lr/SGD": 0.1}
        {"step": 4, "lr/SGD": 0.1}
    """

    def __init__(
        self,
        optimizer: Optimizer | Mapping[str, Optimizer],
        *,
        clipper: Any = None,
        momentum: bool = False,
        weight_decay: bool = False,
        tag: str | None = None,
        history: int = 0,
        step: str = "iteration",
        global_step_transform: Callable[[Engine, Any], int] | None = None,
        on_error: str = "warn",
    ) -> None:
        named = named_optimizers(optimizer)
        check_options(momentum, weight_decay, tag, history, step, global_step_transform, on_error)
        self._arguments = {
            "optimizer": optimizer,
            "clipper": clipper,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "tag": tag,
            "history": history,
            "step": step,
            "global_step_transform": global_step_transform,
            "on_error": on_error,
        }
        self._history = history
        self._step = step

        kinds: dict[str, Callable[[dict[str, Any]], Any]] = {}
        if momentum:
            kinds["momentum"] = momentum_of
        if weight_decay:
            kinds["weight_decay"] = weight_decay_of
        for kind, value_of in kinds.items():
            if all(value_of(group) is None for one in named.values() for group in one.param_groups):
                raise ValueError(f"{kind} must be False for optimizers that have none, got True.")
        self._prefix = prefix = "" if tag is None else f"{tag}/"
        taken: set[str] = set()
        self._sources = [Source(name, one, prefix, kinds, taken, history) for name, one in named.items()]
        wanted = [path for source in self._sources for path in source.wanted_paths(len(source.optimizer.param_groups))]
        twice = sorted({path for path in wanted if wanted.count(path) > 1})
        if twice:
            raise ValueError(f"optimizer must give every parameter group a name of its own, got twice: {twice}.")
        for each, prefix in named_clippers(clipper):
            mine = [source for source in self._sources if source.optimizer is getattr(each, "optimizer", None)]
            (mine or self._sources)[0].clippers.append((each, prefix))

        self._watches: weakref.WeakKeyDictionary[Engine, Watch] = weakref.WeakKeyDictionary()
        self._output = LogOutput(self._prefix, step, global_step_transform, on_error)
        # BaseLogger.attach says nothing to its log handler before the first event, and the first update comes before.
        look = while_alive(self._discover)
        for source in self._sources:
            source.look = look
            StepHooks.of(source.optimizer).seek(source)
        weakref.finalize(self, _take_off, self._watches, self._sources).atexit = False

    def __call__(self, engine: Engine, logger: Any = None, event_name: Any = None) -> None:
        """Write the last update of each optimizer to ``logger``, unless it has it already. Called by Ignite.

        Raises:
            RuntimeError: if no logger was given.
            TypeError: if ``logger`` is of a type that nothing here can write to.
        """
        if logger is None:
            raise RuntimeError(
                "LRLogger was called without a logger: use logger.attach(trainer, log_handler=LRLogger(...), "
                "event_name=...) or LRLogger.attach(trainer, logger) instead of add_event_handler."
            )
        self._output.target(logger)  # raises where there is no way to write to it
        tracks = self._watch(engine).tracks
        # on every rank, so that whatever else counts these updates learns of them at the same time everywhere
        for track in tracks:
            track.updates.resolve()
        last = [(track, track.last) for track in tracks if track.last is not None and not track.updates.suspended]
        self._output.write(engine, logger, last, event_name)
        if event_name in (Events.EPOCH_COMPLETED, Events.COMPLETED):
            self._output.write_histograms(engine, tracks, event_name)

    def attach(self, trainer: Engine, logger: Any = None, every: int = 1) -> LoggerAttachment:
        """Record the updates that ``trainer`` makes, and write them.

        Args:
            trainer: the engine whose process function steps the optimizer.
            logger: where to write; without one only :meth:`history` is kept.
            every: how many updates lie between two that are written.

        Returns:
            What takes the logger off again: ``remove()``, also at the end of a ``with`` block.

        Raises:
            RuntimeError: if attached to this trainer already.
            TypeError: for a trainer that is no engine, a logger that nothing here can write to, or ``every`` that is
                no int.
            ValueError: if ``every`` is less than 1.
        """
        if not isinstance(trainer, Engine):
            raise TypeError(f"trainer must be an ignite.engine.Engine, got {type(trainer).__name__}.")
        if isinstance(every, bool) or not isinstance(every, int):
            raise TypeError(f"every must be an int, got {every!r}.")
        if every < 1:
            raise ValueError(f"every must be at least 1 update, got {every}.")
        if logger is not None:
            self._output.target(logger)  # raises where there is no way to write to it
        watch = self._watch(trainer)
        if watch.attachment is not None:
            raise RuntimeError(
                "LRLogger is already attached to this trainer: attach it once, or call remove() on what the first "
                "attach returned."
            )
        for track in watch.tracks:
            track.write_every(0 if logger is None else every)
        # It knows its trainer now, and need not look for one.
        _take_off({}, self._sources)
        watch.attachment = LoggerAttachment(
            trainer,
            # holds this logger
            lambda engine, due: self._output.write(engine, logger, due, Events.ITERATION_COMPLETED),
            self._detach,
        )
        return watch.attachment

    def history(self) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """The last updates, as many as ``history`` asked for. Reads what lies on a device, in one copy.

        Returns:
            Arrays of one length n by name, ready for ``pandas.DataFrame``: ``"step"`` (the x axis, as ``step`` says)
            and ``"update"`` (from 1; of several optimizers the larger number), of shape (n,) and dtype int64, then one
            float64 array of shape (n,) a tag, NaN where it has no value. Updates that several optimizers made in one
            iteration share a row.
        """
        self._settle()
        return columns(self._sources, self._step)

    def plot(self, ax: Axes | None = None, title: str | None = None) -> Axes:
        """Draw :meth:`history`. Needs Matplotlib.

        Args:
            ax: where to draw; a new figure if None.
            title: above the picture.

        Raises:
            RuntimeError: if there is nothing to draw, because ``history`` is 0 or no update was made.
        """
        drawn = self.history()
        steps = drawn.pop("step")
        del drawn["update"]
        if not len(steps):
            raise RuntimeError(
                f"LRLogger has no updates to draw: it was made with history={self._history}, and draws the last that "
                "many updates that a trainer made while it was attached."
            )
        return lr_history(steps, drawn, ax=ax, title=title)  # type: ignore[arg-type]  # arrays are sequences here

    def state_dict(self) -> dict[str, Any]:
        """The updates so far, the names in use and the history: plain numbers, in one copy from where they are."""
        self._settle()
        return state_of(self._sources)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            ValueError: if it was taken from a logger of other optimizers.
        """
        names = sorted(source.name for source in self._sources)
        found = sorted(state_dict) if isinstance(state_dict, Mapping) else type(state_dict).__name__
        if found != names:
            raise ValueError(f"state_dict must be that of a logger of the optimizers {names}, got {found}.")
        restore(self._sources, state_dict)
        for watch in self._watches.values():
            for track in watch.tracks:
                track.forget()
        self._output.forget()

    def __getstate__(self) -> dict[str, Any]:
        """A copy is one that is attached nowhere."""
        return {"arguments": self._arguments, "state": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["arguments"])  # type: ignore[misc]  # a copy has hooks of its own
        self.load_state_dict(state["state"])

    def _watch(self, engine: Engine) -> Watch:
        """What is watched of this trainer, from when it is first seen."""
        watch = self._watches.get(engine)
        if watch is None:
            watch = self._watches[engine] = Watch(self, engine, self._sources, self._stop_watching, self._epoch_ended)
        return watch

    def _settle(self) -> None:
        for watch in self._watches.values():
            for track in watch.tracks:
                track.updates.resolve()

    def _discover(self, source: Source) -> None:
        """Look for the trainer of the step that just began, among those that have this as a log handler."""
        for engine in running_trainers():
            if engine not in self._watches and engine.has_event_handler(self):
                for track in self._watch(engine).tracks:
                    # others watch it already, and were told of this very step
                    if track.source is source and track.updates.in_step:
                        track.before()

    def _stop_watching(self, engine: Engine) -> None:
        """Forget a trainer that has this neither as a log handler nor attached."""
        watch = self._watches.get(engine)
        if watch is not None and watch.attachment is None and not engine.has_event_handler(self):
            del self._watches[engine]
            watch.remove()

    def _epoch_ended(self, engine: Engine, event_name: Any) -> None:
        self._output.write_histograms(engine, self._watch(engine).tracks, event_name)

    def _detach(self, engine: Engine, attachment: LoggerAttachment) -> None:
        watch = self._watches.get(engine)
        if watch is not None and watch.attachment is attachment:
            watch.attachment = None
            for track in watch.tracks:
                track.write_every(0)
            self._stop_watching(engine)


def _take_off(watches: Mapping[Engine, Watch], sources: Sequence[Source]) -> None:
    for watch in list(watches.values()):
        watch.remove()
    for source in sources:
        StepHooks.of(source.optimizer).remove(source)
