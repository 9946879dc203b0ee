from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from itertools import pairwise
from typing import Any, get_origin

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from ignite_lr import ScheduleLR, schedules
from ignite_lr.schedules import (
    Clamp,
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    InverseSqrt,
    Join,
    Linear,
    MultiStep,
    Noam,
    OneCycle,
    OneCycleMomentum,
    PiecewiseLinear,
    Polynomial,
    Scale,
    Schedule,
    Shift,
    Step,
    Tanh,
    TriStage,
    WarmupStableDecay,
)
from ignite_lr.schedules._picture import shape_length

FACTORS = st.floats(0.0, 3.0)
POSITIVE = st.floats(0.01, 3.0)
STEPS = st.integers(0, 40)
SHAPES = st.sampled_from(["linear", "cosine", "sqrt"])


@st.composite
def limited(draw: st.DrawFn, kind: type[Schedule], **more: st.SearchStrategy[Any]) -> Schedule:
    """A schedule whose total includes a warmup."""
    total = draw(st.integers(1, 60))
    warmup = {"warmup_steps": draw(st.integers(0, total)), "warmup_start": draw(FACTORS)}
    arguments = {name: draw(strategy) for name, strategy in more.items()}
    return kind(total_steps=total, **arguments, **warmup)


@st.composite
def piecewise(draw: st.DrawFn) -> Schedule:
    updates = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=5)))
    return PiecewiseLinear([(update, draw(FACTORS)) for update in updates])


warmup = {"warmup_steps": STEPS, "warmup_start": FACTORS}
ENDING: dict[type[Schedule], st.SearchStrategy[Schedule]] = {
    Constant: st.builds(Constant, factor=FACTORS, **warmup),
    Linear: limited(Linear, final_factor=FACTORS),
    Cosine: limited(Cosine, final_factor=FACTORS, num_cycles=POSITIVE, exponent=POSITIVE, k_decay=POSITIVE),
    CosineRestarts: limited(
        CosineRestarts, num_cycles=st.integers(1, 5), cycle_mult=POSITIVE, cycle_decay=POSITIVE, final_factor=FACTORS
    ),
    Polynomial: limited(Polynomial, power=POSITIVE, final_factor=FACTORS),
    WarmupStableDecay: st.builds(
        WarmupStableDecay,
        STEPS,
        stable_steps=STEPS,
        decay_steps=STEPS,
        decay=SHAPES,
        final_factor=FACTORS,
        warmup_start=FACTORS,
        warmup=SHAPES,
    ),
    TriStage: st.builds(
        TriStage, STEPS, hold_steps=STEPS, decay_steps=STEPS, warmup_start=FACTORS, final_factor=POSITIVE
    ),
    OneCycle: st.builds(
        OneCycle,
        st.integers(1, 60),
        pct_start=st.floats(0.0, 0.5),
        div_factor=POSITIVE,
        final_div_factor=POSITIVE,
        anneal=st.sampled_from(["linear", "cosine"]),
        three_phase=st.booleans(),
    ),
    MultiStep: st.builds(MultiStep, st.lists(STEPS, max_size=4).map(sorted), gamma=st.floats(0.1, 1.0), **warmup),
    Tanh: limited(Tanh, lower=st.floats(-9, -0.1), upper=st.floats(0.0, 9), final_factor=FACTORS),
    OneCycleMomentum: st.builds(
        OneCycleMomentum,
        st.integers(1, 60),
        pct_start=st.floats(0.0, 0.5),
        anneal=st.sampled_from(["linear", "cosine"]),
        three_phase=st.booleans(),
        high=FACTORS,
        low=FACTORS,
    ),
    PiecewiseLinear: piecewise(),
}
ENDLESS: dict[type[Schedule], st.SearchStrategy[Schedule]] = {
    InverseSqrt: st.builds(InverseSqrt, STEPS, warmup_start=FACTORS, timescale=st.none() | st.floats(1e-300, 100.0)),
    Noam: st.builds(Noam, st.integers(1, 40), model_dim=st.none() | st.integers(1, 1024)),
    Exponential: st.builds(Exponential, st.floats(0.5, 1.0), **warmup),
    Step: st.builds(Step, st.integers(1, 20), gamma=st.floats(0.1, 1.0), **warmup),
}
SIMPLE = {**ENDING, **ENDLESS}
any_simple = st.one_of(*SIMPLE.values())
COMBINED: dict[type[Schedule], st.SearchStrategy[Schedule]] = {
    Join: st.builds(lambda a, b, at: Join([a, b], [at]), any_simple, any_simple, STEPS),
    Scale: st.builds(Scale, any_simple, FACTORS),
    Shift: st.builds(Shift, any_simple, st.integers(-40, 40)),
    Clamp: st.builds(lambda s, lower, width: Clamp(s, lower, lower + width), any_simple, FACTORS, FACTORS),
}
EVERY = {**SIMPLE, **COMBINED}
# by definition: at drops, restarts and boundaries, at the end of Tanh, and where nothing is left for a decay
CONTINUOUS = [Constant, Linear, Cosine, Polynomial, WarmupStableDecay, TriStage, InverseSqrt, Exponential]

