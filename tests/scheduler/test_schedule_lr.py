from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from through_file import through_file
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, SequentialLR

from ignite_lr import ScheduleLR, schedules

LINE = schedules.Linear(total_steps=10)


def sgd(lr: Any = 0.5, groups: int = 1) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)], lr=lr)


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def test_it_is_a_lambda_lr_with_the_same_rates() -> None:
    ours, theirs = sgd(groups=3), sgd(groups=3)
    mine, reference = ScheduleLR(ours, LINE), LambdaLR(theirs, LINE)
    assert isinstance(mine, LambdaLR)
    assert isinstance(mine, LRScheduler)
    for _ in range(15):
        assert rates(ours) == rates(theirs)
        assert mine.get_last_lr() == reference.get_last_lr()
        assert mine.get_lr() == rates(ours)
        assert mine.last_epoch == reference.last_epoch
        assert mine.base_lrs == reference.base_lrs
        theirs.step()
        ours.step()
        mine.step()
        reference.step()


def test_the_optimizers_step_is_left_alone() -> None:
    optimizer = sgd()
    before = dict(vars(optimizer))
    ScheduleLR(optimizer, LINE).step()
    assert vars(optimizer) == before


@pytest.mark.parametrize("groups", [1, 7])
def test_one_evaluation_a_step(groups: int) -> None:
    calls: list[int] = []

    def schedule(step: int) -> float:
        calls.append(step)
        return 1.0

    scheduler = ScheduleLR(sgd(groups=groups), schedule)
    calls.clear()
    for _ in range(3):
        scheduler.step()
    assert calls == [1, 2, 3]
    shared = ScheduleLR(sgd(groups=3), [schedule, LINE, schedule])
    calls.clear()
    shared.step()
    assert calls == [1]


def test_a_schedule_for_each_group() -> None:
    optimizer = sgd(groups=2)
    scheduler = ScheduleLR(optimizer, [LINE, schedules.Constant()])
    scheduler.step()
    assert rates(optimizer) == [0.45, 0.5]
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    with pytest.raises(ValueError, match="the optimizer now has 3 groups, and 2 schedules were given"):
        scheduler.step()
    with pytest.raises(ValueError, match="got 1 schedules for 2 groups"):
        ScheduleLR(sgd(groups=2), [LINE])


def test_a_group_added_later_gets_a_base_rate_of_its_own() -> None:
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, LINE)
    for _ in range(4):
        scheduler.step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.2})
    scheduler.step()
    assert rates(optimizer) == [0.25, 0.1]
    assert scheduler.base_lrs == [0.5, 0.2]
    assert len(scheduler.get_last_lr()) == 2
    again = sgd(groups=2)
    ScheduleLR(again, LINE).load_state_dict(through_file(scheduler.state_dict()))
    assert rates(again) == [0.25, 0.1]


def test_taken_away_groups_are_an_error() -> None:
    optimizer = sgd(groups=2)
    scheduler = ScheduleLR(optimizer, LINE)
    optimizer.param_groups.pop()
    with pytest.raises(ValueError, match="must keep its parameter groups, got 1 of 2"):
        scheduler.step()


def test_absolute_takes_the_value_for_the_rate() -> None:
    optimizer = sgd(groups=2)
    scheduler = ScheduleLR(optimizer, lambda step: 0.01 * (step + 1), absolute=True)
    assert rates(optimizer) == [0.01, 0.01]
    scheduler.step()
    assert rates(optimizer) == scheduler.get_last_lr() == [0.02, 0.02]


