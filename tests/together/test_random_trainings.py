"""Random trainings with sweeps and resumes in them come out as the same trainings without, bit for bit.

Compared are weights, the optimizer's state, the schedule, the clipper's norms and thresholds and the logger's records.
20 trainings are part of ``make test``, 2,000 of ``make test-long``.
"""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Events
from random_trainings import BoomError, Training, sweep
from through_file import through_file


def disturbed(seed: int, folder: Path) -> tuple[Training, int, int]:
    """The training of this seed with sweeps and resumes in it, and how many of them."""
    rng = random.Random(-seed)
    training, resumes, sweeps = Training(seed), 0, 0
    while True:
        if rng.random() < 0.5:
            sweep(training, rng, folder)
            sweeps += 1
        start = training.trainer.state.iteration
        if rng.random() < 0.5:
            moment = rng.randint(start + 1, max(start + 1, training.iterations))
            event = rng.choice([Events.ITERATION_COMPLETED, Events.ITERATION_STARTED])(once=moment)
            training.trainer.add_event_handler(event, lambda engine: sweep(training, rng, folder))  # noqa: B023 - once, in this run
            sweeps += 1
        # a checkpoint holds no partial gradients: it is taken where an update was made
        last = training.every * rng.randint(1, training.iterations // training.every - 1)
        if last <= start or rng.random() < 0.3:
            return training.run(), resumes, sweeps
        saved: dict[str, Any] = {}
        at = Events.ITERATION_COMPLETED(once=last)
        training.trainer.add_event_handler(at, lambda: saved.update(through_file(training.state())))  # noqa: B023 - likewise
        training.trouble = min(last + rng.randint(1, 3), training.iterations)
        with pytest.raises(BoomError, match=r"^$"):
            training.run()
        training = Training(seed)
        training.load(saved, rng)
        resumes += 1


def wrong(seeds: range, folder: Path) -> tuple[list[int], int, int]:
    """The seeds of trainings that came out differently, and how many resumes and sweeps there were."""
    found, resumes, sweeps = [], 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sweeps of a few points do not diverge
        for seed in seeds:
            training, resumed, swept = disturbed(seed, folder)
            resumes, sweeps = resumes + resumed, sweeps + swept
            if training.outcome() != Training(seed).run().outcome():
                found.append(seed)
    assert not list(folder.iterdir())
    return found, resumes, sweeps


def test_random_trainings(tmp_path: Path) -> None:
    found, resumes, sweeps = wrong(range(1, 21), tmp_path)
    assert not found
    assert min(resumes, sweeps) > 10


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_2000_random_trainings(tmp_path: Path) -> None:
    found, resumes, sweeps = wrong(range(1_000, 3_000), tmp_path)
    assert not found
    assert min(resumes, sweeps) > 1_000
