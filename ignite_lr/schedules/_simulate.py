"""What any scheduler will do, before the run."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

from ignite_lr.core.arguments import AT_ONCE, Whole, check_callable, shown
from ignite_lr.core.host import numbers
from ignite_lr.core.schedulers import check_takes

__all__ = ["simulate"]


def simulate(scheduler: Any, n: int, metric: Callable[[int], float] | None = None) -> list[float] | list[list[float]]:
    """The rates of the next ``n`` updates, as Ignite's ``simulate_values`` gives them for its own schedulers.

    A copy of the scheduler is stepped, on a copy of the optimizer's parameter groups without the parameters: the
    scheduler, the optimizer and its ``step`` stay as they are.

    Args:
        scheduler: any of PyTorch's or this package's, with one step an update.
        n: how many updates, from 0 to 10,000,000.
        metric: for ``ReduceLROnPlateau``: the metric after update ``i``, counted from 0 here.

    Returns:
        a rate an update, the present one first; with several parameter groups a list of one a group.

    Raises:
        TypeError: if ``scheduler`` is none, or another argument of the wrong type.
        ValueError: if ``n`` is negative, there is a ``metric`` that the scheduler does not take, or none that it needs.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
        >>> simulate(torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5), 5)
        [0.5, 0.5, 0.25, 0.25, 0.125]
    """
    optimizer = getattr(scheduler, "optimizer", None)
    if not callable(getattr(scheduler, "step", None)) or optimizer is None:
        raise TypeError(f"scheduler must have step() and optimizer, got {shown(scheduler)}.")
    count = Whole(0, maximum=AT_ONCE).check("n", n)
    check_callable("metric", metric, or_none=True)
    check_takes(scheduler, metric)
    kept = {"params", "param_names"}
    groups = [
        {"params": [], **{key: copy.deepcopy(value) for key, value in group.items() if key not in kept}}
        for group in optimizer.param_groups
    ]
    stage = object.__new__(type(optimizer))
    vars(stage).update(param_groups=groups, defaults=dict(optimizer.defaults), state={})
    memo: dict[int, Any] = {id(optimizer): stage, id(optimizer.param_groups): groups}
    memo |= {id(theirs): ours for theirs, ours in zip(optimizer.param_groups, groups, strict=True)}
    clone = copy.deepcopy(scheduler, memo)
    rates: list[list[float]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no optimizer.step() between the steps
        for i in range(count or 0):
            if i:
                clone.step(*(() if metric is None else (metric(i - 1),)))
            rates.append(numbers([group["lr"] for group in groups]))
    return [rate for (rate,) in rates] if len(groups) == 1 else rates
