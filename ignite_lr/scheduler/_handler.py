"""The handler that says when a scheduler is stepped."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, cast

from ignite.engine import Engine

from ignite_lr.core.arguments import Choice, Whole, check_state, check_trainer, shown
from ignite_lr.core.attachment import Attachment
from ignite_lr.core.notice import notice
from ignite_lr.scheduler._drive import Drive, MissingMetricError, check_metric, check_scheduler, value_of
from ignite_lr.scheduler._stint import Stint

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
        self._stints: list[Stint] = []

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
        stint = Stint(self, trainer)
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
        check_state(state_dict, "interval", "ticks", "position")
        if not isinstance(state_dict["interval"], str) or state_dict["interval"] != self.interval:
            raise ValueError(
                f"interval must be that of the saved state, {shown(state_dict['interval'])}, got {self.interval!r}."
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

    def _end(self, stint: Stint) -> None:
        self._stints.remove(stint)
        if not self._stints:
            _drivers.pop(id(self.scheduler), None)