class TestTensorRates:
    def test_they_are_filled_in_place(self) -> None:
        rate = torch.tensor(0.5)
        optimizer, reference = sgd(rate), sgd(torch.tensor(0.5))
        scheduler, theirs = ScheduleLR(optimizer, LINE), LambdaLR(reference, LINE)
        kept = optimizer.param_groups[0]["lr"]
        for _ in range(12):
            assert torch.equal(optimizer.param_groups[0]["lr"], reference.param_groups[0]["lr"])
            reference.step()
            optimizer.step()
            scheduler.step()
            theirs.step()
        assert optimizer.param_groups[0]["lr"] is kept
        assert scheduler.get_last_lr()[0] is not kept

    def test_one_put_there_later_is_filled_too(self) -> None:
        optimizer = sgd(groups=2)
        scheduler = ScheduleLR(optimizer, LINE)
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"])
        kept = [group["lr"] for group in optimizer.param_groups]
        scheduler.step()
        assert rates(optimizer) == pytest.approx([0.45, 0.45])
        assert all(group["lr"] is rate for group, rate in zip(optimizer.param_groups, kept, strict=True))

    def test_they_resume_exactly(self) -> None:
        optimizer, whole = sgd(torch.tensor(0.3)), sgd(torch.tensor(0.3))
        scheduler, uninterrupted = ScheduleLR(optimizer, LINE), ScheduleLR(whole, LINE)
        for _ in range(3):
            scheduler.step()
        resumed = sgd(torch.tensor(0.3))
        again = ScheduleLR(resumed, LINE)
        again.load_state_dict(through_file(scheduler.state_dict()))
        for _ in range(3):
            uninterrupted.step()
        for _ in range(8):
            assert torch.equal(resumed.param_groups[0]["lr"], whole.param_groups[0]["lr"])
            again.step()
            uninterrupted.step()

    def test_absolute(self) -> None:
        optimizer = sgd(torch.tensor(0.3))
        kept = optimizer.param_groups[0]["lr"]
        ScheduleLR(optimizer, lambda step: 0.25, absolute=True).step()
        assert kept.item() == 0.25


class TestState:
    def test_it_is_made_of_plain_values(self) -> None:
        scheduler = ScheduleLR(sgd(groups=2), LINE)
        scheduler.step()
        state = through_file(scheduler.state_dict())
        assert state == {
            "last_epoch": 1,
            "base_lrs": [0.5, 0.5],
            "absolute": False,
            "schedule": {
                "name": "linear",
                "total_steps": 10,
                "final_factor": 0.0,
                "warmup_steps": 0,
                "warmup_start": 0.0,
            },
            "in_use": True,
        }

    @pytest.mark.parametrize(
        "order", ["build, optimizer, scheduler", "build, scheduler, optimizer", "optimizer, build"]
    )
    def test_no_order_of_building_and_loading_gives_a_wrong_rate(self, order: str) -> None:
        optimizer = sgd()
        scheduler = ScheduleLR(optimizer, LINE)
        for _ in range(4):
            scheduler.step()
        states = through_file({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()})
        resumed = sgd(lr=0.123)  # another one in the code: the saved base rate wins
        if order == "optimizer, build":
            resumed.load_state_dict(states["optimizer"])
            again = ScheduleLR(resumed, LINE)
            again.load_state_dict(states["scheduler"])
        else:
            again = ScheduleLR(resumed, LINE)
            if order == "build, optimizer, scheduler":
                resumed.load_state_dict(states["optimizer"])
                again.load_state_dict(states["scheduler"])
            else:
                again.load_state_dict(states["scheduler"])
                resumed.load_state_dict(states["optimizer"])
        assert rates(resumed) == rates(optimizer) == again.get_last_lr() == [0.3]
        again.step()
        assert rates(resumed) == [0.25]
        assert resumed.param_groups[0]["initial_lr"] == 0.5

    def test_the_state_alone_writes_the_rate(self) -> None:
        scheduler = ScheduleLR(sgd(), LINE)
        for _ in range(4):
            scheduler.step()
        resumed = sgd()
        ScheduleLR(resumed, LINE).load_state_dict(scheduler.state_dict())
        assert rates(resumed) == [0.3]

    @pytest.mark.parametrize("initial_lr", [True, False])
    def test_last_epoch_is_the_last_update_made(self, initial_lr: bool) -> None:
        optimizer = sgd()
        if initial_lr:
            optimizer.param_groups[0].update(lr=0.3, initial_lr=0.5)
        scheduler = ScheduleLR(optimizer, LINE, last_epoch=3)
        assert rates(optimizer) == [0.3]
        assert scheduler.last_epoch == 4

    def test_the_schedule_in_the_code_wins_and_the_difference_is_shown(self) -> None:
        state = ScheduleLR(sgd(), LINE).state_dict()
        longer = ScheduleLR(sgd(), schedules.Linear(total_steps=20))
        with pytest.warns(UserWarning, match=r"saved schedule is Linear\(total_steps=10\).*Linear\(total_steps=20\)"):
            longer.load_state_dict(state)
        longer.step()
        assert longer.get_last_lr() == [0.475]
        with pytest.warns(UserWarning, match="in the code is a function"):
            ScheduleLR(sgd(), lambda step: 1.0).load_state_dict(state)
        with pytest.warns(UserWarning, match="saved with absolute=False, the code gives absolute=True"):
            ScheduleLR(sgd(), LINE, absolute=True).load_state_dict(state)

    def test_functions_and_their_combinations_can_be_saved(self) -> None:
        for schedule in (lambda step: 1.0, schedules.Scale(lambda step: 1.0, 0.5), [LINE]):
            scheduler = ScheduleLR(sgd(), schedule)
            scheduler.step()
            again = ScheduleLR(sgd(), schedule)
            again.load_state_dict(through_file(scheduler.state_dict()))
            assert again.last_epoch == 1

    def test_the_state_of_a_lambda_lr_is_taken(self) -> None:
        optimizer = sgd()
        theirs = LambdaLR(optimizer, LINE)
        optimizer.step()
        theirs.step()
        resumed = sgd()
        ScheduleLR(resumed, LINE).load_state_dict(theirs.state_dict())
        assert rates(resumed) == [0.45]

    def test_what_does_not_fit_is_refused_and_changes_nothing(self) -> None:
        optimizer = sgd(groups=2)
        scheduler = ScheduleLR(optimizer, LINE)
        state = scheduler.state_dict()
        with pytest.raises(ValueError, match="got 1 rates for 2 groups"):
            scheduler.load_state_dict(ScheduleLR(sgd(), LINE).state_dict())
        with pytest.raises(ValueError, match="state_dict must have base_lrs"):
            scheduler.load_state_dict({"last_epoch": 3})
        with pytest.raises(TypeError, match="last_epoch of state_dict must be an integer"):
            scheduler.load_state_dict({**state, "last_epoch": 3.5})
        with pytest.raises(ValueError, match=r"base_lrs\[0\] of state_dict must be finite"):
            scheduler.load_state_dict({**state, "base_lrs": [math.nan, 0.1]})
        with pytest.raises(TypeError, match="state_dict must be a dict"):
            scheduler.load_state_dict(3)  # type: ignore[arg-type]  # what is being tested
        assert scheduler.state_dict() == state
        assert rates(optimizer) == [0.5, 0.5]