END = 10_000  # after all of the ones that end, whatever is drawn above

every = pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
few = settings(max_examples=30, deadline=None)


def test_every_schedule_is_here() -> None:
    kinds = {getattr(schedules, name) for name in schedules.__all__}
    # an alias of a generic is an instance of type in Python 3.10
    ours = {kind for kind in kinds if isinstance(kind, type) and not get_origin(kind) and issubclass(kind, Schedule)}
    assert ours - {Schedule} == set(EVERY)


@every
def test_finite_and_never_negative(kind: type[Schedule]) -> None:
    @few
    @given(EVERY[kind])
    def check(schedule: Schedule) -> None:
        values = [*schedule.values(150), schedule(END), schedule(10**7)]
        assert all(type(value) is float for value in values)
        assert all(math.isfinite(value) and value >= 0.0 for value in values)

    check()


@pytest.mark.parametrize("kind", ENDING, ids=lambda kind: kind.__name__)
def test_holds_its_final_value(kind: type[Schedule]) -> None:
    @few
    @given(ENDING[kind])
    def check(schedule: Schedule) -> None:
        end = getattr(schedule, "total_steps", 121) + 1
        assert {schedule(step) for step in (end, end + 1, 200, END, 10**9)} == {schedule(END)}

    check()


@every
def test_to_dict_and_back_pickled_and_copied(kind: type[Schedule]) -> None:
    @few
    @given(EVERY[kind])
    def check(schedule: Schedule) -> None:
        schedule(3)  # what is worked out on the way must not matter
        described = schedule.to_dict()
        again = [
            schedules.from_dict(described),
            schedules.from_dict(json.loads(json.dumps(described))),
            pickle.loads(pickle.dumps(schedule)),
            copy.deepcopy(schedule),
            eval(repr(schedule), vars(schedules)),
            kind.from_dict(described),
        ]
        assert all(other == schedule and hash(other) == hash(schedule) for other in again)
        assert all(other.values(50) == schedule.values(50) for other in again)

    check()


@pytest.mark.parametrize("kind", CONTINUOUS, ids=lambda kind: kind.__name__)
def test_refining_the_steps_closes_the_gaps(kind: type[Schedule]) -> None:
    """The same curve over ten times as many updates rises and falls a tenth as steeply."""
    long = {
        Constant: Constant(0.7, warmup_steps=10_000, warmup_start=0.1),
        Linear: Linear(50_000, final_factor=0.1, warmup_steps=10_000, warmup_start=0.2),
        Cosine: Cosine(
            50_000, final_factor=0.1, num_cycles=1.5, exponent=2.0, k_decay=1.5, warmup_steps=10_000, warmup_start=0.2
        ),
        Polynomial: Polynomial(50_000, power=2.0, final_factor=0.1, warmup_steps=10_000, warmup_start=0.2),
        WarmupStableDecay: WarmupStableDecay(
            10_000,
            stable_steps=20_000,
            decay_steps=20_000,
            decay="cosine",
            final_factor=0.1,
            warmup_start=0.2,
            warmup="cosine",
        ),
        TriStage: TriStage(10_000, hold_steps=20_000, decay_steps=20_000),
        InverseSqrt: InverseSqrt(10_000),
        Exponential: Exponential(0.9999, warmup_steps=10_000),
    }[kind]
    values = long.values(60_000)
    assert max(abs(after - before) for before, after in pairwise(values)) < 1e-3


