"""The only place that touches the private parts of Ignite's ``Engine``.

What flows in is an engine, what flows out are answers to the few questions that Ignite has no public way to ask:
whether a step belongs to an iteration, who listens to an event and in which order, which engines are at work on this
thread.
Handlers are told apart by comparing them, as Ignite itself does, never by the list they happen to be in. A release of
Ignite that renames one of these parts is met here, and nowhere else.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from ignite.engine import Engine, Events

__all__ = [
    "INTERNALS",
    "FeedingEngine",
    "Handlers",
    "add_first",
    "add_last",
    "data_length",
    "forget_run",
    "handlers_of",
    "in_iteration",
    "in_training_step",
    "is_registered",
    "is_running",
    "process",
    "process_function",
    "registered_as",
    "running_trainers",
]

INTERNALS = frozenset(vars(Engine(lambda engine, batch: None)))
"""The attributes that Ignite gives an engine; all others are the user's."""

# looked up once: a member of an enumeration is found slowly
_ITERATION_STARTED = Events.ITERATION_STARTED

_LOOPS = (Engine._run_once_on_dataset_as_gen.__code__, Engine._run_once_on_dataset_legacy.__code__)
_FIRE = Engine._fire_event.__code__

Handlers = tuple[Any, ...]


def in_training_step(trainer: Engine) -> bool:
    """Whether the trainer is between batch and end of an iteration, and fired no other event since.

    Asked before every optimizer step, so it looks at two attributes and calls nothing.
    """
    run: Any = trainer._internal_run_generator
    return trainer.last_event_name is _ITERATION_STARTED and run is not None and run.gi_running


def is_running(trainer: Engine) -> bool:
    """Whether the trainer's loop is at work. An engine that raised keeps its last event and its dead generator."""
    if trainer._dataloader_iter is None:
        return False
    run: Any = trainer._internal_run_generator
    # none where Ignite was told not to interrupt and resume
    return run is None or run.gi_running


def in_iteration(trainer: Engine) -> bool:
    """What :func:`in_training_step` does not see at once: where events of the step's own hide where the trainer is.

    The call stack tells then, that of whatever thread the trainer runs in: what runs right above its loop is the step,
    or the firing of an event.
    """
    if not is_running(trainer):
        return False
    if isinstance(trainer.last_event_name, Events):
        return trainer.last_event_name is _ITERATION_STARTED
    for innermost in sys._current_frames().values():
        above: FrameType | None = None
        frame: FrameType | None = innermost
        while frame is not None:
            if frame.f_code in _LOOPS and frame.f_locals["self"] is trainer:
                fired = above.f_locals["event_name"] if above and above.f_code is _FIRE else _ITERATION_STARTED
                return fired is _ITERATION_STARTED
            above, frame = frame, frame.f_back
    return False


def running_trainers() -> Iterator[Engine]:
    """The engines whose loop is on the call stack of this thread, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _LOOPS:
            yield frame.f_locals["self"]
        frame = frame.f_back


def add_first(trainer: Engine, event: Any, function: Callable[..., Any]) -> Any:
    """Add a handler before those that are there, so that a checkpoint attached earlier sees what this one does.

    Returns:
        Ignite's handle.
    """
    handle = trainer.add_event_handler(event, function)
    handlers = trainer._event_handlers[event]
    # a new list, because the present one may be in the middle of being run through
    trainer._event_handlers[event] = [handlers[-1], *handlers[:-1]]
    return handle


def add_last(trainer: Engine, event: Any, function: Callable[..., Any]) -> tuple[Any, ...]:
    """Add a handler that runs after all others, also those that are attached later.

    Returns:
        Ignite's handles, all of them to be removed.
    """

    def go_last(engine: Engine) -> None:
        handlers = engine._event_handlers[event]
        ours = [entry for entry in handlers if entry[0] == function]
        engine._event_handlers[event] = [entry for entry in handlers if entry[0] != function] + ours

    starts = (Events.STARTED, Events.EPOCH_STARTED)
    return (
        trainer.add_event_handler(event, function),
        *(trainer.add_event_handler(start, go_last) for start in starts),
    )


def handlers_of(engine: Engine) -> Iterator[tuple[Any, Callable[..., Any], Handlers, dict[str, Any]]]:
    """Every handler: its event, the function as it was registered, and its arguments without the engine itself."""
    for event, entries in engine._event_handlers.items():
        for function, args, kwargs in entries:
            bare = args[1:] if args and isinstance(args[0], weakref.ref) and args[0]() is engine else args
            yield event, function, bare, kwargs


def registered_as(engine: Engine, handler: Callable[..., Any]) -> tuple[Any, Callable[..., Any]] | None:
    """An event that has this handler, and the function that stands for it there: a filter of the event's wraps it."""
    for event, entries in engine._event_handlers.items():
        for function, _, _ in entries:
            if engine._compare_handlers(handler, function):
                return event, function
    return None


def is_registered(engine: Engine, event: Any, function: Callable[..., Any] | None) -> bool:
    """Whether the event has this very function. Cheap enough for every iteration."""
    for entry in engine._event_handlers.get(event, ()):  # noqa: SIM110  # a generator takes twice as long
        if entry[0] is function:
            return True
    return False


def process(engine: Engine, batch: Any) -> Any:
    """The output of the engine's process function for one batch, without an event."""
    return engine._process_function(engine, batch)


def process_function(engine: Engine) -> Callable[..., Any]:
    """What the engine does with a batch, as its user gave it."""
    return engine._process_function


def data_length(engine: Engine, data: Iterable[Any]) -> int | None:
    """How many batches a pass over the data has, if that is known."""
    length: int | None = engine._get_data_length(data)
    return length


def forget_run(engine: Engine) -> None:
    """Have the next ``run`` begin anew, whatever became of the last one."""
    engine._internal_run_generator = None
    engine._dataloader_iter = None


class FeedingEngine(Engine):
    """An engine whose batches come from :meth:`batches`, whatever data it was given."""

    def batches(self) -> Iterator[Any]:
        """The batches of a pass; called at the start of a run, and whenever they ran out."""
        raise NotImplementedError

    def _setup_dataloader_iter(self) -> None:
        self._dataloader_iter = self.batches()