class TestRatesForFactors:
    @pytest.mark.parametrize(
        ("schedule", "base"),
        [
            (lambda step: 0.01, 0.01),
            (lambda step: 1e-3 * min(1.0, step / 5000), 1e-3),
            (lambda step: [0.01, 0.1, 0.1][step], 0.1),  # no longer than its training
            (schedules.Noam(warmup_steps=4000, model_dim=512), 1e-3),
        ],
    )
    def test_one_warning_names_absolute(self, schedule: Callable[[int], float], base: float) -> None:
        with pytest.warns(UserWarning, match="absolute=True") as caught:
            ScheduleLR(sgd(base, groups=3), schedule).step()
        assert len(caught) == 1
        assert caught[0].filename == __file__

    @pytest.mark.parametrize(
        ("schedule", "base"),
        [
            (LINE, 0.01),
            (schedules.Cosine(1000, warmup_steps=900), 0.01),
            (schedules.Noam(warmup_steps=4000, model_dim=512), 1.0),
            (lambda step: 0.01, 0.5),
            (lambda step: 0.2, 0.01),
            (lambda step: 1e-4, 0.1),
            (lambda step: 0.0, 0.1),
        ],
    )
    def test_factors_are_not_suspected(self, schedule: Callable[[int], float], base: float) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ScheduleLR(sgd(base), schedule)
            ScheduleLR(sgd(0.01), lambda step: 0.01, absolute=True)


