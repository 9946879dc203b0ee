"""Which rates are tried after a sweep, what learns, and what is then suggested. Nothing trains here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ignite_lr import NoSuggestionError, RangeTestResult, VerifiedRate
from ignite_lr.range_test import Trials

SWEEP = [2.0] * 30 + [2.0 - 1.0 * i / 200 for i in range(200)] + [1.0] * 70
"""Descends by one."""

RNG = np.random.default_rng(0)
FLAT = [2.0 + 0.1 * float(noise) for noise in RNG.normal(size=300)]


def tried(trials: Trials, losses_at: Callable[[float, int], list[float]]) -> list[tuple[float, int, bool]]:
    while (rate := trials.upcoming()) is not None:
        trials.add(rate, losses_at(rate, trials.updates))
    return [(trial.lr, len(trial.losses), trial.learns) for trial in trials.verified]


def falling_by(depths: dict[float, float]) -> Callable[[float, int], list[float]]:
    """Losses that come down by this much at each rate."""
    return lambda rate, updates: [2.0] * (updates - 20) + [2.0 - depths.get(rate, 0.0)] * 20


def from_suggestion(updates: int = 50, lowest: float = 1e-7) -> Trials:
    return Trials(SWEEP, 0.8, 10.0, lowest, updates)


def from_edge(updates: int = 50) -> Trials:
    return Trials(FLAT, None, 0.8, 1e-7, updates)


def test_two_trials_are_enough_where_the_suggestion_learns() -> None:
    assert tried(from_suggestion(), falling_by({0.8: 1.0, 0.4: 0.7})) == [(0.8, 50, True), (0.4, 50, False)]


def test_they_go_on_until_a_lower_rate_learns_clearly_less() -> None:
    depths = {0.8: 0.9, 0.4: 1.0, 0.2: 0.8, 0.1: 0.79}
    flags = [learns for _, _, learns in tried(from_suggestion(), falling_by(depths))]
    assert flags == [True, True, True, False]


def test_a_dead_suggestion_is_followed_by_the_best_below() -> None:
    depths = {0.8: 0.0, 0.4: 0.1, 0.2: 1.0, 0.1: 0.5}
    assert [learns for _, _, learns in tried(from_suggestion(), falling_by(depths))] == [False, False, True, False]


def test_a_late_best_takes_the_word_back_from_those_before() -> None:
    depths = {0.8: 0.5, 0.4: 0.6, 0.2: 1.0, 0.1: 0.2}
    assert [learns for _, _, learns in tried(from_suggestion(), falling_by(depths))] == [False, False, True, False]


def test_a_trial_that_is_not_finite_learns_nothing() -> None:
    def losses(rate: float, updates: int) -> list[float]:
        return [2.0, float("nan")] if rate == 0.8 else falling_by({0.4: 1.0})(rate, updates)

    assert tried(from_suggestion(), losses) == [(0.8, 2, False), (0.4, 50, True), (0.2, 50, False)]


def test_a_slow_start_is_tried_once_more_with_more_updates() -> None:
    def losses(rate: float, updates: int) -> list[float]:
        return falling_by({0.4: 0.5, 0.2: 0.2} if updates == 200 else {0.8: 0.05, 0.4: 0.09})(rate, updates)

    trials = tried(from_suggestion(), losses)
    assert trials[:12] == [(0.8 / 2**k, 50, False) for k in range(12)]
    assert trials[12:] == [(0.8, 200, False), (0.4, 200, True), (0.2, 200, False)]


def test_two_rounds_without_a_rate_are_the_end() -> None:
    trials = tried(from_suggestion(lowest=0.1), falling_by({}))
    assert [(rate, updates) for rate, updates, _ in trials] == [
        (rate, updates) for updates in (50, 200) for rate in (0.8, 0.4, 0.2, 0.1)
    ]
    assert not any(learns for _, _, learns in trials)


def test_no_rate_below_the_first_swept() -> None:
    assert [rate for rate, _, _ in tried(from_suggestion(lowest=0.3), falling_by({0.8: 1.0, 0.4: 1.0}))] == [0.8, 0.4]


def test_from_the_edge_there_are_more_updates_and_one_round() -> None:
    trials = tried(from_edge(), falling_by({0.1: 0.4, 0.05: 0.6, 0.025: 0.1}))
    assert trials[:3] == [(0.8, 200, False), (0.4, 200, False), (0.2, 200, False)]
    assert [learns for _, _, learns in trials[3:]] == [False, True, False]
    nothing = tried(from_edge(), falling_by({}))
    assert [updates for _, updates, _ in nothing] == [200] * 12


def test_from_the_edge_a_descent_has_to_stand_out_of_the_noise() -> None:
    error = 0.1 * (1 / 20 + 1 / 30) ** 0.5  # of a descent, where the batches differ by 0.1
    shift = float(np.mean(FLAT[:30])) - 2.0
    assert not any(learns for _, _, learns in tried(from_edge(), falling_by({0.4: 3.5 * error - shift})))
    assert any(learns for _, _, learns in tried(from_edge(), falling_by({0.4: 7.0 * error - shift})))


def test_what_the_noise_of_the_batches_hides_is_seen_beside_a_control() -> None:
    batches = 2.0 + 0.1 * RNG.normal(size=200)
    depths = {0.4: 0.01, 0.2: 0.02, 0.1: 0.017, 0.05: 0.01}

    def losses(rate: float, updates: int) -> list[float]:
        own = 0.001 * RNG.normal(size=updates)
        return list(batches[:updates] - depths.get(rate, 0.0) + own) if rate < 0.8 else [2.0, float("inf")]

    trials = from_edge()
    assert not any(learns for _, _, learns in tried(trials, losses))
    assert len(trials.verified) == 12
    assert trials.undecided
    trials.compare(batches.tolist())
    assert [trial.lr for trial in trials.verified if trial.learns] == [0.2, 0.1]
    assert not trials.undecided


def test_beside_a_control_chance_is_not_enough() -> None:
    batches = 2.0 + 0.1 * RNG.normal(size=200)
    for noise in (0.0, 0.001, 0.1):
        trials = from_edge()
        tried(trials, lambda rate, updates, noise=noise: list(batches[:updates] + noise * RNG.normal(size=updates)))
        trials.compare(batches.tolist())
        assert not any(trial.learns for trial in trials.verified)


def test_beside_a_control_only_the_last_losses_count_and_huge_ones_are_no_descent() -> None:
    batches = 2.0 + 0.1 * RNG.normal(size=200)
    early = np.where(np.arange(200) < 180, 0.05, 0.0)  # came down at first, and is back in the end
    ends = {0.4: batches - early, 0.2: batches + 5e182 * RNG.random(200), 0.1: batches - 0.01}
    trials = from_edge()
    tried(trials, lambda rate, updates: list(ends.get(rate, batches[:updates])))
    trials.compare(batches.tolist())
    assert [trial.lr for trial in trials.verified if trial.learns] == [0.1]


def test_no_control_where_no_trial_came_to_its_end() -> None:
    trials = from_edge()
    tried(trials, lambda rate, updates: [2.0, float("nan")])
    assert len(trials.verified) == 12
    assert not trials.undecided
    assert not from_edge().undecided


def test_no_control_from_a_suggestion_nor_where_a_rate_has_learnt() -> None:
    trials = from_suggestion()
    tried(trials, falling_by({}))
    assert not trials.undecided
    trials = from_edge()
    tried(trials, falling_by({0.1: 0.6}))
    assert not trials.undecided


def test_trials_shorter_than_twenty_updates() -> None:
    assert tried(from_suggestion(updates=3), lambda rate, n: [1.0 if rate == 0.8 else 1.9] * n) == [
        (0.8, 3, True),
        (0.4, 3, False),
    ]


def test_a_sweep_without_a_finite_start_has_no_trials() -> None:
    assert Trials([], None, 1e-7, 1e-7, 50).upcoming() is None
    assert Trials([float("nan")], None, 1e-7, 1e-7, 50).upcoming() is None


# -- the suggestion of a result

LRS = tuple(1e-6 * 10 ** (i / 20) for i in range(121))
CLEAR = tuple(2.0 - 1.5 / (1 + (3e-3 / lr) ** 2) + (lr / 0.3) ** 2 for lr in LRS)


def result_with(*verified: VerifiedRate, losses: tuple[float, ...] = CLEAR) -> RangeTestResult:
    return RangeTestResult(LRS, losses, losses, "num_iter", LRS[-1], verified=verified)


def rate(lr: float, end: float, learns: bool = True) -> VerifiedRate:
    return VerifiedRate(lr, (2.0, end), learns)


def test_the_largest_rate_that_learns_is_suggested() -> None:
    result = result_with(rate(0.1, 2.0, False), rate(0.05, 0.6), rate(0.025, 0.5), rate(0.0125, 1.5, False))
    assert result.suggestion() == 0.05
    assert result.suggestion("descent") == result_with().suggestion()
    assert result.suggestions()["descent"] == result_with().suggestion()
    assert "suggestion 0.05, verified by 4 trials" in repr(result)


def test_from_the_edge_the_one_that_learnt_most_is_suggested() -> None:
    flat = tuple(2.0 + 0.1 * float(noise) for noise in RNG.normal(size=121))
    result = result_with(rate(0.1, 0.6), rate(0.05, 0.5), rate(0.025, 0.7), losses=flat)
    assert result.suggestion() == 0.05
    with pytest.raises(NoSuggestionError, match=r".+"):
        result.suggestion("descent")


def drawn(result: RangeTestResult) -> str:
    """What the legend says of the suggestion, or nothing."""
    texts = [text.get_text() for text in result.plot().get_legend().get_texts()]
    return next((text for text in texts if "sugges" in text), "")


def test_pictures_show_what_the_trials_decided() -> None:
    result = result_with(rate(0.05, 0.6), rate(0.025, 1.5, False))
    assert drawn(result) == f"suggested: 5.00e-02 (verified, confidence {result.confidence:.2f})"
    flat = tuple(2.0 + 0.1 * float(noise) for noise in RNG.normal(size=121))
    assert drawn(result_with(rate(0.05, 0.5), losses=flat)) == "suggested: 5.00e-02 (verified)"
    assert "suggestion 0.05, verified by 1 trials; stopped" in repr(result_with(rate(0.05, 0.5), losses=flat))
    assert drawn(result_with(rate(0.1, 2.0, False), rate(0.05, 2.0, False))) == "no suggestion"


def test_where_none_learns_there_is_no_suggestion() -> None:
    result = result_with(rate(0.1, 2.0, False), rate(0.05, 2.0, False))
    with pytest.raises(
        NoSuggestionError, match=r"none of the 2 rates that were tried learns, from 0.1 down to 0.05 in"
    ):
        result.suggestion()
    assert "no suggestion (none of the 2 rates" in repr(result)


def test_several_groups_get_what_was_tried() -> None:
    lrs = tuple((lr, lr / 10) for lr in LRS)
    tried_rates = (VerifiedRate((0.1, 0.01), (2.0,), False), VerifiedRate((0.05, 0.005), (0.5,), True))
    result = RangeTestResult(lrs, CLEAR, CLEAR, "num_iter", lrs[-1], verified=tried_rates)
    assert result.suggestion() == [0.05, 0.005]


def test_verified_rates_are_saved_and_loaded(tmp_path: Path) -> None:
    result = result_with(VerifiedRate(0.1, (2.0, float("inf")), False), VerifiedRate(0.05, (2.0, 0.5), True))
    assert RangeTestResult.load(result.save(tmp_path / "r.json")) == result
    beside = dataclasses.replace(result, control=(2.0, 1.5))
    assert RangeTestResult.load(beside.save(tmp_path / "c.json")) == beside
    grouped = dataclasses.replace(
        result,
        lrs=tuple((lr, lr) for lr in LRS),
        stop_lr=(1.0, 1.0),
        verified=(VerifiedRate((0.1, 0.1), (1.0,), True),),
    )
    assert RangeTestResult.load(grouped.save(tmp_path / "g.json")) == grouped


def loaded_with(path: Path, **changes: object) -> RangeTestResult:
    """What a file with such entries is taken for."""
    content = json.loads(result_with().save(path).read_text())
    path.write_text(json.dumps({**content, **changes}))
    return RangeTestResult.load(path)


@pytest.mark.parametrize("wrong", [3, [[1.0]], ["a"], {"0": 1.0}, None])
def test_a_file_with_another_control_is_refused(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(ValueError, match=r"r\.json' is no range test result: .*control must"):
        loaded_with(tmp_path / "r.json", control=wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        [3],
        [{"lr": 0.1, "losses": [1.0]}],
        [{"lr": "a", "losses": [1.0], "learns": True}],
        [{"lr": 0.1, "losses": 1.0, "learns": True}],
        [{"lr": 0.1, "losses": [[1.0]], "learns": True}],
        [{"lr": 0.1, "losses": [1.0], "learns": 1}],
    ],
)
def test_a_file_with_other_verified_rates_is_refused(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(ValueError, match=r"r\.json' is no range test result"):
        loaded_with(tmp_path / "r.json", verified=wrong)
