"""A handler on one trainer: what is counted there, and when the scheduler is stepped."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from ignite.engine import Engine, Events

from ignite_lr.core.engine import add_first, add_last
from ignite_lr.core.subscription import Phase
from ignite_lr.core.updates import Updates

if TYPE_CHECKING:
    from ignite_lr.scheduler._handler import LRSchedulerHandler

__all__ = ["Stint"]


class Stint:
    """A handler on one trainer: what is counted there, and when."""

    def __init__(self, handler: LRSchedulerHandler, trainer: Engine) -> None:
        self._handler = handler
        # weak: the hooks on the optimizer must not keep a trainer, and with it a data loader, alive
        self._trainer = weakref.ref(trainer)
        self._updates = Updates.of(trainer, handler.optimizer)
        self._seen = self._updates.count
        self._passed = 0  # iterations or epochs
        scheduler = handler.scheduler
        # whoever has to look, before every update, whether the rates are still those due
        self._follower: Any = scheduler if callable(getattr(scheduler, "follow", None)) else None
        self._drive = handler._drive
        self._by_updates = handler.interval == "step"
        # a step that needs no more than to be called
        plain = handler.every == 1 and handler.metric is None and self._by_updates
        self._plain: Any = self._drive.ours if plain else None
        self._handles: list[Any] = []
        try:
            self._listen(trainer)
        except BaseException:
            self.remove()
            raise

    @property
    def trainer(self) -> Engine | None:
        """The trainer, or None once it is gone."""
        return self._trainer()

    def due(self) -> int:
        """Ticks that have not been made yet."""
        if not self._by_updates:
            return self._passed
        return self._updates.count - self._seen + self._updates.pending()

    def settle(self) -> None:
        """Make what is due, before the handler leaves; what waits for a metric goes with it."""
        self._updates.resolve()
        if self._handler.metric is None:
            self._advance()
        else:
            self._handler._due += self.due()
            self.forget()

    def forget(self) -> None:
        """Drop what is due."""
        self._updates.resolve()
        self._seen = self._updates.count
        self._passed = 0

    def remove(self) -> None:
        """Take all handlers and hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _listen(self, trainer: Engine) -> None:
        late = self._handler.metric is not None
        # rates that are no longer those due are seen before an update, whatever is counted
        if self._by_updates or self._follower is not None:
            completed = self._iteration_completed if self._by_updates and not late else None
            self._handles.append(
                self._updates.subscribe(
                    self._handler,
                    Phase.SCHEDULE,
                    before=self._before,
                    completed=completed,
                    patient=not self._by_updates,
                )
            )
        if self._by_updates and late:
            self._handles += add_last(trainer, Events.ITERATION_COMPLETED, self._iteration_completed)
        elif not self._by_updates:
            event = Events.ITERATION_COMPLETED if self._handler.interval == "iteration" else Events.EPOCH_COMPLETED
            self._handles.append(add_first(trainer, event, self._pass))
            if late:
                self._handles += add_last(trainer, event, self._advance)
        self._handles.append(add_first(trainer, Events.EPOCH_STARTED, self._epoch_started))

    def _before(self) -> None:
        """Before an update: the second one in an iteration needs the rate that the first one made due."""
        handler, plain = self._handler, self._plain
        if (
            plain is not None
            and plain.moves == self._drive.moves
            and self._updates.count == self._seen
            and not handler._due
        ):
            # what the rest does, in what is nearly every update of nearly every training
            if plain.changed():
                plain.follow()
            return
        self._look()
        if self._updates.count != self._seen and self._by_updates:
            self._advance()
        if handler._due and handler.metric is None and self.trainer is not None:
            handler._catch_up(self.trainer)
        if self._follower is not None and self._follower.changed():
            self._follower.follow()

    def _look(self) -> None:
        """What was due is not, once a state was loaded into the scheduler."""
        if self._drive.look():
            self.forget()

    def _advance(self) -> None:
        trainer = self._trainer()
        if trainer is None:
            return
        self._look()
        if self._by_updates:
            due = self._updates.count - self._seen
            self._seen += due
        else:
            due, self._passed = self._passed, 0
        for _ in range(due):
            self._handler._tick(trainer)

    def _iteration_completed(self) -> None:
        due = self._updates.count - self._seen
        plain = self._plain
        if due == 1 and plain is not None and plain.moves == self._drive.moves:
            # what _advance() does, in what is nearly every iteration of nearly every training
            self._seen += 1
            self._handler._ticks += 1
            plain.driven = True
            plain.step()
        elif due:
            self._advance()

    def _pass(self) -> None:
        """An iteration or an epoch has passed."""
        trainer = self._trainer()
        if trainer is None:
            return
        handler = self._handler
        self._look()
        handler._position = trainer.state.iteration if handler.interval == "iteration" else trainer.state.epoch
        handler._resumed = False
        self._passed += 1
        if handler.metric is None:
            self._advance()

    def _epoch_started(self, trainer: Engine) -> None:
        """The handlers of ``Events.STARTED`` have run: what a checkpoint cut off is done now."""
        handler = self._handler
        resumed, handler._resumed = handler._resumed, False
        if resumed and not self._by_updates:
            # taken inside its last iteration, or before the end of its last epoch, neither of which comes again
            passed = trainer.state.iteration if handler.interval == "iteration" else trainer.state.epoch - 1
            if passed == handler._position + 1:
                handler._position = passed
                handler._due += 1
        if handler._due:
            handler._catch_up(trainer)
