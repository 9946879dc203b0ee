"""A study that is kept in a file: it goes on where it was, also after SIGKILL, and refuses to go on as another one.

The module is its own worker: ``python tests/study/test_study_file.py FOLDER SEED ...`` runs studies that are killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from small_trainings import Training, fingerprint, make

from ignite_lr import LRStudy, StudyResult, Trial, run_study, schedules, trials

EIGHT = (*trials.spread(1e-3, 1.0, n=5), *trials.warmups(0.3, (0, 5, 10)))
LIMIT = 120.0


def study_of_eight(file: Path | None, training: Training | None = None) -> StudyResult:
    training = training or make()
    return run_study(training.trainer, training.loader, training.to_save, EIGHT, num_updates=40, repeats=2, file=file)


class Counted:
    """A trainer's step that counts, and may stop the whole thing after so many calls."""

    def __init__(self, training: Training, last: int | None = None) -> None:
        self.calls = 0
        step = training.trainer._process_function

        def counted(engine: Engine, batch: Any) -> Any:
            if self.calls == last:
                raise KeyboardInterrupt("as if pressed")
            self.calls += 1
            return step(engine, batch)

        self.trainer = Engine(counted)


def test_a_study_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    training = make()
    first = Counted(training, last=27)
    with pytest.raises(KeyboardInterrupt, match="as if pressed"):
        run_study(first.trainer, training.loader, training.to_save, EIGHT[:4], num_updates=10, file=file)
    assert len(StudyResult.load(file).trials) == 2
    training = make()
    second = Counted(training)
    result = run_study(second.trainer, training.loader, training.to_save, EIGHT[:4], num_updates=10, file=file)
    assert second.calls <= 20
    training = make()
    whole = run_study(training.trainer, training.loader, training.to_save, EIGHT[:4], num_updates=10)
    assert result == whole
    assert StudyResult.load(file) == whole


def test_more_trials_extend_it_and_finished_ones_are_not_run_again(tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    for n, calls in ((2, 20), (2, 0), (3, 10)):
        training = make()
        counted = Counted(training)
        listed = trials.spread(0.01, 0.1, n)
        result = run_study(counted.trainer, training.loader, training.to_save, listed, num_updates=10, file=file)
        assert counted.calls == calls
        assert [one.trial for one in result.trials] == list(listed)


def test_a_terminated_trial_is_run_again(tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    training = make()
    study = LRStudy()
    step = training.trainer._process_function

    def stopping(engine: Engine, batch: Any) -> Any:
        if engine.state.iteration == 7:
            engine.terminate()
        return step(engine, batch)

    with study.attach(Engine(stopping), training.to_save, [Trial(0.02)], 10, file=file) as engine:
        engine.run(training.loader)
    assert study.result.trials[0].outcome == "terminated"
    study.result.save(file.with_name("by_hand.json"))
    training = make()
    result = run_study(training.trainer, training.loader, training.to_save, [Trial(0.02)], num_updates=10, file=file)
    assert [one.outcome for one in result.trials] == ["completed"]


BASE: dict[str, Any] = {"trials": (Trial(0.02, name="a"), Trial(0.05)), "num_updates": 6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"trials": (Trial(0.03, name="a"), Trial(0.05))}, "the lr of trial 0 differs.*0.02, got 0.03", id="lr"
        ),
        pytest.param({"trials": (Trial(0.02, name="b"), Trial(0.05))}, "the name of trial 0 differs", id="name"),
        pytest.param({"num_updates": 7}, "the num_updates of trial 0 differs, it has 6, got 7", id="length"),
        pytest.param({"trials": (Trial(0.02, name="a"),)}, "the number of trials differs, it has 2, got 1", id="fewer"),
        pytest.param(
            {"trials": (Trial(0.02, schedules.Linear(6), name="a"), Trial(0.05))},
            "the schedule of trial 0",
            id="schedule",
        ),
        pytest.param({"repeats": 2}, "repeats differs, it has 1, got 2", id="repeats"),
        pytest.param({"smooth_f": 0.1}, "smooth_f differs, it has 0.05, got 0.1", id="smooth"),
        pytest.param({"diverge_th": 4.0}, "diverge_th differs", id="threshold"),
        pytest.param({"validation": lambda: 1.0}, "validation differs", id="validation"),
    ],
)
def test_another_study_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    training = make()
    run_study(training.trainer, training.loader, training.to_save, **BASE, file=file)
    before = file.read_text()
    with pytest.raises(ValueError, match=message):
        LRStudy().attach(training.trainer, training.to_save, **{**BASE, **changes}, file=file)
    assert file.read_text() == before


