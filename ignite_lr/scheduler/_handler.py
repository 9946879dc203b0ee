"""The handler that steps a scheduler, and the scheduler of this package."""

from __future__ import annotations

import copy
import inspect
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NoReturn, cast

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from ignite_lr.core.arguments import Choice, Whole
from ignite_lr.core.engine import add_first, add_last
from ignite_lr.core.updates import Phase, Subscription, Updates
from ignite_lr.scheduler._schedule_lr import ScheduleLR, drivers

__all__ = ["Attachment", "LRSchedulerHandler", "ScheduleLR"]


class LRSchedulerHandler:
    """Steps a scheduler once per optimizer update, iteration or epoch, with the scheduler's own ``step()``.

    What is counted are *updates* of the scheduler's optimizer: with gradient accumulation, steps skipped by AMP,
    several updates in one iteration or several optimizers that is something else than iterations. The new rate is there
    when the handlers of ``Events.ITERATION_COMPLETED`` run, whatever the order they were attached in, and before the
    next update in any case. Put the handler into ``to_save`` beside the scheduler: together they resume exactly.

    Args:
        scheduler: anything with ``step()`` and ``optimizer``: :class:`ScheduleLR`, any PyTorch scheduler, ...
        interval: what to count: "step" (optimizer updates), "iteration" or "epoch". A step that is replayed as a CUDA
            graph runs no hooks, so that its updates cannot be counted: "iteration" is for it.
        every: step the scheduler after every so many of them, counted over the whole run, at least 1.
        metric: for ``ReduceLROnPlateau`` and the like: the name of a metric in ``trainer.state.metrics``, or a callable
            that gets the trainer and returns the value. It is read after all other handlers of the iteration or epoch.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an argument is out of range, if the scheduler needs a metric and has none, or the reverse.

    Warns:
        UserWarning: after 100 iterations without an update of the optimizer, once.

    Example:
        >>> import torch
        >>> from ignite.engine import create_supervised_trainer
        >>> from ignite_lr import schedules
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
        metric: str | Callable[[Engine], float] | None = None,
    ) -> None:
        if isinstance(scheduler, type) or not callable(getattr(scheduler, "step", None)):
            raise TypeError(f"scheduler must have step(), got {scheduler!r} of type {type(scheduler).__name__}.")
        optimizer = getattr(scheduler, "optimizer", None)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"scheduler must have its optimizer as scheduler.optimizer, got {optimizer!r} there.")
        if metric is not None and not isinstance(metric, str) and not callable(metric):
            raise TypeError(
                f"metric must be a name, a callable or None, got {metric!r} of type {type(metric).__name__}."
            )
        _check_metric(scheduler, metric)
        self.scheduler = scheduler
        self.optimizer = optimizer
        self.interval = Choice(("step", "iteration", "epoch")).check("interval", interval)
        self.every = cast("int", Whole(1).check("every", every))
        self.metric = metric
        self._ticks = 0
        # the last iteration or epoch that was counted, and whether it comes from a checkpoint
        self._position = 0
        self._resumed = False
        # The state of a scheduler that could not be asked to wait for its last step; see state_dict().
        self._scheduler_state: dict[str, Any] | None = None
        self._attachments: list[Attachment] = []

    def attach(self, trainer: Engine) -> Attachment:
        """Step the scheduler in the course of this trainer's runs.

        One handler can be attached to several trainers that run one after the other, such as pre-training and
        fine-tuning; it goes on counting.

        Args:
            trainer: the trainer whose step calls the optimizer.

        Returns:
            a handle whose ``remove()`` detaches; also a context manager.

        Raises:
            TypeError: if ``trainer`` is no engine.
            RuntimeError: if this handler is attached to the trainer already, or another one steps the scheduler.
        """
        if not isinstance(trainer, Engine):
            raise TypeError(f"trainer must be an ignite Engine, got {type(trainer).__name__}.")
        for attachment in tuple(self._attachments):
            if attachment.trainer is None:
                attachment.remove()
            elif attachment.trainer is trainer:
                raise RuntimeError(
                    "LRSchedulerHandler is already attached to this trainer: "
                    "attach it once, or call remove() on what the first attach returned."
                )
        if drivers.get(id(self.scheduler), self) is not self:
            raise RuntimeError(
                "another LRSchedulerHandler is already attached for this scheduler, and two would step it twice as "
                "fast: use one, or call remove() on what the attach of the first returned."
            )
        attachment = Attachment(self, trainer)
        drivers[id(self.scheduler)] = self
        self._attachments.append(attachment)
        return attachment

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
        """How far it has counted. Steps of the scheduler that are due are made first."""
        self.settle()
        state: dict[str, Any] = {"interval": self.interval, "ticks": self._ticks, "position": self._position}
        if not isinstance(self.scheduler, ScheduleLR) and any(attachment.ahead for attachment in self._attachments):
            # In the middle of an iteration the scheduler may have been saved, by the same checkpoint, before the step
            # that was due. ScheduleLR asks for it.
            state["scheduler"] = copy.deepcopy(self.scheduler.state_dict())
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting from a saved state.

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
        self.forget()
        self._ticks = ticks
        self._position = position
        self._resumed = True
        self._scheduler_state = state_dict.get("scheduler")
        if self._scheduler_state is not None:
            self.scheduler.load_state_dict(copy.deepcopy(self._scheduler_state))

    def settle(self) -> None:
        """Make the steps of the scheduler that are due. May wait for the device."""
        for attachment in self._attachments:
            attachment.settle()

    def forget(self) -> None:
        """Drop the steps of the scheduler that are due."""
        for attachment in self._attachments:
            attachment.forget()

    def _tick(self, trainer: Engine) -> None:
        """One update, iteration or epoch has passed."""
        if self._scheduler_state is not None:
            # once more, because the scheduler's own entry in the checkpoint may have been loaded after this handler
            state, self._scheduler_state = self._scheduler_state, None
            self.scheduler.load_state_dict(state)
        self._ticks += 1
        if self._ticks % self.every:
            return
        if self.metric is not None:
            _step(self.scheduler, self._value(trainer))
        elif isinstance(self.scheduler, ScheduleLR):
            self.scheduler.step()
        else:
            _step(self.scheduler)

    def _value(self, trainer: Engine) -> Any:
        if callable(self.metric):
            return self.metric(trainer)
        metrics = trainer.state.metrics
        if self.metric not in metrics:
            raise KeyError(
                f"metric must be one of trainer.state.metrics, got {self.metric!r}, not in {sorted(metrics)}."
            )
        return metrics[self.metric]

    def _detach(self, attachment: Attachment) -> None:
        if attachment in self._attachments:
            self._attachments.remove(attachment)
            if not self._attachments:
                drivers.pop(id(self.scheduler), None)


class Attachment:
    """What :meth:`LRSchedulerHandler.attach` returns: ``remove()`` detaches. Also a context manager."""

    def __init__(self, handler: LRSchedulerHandler, trainer: Engine) -> None:
        self.handler = handler
        # weak: the hooks on the optimizer must not keep a trainer, and with it a data loader, alive
        self._trainer = weakref.ref(trainer)
        self._updates = Updates.of(trainer, handler.optimizer)
        self._seen = self._updates.count
        self._due = 0
        # whether the scheduler was stepped in the iteration that is under way
        self.ahead = False
        # the step that needs no more than to be called, where it is one
        ours = isinstance(handler.scheduler, ScheduleLR) and handler.every == 1 and handler.metric is None
        self._plain_step: Callable[[], None] | None = handler.scheduler.step if ours else None
        self._subscription: Subscription | None = None
        self._handles: list[Any] = [handler.optimizer.register_state_dict_pre_hook(lambda _: self.settle())]
        self._listen(trainer)

    @property
    def trainer(self) -> Engine | None:
        """The trainer, or None once it is gone."""
        return self._trainer()

    def remove(self) -> None:
        """Detach the handler from this trainer. Idempotent."""
        self.handler._detach(self)
        if self._subscription is not None:
            self._subscription.remove()
            self._subscription = None
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def settle(self) -> None:
        """Make the steps that are due."""
        self._updates.resolve()
        self._advance()

    def forget(self) -> None:
        """Drop the steps that are due."""
        self._updates.resolve()
        self._seen = self._updates.count
        self._due = 0
        self.ahead = False

    def _listen(self, trainer: Engine) -> None:
        late = self.handler.metric is not None
        if self.handler.interval == "step":
            self._subscription = self._updates.subscribe(
                self.handler, Phase.SCHEDULE, again=self._before, completed=None if late else self._iteration_completed
            )
            if late:
                self._handles += add_last(trainer, Events.ITERATION_COMPLETED, self._iteration_completed)
            return
        event = Events.ITERATION_COMPLETED if self.handler.interval == "iteration" else Events.EPOCH_COMPLETED
        self._handles.append(add_first(trainer, event, self._passed))
        if late:
            self._handles += add_last(trainer, event, self._advance)
        self._handles.append(trainer.add_event_handler(Events.STARTED, self._catch_up))

    def _before(self) -> None:
        """Before an update: the second one in an iteration needs the rate that the first one made due."""
        if self._updates.count != self._seen:
            self._advance()
        if isinstance(self.handler.scheduler, ScheduleLR):
            self.handler.scheduler.adopt_groups()

    def _advance(self) -> None:
        trainer = self._trainer()
        if trainer is None:
            return
        due = self._due
        self._due = 0
        if self.handler.interval == "step":
            due = self._updates.count - self._seen
            self._seen += due
        if due:
            self.ahead = True
        for _ in range(due):
            self.handler._tick(trainer)

    def _iteration_completed(self) -> None:
        due = self._updates.count - self._seen
        if due == 1 and self._plain_step is not None:
            # what _advance() does, in what is nearly every iteration of nearly every training
            self._seen += 1
            self.handler._ticks += 1
            self._plain_step()
        elif due:
            self._advance()
        self.ahead = False

    def _passed(self) -> None:
        """An iteration or an epoch has passed."""
        trainer = self._trainer()
        if trainer is None:
            return
        state = trainer.state
        self.handler._position = state.iteration if self.handler.interval == "iteration" else state.epoch
        self.handler._resumed = False
        self._due += 1
        if self.handler.metric is None:
            self._advance()
        self.ahead = False

    def _catch_up(self, trainer: Engine) -> None:
        """Count what a checkpoint cut off: taken inside its last iteration, or before the end of its last epoch."""
        position = trainer.state.iteration if self.handler.interval == "iteration" else trainer.state.epoch
        resumed, self.handler._resumed = self.handler._resumed, False
        if not resumed or position != self.handler._position + 1:
            return
        self.handler._position = position
        self._due += 1
        try:
            self._advance()
        except KeyError:
            warnings.warn(
                f"the checkpoint was taken before the metric {self.handler.metric!r} of {self.handler.interval} "
                f"{position} was there: the scheduler goes on without it.",
                stacklevel=2,
            )
        self.ahead = False


def _check_metric(scheduler: Any, metric: object) -> None:
    try:
        parameters = list(inspect.signature(scheduler.step).parameters.values())
    except (TypeError, ValueError):  # not written in Python
        return
    taken = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    needed = [p.name for p in taken if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    name = type(scheduler).__name__
    if metric is None and needed:
        raise ValueError(f"metric must be given, because {name}.step() takes {', '.join(needed)}; got None.")
    if metric is not None and (not taken or taken[0].name == "epoch"):
        raise ValueError(f"metric must be None, because {name}.step() takes no metric; got {metric!r}.")


def _is_at_its_start(scheduler: Any) -> bool:
    """Whether this scheduler, or a part of it, has not been stepped since it was made."""
    parts: Iterator[Any] = iter(getattr(scheduler, "_schedulers", ()))
    return getattr(scheduler, "_step_count", 0) == 1 or any(map(_is_at_its_start, parts))


def _step(scheduler: Any, *metric: Any) -> None:
    if not _is_at_its_start(scheduler):
        scheduler.step(*metric)
        return
    with warnings.catch_warnings():
        # PyTorch checks the order of the very first step by whether optimizer.step was called through an attribute that
        # it put there; skipped and accumulated steps, and those of a compiled or wrapped optimizer, were not.
        for message in ("Detected call of `lr_scheduler.step", "Seems like `optimizer.step"):
            warnings.filterwarnings("ignore", message)
        scheduler.step(*metric)
