"""A state saved on two ranks with ``torch.distributed.checkpoint`` goes on, on one rank and on four."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from ignite_lr.clipper import GradNormClipper

STOP, END = 8, 12


def trained(rank: int, ranks: int, store: str, folder: str, resumed: bool) -> None:
    """Save after the first updates, or load and train on; both note the report and the thresholds."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    try:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
        optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in (model[0], model[2])], lr=0.0)
        clipper = GradNormClipper(optimizer, percentile=60.0, window=5, per_group=True)
        path = Path(folder) / "saved"
        if resumed:
            state = {"clipper": clipper.state_dict()}
            checkpoint.load(state, checkpoint_id=path)
            clipper.load_state_dict(state["clipper"])
        thresholds: list[float] = []

        def step(engine: Engine, seed: int) -> None:
            optimizer.zero_grad()
            batch = (1 + seed % 3) * torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
            model(batch).square().sum().backward()
            optimizer.step()
            thresholds.append(float(clipper.metrics["clip_threshold"]))

        def train(seeds: range) -> None:
            trainer = Engine(step)
            with clipper.attach(trainer):
                trainer.run(seeds)

        if not resumed:
            train(range(STOP))
            checkpoint.save({"clipper": clipper.state_dict()}, checkpoint_id=path)
        train(range(STOP, END))
        report = clipper.report()
        torch.save((report.updates, report.clipped, thresholds[-4:]), Path(folder) / f"{ranks}-{rank}.pt")
    finally:
        dist.destroy_process_group()
    # now and then a spawned process with a gloo group aborts while its interpreter shuts down, when all is done
    os._exit(0)


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="FSDP2 on CPUs needs PyTorch 2.7")
def test_saved_on_two_ranks_and_loaded_on_one_and_on_four(tmp_path: Path) -> None:
    for ranks, resumed in ((2, False), (1, True), (4, True)):
        arguments = (ranks, str(tmp_path / f"store{ranks}"), str(tmp_path), resumed)
        torch.multiprocessing.spawn(trained, args=arguments, nprocs=ranks)
    updates, clipped, thresholds = torch.load(tmp_path / "2-0.pt")
    assert updates == END
    assert 0 < clipped < END
    for other in ("2-1", "1-0", "4-0", "4-3"):
        found = torch.load(tmp_path / f"{other}.pt")
        assert found[:2] == (updates, clipped), other
        assert found[2] == pytest.approx(thresholds, rel=1e-4), other