@every
def test_resuming_anywhere_equals_going_on(kind: type[Schedule]) -> None:
    @settings(max_examples=10, deadline=None)
    @given(EVERY[kind], st.integers(0, 30))
    def check(schedule: Schedule, k: int) -> None:
        def make() -> tuple[torch.optim.Optimizer, ScheduleLR]:
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.7)
            return optimizer, ScheduleLR(optimizer, schedule)

        def rates(optimizer: torch.optim.Optimizer, scheduler: ScheduleLR, n: int) -> list[float]:
            seen = []
            for _ in range(n):
                seen.append(optimizer.param_groups[0]["lr"])
                scheduler.step()
            return seen

        whole = rates(*make(), 40)
        optimizer, scheduler = make()
        first = rates(optimizer, scheduler, k)
        resumed, second = make()
        second.load_state_dict(scheduler.state_dict())
        assert first + rates(resumed, second, 40 - k) == whole
        # by last_epoch, and by the optimizer's own state alone
        if k:
            fresh = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.7)
            assert rates(fresh, ScheduleLR(fresh, schedule, last_epoch=k - 1), 40 - k) == whole[k:]

    check()


BAD: list[tuple[type[Schedule], dict[str, Any], str]] = [
    (Constant, {"factor": -0.1}, "factor must be at least 0, got -0.1"),
    (Constant, {"factor": math.nan}, "factor must be finite"),
    (Constant, {"warmup_steps": -1}, "warmup_steps must be at least 0, got -1"),
    (Constant, {"warmup_steps": 5, "warmup_start": math.inf}, "warmup_start must be finite"),
    (Linear, {"total_steps": 0}, "total_steps must be at least 1, got 0"),
    (Linear, {"total_steps": 10, "warmup_steps": 11}, "warmup_steps must be at most total_steps"),
    (Cosine, {"total_steps": 10, "final_factor": -1.0}, "final_factor must be at least 0"),
    (Cosine, {"total_steps": 10, "num_cycles": 0.0}, "num_cycles must be greater than 0"),
    (Cosine, {"total_steps": 10, "exponent": -1.0}, "exponent must be greater than 0"),
    (CosineRestarts, {"total_steps": 10, "num_cycles": 0}, "num_cycles must be at least 1"),
    (CosineRestarts, {"total_steps": 10, "num_cycles": 2000, "cycle_mult": 10.0}, "must stay finite"),
    (CosineRestarts, {"total_steps": 5, "warmup_steps": 6}, "warmup_steps must be at most total_steps"),
    (Polynomial, {"total_steps": 10, "power": 0.0}, "power must be greater than 0"),
    (InverseSqrt, {"warmup_steps": 5, "timescale": 0}, "timescale must be greater than 0"),
    (Noam, {"warmup_steps": 0}, "warmup_steps must be at least 1"),
    (Noam, {"warmup_steps": 4, "model_dim": 0}, "model_dim must be at least 1"),
    (
        WarmupStableDecay,
        {"warmup_steps": 1, "stable_steps": 1, "decay_steps": 1, "decay": "exp"},
        "decay must be one of",
    ),
    (WarmupStableDecay, {"warmup_steps": 1, "stable_steps": -1, "decay_steps": 1}, "stable_steps must be at least 0"),
    (
        TriStage,
        {"warmup_steps": 1, "hold_steps": 1, "decay_steps": 1, "final_factor": 0.0},
        "final_factor must be great",
    ),
    (OneCycle, {"total_steps": 10, "pct_start": 1.5}, "pct_start must be at most 1"),
    (OneCycle, {"total_steps": 10, "pct_start": 0.6, "three_phase": True}, "pct_start must be at most 0.5"),
    (OneCycle, {"total_steps": 10, "anneal": "cos"}, "anneal must be one of"),
    (Exponential, {"gamma": 0.0}, "gamma must be greater than 0"),
    (Step, {"step_size": 0}, "step_size must be at least 1"),
    (MultiStep, {"milestones": [5, 3]}, "milestones must never fall"),
    (Tanh, {"total_steps": 10, "lower": 3.0, "upper": 3.0}, "lower must be below upper"),
    (PiecewiseLinear, {"points": []}, "points must have at least one"),
    (PiecewiseLinear, {"points": [(0, 1.0), (0, 2.0)]}, "updates of .*points must rise"),
    (PiecewiseLinear, {"points": [(0, 1.0, 2.0)]}, r"points\[0\] must be an \(update, factor\) pair"),
    (Join, {"schedules": [], "boundaries": []}, "schedules must have at least one"),
    (Join, {"schedules": [Constant()], "boundaries": [1]}, "boundaries must be one fewer"),
    (Join, {"schedules": [Constant()] * 3, "boundaries": [5, 4]}, "boundaries must never fall"),
    (Scale, {"schedule": Constant(), "factor": -1.0}, "factor must be at least 0"),
    (Clamp, {"schedule": Constant(), "lower": 1.0, "upper": 0.5}, "upper must be at least lower"),
]
WRONG_TYPES: list[tuple[type[Schedule], dict[str, Any], str]] = [
    (Constant, {"factor": True}, "factor must be a real number, got True of type bool"),
    (Constant, {"factor": "1"}, "factor must be a real number, got '1'"),
    (Constant, {"factor": None}, "factor must be a real number, got None"),
    (Linear, {"total_steps": 10.0}, "total_steps must be an integer, got 10.0 of type float"),
    (Linear, {"total_steps": True}, "total_steps must be an integer, got True of type bool"),
    (Linear, {"total_steps": torch.tensor(10)}, "total_steps must be an integer"),
    (OneCycle, {"total_steps": 10, "three_phase": 1}, "three_phase must be True or False, got 1"),
    (OneCycle, {"total_steps": 10, "anneal": 1}, "anneal must be a string, got 1"),
    (MultiStep, {"milestones": 5}, "milestones must be a sequence"),
    (MultiStep, {"milestones": [1.5]}, r"milestones\[0\] must be an integer"),
    (PiecewiseLinear, {"points": [3]}, r"points\[0\] must be a sequence"),
    (Join, {"schedules": [3], "boundaries": []}, r"schedules\[0\] must be callable"),
    (Scale, {"schedule": Constant, "factor": 1.0}, "got the class Constant"),
    (Shift, {"schedule": Constant(), "steps": 1.5}, "steps must be an integer"),
]


