"""Studies on several ranks: all see the same study, one of them keeps the file.

The module is its own worker, started by torchrun: ``python tests/study/test_study_ranks.py FOLDER WRAP``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ignite_lr import LRStudy, StudyResult, Trial, run_study

LIMIT = 140.0
FSDP = hasattr(torch.cpu.Stream, "record_event")
needs_fsdp = pytest.mark.skipif(not FSDP, reason="FSDP2 on CPUs needs PyTorch 2.7")
LISTED = (Trial(0.02), Trial(0.1, lambda step: min(1.0, step / 3)), Trial(500.0))


def share(rank: int, world: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The rank's share of each batch; the shares are of one size, so their mean is the whole batch's."""
    generator = torch.Generator().manual_seed(3)
    whole = [torch.randn(8, 4, generator=generator) for _ in range(6)]
    return [(x[rank::world], x[rank::world].sum(1, keepdim=True)) for x in whole]


def training(rank: int, world: int, wrap: str = "ddp") -> tuple[Engine, dict[str, Any], list[Any]]:
    torch.manual_seed(0)
    net: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    if world > 1 and wrap == "fsdp":
        fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
    elif world > 1:
        net = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    trainer = create_supervised_trainer(net, optimizer, nn.functional.mse_loss)
    return trainer, {"model": net, "optimizer": optimizer}, share(rank, world)


def summary(result: StudyResult) -> list[Any]:
    return [[one.outcome, repr(one.losses), repr(one.validations), repr(one.objective)] for one in result.trials]


def local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def work(local_rank: int, folder: Path, wrap: str) -> None:
    rank, world = idist.get_rank(), idist.get_world_size()
    trainer, to_save, data = training(rank, world, wrap)
    before = [local(p).detach().clone() for p in to_save["model"].parameters()]
    calls = 0
    step = trainer._process_function

    def counted(engine: Engine, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        return step(engine, batch)

    counting = Engine(counted)
    # each rank validates to a number of its own: the mean counts
    options: dict[str, Any] = {"num_updates": 12, "repeats": 2, "validation": lambda: float(rank), "validate_every": 5}
    found: dict[str, Any] = {}
    result = run_study(counting, data, to_save, LISTED[:2], **options, file=folder / "study.json")
    found["first"], found["calls"] = summary(result), calls
    calls = 0
    result = run_study(counting, data, to_save, LISTED, **options, file=folder / "study.json")
    found["extended"], found["more_calls"] = summary(result), calls
    with pytest.raises(ValueError, match="num_updates of trial 0 differs") as other:
        LRStudy().attach(counting, to_save, LISTED, **{**options, "num_updates": 13}, file=folder / "study.json")
    with pytest.raises(OSError, match=r"no/file\.json'") as nowhere:
        LRStudy().attach(counting, to_save, LISTED, **options, file=folder / "no" / "file.json")
    found["other"], found["nowhere"] = str(other.value), str(nowhere.value)
    study = LRStudy()
    with study.attach(counting, to_save, LISTED[:2], 12) as engine:
        # one rank wants to stop: all of them do
        handle = engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: rank == 1 and e.terminate())
        engine.run(data)
        handle.remove()
    found["terminated"] = summary(study.result)
    found["restored"] = all(
        torch.equal(local(p), b) for p, b in zip(to_save["model"].parameters(), before, strict=True)
    )
    (folder / f"rank_{rank}.json").write_text(json.dumps(found))


@pytest.mark.parametrize(("ranks", "wrap"), [(2, "ddp"), (4, "ddp"), pytest.param(2, "fsdp", marks=needs_fsdp)])
def test_all_ranks_see_one_study(ranks: int, wrap: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--master_port", "0",
               "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", __file__, str(tmp_path), wrap]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *others = (json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in range(ranks))
    assert others == [first] * (ranks - 1)
    assert first["calls"] == 48
    assert first["more_calls"] < 24  # the third one alone, which fails early
    assert [one[0] for one in first["extended"]] == ["completed", "completed", first["extended"][2][0]]
    assert first["extended"][2][0] in ("diverged", "non_finite")
    assert first["first"] == first["extended"][:2]
    assert first["first"][0][2] == str(tuple((update, (ranks - 1) / 2) for update in (5, 10, 12)))
    assert first["restored"]
    assert [one[0] for one in first["terminated"]] == ["terminated"]

    trainer, to_save, data = training(0, 1)
    alone = run_study(trainer, data, to_save, LISTED[:2], num_updates=12)
    together = StudyResult.load(tmp_path / "study.json")
    for one, two in zip(alone.trials, together.trials, strict=False):
        assert one.losses == pytest.approx(two.repeats[0].losses, rel=1e-4)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with idist.Parallel(backend="gloo") as parallel:
        parallel.run(work, Path(sys.argv[1]), sys.argv[2])
