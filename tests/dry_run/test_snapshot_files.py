"""What a process that is killed leaves of a snapshot in a folder is named by the next run there, and only that."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from trainings import net, training_of

from ignite_lr import LRFinder, LRStudy, trials
from ignite_lr.dry_run._tensors import TensorCopies

# sweeps in the folder of its argument, and stands still within the sweep once it said so
STANDING = """
import sys, time
import torch
from ignite.engine import Engine
from ignite_lr import LRFinder

model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

def step(engine, batch):
    loss = model(batch).square().mean()
    loss.backward()
    optimizer.step()
    if engine.state.iteration == 5:
        print("within", flush=True)
        time.sleep(600)
    return loss.item()

trainer = Engine(step)
objects = {"model": model, "optimizer": optimizer}
with LRFinder().attach(trainer, objects, num_iter=20, snapshot_to=sys.argv[1], progress_bar=False) as sweep:
    sweep.run([torch.ones(4, 2)] * 20)
"""


def sweep_in(folder: Path) -> None:
    training = training_of(net())
    options = {"num_iter": 20, "snapshot_to": folder, "progress_bar": False}
    with LRFinder().attach(training.trainer, training.to_save, **options) as engine:
        engine.run(training.data)


def test_what_a_killed_sweep_left_is_named_and_a_living_one_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STANDING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "within\n"
            sweep_in(tmp_path)
            (theirs,) = tmp_path.iterdir()
        finally:
            other.send_signal(signal.SIGKILL)
    with pytest.warns(UserWarning, match=f"were killed, or could not restore: {theirs.name}. Go on from") as said:
        sweep_in(tmp_path)
    assert [warning.filename for warning in said] == [__file__]
    assert list(tmp_path.iterdir()) == [theirs]
    theirs.unlink()
    sweep_in(tmp_path)


def test_a_study_names_it_too(tmp_path: Path) -> None:
    (tmp_path / "range_test_snapshot_half.tmp").write_bytes(b"half")
    training = training_of(net())
    listed, options = trials.spread(0.01, 0.1, n=2), {"num_updates": 5, "snapshot_to": tmp_path, "progress_bar": False}
    with (
        pytest.warns(UserWarning, match=r"range_test_snapshot_half\.tmp"),
        LRStudy().attach(training.trainer, training.to_save, listed, **options) as study,
    ):
        study.run(training.data)


def test_many_files_are_counted(tmp_path: Path) -> None:
    for index in range(5):
        (tmp_path / f"range_test_snapshot_{index}.pt").write_bytes(b"old")
    with pytest.warns(UserWarning, match=r"_0.pt, range_test_snapshot_1.pt, range_test_snapshot_2.pt and 2 more\. Go"):
        sweep_in(tmp_path)


def test_other_files_and_the_copies_of_another_block_are_not_named(tmp_path: Path) -> None:
    mine = ["range_test_model.pt", "range_test_snapshot_notes.txt", "range_test_snapshot_new.tmp"]
    for name in mine[:2]:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / mine[2]).touch()  # made by a run that is about to lock it
    other = TensorCopies(tmp_path)
    other.add(torch.ones(3))
    other.seal()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep_in(tmp_path)
    other.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(mine)


def test_a_process_forked_in_between_keeps_no_space(tmp_path: Path) -> None:
    copies = TensorCopies(tmp_path)
    copies.add(torch.ones(1000))
    copies.seal()
    assert copies.file is not None
    with copies.file.open("rb") as inherited:
        copies.close()
        assert inherited.read() == b""