@pytest.mark.parametrize(("kind", "arguments", "message"), BAD, ids=lambda value: getattr(value, "__name__", None))
def test_values_out_of_range_are_refused(kind: type[Schedule], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"), WRONG_TYPES, ids=lambda value: getattr(value, "__name__", None)
)
def test_wrong_types_are_refused(kind: type[Schedule], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        kind(**arguments)


@every
def test_negative_steps_are_refused(kind: type[Schedule]) -> None:
    @settings(max_examples=3, deadline=None)
    @given(EVERY[kind])
    def check(schedule: Schedule) -> None:
        with pytest.raises(ValueError, match="step must be at least 0, got -1"):
            schedule(-1)

    check()


def test_a_schedule_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="cannot assign"):
        Linear(10).total_steps = 5  # type: ignore[misc]  # what is being tested


def test_only_what_differs_from_the_defaults_is_shown() -> None:
    assert repr(Cosine(100, warmup_steps=10)) == "Cosine(total_steps=100, warmup_steps=10)"


class TestBoundaries:
    def test_the_peak_is_reached_at_the_end_of_the_warmup(self) -> None:
        assert Cosine(100, warmup_steps=10)(10) == 1.0
        assert Step(5, warmup_steps=10).values(16)[10:] == [1.0] * 5 + [0.1]
        assert MultiStep([2], warmup_steps=10)(11) == 1.0
        assert MultiStep([2], warmup_steps=10)(12) == 0.1

    @pytest.mark.parametrize("kind", [Linear, Cosine, CosineRestarts, Polynomial], ids=lambda kind: kind.__name__)
    def test_the_final_factor_holds_from_total_steps_on(self, kind: type[Schedule]) -> None:
        """Also where a warmup takes it all."""
        schedule = kind(total_steps=4, warmup_steps=4, final_factor=0.1)
        assert schedule.values(8) == [0.0, 0.25, 0.5, 0.75, 0.1, 0.1, 0.1, 0.1]

    @pytest.mark.parametrize("kind", [Linear, Cosine], ids=lambda kind: kind.__name__)
    def test_only_the_first_argument_is_positional(self, kind: type[Schedule]) -> None:
        """``Linear(100, 1000)``, warmup and total, would have a final factor of 1000."""
        with pytest.raises(TypeError, match="positional"):
            kind(100, 1000)

    def test_an_array_gives_an_array(self) -> None:
        schedule = Linear(10, warmup_steps=2)
        steps = np.arange(12).reshape(3, 4)
        assert schedule(steps).tolist() == np.reshape(schedule.values(12), (3, 4)).tolist()
        assert schedule(np.int64(6)) == schedule(6)

    @pytest.mark.parametrize("schedule", [Linear(10), Step(3), InverseSqrt(4), Clamp(Linear(10))], ids=repr)
    @pytest.mark.parametrize("step", [math.nan, np.float32("nan"), math.inf])
    def test_no_index_is_no_rate(self, schedule: Schedule, step: float) -> None:
        with pytest.raises(ValueError, match="step must be finite"):
            schedule(step)

    @pytest.mark.parametrize("step", ["1", None, True, [1]])
    def test_an_index_is_a_number(self, step: Any) -> None:
        with pytest.raises(TypeError, match="step must be an index or an array of them"):
            Linear(10)(step)

    @pytest.mark.parametrize("schedule", [Exponential(0.9), Step(3), InverseSqrt(4)], ids=repr)
    def test_an_index_beyond_all_floats_is_an_error(self, schedule: Schedule) -> None:
        with pytest.raises((ValueError, OverflowError), match=r"must be at most|too large"):
            schedule(10**400)

    def test_an_inverse_sqrt_without_warmup_begins_at_its_peak(self) -> None:
        assert InverseSqrt(0).values(3) == InverseSqrt(1).values(4)[1:]
        assert InverseSqrt(0, timescale=100)(300) == 0.5

    def test_an_inverse_sqrt_has_its_peak_where_the_warmup_ends_however_short_its_timescale(self) -> None:
        assert InverseSqrt(1000, timescale=1e-30).values(1002)[1000:] == [1.0, pytest.approx(1e-15)]

    def test_noam_peaks_one_update_before_the_end_of_its_warmup(self) -> None:
        values = Noam(warmup_steps=40).values(200)
        assert max(values) == values[39] == 1.0
        paper = Noam(warmup_steps=40, model_dim=512)
        assert paper(9) == pytest.approx(512**-0.5 * 10 * 40**-1.5, rel=1e-12)
        assert paper(99) == pytest.approx(512**-0.5 * 100**-0.5, rel=1e-12)

    @pytest.mark.parametrize("n", [3, 6, 7, 49, 1000])
    def test_restarts_come_at_their_update_and_not_one_later(self, n: int) -> None:
        schedule = CosineRestarts(total_steps=n * 13, num_cycles=n)
        assert all(schedule(13 * cycle) == 1.0 for cycle in range(n))

    def test_fractional_cycles(self) -> None:
        schedule = CosineRestarts(total_steps=71.25, num_cycles=3, cycle_mult=1.5)  # 15, 22.5 and 33.75
        assert schedule(15) == 1.0
        assert schedule(38) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5 / 33.75)), rel=1e-12)
        assert schedule(72) == 0.0

    @pytest.mark.parametrize("three_phase", [False, True])
    @pytest.mark.parametrize("pct_start", [0.1, 0.3, 0.45])
    @pytest.mark.parametrize("anneal", ["cosine", "linear"])
    def test_one_cycle_is_pytorchs(self, three_phase: bool, pct_start: float, anneal: str) -> None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = lr_scheduler.OneCycleLR(
            optimizer, 1.0, 77, pct_start=pct_start, anneal_strategy=anneal[:6].replace("cosine", "cos"),
            three_phase=three_phase, cycle_momentum=False,
        )  # fmt: skip
        rates = []
        for step in range(77):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if step < 76:
                theirs.step()
        ours = OneCycle(77, pct_start=pct_start, anneal=anneal, three_phase=three_phase)
        assert ours.values(77) == pytest.approx(rates, rel=0, abs=1e-12)


