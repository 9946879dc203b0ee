"""The handler that says when a scheduler is stepped."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, cast

from ignite.engine import Engine, Events

from ignite_lr.core.arguments import Choice, Whole, check_trainer
from ignite_lr.core.attachment import Attachment
from ignite_lr.core.engine import add_first, add_last
from ignite_lr.core.notice import notice
from ignite_lr.core.updates import Phase, Updates
from ignite_lr.scheduler._drive import Drive, MissingMetricError, check_metric, check_scheduler, value_of

__all__ = ["LRSchedulerHandler"]

# Which handler drives which scheduler, by the scheduler's id, which the handler keeps in use.
_drivers: weakref.WeakValueDictionary[int, LRSchedulerHandler] = weakref.WeakValueDictionary()


class LRSchedulerHandler:
    """Steps a scheduler once per optimizer update, iteration or epoch, with the scheduler's own ``step()``.

    What is counted are *updates* of the scheduler's optimizer: with gradient accumulation, steps skipped by AMP,
    several updates in one iteration or several optimizers that is something else than iterations. The new rate is there
    when the handlers of ``Events.ITERATION_COMPLETED`` run, whatever the order they were attached in, and before the
    next update in any case. Put the handler into ``to_save`` beside the scheduler: together they resume exactly.

    Args:
        scheduler: anything with ``step()`` and ``optimizer``: :class:`ScheduleLR`, :class:`ScheduleParam`, any PyTorch
            scheduler, timm's, which are told the number of updates or epochs, ...
        interval: what to count: "step" (optimizer updates), "iteration" or "epoch". A step that is replayed as a CUDA
            graph runs no hooks, so that its updates cannot be counted: "iteration" is for it.
        every: step the scheduler after every so many of them, counted over the whole run, at least 1.
        metric: for ``ReduceLROnPlateau`` and the like: ``(evaluator, "loss")`` for a metric of an evaluator, the name
            of one in ``trainer.state.metrics``, or a callable that gets the trainer and returns the value. It is read
            after all other handlers of the iteration or epoch.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an argument is out of range, if the scheduler needs a metric and has none, or the reverse.

    Warns:
        UserWarning: after 100 iterations without an update of the optimizer, once; if somebody else steps the scheduler
            too; if a step that was due when a checkpoint was made has no metric after the resume.

    Example:
        >>> import torch
        >>> from ignite.engine import create_supervised_trainer
        >>> from ignite_lr import ScheduleLR, schedules
        >>> model = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> trainer = create_supervised_trainer(model, optimizer, torch.nn.MSELoss(), gradient_accumulation_steps=2)
        >>> scheduler = ScheduleLR(optimizer, schedules.Linear(total_steps=10))
        >>> handle = LRSchedulerHandler(scheduler).attach(trainer)
        >>> state = trainer.run([(torch.ones(4, 1), torch.ones(4, 1))] * 8)
        >>> scheduler.last_epoch
        4
    """

    def __init__(
        self,
        scheduler: Any,
        interval: str = "step",
        every: int = 1,
        metric: str | tuple[Engine, str] | Callable[[Engine], float] | None = None,
    ) -> None:
        self.optimizer = check_scheduler(scheduler)
        self.metric = check_metric(scheduler, metric)
        self.scheduler = scheduler
        self.interval = Choice(("step", "iteration", "epoch")).check("interval", interval)
        self.every = cast("int", Whole(1).check("every", every))
        self._drive = Drive(scheduler, interval == "epoch")
        self._ticks = 0
        # ticks that a loaded state says were due when it was saved
        self._due = 0
        # the last iteration or epoch that was counted, and whether it comes from a checkpoint
        self._position = 0
        self._resumed = False
        self._stints: list[_Stint] = []

    def attach(self, trainer: Engine) -> Attachment:
        """Step the scheduler in the course of this trainer's runs.

        One handler can be attached to several trainers that run one after the other, such as pre-training and
        fine-tuning; it goes on counting.

        Args:
            trainer: the trainer whose step calls the optimizer.

        Returns:
            a handle whose ``remove()`` detaches; also a context manager.

        Raises:
            TypeError: if ``trainer`` is no engine, or the steps of the optimizer cannot be hooked.
            RuntimeError: if this handler is attached to the trainer already, or another one steps the scheduler.
        """
        check_trainer(trainer)
        self._stints = [stint for stint in self._stints if stint.trainer is not None]
        if any(stint.trainer is trainer for stint in self._stints):
            raise RuntimeError(
                "LRSchedulerHandler is already attached to this trainer: "
                "attach it once, or call remove() on what the first attach returned."
            )
        if _drivers.get(id(self.scheduler), self) is not self:
            raise RuntimeError(
                "another LRSchedulerHandler is already attached for this scheduler, and two would step it twice as "
                "fast: use one, or call remove() on what the attach of the first returned."
            )
        stint = _Stint(self, trainer)
        _drivers[id(self.scheduler)] = self
        self._stints.append(stint)
        what = f"LRSchedulerHandler of {type(self.scheduler).__name__}"
        return Attachment(what, stint.settle, stint.remove, lambda: self._end(stint))

    def __repr__(self) -> str:
        scheduler = self.scheduler if self._drive.ours is not None else type(self.scheduler).__name__
        return f"LRSchedulerHandler({scheduler}, interval={self.interval!r}, every={self.every})"

    def __call__(self, engine: Engine) -> NoReturn:
        """Not for use as an event handler.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "LRSchedulerHandler counts optimizer updates and cannot be used through add_event_handler: "
            "use handler.attach(trainer)."
        )

    def state_dict(self) -> dict[str, Any]:
        """How far it has counted, and what is due. Changes nothing; may wait for the device."""
        return {
            "interval": self.interval,
            "ticks": self._ticks,
            "position": self._position,
            "due": self._due + sum(stint.due() for stint in self._stints),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting from a saved state. What was due is done before the next update or epoch.

        Args:
            state_dict: what :meth:`state_dict` returned.

        Raises:
            TypeError: if it is no mapping, or a value in it is of the wrong type.
            ValueError: if something is missing in it, or another ``interval`` was counted.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, got {state_dict!r} of type {type(state_dict).__name__}.")
        missing = [key for key in ("interval", "ticks", "position") if key not in state_dict]
        if missing:
            raise ValueError(f"state_dict must have {' and '.join(missing)}, got {sorted(map(str, state_dict))}.")
        if not isinstance(state_dict["interval"], str) or state_dict["interval"] != self.interval:
            raise ValueError(
                f"interval must be that of the saved state, {state_dict['interval']!r}, got {self.interval!r}."
            )
        ticks = cast("int", Whole(0).check("ticks of state_dict", state_dict["ticks"]))
        position = cast("int", Whole(0).check("position of state_dict", state_dict["position"]))
        due = cast("int", Whole(0).check("due of state_dict", state_dict.get("due", 0)))
        self._forget()
        self._ticks, self._position, self._due = ticks, position, due
        self._resumed = True

    def _forget(self) -> None:
        """Drop what was due in the running training."""
        for stint in self._stints:
            stint.forget()

    def _tick(self, trainer: Engine) -> None:
        """One update, iteration or epoch has passed."""
        if (self._ticks + 1) % self.every:
            self._ticks += 1
            return
        value = () if self.metric is None else (value_of(self.metric, trainer),)
        self._ticks += 1
        self._drive.step(self._ticks, *value)

    def _catch_up(self, trainer: Engine) -> None:
        """Do what was due when the state was saved."""
        while self._due:
            try:
                self._tick(trainer)
                self._due -= 1
            except MissingMetricError as error:  # noqa: PERF203 - most often there is one
                self._ticks += self._due
                self._due = 0
                notice(
                    "a step of the scheduler was due when the checkpoint was made, and its metric is not there once "
                    f"the handlers of Events.STARTED have run: the step is left out. {error.args[0]}"
                )

    def _end(self, stint: _Stint) -> None:
        self._stints.remove(stint)
        if not self._stints:
            _drivers.pop(id(self.scheduler), None)


class _Stint:
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
        plain = handler.every == 1 and handler.metric is None and handler.interval == "step"
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
        if self._handler.interval != "step":
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
        interval = self._handler.interval
        # rates that are no longer those due are seen before an update, whatever is counted
        if interval == "step" or self._follower is not None:
            completed = self._iteration_completed if interval == "step" and not late else None
            self._handles.append(
                self._updates.subscribe(
                    self._handler,
                    Phase.SCHEDULE,
                    before=self._before,
                    completed=completed,
                    patient=interval != "step",
                )
            )
        if interval == "step" and late:
            self._handles += add_last(trainer, Events.ITERATION_COMPLETED, self._iteration_completed)
        elif interval != "step":
            event = Events.ITERATION_COMPLETED if interval == "iteration" else Events.EPOCH_COMPLETED
            self._handles.append(add_first(trainer, event, self._pass))
            if late:
                self._handles += add_last(trainer, event, self._advance)
        self._handles.append(add_first(trainer, Events.EPOCH_STARTED, self._epoch_started))

    def _before(self) -> None:
        """Before an update: the second one in an iteration needs the rate that the first one made due."""
        handler, follower, drive = self._handler, self._follower, self._drive
        ours = drive.ours
        if ours is not None and ours.last_epoch == drive.at and ours.loads == drive.loads:
            pass  # undisturbed, in what is nearly every update of nearly every training
        elif drive.look():
            self.forget()
        if self._updates.count != self._seen and self._by_updates:
            self._advance()
        if handler._due and handler.metric is None and self.trainer is not None:
            handler._catch_up(self.trainer)
        if follower is not None and follower.changed():
            follower.follow()

    def _advance(self) -> None:
        trainer = self._trainer()
        if trainer is None:
            return
        if self._handler._drive.look():
            self.forget()
        if self._handler.interval == "step":
            due = self._updates.count - self._seen
            self._seen += due
        else:
            due, self._passed = self._passed, 0
        for _ in range(due):
            self._handler._tick(trainer)

    def _iteration_completed(self) -> None:
        due = self._updates.count - self._seen
        plain = self._plain
        if due == 1 and plain is not None:
            handler, drive = self._handler, self._drive
            if plain.last_epoch == drive.at and plain.loads == drive.loads and not handler._due:
                # what _advance() does, in what is nearly every iteration of nearly every training
                self._seen += 1
                handler._ticks += 1
                plain.step()
                drive.at = plain.last_epoch
                return
        if due:
            self._advance()

    def _pass(self) -> None:
        """An iteration or an epoch has passed."""
        trainer = self._trainer()
        if trainer is None:
            return
        handler = self._handler
        if handler._drive.look():
            self.forget()
        handler._position = trainer.state.iteration if handler.interval == "iteration" else trainer.state.epoch
        handler._resumed = False
        self._passed += 1
        if handler.metric is None:
            self._advance()

    def _epoch_started(self, trainer: Engine) -> None:
        """The handlers of ``Events.STARTED`` have run: what a checkpoint cut off is done now."""
        handler = self._handler
        resumed, handler._resumed = handler._resumed, False
        if resumed and handler.interval != "step":
            # taken inside its last iteration, or before the end of its last epoch, neither of which comes again
            passed = trainer.state.iteration if handler.interval == "iteration" else trainer.state.epoch - 1
            if passed == handler._position + 1:
                handler._position = passed
                handler._due += 1
        if handler._due:
            handler._catch_up(trainer)
