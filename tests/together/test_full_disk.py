"""A disk that fills up in mid-run: the training goes on as if nothing had been logged, with one warning."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import TensorboardLogger
from torch import nn

from ignite_lr.logger import JSONLinesLogger, LRLogger

DATA = [(torch.randn(4, 3, generator=torch.Generator().manual_seed(i)), torch.ones(4, 1)) for i in range(500)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def train(logger: Any = None) -> tuple[Engine, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    if logger is not None:
        logger.attach(trainer, LRLogger(optimizer, momentum=True), Events.ITERATION_COMPLETED)
    trainer.run(DATA, max_epochs=10)
    return trainer, [parameter.detach().clone() for parameter in model.parameters()]


def tensorboard(folder: Path, kind: str) -> TensorboardLogger:
    import tensorboardX
    import torch.utils.tensorboard

    logger = TensorboardLogger(str(folder))
    if kind != "tensorboardX":
        logger.writer.close()
        logger.writer = {
            "torch": lambda: torch.utils.tensorboard.SummaryWriter(str(folder), flush_secs=0),
            # its events go through the queue, to the thread that dies
            "tensorboardX queue": lambda: tensorboardX.SummaryWriter(str(folder), flush_secs=0, purge_step=0),
        }[kind]()
    return logger


@pytest.mark.parametrize("kind", ["tensorboardX", "tensorboardX queue", "torch", "JSON lines"])
# the threads of the writers die of it, which is theirs to do
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(120)
def test_a_full_disk_costs_one_warning_and_nothing_else(kind: str, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(48 * 1024))
    logger: Any = JSONLinesLogger(small_disk / "rates.jsonl") if kind == "JSON lines" else tensorboard(small_disk, kind)
    with pytest.warns(RuntimeWarning, match="failed, and LRLogger writes no more to it: OSError") as warned:
        trainer, weights = train(logger)
    assert len(warned) == 1
    assert trainer.state.iteration == 5000
    for mine, theirs in zip(weights, train()[1], strict=True):
        assert torch.equal(mine, theirs)
    # with room again, closing does not hang; PyTorch's writer keeps the first error and raises it once more
    (small_disk / "filler").unlink()
    with pytest.raises(OSError, match="No space left") if kind == "torch" else contextlib.nullcontext():
        logger.close()
