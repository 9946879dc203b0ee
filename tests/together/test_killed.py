"""Random trainings, killed again and again and resumed from the newest checkpoint, come out as if nothing had been.

Compared are the outcome to the last bit and, of the file of JSON lines, the last line of each step. A few kills are
part of ``make test``, 200 of ``make test-long``.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from ignite.handlers import Checkpoint, DiskSaver
from random_trainings import Training, sweep

import ignite_lr


def train(seed: int, folder: Path, pause: float) -> None:
    """Train to the end, from the newest checkpoint if there is one, and leave the outcome."""
    training, rng = Training(seed), random.Random(os.getpid())
    training.pause = pause
    lines = ignite_lr.JSONLinesLogger(folder / "rates.jsonl")
    lines.attach(training.trainer, log_handler=training.parts["logger"], event_name=Events.ITERATION_COMPLETED)
    event = Events.ITERATION_COMPLETED(every=training.every)
    keeper = Checkpoint(training.objects(), DiskSaver(folder / "saved", require_empty=False), n_saved=2)
    training.trainer.add_event_handler(event, keeper)
    at = Events.ITERATION_COMPLETED(once=rng.randint(1, training.iterations))
    training.trainer.add_event_handler(at, lambda: sweep(training, rng, folder / "snapshots"))
    saved = sorted((folder / "saved").glob("*.pt"), key=lambda path: int(path.stem.rpartition("_")[2]))
    if saved:
        Checkpoint.load_objects(training.objects(), torch.load(saved[-1], weights_only=True))
    if training.trainer.state.iteration < training.iterations:
        training.run()
    lines.close()
    (folder / "outcome").write_text(training.outcome())


def forked(seed: int, folder: Path, pause: float, limit: float) -> bool:
    """Train in a process of its own, and kill that after so many seconds; whether it was."""
    child = os.fork()
    if not child:
        try:
            train(seed, folder, pause)
            os._exit(0)
        except BaseException as error:
            print(f"seed {seed}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    return True


def left(folder: Path) -> tuple[str, dict[int, Any]]:
    """The outcome, and the last line of each step."""
    lines = [json.loads(line) for line in (folder / "rates.jsonl").read_text().splitlines()]
    last = {line["step"]: {name: value for name, value in line.items() if name != "resumed"} for line in lines}
    return (folder / "outcome").read_text(), last


def killed(folder: Path, seed: int, kills: int) -> dict[str, Any]:
    """Kill so many trainings, and what came out differently in the end."""
    rng, found, done = random.Random(seed), [], 0
    while done < kills:
        seed += 1
        homes = [folder / f"{seed}", folder / f"{seed} whole"]
        for home in homes:
            (home / "snapshots").mkdir(parents=True)
        forked(seed, homes[1], 0.0, math.inf)
        # at most five times each, so that each comes to its end
        for _ in range(5):
            if not forked(seed, homes[0], 0.005, rng.uniform(0.02, 0.3)):
                break
            done += 1
        forked(seed, homes[0], 0.0, math.inf)
        # what a kill leaves of a snapshot in a folder is known by its name
        names = [path.name for home in homes for path in (home / "snapshots").iterdir()]
        well = all(name.startswith("range_test_snapshot_") and name.endswith((".tmp", ".pt")) for name in names)
        if left(homes[0]) != left(homes[1]) or not well or list((homes[1] / "snapshots").iterdir()):
            found.append(seed)
    return {"kills": done, "wrong": found}


def kills_in_a_process_of_their_own(folder: Path, seed: int, kills: int) -> dict[str, Any]:
    # forked from one that has PyTorch, and no threads but its own
    command = [sys.executable, __file__, str(folder), str(seed), str(kills)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    said: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return said


def test_killed_trainings(tmp_path: Path) -> None:
    said = kills_in_a_process_of_their_own(tmp_path, 0, 3)
    assert said["kills"] >= 3
    assert not said["wrong"]


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_200_killed_trainings(tmp_path: Path) -> None:
    said = kills_in_a_process_of_their_own(tmp_path, 10_000, 200)
    assert said["kills"] >= 200
    assert not said["wrong"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(json.dumps(killed(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
