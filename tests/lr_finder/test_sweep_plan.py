from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ignite_lr.dry_run import loss_of
from ignite_lr.lr_finder._plan import SweepPlan, count


def plan(lrs: tuple[Any, ...] = (0.1,), **changes: Any) -> SweepPlan:
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs], lr=0.1)
    values: dict[str, Any] = {
        "optimizer": optimizer,
        "num_iter": None,
        "start_lr": None,
        "end_lr": 10.0,
        "step_mode": "exp",
        "smooth_f": 0.05,
        "diverge_th": 5.0,
        "ratios": None,
        "repeats": 1,
        "verify": 0,
        **changes,
    }
    return SweepPlan(**values)


@pytest.mark.parametrize("lr", [0.1, np.float64(0.1), torch.tensor(0.1, dtype=torch.float64)])
def test_the_present_rates_are_the_start(lr: Any) -> None:
    made = plan((lr, 0.5))
    assert made.starts == [0.1, 0.5]
    assert made.ends == [10.0, 10.0]
    assert made.rates(2) == [(0.1, 0.5), (10.0, 10.0)]


def test_ratios_are_those_of_the_present_rates() -> None:
    made = plan((0.1, 0.4, 0.0), ratios="keep", start_lr=0.01, end_lr=1)
    assert made.starts == pytest.approx([0.0025, 0.01, 0.0])
    assert made.ends == pytest.approx([0.25, 1.0, 0.0])


def test_ratios_without_a_start_begin_where_the_rates_are() -> None:
    assert plan((0.1, 0.4), ratios="keep", end_lr=1).starts == [0.1, 0.4]


def test_ratios_need_a_positive_rate() -> None:
    with pytest.raises(ValueError, match=r"ratios='keep' needs a parameter group with a positive lr, got \[0.0\]"):
        plan((0.0,), ratios="keep")


@pytest.mark.parametrize("value", [True, "3", None, [1.0], object(), 1j, torch.ones(1), np.ones(1)])
def test_what_is_no_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match=f"diverge_th should be a number, but given {type(value)}"):
        plan(diverge_th=value)


@pytest.mark.parametrize("value", [np.int64(3), 3])
def test_counts(value: Any) -> None:
    assert count("n", value) == 3
    assert type(count("n", value)) is int
    for wrong, error in ((np.int64(0), ValueError), (-1, ValueError), (3.0, TypeError), (False, TypeError)):
        with pytest.raises(error, match=f"n should be .*, but give {wrong}"):
            count("n", wrong)


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.array(2.0), np.array([2.0]), torch.tensor(2), torch.tensor([2.0])]
)
def test_losses_of_all_kinds(value: Any) -> None:
    assert loss_of(value) == 2.0
    assert type(loss_of(value)) is float


@pytest.mark.parametrize("value", ["2", [2.0], {"loss": 2.0}, np.ones(2), np.ones((1, 1)), False, 1j])
def test_other_losses_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=f"but got output of type {type(value).__name__}.*output_transform"):
        loss_of(value)


@pytest.mark.parametrize("value", [True, np.bool_(True), torch.tensor(True), torch.tensor(1 + 0j)], ids=repr)
def test_truth_and_complex_values_are_no_rates(value: Any) -> None:
    with pytest.raises(TypeError, match="start_lr should be a float or list of floats, but given"):
        plan(start_lr=value)
