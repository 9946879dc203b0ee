"""A trainer as a logger watches it: whose updates are recorded, and when that ends."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from ignite.engine import Engine, Events

from ignite_lr.core.engine import listens_on, listens_to
from ignite_lr.core.updates import Phase, Updates
from ignite_lr.logger._record import Record, Source
from ignite_lr.logger._track import Track

__all__ = ["LoggerAttachment", "Watch", "while_alive"]


class Watch:
    """A trainer, as one logger watches it, weakly on both sides.

    Args:
        logger: the log handler.
        trainer: the trainer.
        sources: what is recorded.
        taken_off: called with the trainer once it may no longer have the logger as a log handler.
        epoch_ended: called with the trainer and the event at the end of each epoch and of the run.

    Attributes:
        tracks: the updates by source.
        attachment: what the logger's own ``attach`` made, if it was that.
    """

    def __init__(
        self,
        logger: Callable[..., None],
        trainer: Engine,
        sources: Sequence[Source],
        taken_off: Callable[[Engine], None],
        epoch_ended: Callable[[Engine, Any], None],
    ) -> None:
        self._logger = weakref.ref(logger)
        self._trainer = weakref.ref(trainer)
        self._taken_off = while_alive(taken_off)
        self._epoch_ended = while_alive(epoch_ended)
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
        self._event = listens_to(trainer, logger)
        # held: what was attached without a variable of its own stays attached
        self.attachment: LoggerAttachment | None = None

    def remove(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _completed(self) -> None:
        attachment = self.attachment
        if attachment is not None:
            # this runs every iteration, and seldom is anything due
            for track in self.tracks:
                if track.source.updates + 1 >= track.next_due:
                    attachment.write_due(self.tracks)
                    return
            return
        trainer, logger = self._trainer(), self._logger()
        if trainer is None or logger is None or listens_on(trainer, self._event, logger):
            return
        self._event = listens_to(trainer, logger)
        if self._event is None:
            self._taken_off(trainer)


class LoggerAttachment:
    """What :meth:`LRLogger.attach` returns: takes the logger off again. Also a context manager.

    Args:
        trainer: what the logger is attached to, held weakly.
        write: writes records; holds the logger, so that one without a variable of its own stays attached.
        take_off: takes this off its trainer.
    """

    def __init__(
        self,
        trainer: Engine,
        write: Callable[[Engine, list[tuple[Track, Record]]], None],
        take_off: Callable[[Engine, LoggerAttachment], None],
    ) -> None:
        self._trainer = weakref.ref(trainer)
        self._write = write
        self._take_off = take_off

    def remove(self) -> None:
        """Take the logger off the trainer. Idempotent."""
        trainer = self._trainer()
        if trainer is not None:
            self._take_off(trainer, self)

    def __enter__(self) -> LoggerAttachment:
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
            self._write(trainer, due)


def while_alive(method: Callable[..., None]) -> Callable[..., None]:
    """The bound method, which does nothing once its object is gone."""
    weak = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        alive = weak()
        if alive is not None:
            alive(*args)

    return call
