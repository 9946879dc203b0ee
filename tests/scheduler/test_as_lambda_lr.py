"""What PyTorch's own tests ask of ``LambdaLR``, asked of ``ScheduleLR``.

Rates are floats and tensors; it is stepped by hand and by an Ignite trainer.
"""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch.optim.lr_scheduler import LambdaLR, SequentialLR, StepLR
from worked_out import keeps_tensors_apart

from ignite_lr import LRSchedulerHandler, ScheduleLR

UPDATES = 10
Drive = Callable[[torch.optim.Optimizer, Any, int], list[list[float]]]


def by_hand(optimizer: torch.optim.Optimizer, scheduler: Any, updates: int) -> list[list[float]]:
    """The rates of every update, and those that are due after the last."""
    rates = []
    for _ in range(updates):
        rates.append(rates_of(optimizer))
        optimizer.step()
        scheduler.step()
    return [*rates, rates_of(optimizer)]


def by_a_trainer(optimizer: torch.optim.Optimizer, scheduler: Any, updates: int) -> list[list[float]]:
    """The same."""
    rates = []

    def step(engine: Engine, batch: int) -> None:
        rates.append(rates_of(optimizer))
        optimizer.step()

    trainer = Engine(step)
    with LRSchedulerHandler(scheduler).attach(trainer):
        if updates:
            trainer.run(range(updates))
    return [*rates, rates_of(optimizer)]


@pytest.fixture(params=[by_hand, by_a_trainer], ids=["by_hand", "by_a_trainer"])
def drive(request: pytest.FixtureRequest) -> Drive:
    found: Drive = request.param
    return found


@pytest.fixture(params=["float", "tensor"])
def sgd(request: pytest.FixtureRequest) -> Callable[[], torch.optim.Optimizer]:
    """Two groups, with rates of 0.05 and 0.5."""

    def make() -> torch.optim.Optimizer:
        form = (lambda rate: torch.tensor(rate, dtype=torch.float64)) if request.param == "tensor" else float
        groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": form(rate)} for rate in (0.05, 0.5)]
        return torch.optim.SGD(groups, lr=form(0.05))

    return make


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def floats(rates: list[Any]) -> list[float]:
    return [float(rate) for rate in rates]