def test_other_starting_parameters_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    training = make()
    run_study(training.trainer, training.loader, training.to_save, **BASE, file=file)
    other = make(seed=1)
    with pytest.raises(ValueError, match="the starting parameters differs"):
        LRStudy().attach(other.trainer, other.to_save, **BASE, file=file)


def test_a_schedule_is_compared_by_its_values(tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    decay = schedules.Linear(6)
    for schedule in (decay, lambda step: decay(step)):
        training = make()
        listed = [Trial(0.02, schedule)]
        run_study(training.trainer, training.loader, training.to_save, listed, num_updates=6, file=file)


def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    file.write_text("precious")
    training = make()
    with pytest.raises(ValueError, match="is no study"):
        LRStudy().attach(training.trainer, training.to_save, **BASE, file=file)
    assert file.read_text() == "precious"
    result = run_study(training.trainer, training.loader, training.to_save, **BASE)
    saved = result.save(tmp_path / "result.json")  # what save() writes has no plan
    with pytest.raises(ValueError, match="is of another study"):
        LRStudy().attach(training.trainer, training.to_save, **BASE, file=saved)


def test_a_file_that_cannot_be_written_is_an_error_in_attach(tmp_path: Path) -> None:
    training, untouched = make(), make()
    with pytest.raises(OSError, match=r"No such file or directory: .*nowhere/study\.json'"):
        LRStudy().attach(training.trainer, training.to_save, **BASE, file=tmp_path / "nowhere" / "study.json")
    with pytest.raises(OSError, match="directory"):
        LRStudy().attach(training.trainer, training.to_save, **BASE, file=tmp_path)
    assert fingerprint(training) == fingerprint(untouched)


def test_a_disk_that_is_full_in_the_middle_ends_the_study_and_restores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "study.json"
    training, untouched = make(), make()
    block = LRStudy().attach(training.trainer, training.to_save, **BASE, file=file)

    def full(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="full"), block as engine:
        engine.run(training.loader)
    assert fingerprint(training) == fingerprint(untouched)
    assert json.loads(file.read_text())["trials"] == []


# -- SIGKILL


def killed_and_started_again(file: Path, seed: int) -> int:
    """Start the study until it comes to an end, killed at random moments before; how often it was killed.

    Each start is a fork of a process that has imported everything and computed nothing.
    """
    chance = random.Random(seed)
    for killed in range(8):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                study_of_eight(file)
                status = 0
            finally:
                os._exit(status)
        deadline = time.monotonic() + (chance.uniform(0.05, 0.6) if killed < 7 else LIMIT)
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                assert status == 0, status
                return killed
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    raise AssertionError(f"it did not end within {LIMIT} s")


def killed_studies(folder: Path, seeds: range) -> list[StudyResult]:
    """The results of studies that were killed, run by a process of their own."""
    command = [sys.executable, __file__, str(folder), *(str(seed) for seed in seeds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT * 4, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return [StudyResult.load(folder / f"{seed}.json") for seed in seeds]


def test_killed_at_random_moments_it_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    assert killed_studies(tmp_path, range(3)) == [study_of_eight(None)] * 3


@pytest.mark.long
def test_killed_in_twenty_studies(tmp_path: Path) -> None:
    assert killed_studies(tmp_path, range(100, 120)) == [study_of_eight(None)] * 20


if __name__ == "__main__":
    torch.set_num_threads(1)
    for seed in sys.argv[2:]:
        print(f"seed {seed}: killed {killed_and_started_again(Path(sys.argv[1]) / f'{seed}.json', int(seed))} times")
