"""A range test in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ignite.engine import Engine

from ignite_lr.lr_finder._finder import LRFinder
from ignite_lr.range_test import RangeTestResult

__all__ = ["find_lr"]


def find_lr(
    trainer: Engine,
    data: Iterable[Any],
    to_save: Mapping[str, Any],
    *,
    num_iter: int | None = 300,
    start_lr: float | Sequence[float] | None = 1e-7,
    end_lr: float | Sequence[float] = 10.0,
    verify: int = 50,
    **options: Any,
) -> RangeTestResult:
    """Find a learning rate, and try it: a range test and trials that leave no trace in the training.

    The same as a block of :meth:`LRFinder.attach` in which ``data`` is run over.

    Args:
        trainer: fresh, finished, interrupted, loaded or crashed.
        data: batches that can be read again.
        to_save: the optimizer and every module that the training step uses, by name.
        num_iter: the number of points of the sweep, one an update.
        start_lr: the rate of the first point, one number or one for each parameter group.
        end_lr: the rate of the last point, likewise.
        verify: the updates of each trial; 0 for none.
        options: the other arguments of :meth:`LRFinder.attach`.

    Returns:
        what was found: ``result.suggestion()``, ``result.apply(optimizer)``, ``result.plot()``.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is out of its range, or the data cannot be read again.

    Example:
        >>> import torch
        >>> from ignite.engine import create_supervised_trainer
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
        >>> data = [(batch, batch.sum(1, keepdim=True)) for batch in torch.randn(50, 8, 4)]
        >>> result = find_lr(trainer, data, {"model": model, "optimizer": optimizer}, num_iter=100)
        >>> any(trial.learns for trial in result.verified)
        True
        >>> result.apply(optimizer) == optimizer.param_groups[0]["lr"]
        True
    """
    finder = LRFinder()
    given = {"num_iter": num_iter, "start_lr": start_lr, "end_lr": end_lr, "verify": verify, **options}
    with finder.attach(trainer, to_save, **given) as engine:
        engine.run(data)
    return finder.result
