"""The learning rates, and what goes with them, as the updates used them: for experiment loggers and for pictures."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from torch.optim import Optimizer

from ignite_lr.step_hooks import StepHooks
from ignite_lr.update_record import Record, Source, Track, columns, on_host, restore, state_of
from ignite_lr.updates import Phase, Updates, running_trainers
from ignite_lr.writers import histogram_writer_of, writer_of

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
        >>> from ignite.engine import create_supervised_trainer
        >>> from ignite_lr.json_lines import JSONLinesLogger
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
        named = _named(optimizer)
        for argument, flag in (("momentum", momentum), ("weight_decay", weight_decay)):
            if not isinstance(flag, bool):
                raise TypeError(f"{argument} must be a bool, got {flag!r}.")
        if tag is not None and (not isinstance(tag, str) or not tag):
            raise TypeError(f"tag must be a non-empty str or None, got {tag!r}.")
        if isinstance(history, bool) or not isinstance(history, int):
            raise TypeError(f"history must be an int, got {history!r}.")
        if history < 0:
            raise ValueError(f"history must be at least 0 updates, got {history}.")
        if history > sys.maxsize:
            raise ValueError(f"history must be at most {sys.maxsize} updates, got {history}.")
        if not isinstance(step, str) or step not in ("iteration", "update"):
            raise ValueError(f'step must be "iteration" or "update", got {step!r}.')
        if global_step_transform is not None and not callable(global_step_transform):
            raise TypeError(f"global_step_transform must be callable or None, got {global_step_transform!r}.")
        if not isinstance(on_error, str) or on_error not in ("warn", "raise"):
            raise ValueError(f'on_error must be "warn" or "raise", got {on_error!r}.')
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
        self._global_step_transform = global_step_transform
        self._on_error = on_error

        kinds: dict[str, Callable[[dict[str, Any]], Any]] = {}
        if momentum:
            kinds["momentum"] = _momentum
        if weight_decay:
            kinds["weight_decay"] = _weight_decay
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
        for each, prefix in _clippers(clipper):
            mine = [source for source in self._sources if source.optimizer is getattr(each, "optimizer", None)]
            (mine or self._sources)[0].clippers.append((each, prefix))

        self._watches: weakref.WeakKeyDictionary[Engine, _Watch] = weakref.WeakKeyDictionary()
        self._targets: weakref.WeakKeyDictionary[Any, _Target] = weakref.WeakKeyDictionary()
        # BaseLogger.attach says nothing to its log handler before the first event, and the first update comes before.
        look = _while_alive(self._discover)
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
        target = self._target(logger)
        tracks = self._watch(engine).tracks
        # on every rank, so that whatever else counts these updates learns of them at the same time everywhere
        for track in tracks:
            track.updates.resolve()
        last = [(track, track.last) for track in tracks if track.last is not None and not track.updates.suspended]
        self._write(engine, target, logger, last, event_name)
        if event_name in (Events.EPOCH_COMPLETED, Events.COMPLETED):
            self._write_histograms(engine, event_name)

    def attach(self, trainer: Engine, logger: Any = None, every: int = 1) -> _Attachment:
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
            self._target(logger)  # raises where there is no way to write to it
        watch = self._watch(trainer)
        if watch.attachment is not None:
            raise RuntimeError(
                "LRLogger is already attached to this trainer: attach it once, or call remove() on what the first "
                "attach returned."
            )
        for track in watch.tracks:
            track.every = 0 if logger is None else every
        # It knows its trainer now, and need not look for one.
        _take_off({}, self._sources)
        watch.attachment = _Attachment(self, trainer, logger)
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
        from ignite_lr import plotting

        drawn = self.history()
        steps = drawn.pop("step")
        del drawn["update"]
        if not len(steps):
            raise RuntimeError(
                f"LRLogger has no updates to draw: it was made with history={self._history}, and draws the last that "
                "many updates that a trainer made while it was attached."
            )
        return plotting.lr_history(steps, drawn, ax=ax, title=title)  # type: ignore[arg-type]  # arrays are sequences here

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
        for target in self._targets.values():
            target.has.clear()

    def __getstate__(self) -> dict[str, Any]:
        """A copy is one that is attached nowhere."""
        return {"arguments": self._arguments, "state": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["arguments"])  # type: ignore[misc]  # a copy has hooks of its own
        self.load_state_dict(state["state"])

    def _watch(self, engine: Engine) -> _Watch:
        """What is watched of this trainer, from when it is first seen."""
        watch = self._watches.get(engine)
        if watch is None:
            watch = self._watches[engine] = _Watch(self, engine, self._sources)
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

    def _target(self, logger: Any) -> _Target:
        """What is known of this logger, from when it is first seen."""
        try:
            target = self._targets.get(logger)
        except TypeError:  # cannot be a key, so it is none of those that are known
            writer_of(logger)
            raise
        if target is None:
            target = self._targets[logger] = _Target(logger)
        return target

    def _write(
        self,
        engine: Engine,
        target: _Target,
        logger: Any,
        records: Sequence[tuple[Track, Record]],
        event_name: Any,
    ) -> None:
        if target.failed or not _is_writing_rank():
            return
        by_step: dict[int, dict[str, Any]] = {}
        for track, record in records:
            if record.update > target.has.get(track, 0):
                target.has[track] = record.update
                step = self._step_of(engine, record, event_name)
                by_step.setdefault(step, {}).update(track.source.tagged(record))
        if not by_step:
            return
        numbers = iter(on_host([value for values in by_step.values() for value in values.values()]))
        try:
            for step, values in by_step.items():
                target.write(logger, {tag: next(numbers) for tag in values}, step)
        except Exception as error:
            self._give_up(target, logger, error)

    def _write_histograms(self, engine: Engine, event_name: Any) -> None:
        for logger, target in list(self._targets.items()):
            if target.write_histogram is None or target.failed:
                continue
            for track in self._watch(engine).tracks:
                # what got no values gets no histogram: no event of it ever fired, or this is not the writing rank
                if track not in target.has or track.last is None:
                    continue
                for clipper, prefix in track.source.clippers:
                    if not hasattr(clipper, "histogram"):
                        continue
                    edges, counts = clipper.histogram()
                    if target.has.get(clipper) == sum(counts):
                        continue
                    target.has[clipper] = sum(counts)
                    step = self._step_of(engine, track.last, event_name)
                    tag = f"{self._prefix}clip/{prefix}grad_norm_histogram"
                    try:
                        target.write_histogram(logger, tag, edges, counts, step)
                    except Exception as error:
                        self._give_up(target, logger, error)
                        return

    def _step_of(self, engine: Engine, record: Record, event_name: Any) -> int:
        if self._global_step_transform is None:
            return record.iteration if self._step == "iteration" else record.update
        step = self._global_step_transform(engine, event_name)
        if not isinstance(step, int):
            raise TypeError(f"global_step_transform must return an int, got {type(step).__name__}.")
        return step

    def _give_up(self, target: _Target, logger: Any, error: Exception) -> None:
        if self._on_error == "raise":
            raise error
        target.failed = True
        warnings.warn(
            f"{type(logger).__name__} failed, and LRLogger writes no more to it: {type(error).__name__}: {error}. "
            "The training goes on.",
            RuntimeWarning,
            stacklevel=3,
        )


class _Target:
    """A logger that is written to.

    Attributes:
        write: writes values to it.
        write_histogram: writes a histogram to it, if it takes any.
        has: the last update of each track that it has, and of each clipper the number of norms in its histogram.
        failed: whether it is left alone.
    """

    def __init__(self, logger: Any) -> None:
        self.write = writer_of(logger)
        self.write_histogram = histogram_writer_of(logger)
        self.has: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.failed = False


class _Watch:
    """A trainer, as one logger watches it, weakly on both sides."""

    def __init__(self, logger: LRLogger, trainer: Engine, sources: Sequence[Source]) -> None:
        self._logger = weakref.ref(logger)
        self._trainer = weakref.ref(trainer)
        self.tracks = [Track(source, trainer, Updates.of(trainer, source.optimizer)) for source in sources]
        self._handles: list[Any] = [
            track.updates.subscribe(
                logger, Phase.RECORD, before=track.before, counted=track.counted, completed=self._completed
            )
            for track in self.tracks
        ]
        if any(source.clippers for source in sources):
            for event in (Events.EPOCH_COMPLETED, Events.COMPLETED):
                self._handles.append(trainer.add_event_handler(event, self._epoch_ended, event))
        self._event, self._handlers = self._where_attached()
        # held: what was attached without a variable of its own stays attached
        self.attachment: _Attachment | None = None

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _where_attached(self) -> tuple[Any, int]:
        """An event that has the logger as a log handler, and which list its handlers are in."""
        trainer, logger = self._trainer(), self._logger()
        if trainer is not None and logger is not None:
            for event, handlers in trainer._event_handlers.items():
                if any(trainer._compare_handlers(logger, handler) for handler, _, _ in handlers):
                    # not the list itself, which holds the logger
                    return event, id(handlers)
        return None, id(None)

    def _completed(self) -> None:
        if self.attachment is not None:
            self.attachment.write_due(self.tracks)
            return
        trainer, logger = self._trainer(), self._logger()
        # Ignite replaces the list when a handler is removed, which is cheaper to see than to search every list.
        if trainer is None or logger is None or id(trainer._event_handlers.get(self._event)) == self._handlers:
            return
        logger._stop_watching(trainer)
        self._event, self._handlers = self._where_attached()

    def _epoch_ended(self, trainer: Engine, event_name: Any) -> None:
        logger = self._logger()
        if logger is not None:
            logger._write_histograms(trainer, event_name)


class _Attachment:
    """What :meth:`LRLogger.attach` returns: takes the logger off again. Also a context manager."""

    def __init__(self, lr_logger: LRLogger, trainer: Engine, logger: Any) -> None:
        self._lr_logger = lr_logger
        self._trainer = weakref.ref(trainer)
        self._logger = logger

    def remove(self) -> None:
        """Take the logger off the trainer. Idempotent."""
        trainer = self._trainer()
        watch = None if trainer is None else self._lr_logger._watches.get(trainer)
        if trainer is not None and watch is not None and watch.attachment is self:
            watch.attachment = None
            for track in watch.tracks:
                track.every, track.due = 0, []
            self._lr_logger._stop_watching(trainer)

    def __enter__(self) -> _Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def write_due(self, tracks: Sequence[Track]) -> None:
        """Write what is due of all optimizers. Called on ``Events.ITERATION_COMPLETED``."""
        due = [(track, record) for track in tracks if track.every for record in track.take_due()]
        trainer = self._trainer()
        if due and trainer is not None:
            target = self._lr_logger._target(self._logger)
            self._lr_logger._write(trainer, target, self._logger, due, Events.ITERATION_COMPLETED)


def _while_alive(method: Callable[..., None]) -> Callable[..., None]:
    """The bound method, which does nothing once its object is gone."""
    weak = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        alive = weak()
        if alive is not None:
            alive(*args)

    return call


def _take_off(watches: Mapping[Engine, _Watch], sources: Sequence[Source]) -> None:
    for watch in list(watches.values()):
        watch.remove()
    for source in sources:
        StepHooks.of(source.optimizer).remove(source)


def _is_writing_rank() -> bool:
    # not through idist where it can be avoided: its first call may be a collective one, which would wait for all ranks
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return idist.get_rank() == 0


def _named(optimizer: Any) -> dict[str, Optimizer]:
    named = {type(optimizer).__name__: optimizer} if isinstance(optimizer, Optimizer) else optimizer
    if not isinstance(named, Mapping) or not named:
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer or a non-empty dict of them, got {type(optimizer).__name__}."
        )
    for name, one in named.items():
        if not isinstance(name, str) or not name:
            raise TypeError(f"optimizer must have non-empty str as names, got {name!r}.")
        if not isinstance(one, Optimizer):
            raise TypeError(f"optimizer[{name!r}] must be a torch.optim.Optimizer, got {type(one).__name__}.")
        if any("lr" not in group for group in one.param_groups):
            raise ValueError(f"optimizer[{name!r}] must have an 'lr' in each parameter group.")
    if len({id(one) for one in named.values()}) < len(named):
        raise ValueError(f"optimizer must name each optimizer once, got one of {sorted(named)} twice.")
    return dict(named)


def _clippers(clipper: Any) -> list[tuple[Any, str]]:
    """Each clipper, with what goes before the names of its metrics."""
    clippers = [] if clipper is None else list(clipper) if isinstance(clipper, (list, tuple)) else [clipper]
    for one in clippers:
        if not hasattr(one, "metrics"):
            raise TypeError(f"clipper must be a GradNormClipper or a list of them, got {type(one).__name__}.")
    names = [getattr(one, "name", "") for one in clippers]
    if len(set(names)) < len(names):
        raise ValueError(f"clipper must have a name of its own where there are several, got {names}.")
    return [(one, f"{name}_" if name else "") for one, name in zip(clippers, names, strict=True)]


def _momentum(group: dict[str, Any]) -> Any:
    return group["betas"][0] if "betas" in group else group.get("momentum")


def _weight_decay(group: dict[str, Any]) -> Any:
    return group.get("weight_decay")
