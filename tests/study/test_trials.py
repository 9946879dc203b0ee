"""Trials, and the usual sets of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ignite_lr import schedules
from ignite_lr.study import Trial, trials
from ignite_lr.study._trials import Recorded, checked_trials


def test_a_trial_without_a_schedule_is_constant() -> None:
    assert Trial(0.1).rates(3) == (0.1, 0.1, 0.1)


def test_rates_follow_any_function() -> None:
    assert Trial(2.0, lambda step: 0.5**step).rates(3) == (2.0, 1.0, 0.5)
    assert Trial(1, schedules.Linear(4)).rates(5) == (1.0, 0.75, 0.5, 0.25, 0.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param({"lr": 0.0}, ValueError, "lr must be greater than 0, got 0.0", id="zero"),
        pytest.param({"lr": math.nan}, ValueError, "lr must be finite, got nan", id="nan"),
        pytest.param({"lr": "0.1"}, TypeError, "lr must be a real number", id="text"),
        pytest.param({"lr": True}, TypeError, "lr must be a real number", id="truth"),
        pytest.param({"lr": 0.1, "num_updates": 0}, ValueError, "num_updates must be at least 1", id="no-updates"),
        pytest.param({"lr": 0.1, "num_updates": 1.5}, TypeError, "num_updates must be an integer", id="half-updates"),
        pytest.param({"lr": 0.1, "schedule": 3}, TypeError, "schedule must be callable or None", id="schedule"),
        pytest.param({"lr": 0.1, "name": ""}, ValueError, "name must be a non-empty string", id="name"),
    ],
)
def test_wrong_arguments_of_a_trial(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Trial(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("factor", "error", "message"),
    [
        pytest.param(math.nan, ValueError, "trial a: the factor of its schedule at update 2 must be finite", id="nan"),
        pytest.param(-0.1, ValueError, "update 2 must be at least 0, got -0.1", id="negative"),
        pytest.param("1", TypeError, "update 2 must be a real number", id="text"),
    ],
)
def test_a_schedule_that_gives_no_rate(factor: object, error: type[Exception], message: str) -> None:
    trial = Trial(0.1, lambda step: factor if step == 2 else 1.0, name="a")  # type: ignore[arg-type, return-value]
    assert trial.rates(2) == (0.1, 0.1)
    with pytest.raises(error, match=message):
        trial.rates(3)


@pytest.mark.parametrize(
    ("schedule", "warmup"),
    [
        pytest.param(None, 0, id="none"),
        pytest.param(schedules.Cosine(20, warmup_steps=5), 5, id="named"),
        pytest.param(lambda step: min(step / 4, 1.0), 4, id="function"),
        pytest.param(lambda step: 1.0 - step / 100, 0, id="falling"),
        pytest.param(lambda step: 1.0 + step, 0, id="rising-for-ever"),
        pytest.param(schedules.Scale(schedules.Cosine(20, warmup_steps=5), 0.5), 5, id="scaled"),
    ],
)
def test_warmup_steps(schedule: object, warmup: int) -> None:
    assert Trial(0.1, schedule).warmup_steps(20) == warmup  # type: ignore[arg-type]


def test_recorded_factors_equal_what_gave_them() -> None:
    schedule = schedules.Cosine(10, warmup_steps=2)
    recorded = Recorded(Trial(0.1, schedule).factors(10), 2)
    assert Trial(0.1, schedule) == Trial(0.1, recorded)
    assert Trial(0.1, recorded) == Trial(0.1, lambda step: schedule(step))
    assert Trial(0.1, schedules.Cosine(11)) != Trial(0.1, recorded)
    assert Trial(0.1) != Trial(0.1, recorded)
    assert hash(Trial(0.1, schedule)) == hash(Trial(0.1, recorded))


def test_multiples() -> None:
    assert [trial.lr for trial in trials.multiples(0.5)] == [0.25, 0.5, 1.0, 2.5, 5.0]


def test_spread_is_uniform_in_log_lr_and_grows_from_its_beginning() -> None:
    rates = np.array([trial.lr for trial in trials.spread(1e-4, 1e-1, n=64)])
    assert rates.min() >= 1e-4
    assert rates.max() <= 1e-1
    counts = np.histogram(np.log10(rates), bins=8, range=(-4, -1))[0]
    assert counts.min() >= 7
    assert counts.max() <= 9
    for n in (1, 5, 63):
        assert trials.spread(1e-4, 1e-1, n=n) == trials.spread(1e-4, 1e-1, n=64)[:n]
    assert trials.spread(1e-4, 1e-1, n=3, seed=1) != trials.spread(1e-4, 1e-1, n=3)
    assert trials.spread(1e-300, 1e300, n=50)[-1].lr > 0


def test_warmups_train_equally_long_at_the_peak() -> None:
    found = trials.warmups(0.4, (0, 2, 4))
    assert [trial.num_updates for trial in found] == [8, 10, 12]
    assert found[0].rates(3) == (0.4, 0.4, 0.4)
    assert found[1].rates(4) == (0.0, 0.2, 0.4, 0.4)
    assert [t.num_updates for t in trials.warmups(0.4, (0,), post_warmup_steps=7)] == [7]
    assert len(trials.multiples(0.1) + trials.warmups(0.1)) == 8


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        pytest.param(lambda: trials.spread(1.0, 0.1, 3), ValueError, "high must be greater than low", id="order"),
        pytest.param(lambda: trials.spread(0, 1, 3), ValueError, "spread: low must be greater than 0", id="zero"),
        pytest.param(lambda: trials.spread(0.1, 1, 0), ValueError, "spread: n must be at least 1", id="none"),
        pytest.param(lambda: trials.spread(0.1, 1, 2, -1), ValueError, "spread: seed must be at least 0", id="seed"),
        pytest.param(lambda: trials.multiples(0.1, (0,)), ValueError, "factors must be greater than 0", id="factor"),
        pytest.param(lambda: trials.warmups(0.1, (0,)), ValueError, "post_warmup_steps must be given", id="no-warmup"),
        pytest.param(lambda: trials.warmups(0.1, (-1,)), ValueError, "warmup_steps must be at least 0", id="warmup"),
    ],
)
def test_wrong_arguments_of_sets(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        pytest.param(Trial(0.1), TypeError, r"got a Trial: write \[Trial\(\.\.\.\)\]", id="bare-trial"),
        pytest.param(0.1, TypeError, r"got 0.1 of type float: write \[Trial\(0.1\)", id="bare-number"),
        pytest.param([0.1], TypeError, r"trials must hold trials, got 0.1 of type float", id="numbers"),
        pytest.param("0.1", TypeError, "trials must be a list of trials", id="text"),
        pytest.param([], ValueError, "at least one trial", id="empty"),
    ],
)
def test_what_is_no_list_of_trials(given: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checked_trials(given)