def test_growth_without_bounds_stays_finite() -> None:
    assert math.isfinite(Exponential(2.0)(10**6))


def test_a_plot_shows_the_factors() -> None:
    ax = Linear(10).plot(11)
    (line,) = ax.get_lines()
    assert list(line.get_ydata()) == Linear(10).values(11)
    assert ax.get_title() == "Linear(total_steps=10)"
    assert Linear(10).plot(3, ax=ax, title="again") is ax
    assert ax.get_title() == "again"


def test_a_cosine_of_any_number_of_waves_is_a_number() -> None:
    values = schedules.Cosine(total_steps=10, num_cycles=2.8611174857570283e307).values(12)
    assert all(0.0 <= value <= 1.0 for value in values)


@pytest.mark.parametrize(
    ("schedule", "updates"),
    [
        pytest.param(Linear(1000), 1050, id="total_steps"),
        pytest.param(schedules.InverseSqrt(warmup_steps=100), 400, id="warmup"),
        pytest.param(schedules.MultiStep(milestones=(20, 40)), 60, id="milestones"),
        pytest.param(schedules.Join([lambda step: 1.0, Linear(100)], [50]), 155, id="inside"),
        pytest.param(schedules.Constant(), 100, id="none"),
    ],
)
def test_a_schedule_shows_its_whole_shape_in_a_notebook(schedule: schedules.Schedule, updates: int) -> None:
    shown = schedule._repr_png_()
    assert shown is not None
    assert shown.startswith(b"\x89PNG")
    assert (
        shape_length({field.name: getattr(schedule, field.name) for field in dataclasses.fields(schedule)}) == updates
    )


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("anneal", ["cosine", "linear"])
def test_the_momentum_of_one_cycle_is_that_of_pytorch(anneal: str, three_phase: bool) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    theirs = lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=50, anneal_strategy=anneal[:3].replace("lin", "linear"), three_phase=three_phase
    )
    wanted = []
    for _ in range(50):
        wanted.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if len(wanted) < 50:
            theirs.step()
    momentum = OneCycle(50, anneal=anneal, three_phase=three_phase).momentum(high=0.95, low=0.85)
    assert momentum.values(50) == pytest.approx(wanted, abs=1e-12)
    assert schedules.from_dict(momentum.to_dict()) == momentum


