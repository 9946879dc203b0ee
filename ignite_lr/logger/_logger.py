"""The learning rates, and what goes with them, as the updates used them: for experiment loggers and for pictures."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ignite.engine import Engine, Events
from torch.optim import Optimizer

from ignite_lr.core.arguments import Whole, check_trainer
from ignite_lr.core.attachment import Attachment
from ignite_lr.core.figure import axes, png
from ignite_lr.logger._history import columns, restore, state_of
from ignite_lr.logger._output import Output
from ignite_lr.logger._picture import height_of, panels
from ignite_lr.logger._record import Source
from ignite_lr.logger._recording import Recordings, while_alive
from ignite_lr.logger._settings import Settings, named_clippers, named_optimizers

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
        metrics: also put the last values into ``trainer.state.metrics`` by their tags, right after the update: there
            ``ProgressBar().attach(trainer, metric_names="all")`` shows them, and ``EarlyStopping`` can use them. What
            lies on a device stays there, as a tensor without dimensions.
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
        metrics: bool = False,
        step: str = "iteration",
        global_step_transform: Callable[[Engine, Any], int] | None = None,
        on_error: str = "warn",
    ) -> None:
        named = named_optimizers(optimizer)
        self._settings = settings = Settings(
            momentum, weight_decay, tag, history, metrics, step, global_step_transform, on_error
        )
        # held here, and by nothing that hooks hold
        self._optimizer, self._clipper = optimizer, clipper
        kinds, taken, order = settings.kinds(named), set[str](), itertools.count()
        self._sources = [
            Source(name, one, settings.prefix, kinds, taken, order, settings.history) for name, one in named.items()
        ]
        wanted = [path for source in self._sources for path in source.wanted_paths(len(source.optimizer.param_groups))]
        twice = sorted({path for path in wanted if wanted.count(path) > 1})
        if twice:
            raise ValueError(f"optimizer must give every parameter group a name of its own, got twice: {twice}.")
        for each, prefix in named_clippers(clipper):
            mine = [source for source in self._sources if source.optimizer is getattr(each, "optimizer", None)]
            (mine or self._sources)[0].add_clipper(each, prefix)
        self._clips = any(source.clips for source in self._sources)
        self._output = Output(settings.prefix, step, global_step_transform, on_error)
        self._recordings = Recordings(self, self._sources, settings.metrics)

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
        recording = self._recordings.of(engine)
        if self._clips and not recording.handles:
            # until the recording ends: not held by the trainer, which may have this no more as a log handler
            recording.handles = self._at_the_end_of_epochs(engine, while_alive(self._epoch_ended))
        # on every rank, so that whatever else counts these updates learns of them at the same time everywhere
        self._output.write(engine, logger, recording.last(), event_name)
        if event_name in (Events.EPOCH_COMPLETED, Events.COMPLETED):
            self._output.write_histograms(engine, recording.tracks, event_name)

    def attach(self, trainer: Engine, logger: Any = None, every: int = 1) -> Attachment:
        """Record the updates that ``trainer`` makes, and write them.

        Args:
            trainer: the engine whose process function steps the optimizer.
            logger: where to write. Without one there are :meth:`history` and ``trainer.state.metrics``, as far as they
                were asked for.
            every: how many updates lie between two that are written, from 1.

        Returns:
            What takes the logger off again: ``remove()``, also at the end of a ``with`` block.

        Raises:
            RuntimeError: if attached to this trainer already.
            TypeError: for a trainer that is no engine, a logger that nothing here can write to, or ``every`` that is
                no int.
            ValueError: if ``every`` is less than 1, or if nothing would come of what is recorded: no logger, no
                history, no metrics.
        """
        check_trainer(trainer)
        Whole(minimum=1).check("every", every)
        if logger is not None:
            self._output.target(logger)  # raises where there is no way to write to it
        elif not self._settings.history and not self._settings.metrics:
            raise ValueError(
                "logger must be given, or LRLogger be made with history=n or metrics=True, for nothing would come of "
                "what is recorded; got None."
            )
        recording = self._recordings.of(trainer)
        if recording.attached:
            raise RuntimeError(
                "LRLogger is already attached to this trainer: attach it once, or call remove() on what the first "
                "attach returned."
            )
        recording.attach(every, None if logger is None else (self._output, logger))
        self._recordings.stop_looking()  # it knows its trainer now
        # held by the trainer: what was attached without a variable of its own stays attached
        handles = self._at_the_end_of_epochs(trainer, self._epoch_ended)
        return Attachment(f"{self!r} on a trainer", recording.detach, *(handle.remove for handle in handles))

    def history(self) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """The last updates, as many as ``history`` asked for. Reads what lies on a device, in one copy.

        Returns:
            Arrays of one length n by name, ready for ``pandas.DataFrame``: ``"step"`` (the x axis, as ``step`` says)
            and ``"update"`` (from 1; of several optimizers the larger number), of shape (n,) and dtype int64, then one
            float64 array of shape (n,) a tag, NaN where it has no value. Updates that several optimizers made in one
            iteration share a row.
        """
        self._settle()
        return columns(self._sources, self._settings.step)

    def plot(self, ax: Axes | None = None, title: str | None = None) -> Axes:
        """Draw :meth:`history`: rates, momentum, weight decay and the clipper's metrics, each on axes of their own.

        Args:
            ax: where to draw the learning rates, and nothing else; a new figure with all of it if None.
            title: above the picture.

        Returns:
            The axes of the learning rates; their ``.figure`` is the figure.

        Raises:
            ModuleNotFoundError: without Matplotlib.
            RuntimeError: if there is nothing to draw, because ``history`` is 0 or no update was made.
            TypeError: for an ``ax`` that is no ``Axes``, or a ``title`` that is no string.
        """
        steps, kinds = self._drawn()
        if not len(steps):
            raise RuntimeError(
                f"LRLogger has no updates to draw: it was made with history={self._settings.history}, and draws the "
                "last that many updates that a trainer made while it was attached."
            )
        if ax is not None:
            kinds = dict(itertools.islice(kinds.items(), 1))
        ax = axes(ax, title, height=height_of(kinds))
        return panels(ax, steps, kinds, title, self._settings.step)

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the history, where there is one."""
        steps, kinds = self._drawn()
        if not len(steps):
            return None
        return png(lambda ax: panels(ax, steps, kinds, None, self._settings.step), height=height_of(kinds))

    def _drawn(self) -> tuple[Any, dict[str, dict[str, Any]]]:
        """The x of the history, and its columns by what their axes are called."""
        columns = self.history()
        steps = columns.pop("step")
        del columns["update"]
        kinds: dict[str, dict[str, Any]] = {}
        for tag, values in columns.items():
            kind = tag.removeprefix(self._settings.prefix).partition("/")[0].replace("_", " ")
            kinds.setdefault({"lr": "learning rate"}.get(kind, kind), {})[tag] = values
        return steps, kinds

    def state_dict(self) -> dict[str, Any]:
        """The updates so far, the names in use and the history: plain numbers, in one copy from where they are.

        What loggers hold back of the records so far is brought to the disk, so that a killed run loses none that the
        state covers.
        """
        self._settle()
        self._output.flush()
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
        for recording in self._recordings:
            for track in recording.tracks:
                track.forget()
        self._output.forget()

    def __getstate__(self) -> dict[str, Any]:
        """A copy is one that is attached nowhere."""
        arguments = {"optimizer": self._optimizer, "clipper": self._clipper, **vars(self._settings)}
        return {"arguments": arguments, "state": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["arguments"])  # type: ignore[misc]  # a copy has hooks of its own
        self.load_state_dict(state["state"])

    def __repr__(self) -> str:
        of = ", ".join(source.name for source in self._sources)
        given = {field.name: getattr(self._settings, field.name) for field in dataclasses.fields(self._settings)}
        options = "".join(f", {name}={value!r}" for name, value in given.items() if value != getattr(Settings, name))
        return f"LRLogger({of}{options})"

    def _settle(self) -> None:
        for recording in self._recordings:
            recording.settle()

    def _at_the_end_of_epochs(self, engine: Engine, call: Callable[..., None]) -> list[Any]:
        return [engine.add_event_handler(event, call, event) for event in (Events.EPOCH_COMPLETED, Events.COMPLETED)]

    def _epoch_ended(self, engine: Engine, event_name: Any) -> None:
        self._output.write_histograms(engine, self._recordings.of(engine).tracks, event_name)