class Decay:
    """A callable object, as LambdaLR puts its attributes into the state."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def __call__(self, update: int) -> float:
        return self.gamma**update


def same(got: list[list[float]], wanted: list[list[float]]) -> bool:
    return len(got) == len(wanted) and all(
        one == pytest.approx(two, rel=1e-12) for one, two in zip(got, wanted, strict=True)
    )


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(lambda update: 0.9**update, id="one function"),
        pytest.param([lambda update: 0.9**update, lambda update: 0.8**update], id="one a group"),
        pytest.param([lambda update: update // 3 + 1, lambda update: 0.0], id="integers and zero"),
        pytest.param([Decay(0.9), Decay(0.5)], id="objects"),
    ],
)
def test_the_rates_are_base_rate_times_factor(sgd: Any, drive: Drive, schedule: Any) -> None:
    optimizer, other = sgd(), sgd()
    functions = schedule if isinstance(schedule, list) else [schedule] * 2
    wanted = [[0.05 * functions[0](i), 0.5 * functions[1](i)] for i in range(UPDATES + 1)]
    assert same(drive(optimizer, ScheduleLR(optimizer, schedule), UPDATES), wanted)
    assert same(by_hand(other, LambdaLR(other, schedule), UPDATES), wanted)


def test_get_last_lr_is_what_was_written_last(sgd: Any, drive: Drive) -> None:
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, lambda update: 1 / (update + 1))
    for _ in range(4):
        drive(optimizer, scheduler, 1)
        assert floats(scheduler.get_last_lr()) == rates_of(optimizer)


def test_the_base_rates_stay(sgd: Any, drive: Drive) -> None:
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, lambda update: 0.1**update)
    drive(optimizer, scheduler, UPDATES)
    assert floats([group["initial_lr"] for group in optimizer.param_groups]) == [0.05, 0.5]
    assert floats(scheduler.base_lrs) == [0.05, 0.5]
    # none of them is the tensor that is being filled
    assert not any(
        group["initial_lr"] is group["lr"] for group in optimizer.param_groups if torch.is_tensor(group["lr"])
    )


def test_a_tensor_stays_the_tensor_that_a_compiled_step_holds(sgd: Any, drive: Drive) -> None:
    optimizer = sgd()
    before = [group["lr"] for group in optimizer.param_groups]
    drive(optimizer, ScheduleLR(optimizer, lambda update: 0.9**update), UPDATES)
    for group, rate in zip(optimizer.param_groups, before, strict=True):
        assert type(group["lr"]) is type(rate)
        assert not torch.is_tensor(rate) or group["lr"] is rate


@pytest.mark.parametrize("schedule", [lambda update: 0.9**update, Decay(0.9)], ids=["function", "object"])
def test_a_state_goes_on_in_another_scheduler(sgd: Any, drive: Drive, schedule: Any) -> None:
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, schedule)
    drive(optimizer, scheduler, 4)
    saved = io.BytesIO()
    torch.save(scheduler.state_dict(), saved)
    saved.seek(0)
    other = sgd()
    resumed = ScheduleLR(other, schedule)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    assert resumed.last_epoch == scheduler.last_epoch == 4
    assert same(drive(other, resumed, 5), drive(optimizer, scheduler, 5))


def test_the_attributes_of_an_object_are_those_of_the_code(sgd: Any) -> None:
    """Where ``LambdaLR`` brings the saved ones back, and with them the old length of a schedule."""
    first, second = sgd(), sgd()
    state = ScheduleLR(first, Decay(0.9)).state_dict()
    resumed = ScheduleLR(second, Decay(0.5))
    resumed.load_state_dict(state)
    resumed.step()
    assert rates_of(second) == pytest.approx([0.025, 0.25])


def test_a_state_is_no_view_of_the_scheduler(sgd: Any, drive: Drive) -> None:
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, lambda update: 0.9**update)
    state = scheduler.state_dict()
    kept = copy.deepcopy(state)
    drive(optimizer, scheduler, 3)
    assert state == kept


def test_a_step_to_an_update_is_the_closed_form(sgd: Any) -> None:
    optimizer, one_by_one = sgd(), sgd()
    scheduler = ScheduleLR(optimizer, lambda update: 0.9**update)
    wanted = by_hand(one_by_one, ScheduleLR(one_by_one, lambda update: 0.9**update), UPDATES)
    for update in (7, 2, 10, 0, 3):
        scheduler.step(update)
        assert rates_of(optimizer) == pytest.approx(wanted[update])


def test_the_last_update_is_taken_up(sgd: Any, drive: Drive) -> None:
    optimizer, whole = sgd(), sgd()
    wanted = by_hand(whole, LambdaLR(whole, lambda update: 0.9**update), UPDATES)
    for group in optimizer.param_groups:
        group["initial_lr"] = copy.deepcopy(group["lr"])
    scheduler = ScheduleLR(optimizer, lambda update: 0.9**update, last_epoch=3)
    assert same(drive(optimizer, scheduler, UPDATES - 4), wanted[4:])


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_functions_as_groups(sgd: Any, count: int) -> None:
    with pytest.raises(ValueError, match=rf"got {count} schedules for 2 groups"):
        ScheduleLR(sgd(), [lambda update: 1.0] * count)


def test_only_an_optimizer() -> None:
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer"):
        ScheduleLR(torch.nn.Linear(1, 1), lambda update: 1.0)


def test_in_a_sequence_of_pytorchs(sgd: Any, drive: Drive) -> None:
    def build(kind: Any) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = sgd()
        if torch.is_tensor(optimizer.param_groups[0]["lr"]) and not keeps_tensors_apart():
            pytest.skip("LambdaLR is wrong with tensor rates in this PyTorch's SequentialLR")
        parts = [kind(optimizer, lambda update: (update + 1) / 4), StepLR(optimizer, 2, 0.5)]
        return optimizer, SequentialLR(optimizer, parts, [4])

    wanted = by_hand(*build(LambdaLR), UPDATES)
    assert same(drive(*build(ScheduleLR), UPDATES), wanted)


def test_two_schedulers_multiply_nothing(sgd: Any) -> None:
    """The second one made goes on from the same base rates, as with ``LambdaLR``."""
    optimizer, other = sgd(), sgd()
    for kind, where in ((ScheduleLR, optimizer), (LambdaLR, other)):
        kind(where, lambda update: 0.5)
        kind(where, lambda update: 0.25)
    assert rates_of(optimizer) == pytest.approx(rates_of(other))


def test_it_holds_nothing_in_a_circle(sgd: Any, drive: Drive) -> None:
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, lambda update: 1.0)
    drive(optimizer, scheduler, 2)
    gone = weakref.ref(scheduler)
    gc.collect()
    gc.disable()
    try:
        del scheduler
        assert gone() is None
    finally:
        gc.enable()


def test_it_can_be_copied_with_its_optimizer(sgd: Any, drive: Drive) -> None:
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, Decay(0.9))
    drive(optimizer, scheduler, 3)
    for copied in (copy.deepcopy((optimizer, scheduler)), pickle.loads(pickle.dumps((optimizer, scheduler)))):
        assert copied[1].optimizer is copied[0]
        wanted = [[0.05 * 0.9**i, 0.5 * 0.9**i] for i in range(3, 8)]
        assert same(drive(*copied, 4), wanted)


def test_an_added_group_goes_along(sgd: Any, drive: Drive) -> None:
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, lambda update: 0.9**update)
    drive(optimizer, scheduler, 3)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 2.0})
    drive(optimizer, scheduler, 2)
    assert rates_of(optimizer) == pytest.approx([0.05 * 0.9**5, 0.5 * 0.9**5, 2.0 * 0.9**5])
