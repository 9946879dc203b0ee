from __future__ import annotations

import pytest
import torch

from ignite_lr.clipper._gradients import unscales
from ignite_lr.clipper._step_orders import StepOrders


def made(fused: bool = True, **options: float) -> torch.optim.Optimizer:
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([6.0, 8.0])
    return torch.optim.SGD([parameter], lr=1.0, fused=fused, **options)  # type: ignore[arg-type]


def gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]


def test_only_a_fused_optimizer_unscales() -> None:
    assert unscales(made())
    assert not unscales(made(fused=False))


@pytest.mark.parametrize("present", [None, 4.0])
def test_divides_beside_what_is_divided_by_already(present: float | None) -> None:
    optimizer = made()
    if present is not None:
        optimizer.grad_scale = torch.tensor(present)  # type: ignore[attr-defined]
    step = StepOrders(optimizer)
    step.guard()
    optimizer.register_step_pre_hook(lambda *_: step.divide(torch.tensor(2.0)))
    optimizer.step()
    (parameter,) = optimizer.param_groups[0]["params"]
    expected = 1.0 - torch.tensor([6.0, 8.0]) / (2.0 * (present or 1.0))
    torch.testing.assert_close(parameter.detach(), expected)
    assert getattr(optimizer, "grad_scale", None) == (None if present is None else torch.tensor(present))
    step.unguard()
    assert "step" not in vars(optimizer)


@pytest.mark.parametrize("flag", [False, True])
def test_skips_where_it_is_told(flag: bool) -> None:
    optimizer = made(momentum=0.9)
    step = StepOrders(optimizer)
    step.guard()
    told = []
    optimizer.register_step_pre_hook(
        lambda *_: told.append(step.skip_where(torch.tensor(flag), [gradients(optimizer)]))
    )
    optimizer.step()
    (parameter,) = optimizer.param_groups[0]["params"]
    assert told == [True]
    assert torch.equal(parameter.detach(), torch.ones(2)) == flag
    assert torch.equal(optimizer.state[parameter]["momentum_buffer"], torch.zeros(2)) == flag
    assert not hasattr(optimizer, "found_inf")


def test_obeys_only_in_a_guarded_step_of_a_fused_optimizer() -> None:
    for optimizer, expected in ((made(), True), (made(fused=False), False)):
        step, seen = StepOrders(optimizer), []
        optimizer.register_step_pre_hook(lambda o, *_, s=step, seen=seen: seen.append(s.obeys(gradients(o))))
        optimizer.step()
        step.guard()
        optimizer.step()
        type(optimizer).step(optimizer)
        assert seen == [False, expected, False]


def test_a_dampened_first_step_cannot_be_skipped_on_the_device() -> None:
    optimizer = made(momentum=0.9, dampening=0.5)
    step, told = StepOrders(optimizer), []
    step.guard()
    optimizer.register_step_pre_hook(
        lambda *_: told.append(step.skip_where(torch.tensor(False), [gradients(optimizer)]))
    )
    optimizer.step()
    optimizer.step()
    assert told == [False, True]


def test_gradients_set_aside_come_back() -> None:
    optimizer = made(fused=False, momentum=0.9)
    before = gradients(optimizer)
    step = StepOrders(optimizer)
    step.skip()
    optimizer.step()
    step.undo()
    step.undo()
    assert gradients(optimizer)[0] is before[0]
    assert not optimizer.state


def test_what_a_scaler_leaves_behind_a_step_that_raised_is_taken_away() -> None:
    """Otherwise its next step would be scaled twice."""
    optimizer = made()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    step = StepOrders(optimizer)
    step.guard()
    handle = optimizer.register_step_pre_hook(lambda *_: 1 / 0)
    scaler.scale(torch.zeros(()))
    with pytest.raises(ZeroDivisionError, match="division"):
        scaler.step(optimizer)
    assert not {"grad_scale", "found_inf"} & set(vars(optimizer))
    handle.remove()
    scaler.step(optimizer)
    (parameter,) = optimizer.param_groups[0]["params"]
    torch.testing.assert_close(parameter.detach(), 1.0 - torch.tensor([6.0, 8.0]) / 8.0)
