from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from ignite_lr import ScheduleLR
from ignite_lr.schedules import Constant, Cosine, Linear, with_warmup


def sgd(lr: Any = 0.8, groups: int = 1) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)], lr=lr)


def rates(optimizer: torch.optim.Optimizer, scheduler: Any, n: int) -> list[float]:
    seen = []
    for _ in range(n):
        seen.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return seen


def test_the_schedule_follows_uncut() -> None:
    long = with_warmup(Cosine(20), 5)
    assert long.values(5) == [0.0, 0.2, 0.4, pytest.approx(0.6), 0.8]
    assert long.values(30)[5:] == Cosine(20).values(25)


def test_it_rises_to_the_first_value() -> None:
    assert with_warmup(Constant(0.5), 2, warmup_start=0.1).values(4) == pytest.approx([0.1, 0.3, 0.5, 0.5])
    assert with_warmup(lambda step: 0.5, 2).values(3) == [0.0, 0.25, 0.5]


def test_no_warmup_changes_nothing() -> None:
    assert with_warmup(Linear(4), 0).values(5) == Linear(4).values(5)


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.5),
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=2),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, start_factor=0.5, total_iters=4),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=6),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=20, cycle_momentum=False),
    "ScheduleLR": lambda o: ScheduleLR(o, Linear(8)),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("lr", [0.8, torch.tensor(0.8)], ids=["number", "tensor"])
def test_a_scheduler_follows_uncut(name: str, lr: Any) -> None:
    alone = sgd(lr.clone() if isinstance(lr, torch.Tensor) else lr)
    expected = rates(alone, SCHEDULERS[name](alone), 10)
    optimizer = sgd(lr.clone() if isinstance(lr, torch.Tensor) else lr)
    kept = optimizer.param_groups[0]["lr"]
    scheduler = with_warmup(SCHEDULERS[name](optimizer), 4)
    seen = rates(optimizer, scheduler, 14)
    assert seen[:4] == pytest.approx([expected[0] * i / 4 for i in range(4)])
    assert seen[4:] == expected
    if isinstance(lr, torch.Tensor):
        assert optimizer.param_groups[0]["lr"] is kept


@pytest.mark.parametrize("stop", [0, 2, 3, 4, 7])
def test_it_resumes_exactly(stop: int) -> None:
    def make() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = sgd()
        return optimizer, with_warmup(SCHEDULERS["ExponentialLR"](optimizer), 4, warmup_start=0.1)

    whole = rates(*make(), 10)
    optimizer, scheduler = make()
    first = rates(optimizer, scheduler, stop)
    resumed, again = make()
    again.load_state_dict(scheduler.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    assert first + rates(resumed, again, 10 - stop) == whole


def test_a_metric_is_passed_on() -> None:
    optimizer = sgd()
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    scheduler = with_warmup(plateau, 2)
    seen = []
    for _ in range(6):
        seen.append(optimizer.param_groups[0]["lr"])
        scheduler.step(1.0)
    assert seen == [0.0, 0.4, 0.8, 0.8, 0.4, 0.2]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="warmup_steps must be at least 0, got -1"):
        with_warmup(Linear(4), -1)
    with pytest.raises(TypeError, match="schedule must be callable, got 3"):
        with_warmup(3, 2)  # type: ignore[call-overload]  # what is being tested
    with pytest.raises(ValueError, match="warmup_start must be at least 0"):
        with_warmup(Linear(4), 2, warmup_start=-0.5)


def test_it_may_lead_elsewhere() -> None:
    assert with_warmup(Linear(4), 2, warmup_end=0.5).values(4) == [0.0, 0.25, 1.0, 0.75]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = with_warmup(lr_scheduler.ExponentialLR(optimizer, 0.5), 2, warmup_start=0.5, warmup_end=0.1)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5, 0.3, 1.0, 0.5])


@pytest.mark.parametrize("at", [1, 5])
def test_it_follows_the_base_rate(at: int) -> None:
    """Also the scheduler inside, which keeps base rates of its own."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = with_warmup(lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step), 2)
    wanted = [0.0, 0.5, 1.0, 0.5, 0.25, 0.125, 0.0625]
    for i in range(7):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(wanted[i] * (1.0 if i <= at else 0.5))
        if i == at:
            optimizer.param_groups[0]["initial_lr"] = 0.5
        optimizer.step()
        scheduler.step()
