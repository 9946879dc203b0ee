"""The updates of trainers, turned into records as they are made; and when that begins and ends.

:class:`Track` records what one trainer does with one optimizer, :class:`Recording` all that one trainer does, and
:class:`Recordings` finds the trainers. What the hooks of an optimizer hold of it, tracks and searches, holds neither
trainer nor optimizer nor logger.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ignite.engine import Engine, Events

from ignite_lr.core.engine import is_registered, registered_as, running_trainers
from ignite_lr.core.step_hooks import StepHooks
from ignite_lr.core.subscription import Phase, Subscription
from ignite_lr.core.updates import Updates
from ignite_lr.logger._output import Output
from ignite_lr.logger._record import Record, Source

__all__ = ["Recording", "Recordings", "Track", "while_alive"]


class Track:
    """The updates that one trainer makes with a source. Its callbacks run once an update, and do little.

    Args:
        source: whose updates.
        trainer: who makes them, held weakly.
        search: told of every update that is recorded, so that nobody looks for its trainer.
        publish: whether the tags go into the trainer's metrics.

    Attributes:
        every: how many updates lie between two that become due; infinite where none ever does, 0 where it is not the
            recording that writes.
        due: the records that became due.
        recording: what to tell when something may be due, held weakly.
        latest: what the record of the last update is made of, which few updates need.
    """

    def __init__(self, source: Source, trainer: Engine, search: Search, publish: bool) -> None:
        self.source = source
        self.every: float = 0
        self.recording: Callable[[], Recording | None] = lambda: None
        self.due: list[Record] = []
        self._publish = publish
        self._search = search
        self._trainer = weakref.ref(trainer)
        self._optimizer = weakref.ref(source.optimizer)
        self._iteration = 0
        self._values: Sequence[Any] = ()
        self.latest: tuple[int, int, Sequence[Any], dict[str, Any]] | None = None

    def forget(self) -> None:
        """Start as if no update had been made."""
        self.latest, self.due = None, []

    def before(self) -> None:
        """An update is about to be made."""
        trainer, optimizer = self._trainer(), self._optimizer()
        if trainer is None or optimizer is None:
            return
        self._search.found = True
        self._iteration = trainer.state.iteration
        groups = optimizer.param_groups
        # the usual case, without a call: one rate, a float, which nobody can write over
        if len(groups) == 1 and self.source.only_rates and type(rate := groups[0]["lr"]) is float:
            self._values = (rate,)
        else:
            self._values = self.source.capture(groups)

    def counted(self) -> None:
        """It was an update."""
        source = self.source
        source.updates = update = source.updates + 1
        clip = source.metrics() if source.clips else _NO_METRICS
        self.latest = last = (update, self._iteration, self._values, clip)
        if source.keeps_history:
            source.keep(Record(*last))
        if self.every and update % self.every == 0:
            self.due.append(Record(*last))
        if self._publish and (trainer := self._trainer()) is not None:
            trainer.state.metrics.update(source.tagged(Record(*last)))

    def completed(self) -> None:
        """An iteration is over."""
        every = self.every
        # seldom is anything due, and this runs every iteration; the last step may not be known yet to be an update
        if every and not self.due and (self.source.updates + 1) % every:
            return
        recording = self.recording()
        if recording is not None:
            recording.completed()


_NO_METRICS: dict[str, Any] = {}


class Recording:
    """All updates that one trainer makes, for one logger.

    Args:
        owner: the log handler; both sides are held weakly.
        trainer: the trainer.
        sources: what is recorded.
        searches: a search for each of them.
        publish: whether the tags go into the trainer's metrics.

    Attributes:
        tracks: the updates by source.
        handles: what ends with the recording.
        attached: whether it lasts until :meth:`detach`, and not as long as the trainer has the owner as a handler.
    """

    def __init__(
        self,
        owner: Callable[..., None],
        trainer: Engine,
        sources: Sequence[Source],
        searches: Sequence[Search],
        publish: bool,
    ) -> None:
        self.tracks = [
            Track(source, trainer, search, publish) for source, search in zip(sources, searches, strict=True)
        ]
        self.handles: list[Any] = []
        self.attached = False
        self._owner = weakref.ref(owner)
        self._trainer = weakref.ref(trainer)
        self._outlet: tuple[Output, Any] | None = None
        self._event, self._function = self._registration()
        self._subscriptions: list[Subscription] = []
        for track in self.tracks:
            track.recording = weakref.ref(self)
            self._subscriptions.append(
                Updates.of(trainer, track.source.optimizer).subscribe(
                    owner,
                    Phase.RECORD,
                    before=track.before,
                    counted=track.counted,
                    completed=track.completed,
                )
            )

    @property
    def ended(self) -> bool:
        """Whether it records no longer."""
        return not self._subscriptions

    def last(self) -> list[tuple[Track, Record]]:
        """The last update of each optimizer. Waits for the device where it is not known yet whether it was one."""
        last = []
        for track, subscription in zip(self.tracks, self._subscriptions, strict=True):
            subscription.updates.resolve()
            if track.latest is not None and not subscription.updates.suspended:
                last.append((track, Record(*track.latest)))
        return last

    def settle(self) -> None:
        """Find out whether the last steps were updates."""
        for subscription in self._subscriptions:
            subscription.updates.resolve()

    def attach(self, every: int, outlet: tuple[Output, Any] | None) -> None:
        """Last until :meth:`detach`.

        Args:
            every: how many updates lie between two that go to the outlet.
            outlet: an output and the logger that it writes them to, if any.
        """
        self.attached = True
        self._outlet = outlet
        for track in self.tracks:
            track.every, track.due = every if outlet else math.inf, []

    def detach(self) -> None:
        """Take :meth:`attach` back. What is also a log handler goes on as one."""
        self.attached, self._outlet = False, None
        for track in self.tracks:
            track.every, track.due = 0, []
        self._event, self._function = self._registration()
        if self._event is None:
            self.remove()

    def remove(self) -> None:
        """Record no longer. Idempotent."""
        leaving = [*self._subscriptions, *self.handles]
        self._subscriptions, self.handles = [], []
        for one in leaving:
            one.remove()

    def __del__(self) -> None:
        self.remove()

    def completed(self) -> None:
        """An iteration is over: pass on what became due, or see whether the trainer still has the owner."""
        trainer = self._trainer()
        if trainer is None:
            return
        if not self.attached:
            if self._event is not None and not is_registered(trainer, self._event, self._function()):
                self._event, self._function = self._registration()
                if self._event is None:
                    self.remove()
            return
        if self._outlet is None:
            return
        due: list[tuple[Track, Record]] = []
        for track, subscription in zip(self.tracks, self._subscriptions, strict=True):
            if (track.source.updates + 1) % track.every == 0:
                subscription.updates.resolve()  # the last step may be due
            due.extend(zip(itertools.repeat(track), track.due))
            track.due = []
        if due:
            output, logger = self._outlet
            output.write(trainer, logger, due, Events.ITERATION_COMPLETED)

    def _registration(self) -> tuple[Any, Callable[[], Callable[..., Any] | None]]:
        """An event that has the owner as a handler, or None, and what stands for the owner there, held weakly."""
        trainer, owner = self._trainer(), self._owner()
        found = None if trainer is None or owner is None else registered_as(trainer, owner)
        return (None, lambda: None) if found is None else (found[0], weakref.ref(found[1]))


class Recordings:
    """The recordings of all trainers, for one logger. They end with it.

    ``BaseLogger.attach`` says nothing to its log handler before the first event, and the first update comes before. So
    each step that nobody records is looked at: is it that of a trainer that has the logger among its handlers?

    Args:
        owner: the log handler, held weakly.
        sources: what is recorded.
        publish: whether the tags go into the trainer's metrics.
    """

    def __init__(self, owner: Callable[..., None], sources: Sequence[Source], publish: bool) -> None:
        self._owner = weakref.ref(owner)
        self._sources = sources
        self._publish = publish
        self._by_trainer: weakref.WeakKeyDictionary[Engine, Recording] = weakref.WeakKeyDictionary()
        self._searches = [Search(self, source) for source in sources]
        for search, source in zip(self._searches, sources, strict=True):
            StepHooks.of(source.optimizer).seek(search)

    def __iter__(self) -> Iterator[Recording]:
        return iter([recording for recording in self._by_trainer.values() if not recording.ended])

    def of(self, trainer: Engine) -> Recording:
        """That of a trainer, which begins when it is first asked for."""
        recording = self._by_trainer.get(trainer)
        if recording is None or recording.ended:
            owner = self._owner()
            assert owner is not None  # it is the one who asks, or found among the handlers
            recording = Recording(owner, trainer, self._sources, self._searches, self._publish)
            self._by_trainer[trainer] = recording
        return recording

    def look(self, source: Source) -> None:
        """Look for the trainer of a step of this source that just began."""
        owner = self._owner()
        if owner is None:
            return
        for trainer in running_trainers():
            known = self._by_trainer.get(trainer)
            if (known is None or known.ended) and trainer.has_event_handler(owner):
                for track in self.of(trainer).tracks:
                    # others watch it already, and were told of this very step
                    if track.source is source and Updates.of(trainer, source.optimizer).in_step:
                        track.before()

    def stop_looking(self) -> None:
        """The trainers are known."""
        for search, source in zip(self._searches, self._sources, strict=True):
            if (optimizer := source.alive) is not None:
                StepHooks.of(optimizer).remove(search)

    def __del__(self) -> None:
        self.stop_looking()


class Search:
    """Looks for the trainer of steps that nobody records; see :class:`~ignite_lr.core.step_hooks.Seeker`."""

    def __init__(self, recordings: Recordings, source: Source) -> None:
        self.found = False
        self._recordings = weakref.ref(recordings)
        self._source = source

    def seek(self) -> None:
        """A step began that nobody has recorded so far."""
        recordings = self._recordings()
        if recordings is not None:
            recordings.look(self._source)


def while_alive(method: Callable[..., None]) -> Callable[..., None]:
    """The bound method, which does nothing once its object is gone."""
    weak = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        alive = weak()
        if alive is not None:
            alive(*args)

    return call