class TestWhatAScheduleReturns:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, np.float32("nan"), -1])
    @pytest.mark.parametrize("form", ["shared", "each", "absolute"])
    def test_no_factor(self, value: float, form: str) -> None:
        def schedule(step: int) -> float:
            return value if step == 2 else 1.0

        optimizer = sgd()
        scheduler = ScheduleLR(optimizer, [schedule] if form == "each" else schedule, absolute=form == "absolute")
        scheduler.step()
        before = (rates(optimizer), scheduler.last_epoch)
        with pytest.raises(ValueError, match=r"must return a finite number of at least 0.* for update 2"):
            scheduler.step()
        assert (rates(optimizer), scheduler.last_epoch) == before

    @pytest.mark.parametrize("value", [None, "0.5", True, torch.tensor(0.5), [0.5]])
    def test_no_number(self, value: Any) -> None:
        scheduler = ScheduleLR(sgd(), lambda step: value if step == 1 else 1.0)
        with pytest.raises(TypeError, match=r"must return a number, got .* for update 1"):
            scheduler.step()

    def test_at_construction(self) -> None:
        with pytest.raises(ValueError, match="for update 0"):
            ScheduleLR(sgd(), lambda step: -1.0)

    @pytest.mark.parametrize("one", [1, np.float64(1), np.float32(1), np.int64(1)])
    def test_other_numbers_become_floats(self, one: Any) -> None:
        optimizer = sgd(lr=1)
        ScheduleLR(optimizer, lambda step: one).step()
        assert type(optimizer.param_groups[0]["lr"]) is float


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"optimizer": 3}, TypeError, "optimizer must be a torch.optim.Optimizer, got 3"),
        ({"schedule": 3}, TypeError, "schedule must be callable, got 3"),
        ({"schedule": schedules.Constant}, TypeError, "got the class Constant: make an instance"),
        ({"absolute": 1}, TypeError, "absolute must be True or False, got 1"),
        ({"last_epoch": -2}, ValueError, "last_epoch must be at least -1, got -2"),
        ({"last_epoch": 1.5}, TypeError, r"last_epoch must be an integer, got 1\.5"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ScheduleLR(**{"optimizer": sgd(), "schedule": LINE, **arguments})


def test_a_part_of_pytorchs_sequential_scheduler() -> None:
    def make() -> tuple[torch.optim.Optimizer, SequentialLR]:
        optimizer = sgd()
        parts = [ScheduleLR(optimizer, LINE), ScheduleLR(optimizer, schedules.Exponential(0.5))]
        return optimizer, SequentialLR(optimizer, parts, milestones=[3])

    def run(optimizer: torch.optim.Optimizer, scheduler: SequentialLR, n: int) -> list[float]:
        seen = []
        for _ in range(n):
            seen += rates(optimizer)
            optimizer.step()
            scheduler.step()
        return seen

    whole = run(*make(), 6)
    assert whole == [0.5, 0.45, 0.4, 0.5, 0.25, 0.125]
    for stop in (1, 3, 5):
        optimizer, scheduler = make()
        first = run(optimizer, scheduler, stop)
        resumed, again = make()
        again.load_state_dict(scheduler.state_dict())
        resumed.load_state_dict(optimizer.state_dict())
        assert first + run(resumed, again, 6 - stop) == whole


def test_a_step_to_a_given_update() -> None:
    optimizer = sgd()
    scheduler = ScheduleLR(optimizer, LINE)
    scheduler.step(5)
    assert rates(optimizer) == [0.25]
    scheduler.step()
    assert rates(optimizer) == [pytest.approx(0.2)]


def test_rates_on_a_device_are_never_read() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():  # reading a value raises here
        parameter = torch.nn.Parameter(torch.zeros(1, device="cuda"))
        optimizer = torch.optim.AdamW([parameter], lr=0.1, capturable=True)
        # put there afterwards, because PyTorch's own constructor reads it
        kept = optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="cuda")
        scheduler = ScheduleLR(optimizer, LINE)
        for _ in range(3):
            scheduler.step()
        scheduler.get_last_lr()
        assert optimizer.param_groups[0]["lr"] is kept


class Noting:
    """A schedule that keeps what it was asked, in a container."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.known = {"a": 1}

    def __call__(self, update: int) -> float:
        self.asked.append(update)
        return 0.9

    def at(self, update: int) -> float:
        self.known[str(update)] = update
        return 0.9


@pytest.mark.parametrize("what", ["object", "method"])
def test_a_memory_in_a_container_warns_and_is_left_as_it_was(what: str) -> None:
    schedule = Noting()
    with pytest.warns(UserWarning, match="schedule must be a pure function of the update, got Noting"):
        ScheduleLR(sgd(), schedule if what == "object" else schedule.at)
    # asked for the first rate alone
    assert (schedule.asked, schedule.known) == (([0], {"a": 1}) if what == "object" else ([], {"a": 1, "0": 0}))


def test_absolute_with_a_peak_of_one_between_the_updates_tried() -> None:
    with pytest.warns(UserWarning, match="absolute=True takes what the schedule returns"):
        ScheduleLR(sgd(lr=1e-3), schedules.InverseSqrt(warmup_steps=10), absolute=True)
