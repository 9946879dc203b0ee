"""How a scheduler wants to be stepped, whoever made it, and whether somebody else steps it too."""

from __future__ import annotations

import warnings
from typing import Any

from ignite.engine import Engine
from ignite.handlers.param_scheduler import BaseParamScheduler
from torch.optim import Optimizer

from ignite_lr.core.arguments import shown
from ignite_lr.core.notice import notice
from ignite_lr.core.schedulers import check_takes, parts_of
from ignite_lr.scheduler._schedule_lr import ScheduleLR
from ignite_lr.scheduler._schedule_param import ScheduleParam

__all__ = ["Drive", "Metric", "MissingMetricError", "check_metric", "check_scheduler", "value_of"]

Metric = Any  # a name, an engine and a name, or a callable


class MissingMetricError(KeyError):
    """The metric that a scheduler waits for is not there."""


class Drive:
    """The steps of one scheduler.

    Args:
        scheduler: whose.
        by_epochs: whether it is told of epochs, and not of updates or iterations; for schedulers of timm's shape.
    """

    def __init__(self, scheduler: Any, by_epochs: bool) -> None:
        self._scheduler = scheduler
        # One of ours says itself when somebody else moves it: it is looked at several times an iteration.
        self.ours: Any = scheduler if isinstance(scheduler, ScheduleLR | ScheduleParam) else None
        self._counted = callable(getattr(scheduler, "step_update", None))
        self._by_epochs = by_epochs
        self._strange = 0
        self._left = _where(scheduler)
        self.moves, self._loads = self._moved()

    def step(self, count: int, *metric: Any) -> None:
        """Step the scheduler; ``count`` is the number of updates, iterations or epochs so far."""
        scheduler = self._scheduler
        if self.ours is not None:
            self.ours.driven = True
            self.ours.step()
            return
        if self._counted:
            (scheduler.step if self._by_epochs else scheduler.step_update)(count, *metric)
            return
        if not _is_at_its_start(scheduler):
            scheduler.step(*metric)
        else:
            with warnings.catch_warnings():
                # PyTorch checks the order of the very first step by whether optimizer.step was called through an
                # attribute that it put there; skipped and accumulated steps, and those of a compiled or wrapped
                # optimizer, were not.
                for message in ("Detected call of `lr_scheduler.step", "Seems like `optimizer.step"):
                    warnings.filterwarnings("ignore", message)
                scheduler.step(*metric)
        self._left = _where(scheduler)

    def undisturbed(self) -> bool:
        """Whether the scheduler is where it was left."""
        if self.ours is not None:
            return bool(self.ours.moves == self.moves)
        return self._counted or _where(self._scheduler) == self._left

    def look(self) -> bool:
        """Notice where somebody else has moved the scheduler or a part of it; whether that was by loading a state."""
        if self.undisturbed():
            return False
        before, loads = self._left, self._loads
        self._left = _where(self._scheduler)
        self.moves, self._loads = self._moved()
        if self.ours is not None:
            loaded = self._loads != loads
        else:  # only a load goes back
            loaded = any(now[0] < then[0] or now[1] != then[1] for then, now in zip(before, self._left, strict=False))
        if loaded:
            return True
        self._strange += 1
        if self._strange == 2:  # once may have been a load, or a start in the middle
            notice(
                f"{type(self._scheduler).__name__} is stepped by LRSchedulerHandler and by somebody else as well: by "
                "hand, by one of Ignite's helpers or wrappers, or as a part of another scheduler. Together they are "
                "too fast: leave one of them out."
            )
        return False

    def _moved(self) -> tuple[int, int]:
        """How often others have moved a scheduler of ours, and how often by loading a state."""
        return (0, 0) if self.ours is None else (self.ours.moves, self.ours.loads)


def _where(scheduler: Any) -> list[tuple[float, int]]:
    """How far it is and how many states were loaded into it, and so on for its parts, where that can be told."""
    return [
        (position, getattr(part, "loads", 0))
        for part in parts_of(scheduler)
        if isinstance(position := getattr(part, "last_epoch", None), int | float)
    ]


def _is_at_its_start(scheduler: Any) -> bool:
    """Whether this scheduler, or a part of it, has not been stepped since it was made."""
    return any(getattr(part, "_step_count", 0) == 1 for part in parts_of(scheduler))


def check_scheduler(scheduler: Any) -> Optimizer:
    """The optimizer of a scheduler that can be driven.

    Raises:
        TypeError: if it is none.
    """
    kind = type(scheduler).__name__
    if isinstance(scheduler, BaseParamScheduler):
        inner = getattr(scheduler, "lr_scheduler", None)
        instead = (
            f"give the {type(inner).__name__} inside it"
            if inner is not None
            else "use ScheduleLR or ScheduleParam with one of ignite_lr.schedules"
        )
        raise TypeError(
            f"scheduler must have step(), got Ignite's {kind}, which is an event handler of its own: {instead}, or "
            "leave LRSchedulerHandler out and add it with trainer.add_event_handler(Events.ITERATION_STARTED, ...)."
        )
    if isinstance(scheduler, type) or not callable(getattr(scheduler, "step", None)):
        raise TypeError(f"scheduler must have step(), got {shown(scheduler)} of type {kind}.")
    optimizer = getattr(scheduler, "optimizer", None)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"scheduler must have its optimizer as scheduler.optimizer, got {shown(optimizer)} there.")
    return optimizer


def check_metric(scheduler: Any, metric: Metric) -> Metric:
    """The metric, if the scheduler that really wants it takes one, and none if it does not.

    Raises:
        TypeError: if it is of the wrong type.
        ValueError: if the scheduler needs one and has none, or the reverse.
    """
    pair = isinstance(metric, tuple) and len(metric) == 2
    if pair and isinstance(metric[0], Engine) and isinstance(metric[1], str):
        pass
    elif metric is not None and not isinstance(metric, str) and not callable(metric):
        raise TypeError(
            "metric must be a name, an engine and a name, a callable or None, "
            f"got {shown(metric)} of type {type(metric).__name__}."
        )
    if not callable(getattr(scheduler, "step_update", None)):  # timm's take a metric or leave it
        check_takes(scheduler, metric)
    return metric


def value_of(metric: Metric, trainer: Engine) -> Any:
    """The value of the metric as of now.

    Raises:
        MissingMetricError: if it is not there.
    """
    if callable(metric):
        value = metric(trainer)
        if value is None:
            raise MissingMetricError(f"metric must return a number, got None from {shown(metric)}.")
        return value
    whose = "trainer" if isinstance(metric, str) else "evaluator"
    engine, name = (trainer, metric) if isinstance(metric, str) else metric
    metrics = engine.state.metrics
    if name not in metrics:
        hint = f" For that of an evaluator give metric=(evaluator, {name!r})." if whose == "trainer" else ""
        raise MissingMetricError(
            f"metric must be one of {whose}.state.metrics, got {name!r}, not in {sorted(metrics)}.{hint}"
        )
    return metrics[name]