class TestSimulate:
    def test_it_leaves_the_scheduler_as_it_was(self) -> None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        for scheduler in (
            ScheduleLR(optimizer, Linear(4)),
            lr_scheduler.ExponentialLR(optimizer, 0.5),
            schedules.with_warmup(lr_scheduler.StepLR(optimizer, 2, 0.5), 2),
        ):
            optimizer.param_groups[0]["lr"] = 0.5
            before = copy.deepcopy((scheduler.state_dict(), optimizer.state_dict()))
            rates = schedules.simulate(scheduler, 4)
            assert (scheduler.state_dict(), optimizer.state_dict()) == before
            done = []
            for _ in range(4):
                done.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
            assert rates == pytest.approx(done)

    def test_groups_and_a_metric(self) -> None:
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.5, 1.0)]
        scheduler = lr_scheduler.ReduceLROnPlateau(torch.optim.SGD(groups), factor=0.5, patience=0)
        assert schedules.simulate(scheduler, 3, lambda i: 1.0) == [[0.5, 1.0], [0.5, 1.0], [0.25, 0.5]]

    @pytest.mark.parametrize("warmup", [0, 2])
    def test_a_metric_is_asked_for_where_the_scheduler_that_steps_takes_one(self, warmup: int) -> None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        plateau, steps = lr_scheduler.ReduceLROnPlateau(optimizer), lr_scheduler.StepLR(optimizer, 2)
        if warmup:
            plateau, steps = (schedules.with_warmup(one, warmup) for one in (plateau, steps))
        with pytest.raises(ValueError, match=r"metric must be given, because ReduceLROnPlateau.step\(\) takes metrics"):
            schedules.simulate(plateau, 3)
        with pytest.raises(ValueError, match=r"metric must be None, because StepLR.step\(\) takes no metric; got"):
            schedules.simulate(steps, 3, lambda i: 1.0)
        assert len(schedules.simulate(plateau, 3, lambda i: 1.0)) == len(schedules.simulate(steps, 3)) == 3

    def test_a_scheduler_that_is_told_the_epoch_takes_no_metric(self) -> None:
        class Told(lr_scheduler.StepLR):
            def step_update(self, num_updates: int) -> None: ...

            def step(self, epoch: int | None = None, metric: float | None = None) -> None:
                super().step()

        scheduler = Told(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5), 2, 0.5)
        assert schedules.simulate(scheduler, 3) == [0.5, 0.5, 0.25]
        with pytest.raises(ValueError, match=r"metric must be None, because Told.step\(\) takes no metric"):
            schedules.simulate(scheduler, 3, lambda i: 1.0)
