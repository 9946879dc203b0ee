"""The validation loss in the middle of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from ignite.engine import Engine
from ignite.metrics import Metric

from ignite_lr.core.engine import handlers_of, process
from ignite_lr.dry_run._batches import private_loader
from ignite_lr.dry_run._failures import raise_failures
from ignite_lr.dry_run._loss import loss_of
from ignite_lr.dry_run._snapshot import Snapshot
from ignite_lr.dry_run._state import private_state

__all__ = ["Validation", "validator"]

Validation = Callable[[], Any] | tuple[Engine, Iterable[Any], str]


def validator(validation: Validation, snapshot: Snapshot) -> Callable[[], float]:
    """A function that gives the validation loss as of now."""
    if not isinstance(validation, tuple):
        return lambda: loss_of(_undisturbed(snapshot, validation))
    evaluator, loader, metric = validation
    private = Engine(lambda _, batch: process(evaluator, batch))
    found = False
    for event, handler, args, kwargs in handlers_of(evaluator):
        method: Any = handler
        while hasattr(method, "__wrapped__") and not isinstance(getattr(method, "__self__", None), Metric):
            method = method.__wrapped__
        if isinstance(getattr(method, "__self__", None), Metric):
            found = True
            private.add_event_handler(event, method, *args, **kwargs)
    if not found:
        raise ValueError("validation: the evaluator has no metrics attached, so it has no metric to record")
    snapshot.add_data("validation data", loader)
    batches = private_loader(loader)

    def validate() -> float:
        before, flags = evaluator.state, evaluator.last_event_name
        private.state = private_state(evaluator, before, None)
        evaluator.state = private.state
        try:
            _undisturbed(snapshot, lambda: private.run(batches))
            if metric not in private.state.metrics:
                known = ", ".join(sorted(private.state.metrics)) or "none"
                raise KeyError(f"validation: the evaluator has no metric {metric!r}, but {known}")
            return loss_of(private.state.metrics[metric])
        finally:
            evaluator.state, evaluator.last_event_name = before, flags

    return validate


def _undisturbed(snapshot: Snapshot, function: Callable[[], Any]) -> Any:
    """Call a function that may put modules into evaluation mode and draw random numbers.

    The training step need not set its modes each time, and its random numbers must not depend on how often somebody
    looks at the validation loss: the global generators come back, and all that were captured.
    """
    modes = [(module, module.training) for module in snapshot.modules]
    random_state = Snapshot({f"generator {index}": one for index, one in enumerate(snapshot.generators)})
    random_state.add_random_state()
    try:
        return function()
    finally:
        for module, training in modes:
            module.training = training
        raise_failures(random_state.restore(), sys.exc_info()[1], "validation")
        random_state.close()
