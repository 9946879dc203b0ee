"""What the losses of runs mean: objective, rise, feasibility, stable rates, warmups."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ignite_lr.study import Run, Settings, StudyResult, Trial, trials
from ignite_lr.study._runs import trial_results
from ignite_lr.suggestion import NoSuggestionError

PLAIN = Settings("min", False, 0.05)


def falling(by: float, n: int = 50, start: float = 2.0) -> tuple[float, ...]:
    """A loss that falls linearly over the first half and stays there."""
    return tuple(start - by * min(step / (n // 2), 1.0) for step in range(n))


def study(
    outcomes: dict[float, tuple[float, ...] | str], settings: Settings = PLAIN, schedule: object = None
) -> StudyResult:
    """A study of one run a rate: its losses, or how it failed."""
    listed = tuple(Trial(lr, schedule) for lr in outcomes)  # type: ignore[arg-type]
    runs = [[Run("completed", w) if isinstance(w, tuple) else Run(w, (2.0, 9.0))] for w in outcomes.values()]
    return StudyResult(trial_results(listed, [50] * len(listed), runs, settings), settings)


def test_objective_is_the_mean_of_the_last_tenth_but_at_least_ten() -> None:
    losses = tuple(np.random.default_rng(0).random(300).tolist())
    assert study({0.1: losses}).trials[0].objective == pytest.approx(np.mean(losses[-30:]))
    assert study({0.1: losses[:50]}).trials[0].objective == pytest.approx(np.mean(losses[40:50]))
    assert study({0.1: losses[:5]}).trials[0].objective == pytest.approx(np.mean(losses[:5]))
    assert math.isnan(study({0.1: "diverged"}).trials[0].objective)


def test_with_validation_the_objective_is_its_last_value() -> None:
    settings = Settings("max", True)
    run = Run("completed", falling(1), ((25, 0.5), (50, 0.7)))
    worse = Run("completed", falling(1.2), ((50, 0.6),))
    result = StudyResult(trial_results([Trial(0.1), Trial(0.2)], [50, 50], [[run], [worse]], settings), settings)
    assert [r.objective for r in result.trials] == [0.7, 0.6]
    assert result.best is result.trials[0]


def test_rise() -> None:
    assert study({0.1: (3.0, 1.0, 4.0)}, Settings(smooth_f=0.0)).trials[0].rise == 3.0
    assert study({0.1: (3.0, 1.0, 4.0)}, Settings(smooth_f=0.5)).trials[0].rise == 1.0
    assert study({0.1: (3.0, 2.0)}).trials[0].rise == 0.0
    assert study({0.1: (3.0, math.inf)}).trials[0].rise == math.inf


def test_feasible_is_half_of_the_largest_descent() -> None:
    result = study({0.1: falling(1.0), 0.2: falling(0.6), 0.3: falling(0.4), 0.4: "diverged", 0.5: falling(0.0)})
    assert [r.feasible for r in result.trials] == [True, True, False, False, False]


def test_where_none_descends_none_is_feasible() -> None:
    result = study({0.1: falling(0.0), 0.2: falling(-0.5), 0.3: "non_finite"})
    assert not any(r.feasible for r in result.trials)
    assert (result.best, result.stable_lr, result.unstable_lr) == (None, None, None)
    with pytest.raises(NoSuggestionError, match="no trial brought the loss down"):
        result.suggestion()


def test_why_there_is_no_suggestion() -> None:
    with pytest.raises(NoSuggestionError, match="no trial was finished"):
        StudyResult((), PLAIN).suggestion()
    with pytest.raises(NoSuggestionError, match="1 diverged, 1 non_finite; try lower rates"):
        study({0.1: "diverged", 0.2: "non_finite"}).suggestion()


@pytest.mark.parametrize(
    ("feasible", "stable", "unstable"),
    [
        pytest.param("011100", 3, 4, id="slow-below"),
        pytest.param("011010", 2, 3, id="a-hole"),
        pytest.param("111111", 5, None, id="all"),
        pytest.param("100000", 0, 1, id="first"),
        pytest.param("000001", 5, None, id="last"),
        pytest.param("001t00", 2, 4, id="terminated-says-nothing"),
    ],
)
def test_stable_and_unstable_rates(feasible: str, stable: int, unstable: int | None) -> None:
    kinds: dict[str, tuple[float, ...] | str] = {"1": falling(1.0), "0": "diverged", "t": "terminated"}
    order = [3, 0, 5, 1, 4, 2]  # rates need not come in order
    result = study({2.0**index: kinds[feasible[index]] for index in order})
    assert result.stable_lr == 2.0**stable
    assert result.unstable_lr == (None if unstable is None else 2.0**unstable)


def test_shortest_warmup() -> None:
    def result(fine: tuple[bool, ...]) -> StudyResult:
        runs = [[Run("completed", falling(1.0)) if one else Run("diverged", (2.0, 9.0))] for one in fine]
        listed = trials.warmups(0.1, (0, 10, 20))
        return StudyResult(trial_results(listed, [40, 50, 60], runs, PLAIN), PLAIN)

    assert result((False, True, True)).shortest_warmup == 10
    assert result((True, True, True)).shortest_warmup == 0
    assert result((False, False, False)).shortest_warmup is None
    assert study({0.1: falling(1.0)}).shortest_warmup is None


def test_repeats_are_means_as_far_as_all_came_with_the_worst_outcome() -> None:
    runs = [
        Run("completed", (3.0, 2.0, 1.0), ((1, 0.5), (3, 0.25))),
        Run("diverged", (3.0, 4.0), ((1, 1.5),)),
    ]
    (found,) = trial_results([Trial(0.1)], [3], [runs], PLAIN)
    assert (found.outcome, found.losses, found.validations) == ("diverged", (3.0, 3.0), ((1, 1.0),))
    assert found.repeats == tuple(runs)
    assert not found.feasible
    runs[1] = Run("non_finite", (3.0, math.nan))
    (found,) = trial_results([Trial(0.1)], [3], [runs], PLAIN)
    assert found.rise == math.inf


def test_columns_sort_by_rate() -> None:
    columns = study({0.3: falling(1.0), 0.1: "diverged", 0.2: falling(0.2)}).columns()
    assert list(columns) == [
        "name", "lr", "warmup_steps", "outcome", "feasible", "objective", "rise", "updates",
    ]  # fmt: skip
    assert columns["lr"] == [0.1, 0.2, 0.3]
    assert columns["outcome"] == ["diverged", "completed", "completed"]
    assert columns["feasible"] == [False, False, True]
    assert columns["updates"] == [2, 50, 50]
    assert {len(column) for column in columns.values()} == {3}
