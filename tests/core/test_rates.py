from __future__ import annotations

import warnings

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from ignite_lr import LRFinder, ScheduleLR
from ignite_lr.core.rates import separate_rates, set_base_rates, set_rates


def groups() -> list[dict[str, object]]:
    return [{"params": [nn.Parameter(torch.ones(1))]} for _ in range(2)]


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def test_groups_that_share_a_tensor_get_one_each() -> None:
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD(groups(), lr=rate)
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
    separate_rates(optimizer)
    assert optimizer.param_groups[0]["lr"] is rate
    assert optimizer.param_groups[1]["lr"] is not rate
    set_rates(optimizer, [0.2, 0.3])
    assert rates(optimizer) == pytest.approx([0.2, 0.3])


def test_a_rate_and_its_base_get_a_tensor_each() -> None:
    optimizer = torch.optim.SGD(groups(), lr=torch.tensor(0.1))
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    separate_rates(optimizer)
    set_rates(optimizer, [0.2, 0.3])
    assert [float(group["initial_lr"]) for group in optimizer.param_groups] == pytest.approx([0.1, 0.1])
    assert rates(optimizer) == pytest.approx([0.2, 0.3])


def test_applied_rates_do_not_overwrite_each_other() -> None:
    optimizer = torch.optim.SGD(groups(), lr=torch.tensor(0.1))
    set_base_rates(optimizer, [0.2, 0.3])
    assert rates(optimizer) == pytest.approx([0.2, 0.3])


def test_a_schedule_for_each_group_whose_rate_is_one_tensor() -> None:
    optimizer = torch.optim.SGD(groups(), lr=torch.tensor(0.1))
    scheduler = ScheduleLR(optimizer, [lambda step: 0.5**step, lambda step: 1.0])
    optimizer.step()
    scheduler.step()
    assert rates(optimizer) == pytest.approx([0.05, 0.1])


def test_a_sweep_with_a_rate_for_each_group_whose_rate_is_one_tensor() -> None:
    shared = torch.tensor(0.1)
    optimizer = torch.optim.SGD(groups(), lr=shared)
    seen: list[list[float]] = []

    def step(engine: Engine, batch: object) -> float:
        seen.append(rates(optimizer))
        optimizer.step()
        return 1.0 / engine.state.iteration

    model = nn.Linear(1, 1)
    finder = LRFinder()
    with (
        warnings.catch_warnings(),
        finder.attach(
            Engine(step), {"model": model, "optimizer": optimizer}, num_iter=3, start_lr=[1e-3, 1e-2], end_lr=[0.1, 1.0]
        ) as engine,
    ):
        warnings.simplefilter("ignore")
        engine.run([0])
    assert seen == [pytest.approx(row) for row in finder.result.lrs]
    assert all(group["lr"] is shared for group in optimizer.param_groups)
    assert float(shared) == pytest.approx(0.1)
