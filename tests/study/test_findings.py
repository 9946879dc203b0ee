"""Findings on constructed numbers: each where the numbers say so, and where they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ignite_lr.study import Run, Settings, StudyResult, Trial, trials
from ignite_lr.study._runs import trial_results

MIN = Settings("min", True)
N = 200


def curve(floor: float = 0.5, tau: float = 30.0, noise: float = 0.0, seed: int = 0, n: int = N) -> tuple[float, ...]:
    """Down from 2.5 to a floor, exponentially, with the noise of batches."""
    steps = np.arange(n)
    losses = floor + (2.5 - floor) * np.exp(-steps / tau) + noise * np.random.default_rng(seed).standard_normal(n)
    return tuple(losses.tolist())


def done(value: float = 0.5, losses: tuple[float, ...] | None = None, earlier: tuple[float, ...] = ()) -> Run:
    values = (*earlier, value)
    pairs = tuple((10 * (index + 1), one) for index, one in enumerate(values))
    return Run("completed", curve() if losses is None else losses, pairs)


FAILED = Run("diverged", (2.5, 30.0))


def kinds(runs: dict[float, Run | list[Run]], settings: Settings = MIN) -> dict[str, str]:
    listed = [Trial(lr) for lr in runs]
    each = [[run] if isinstance(run, Run) else run for run in runs.values()]
    result = StudyResult(trial_results(listed, [N] * len(each), each, settings), settings)
    return {found.kind: found.text for found in result.findings}


# a best in the middle of four good rates, nothing to complain of: every question's answer is no
QUIET = {0.1: done(0.6), 0.2: done(0.5, curve(tau=60.0)), 0.4: done(0.7), 0.8: done(0.8)}


def test_a_study_with_nothing_to_say_says_nothing() -> None:
    assert kinds(dict(QUIET)) == {}
    assert kinds({}) == {}
    assert kinds({0.1: FAILED, 0.2: FAILED}) == {}


def test_boundary() -> None:
    up = kinds({0.1: done(0.6), 0.2: done(0.5)})["boundary"]
    assert "largest one tried" in up
    assert "trials.spread(0.2, 2, n=4)" in up
    down = kinds({0.1: done(0.5), 0.2: done(0.6)})["boundary"]
    assert "trials.spread(0.01, 0.1, n=4)" in down
    assert "boundary" not in kinds({0.1: done(0.5)})  # one rate has no range
    assert "boundary" not in kinds({0.1: done(0.6), 0.2: done(0.5), 0.4: FAILED})


def test_edge() -> None:
    text = kinds({0.1: done(0.6), 0.2: done(0.5), 0.4: FAILED})["edge"]
    assert "trials.warmups(0.4, warmup_steps=(0, 10, 100))" in text
    assert "GradNormClipper(optimizer).attach(trainer)" in text
    assert "edge" not in kinds({0.1: done(0.5), 0.2: done(0.6), 0.4: FAILED})
    assert "edge" not in kinds({0.1: FAILED, 0.2: done(0.5), 0.4: done(0.6)})  # slow below is no edge


def test_infeasible() -> None:
    text = kinds({0.1: done(0.5), 0.2: FAILED, 0.4: FAILED, 0.8: done(0.6)})["infeasible"]
    assert "2 of 3 rates above 0.1 failed" in text
    assert "trials.spread(0.01, 0.2, n=4)" in text
    assert "infeasible" not in kinds({0.1: done(0.5), 0.2: done(0.6), 0.4: FAILED})  # one of two is not more than half
    assert "infeasible" not in kinds({0.01: FAILED, 0.02: FAILED, 0.1: done(0.5), 0.2: done(0.6)})  # below, not above


def test_sparse() -> None:
    slow = done(1.4, curve(floor=1.4))
    text = kinds({0.1: slow, 0.2: done(0.5), 0.4: FAILED})["sparse"]
    assert "trials.spread(0.0667, 0.6, n=6)" in text
    assert "sparse" not in kinds({0.1: done(0.55, curve(floor=0.6)), 0.2: done(0.5), 0.4: FAILED})
    assert "sparse" not in kinds({0.2: done(0.5)})  # one trial is no study


def test_noise_of_repeats() -> None:
    close = {0.1: [done(0.50), done(0.54)], 0.2: [done(0.51), done(0.55)], 0.4: [done(0.9), done(0.9)]}
    text = kinds(close)["noise"]
    assert "repeats=5" in text
    assert "[Trial(0.1), Trial(0.2)]" in text
    far = {0.1: [done(0.50), done(0.54)], 0.2: [done(0.61), done(0.65)]}
    assert "noise" not in kinds(far)


def test_noise_of_the_last_tenth() -> None:
    training = Settings("min", False)
    rough, rougher = done(losses=curve(0.5, noise=0.2)), done(losses=curve(0.5, noise=0.2, seed=1))
    assert "noise" in kinds({0.1: rough, 0.2: rougher}, training)
    assert "noise" not in kinds({0.1: rough, 0.2: done(losses=curve(1.0, noise=0.2, seed=1))}, training)
    assert "noise" not in kinds({0.1: rough}, training)
    # an accuracy is on another scale than the noise of the loss
    assert "noise" not in kinds(
        {0.1: done(0.90, curve(noise=0.2)), 0.2: done(0.89, curve(noise=0.2))}, Settings("max", True)
    )


def test_overfitting() -> None:
    text = kinds({0.1: done(0.9, earlier=(1.5, 0.8, 0.7, 0.75, 0.8, 0.85))})["overfitting"]
    assert "best after 30 updates (0.7)" in text
    assert "num_updates=30" in text
    falling = kinds({0.1: done(0.5, earlier=(1.5, 0.8, 0.7, 0.65, 0.6, 0.55))})
    assert "overfitting" not in falling
    # up and down by chance, and back again: not for good
    assert "overfitting" not in kinds({0.1: done(0.70, earlier=(1.5, 0.8, 0.69, 0.72, 0.71, 0.69, 0.72))})
    assert "overfitting" not in kinds({0.1: done(0.9, earlier=(1.5, 0.8))})  # too few to tell
    rising = kinds({0.1: done(0.9, earlier=(0.3, 0.5, 0.7, 0.8, 0.85))}, Settings("max", True))
    assert "overfitting" not in rising
    assert "overfitting" in kinds({0.1: done(0.6, earlier=(0.3, 0.7, 0.9, 0.8, 0.75, 0.7))}, Settings("max", True))


def test_unfinished_and_saturated() -> None:
    straight = tuple(np.linspace(2.5, 0.5, N).tolist())
    found = kinds({0.1: done(losses=straight)})
    assert "of its descent came in the last fifth" in found["unfinished"]
    assert f"num_updates={2 * N}" in found["unfinished"]
    assert "saturated" not in found
    flat = kinds({0.1: done(losses=curve(tau=10.0, noise=0.01))})
    assert f"num_updates={N // 2}" in flat["saturated"]
    assert "unfinished" not in flat
    between = kinds({0.1: done(losses=curve(tau=60.0))})
    assert "saturated" not in between
    assert "unfinished" not in between
    # so noisy that neither can be told
    noisy = kinds({0.1: done(losses=curve(tau=10.0, noise=1.5))})
    assert "saturated" not in noisy
    assert "unfinished" not in noisy


def test_oscillating() -> None:
    up_and_down = tuple(loss + 0.3 * (-1) ** step for step, loss in enumerate(curve(tau=60.0)))
    text = kinds({0.1: done(losses=up_and_down)})["oscillating"]
    assert "Trial(0.1, schedules.Linear(total_steps=200))" in text
    assert "oscillating" not in kinds({0.1: done(losses=curve(tau=60.0, noise=0.05))})
    early = tuple(loss + 0.3 * (-1) ** step * (step < 100) for step, loss in enumerate(curve(tau=60.0)))
    assert "oscillating" not in kinds({0.1: done(losses=early)})


def test_training_loss() -> None:
    assert "validation=(evaluator" in kinds(dict(QUIET), Settings("min", False))["training_loss"]
    assert "training_loss" not in kinds(dict(QUIET))


def test_a_longer_warmup_is_advised_where_warmups_were_tried() -> None:
    listed = (*trials.warmups(0.1, (0, 10)), Trial(0.2))
    runs = [[done(0.6)], [done(0.5)], [FAILED]]
    result = StudyResult(trial_results(listed, [N] * 3, runs, MIN), MIN)
    texts = {found.kind: found.text for found in result.findings}
    assert "warmup_steps=(100, 1000)" in texts["edge"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_validations_that_are_no_numbers(value: float) -> None:
    kinds({0.1: done(value, earlier=(1.0, value, 0.5, 0.4)), 0.2: done(0.4)})
