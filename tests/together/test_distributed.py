"""Several processes on gloo, started by torchrun, by idist.Parallel and by hand: all decide the same, and as one would.

The module is its own worker: ``python tests/together/test_distributed.py JOB FOLDER`` runs one job on the rank that the
launcher
gave it, and leaves what it saw in the folder.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from torch import nn

from ignite_lr import schedules
from ignite_lr.clipper import GradNormClipper
from ignite_lr.logger import JSONLinesLogger, LRLogger
from ignite_lr.lr_finder import LRFinder
from ignite_lr.scheduler import LRSchedulerHandler, ScheduleLR

# what FSDP2 needs of streams, and those of the CPU got with PyTorch 2.7
FSDP = hasattr(torch.cpu.Stream, "record_event")
needs_fsdp = pytest.mark.skipif(not FSDP, reason="FSDP2 on CPUs needs PyTorch 2.7")

# Nothing here takes that long; what hangs is killed.
LIMIT = 140.0
ROWS, BATCHES, POINTS, UPDATES, SAVED_AT = 12, 8, 30, 16, 7


def batches(rank: int, world: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The rank's share of each batch. The shares are of one size, so that the mean over ranks is the whole batch's."""
    generator = torch.Generator().manual_seed(3)
    share = []
    for _ in range(BATCHES):
        x = torch.randn(ROWS, 8, generator=generator)
        y = x.sum(1, keepdim=True) + torch.randn(ROWS, 1, generator=generator)
        share.append((x[rank::world], y[rank::world]))
    return share


class Training:
    """A trainer with every handler, on one rank of a world."""

    def __init__(self, wrap: str, rank: int = 0, world: int = 1) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        self.plain = self.model
        if wrap == "ddp":
            self.model = nn.parallel.DistributedDataParallel(self.model)
        elif wrap == "fsdp":
            from torch.distributed.fsdp import fully_shard

            for layer in (self.plain[0], self.plain[2]):
                fully_shard(layer)
            fully_shard(self.plain)
        self.data = batches(rank, world)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.trainer = create_supervised_trainer(self.model, self.optimizer, nn.MSELoss())
        self.scheduler = ScheduleLR(self.optimizer, schedules.InverseSqrt(warmup_steps=5, warmup_start=0.1))
        self.schedule_handler = LRSchedulerHandler(self.scheduler)
        self.clipper = GradNormClipper(self.optimizer, percentile=60.0, window=6)
        self.logger = LRLogger(self.optimizer, clipper=self.clipper, history=100)

    def attach(self) -> None:
        for handler in (self.schedule_handler, self.clipper, self.logger):
            handler.attach(self.trainer)

    def to_save(self) -> dict[str, Any]:
        return {"trainer": self.trainer, "model": self.model, "optimizer": self.optimizer, **self.handlers_to_save()}

    def handlers_to_save(self) -> dict[str, Any]:
        return {
            "scheduler": self.scheduler,
            "schedule_handler": self.schedule_handler,
            "clipper": self.clipper,
            "logger": self.logger,
        }

    def weights(self) -> list[torch.Tensor]:
        """Those of this rank: of a sharded model, its shards."""
        return [getattr(p, "_local_tensor", p).detach().clone() for p in self.model.parameters()]

    def memory(self) -> list[torch.Tensor]:
        """What the optimizer remembers on this rank."""
        buffers = [state["momentum_buffer"] for state in self.optimizer.state.values() if state]
        return [getattr(b, "_local_tensor", b).detach().clone() for b in buffers]

    def sweep(self, trainer: Engine | None = None, **arguments: Any) -> LRFinder:
        finder = LRFinder()
        to_save = {"model": self.model, "optimizer": self.optimizer}
        arguments = {"num_iter": POINTS, "start_lr": 1e-4, "end_lr": 10.0, **arguments}
        with (
            warnings.catch_warnings(),
            finder.attach(trainer or self.trainer, to_save, progress_bar=False, **arguments) as sweep,
        ):
            # whether the curve diverges is not what these sweeps are about
            warnings.filterwarnings("ignore", "Run completed without loss diverging")
            sweep.run(self.data)
        return finder


def seen_in(training: Training, folder: Path | None = None) -> dict[str, Any]:
    """A sweep, a run and what came of them, the same on one process and on many."""
    warm_up = create_supervised_trainer(training.model, training.optimizer, nn.MSELoss())
    warm_up.run(training.data[:3])  # so that the optimizer has something to remember
    before = (training.weights(), training.memory())
    finder = training.sweep(verify=10)
    after = (training.weights(), training.memory())
    restored = all(
        len(b) == len(a) and all(torch.equal(x, y) for x, y in zip(b, a, strict=True))
        for b, a in zip(before, after, strict=True)
    )
    result = finder.result

    training.attach()
    lines: JSONLinesLogger | None = None
    if folder is not None:
        lines = JSONLinesLogger(folder / f"rates_{idist.get_rank()}.jsonl")
        lines.attach(training.trainer, training.logger, Events.ITERATION_COMPLETED(every=5))
        checkpoint = Checkpoint(
            training.to_save(), DiskSaver(folder, require_empty=False), filename_pattern="checkpoint.pt"
        )
        training.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=SAVED_AT), checkpoint)
    clipped_norms: list[float] = []
    training.optimizer.register_step_pre_hook(lambda *_: clipped_norms.append(gradient_norm(training)))
    training.trainer.run(training.data, max_epochs=UPDATES // BATCHES)
    if lines is not None:
        lines.close()
    history = training.logger.history()
    return {
        "restored": restored,
        "lrs": result.lrs,
        "losses": result.losses,
        "stop": (result.stop_reason, result.stop_lr, result.iterations),
        "suggestion": result.suggestion("minimum"),
        "verified": result.verified,
        "rates": history["lr/SGD"].tolist(),
        "norms": history["clip/grad_norm"].tolist(),
        "thresholds": history["clip/clip_threshold"].tolist(),
        "clipped_norms": clipped_norms,
        "report": repr(training.clipper.report()),
        "counts": (training.clipper.report().updates, training.clipper.report().clipped),
        "weights": training.weights(),
    }


def gradient_norm(training: Training) -> float:
    """The norm of all gradients, on whatever ranks they lie. A reference of the test's own."""
    squares = torch.zeros((), dtype=torch.float64)
    sharded = False
    for parameter in training.model.parameters():
        gradient = parameter.grad
        sharded |= hasattr(gradient, "_local_tensor")
        squares += getattr(gradient, "_local_tensor", gradient).double().square().sum()
    if sharded:
        squares = idist.all_reduce(squares)
    return math.sqrt(float(squares))


# -- jobs: what a rank does


def job_everything(folder: Path) -> dict[str, Any]:
    rank, world = idist.get_rank(), idist.get_world_size()
    sharded = {"fsdp": seen_in(Training("fsdp", rank, world))} if FSDP else {}
    return {"ddp": seen_in(Training("ddp", rank, world), folder), **sharded, **decisions(rank, world)}


def decisions(rank: int, world: int) -> dict[str, Any]:
    """Sweeps in which the ranks see different things."""
    seen: dict[str, Any] = {}
    training = Training("ddp", rank, world)

    def poisoned(engine: Engine, batch: Any) -> float:
        training.optimizer.zero_grad()
        loss = nn.functional.mse_loss(training.model(batch[0]), batch[1])
        loss.backward()
        training.optimizer.step()
        return math.nan if rank == world - 1 and engine.state.iteration == 6 else loss.item()

    result = training.sweep(Engine(poisoned)).result
    seen["nan on one rank"] = (result.stop_reason, len(result.losses))

    def stopping(engine: Engine, batch: Any) -> float:
        if rank == world - 1 and engine.state.iteration == 4:
            engine.terminate()
        return float(training.trainer._process_function(engine, batch))

    result = training.sweep(Engine(stopping)).result
    seen["terminate on one rank"] = (result.stop_reason, len(result.losses))

    alone = Training("", rank, world)

    def out_of_step(engine: Engine, batch: Any) -> float:
        loss = nn.functional.mse_loss(alone.model(batch[0]), batch[1])
        loss.backward()
        if not (rank == world - 1 and engine.state.iteration == 3):
            alone.optimizer.step()
        return loss.item()

    before = alone.weights()
    try:
        alone.sweep(Engine(out_of_step))
        seen["out of step"] = "no error"
    except RuntimeError as error:
        seen["out of step"] = str(error)
    seen["out of step restored"] = all(torch.equal(x, y) for x, y in zip(before, alone.weights(), strict=True))
    return seen


def job_resume(folder: Path) -> dict[str, Any]:
    training = Training("ddp", idist.get_rank(), idist.get_world_size())
    training.attach()
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    Checkpoint.load_objects(to_load=training.to_save(), checkpoint=saved)
    rest = (training.data * 2)[SAVED_AT:]
    training.trainer.run(iter(rest), max_epochs=UPDATES // BATCHES, epoch_length=BATCHES)
    history = training.logger.history()
    return {
        "rates": history["lr/SGD"].tolist(),
        "norms": history["clip/grad_norm"].tolist(),
        "report": repr(training.clipper.report()),
        "weights": training.weights(),
    }


def job_raise(folder: Path, wrap: str) -> dict[str, Any]:
    """The last rank raises in the middle of its sweep, and every rank notes in what state it leaves."""
    rank, world = idist.get_rank(), idist.get_world_size()
    training = Training(wrap, rank, world)
    before = training.weights()

    def step(engine: Engine, batch: Any) -> float:
        if rank == world - 1 and engine.state.iteration == 5:
            raise ArithmeticError("this rank's own trouble")
        return float(training.trainer._process_function(engine, batch))

    try:
        training.sweep(Engine(step))
    except Exception as error:
        restored = all(torch.equal(x, y) for x, y in zip(before, training.weights(), strict=True))
        torch.save(
            {"error": type(error).__name__, "message": str(error), "restored": restored}, folder / f"rank_{rank}.pt"
        )
        raise
    return {}


JOBS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "everything": job_everything,
    "resume": job_resume,
    "raise_ddp": functools.partial(job_raise, wrap="ddp"),
    "raise_fsdp": functools.partial(job_raise, wrap="fsdp"),
}


def work(local_rank: int, job: str, folder: str) -> None:
    torch.set_num_threads(1)
    seen = JOBS[job](Path(folder))
    torch.save(seen, Path(folder) / f"rank_{idist.get_rank()}.pt")


def work_and_leave(local_rank: int, job: str, folder: str) -> None:
    work(local_rank, job, folder)
    # Now and then a process with a gloo group aborts while its interpreter shuts down, when all is done.
    idist.barrier()
    os._exit(0)


def main() -> None:
    job, folder, launcher = sys.argv[1:4]
    if launcher == "spawn":
        with idist.Parallel(backend="gloo", nproc_per_node=2, master_port=free_port()) as parallel:
            parallel.run(work_and_leave, job, folder)
    elif launcher == "by hand":
        # a file to meet at, and no launcher that would end the other ranks when one fails
        idist.initialize(
            "gloo",
            init_method=f"file://{folder}/meeting",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=timedelta(seconds=LIMIT / 2),
        )
        try:
            work(0, job, folder)
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # as a killed process goes: without the manners of a normal exit
    else:
        with idist.Parallel(backend="gloo") as parallel:
            parallel.run(work, job, folder)
        os._exit(0)  # all is saved: see work_and_leave


# -- launchers


def free_port() -> int:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def torchrun(job: str, folder: Path, world: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    command += [__file__, job, str(folder), "torchrun"]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT)


def spawn(job: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, __file__, job, str(folder), "spawn"]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT)


def results(folder: Path, world: int) -> list[dict[str, Any]]:
    # written by this very module
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(world)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What a single process makes of the whole batches."""
    torch.manual_seed(0)
    return seen_in(Training(""))


def check_everything(seen: list[dict[str, Any]], alone: dict[str, Any], folder: Path) -> None:
    for wrap in ("ddp", "fsdp") if FSDP else ("ddp",):
        ranks = [one[wrap] for one in seen]
        for rank in ranks:
            assert rank["restored"], wrap
            # what was decided, on every rank the same to the last bit
            for key in (
                "lrs",
                "losses",
                "stop",
                "suggestion",
                "verified",
                "rates",
                "norms",
                "thresholds",
                "report",
                "counts",
            ):
                assert rank[key] == ranks[0][key], (wrap, key)
        # and the same as a single process decides
        for key in ("lrs", "rates", "counts"):
            assert ranks[0][key] == alone[key], (wrap, key)
        assert ranks[0]["stop"] == alone["stop"]
        for key in ("losses", "norms", "thresholds", "clipped_norms"):
            assert ranks[0][key] == pytest.approx(alone[key], rel=2e-4), (wrap, key)
    for rank in seen:
        for mine, theirs in zip(rank["ddp"]["weights"], alone["weights"], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=2e-5)
        assert rank["nan on one rank"] == ("non_finite", 6)
        assert rank["terminate on one rank"] == ("terminated", 4)
        assert "the ranks disagree" in rank["out of step"]
        assert rank["out of step restored"]
    # rank 0 writes, the others do not even make a file
    assert [path.name for path in folder.glob("rates_*")] == ["rates_0.jsonl"]
    lines = [json.loads(line) for line in (folder / "rates_0.jsonl").read_text().splitlines()]
    assert len(alone["rates"]) == UPDATES
    assert [line["step"] for line in lines] == [5, 10, 15]
    assert [line["lr/SGD"] for line in lines] == [alone["rates"][step - 1] for step in (5, 10, 15)]


@pytest.mark.parametrize("world", [pytest.param(2, id="2 processes"), pytest.param(4, id="4 processes")])
def test_many_decide_as_one(world: int, alone: dict[str, Any], tmp_path: Path) -> None:
    done = torchrun("everything", tmp_path, world)
    assert done.returncode == 0, done.stderr
    seen = results(tmp_path, world)
    check_everything(seen, alone, tmp_path)
    if world == 2:
        resume(tmp_path, seen)


def resume(folder: Path, whole: list[dict[str, Any]]) -> None:
    """The checkpoint that two processes wrote, in two others, and for the handlers' state in one."""
    done = spawn("resume", folder)
    assert done.returncode == 0, done.stderr
    for resumed, first in zip(results(folder, 2), whole, strict=True):
        for key in ("rates", "norms", "report"):
            assert resumed[key] == first["ddp"][key], key
        for mine, theirs in zip(resumed["weights"], first["ddp"]["weights"], strict=True):
            assert torch.equal(mine, theirs)

    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    single = Training("")
    single.attach()
    Checkpoint.load_objects(to_load=single.handlers_to_save(), checkpoint=saved)
    assert single.clipper.report().updates == SAVED_AT
    assert single.scheduler.last_epoch == SAVED_AT
    assert single.logger.history()["clip/grad_norm"].tolist() == whole[0]["ddp"]["norms"][:SAVED_AT]


@pytest.mark.parametrize("wrap", ["ddp", pytest.param("fsdp", marks=needs_fsdp)])
def test_a_rank_that_raises_leaves_nobody_hanging(wrap: str, tmp_path: Path) -> None:
    command = [sys.executable, __file__, f"raise_{wrap}", str(tmp_path), "by hand"]
    ranks = [
        subprocess.Popen(
            command, env=environment(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank)), stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=LIMIT)[1].decode() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [1, 1], errors
    other, raising = results(tmp_path, 2)
    assert (raising["error"], raising["message"]) == ("ArithmeticError", "this rank's own trouble")
    # gloo sees the connection close; in whose words depends on what the rank was waiting in
    assert other["error"] in ("RuntimeError", "DistBackendError")
    assert other["restored"]
    assert raising["restored"]


def test_under_a_launcher_the_job_ends_with_the_error(tmp_path: Path) -> None:
    done = torchrun("raise_ddp", tmp_path, 2)
    assert done.returncode != 0
    assert "ArithmeticError: this rank's own trouble" in done.stderr
    raising = torch.load(tmp_path / "rank_1.pt", weights_only=True)
    assert raising["restored"]


@contextlib.contextmanager
def two_hosts() -> Iterator[list[tuple[str, str, str]]]:
    """Two network namespaces with a cable between them, as (namespace, interface, address)."""
    if shutil.which("ip") is None:
        pytest.skip("needs ip (iproute2) to make network namespaces")
    mark = os.getpid()
    hosts = [(f"lr{mark}{end}", f"lr{mark}{end}", f"10.77.0.{index}") for index, end in enumerate("ab", 1)]

    def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=LIMIT)

    try:
        for space, _, _ in hosts:
            made = ip("netns", "add", space)
            if made.returncode:
                pytest.skip(f"needs the right to make network namespaces: {made.stderr.strip()}")
        (first, near, _), (second, far, _) = hosts
        cable = ip("link", "add", near, "netns", first, "type", "veth", "peer", "name", far, "netns", second)
        if cable.returncode:
            pytest.skip(f"needs the right to connect network namespaces: {cable.stderr.strip()}")
        for space, interface, address in hosts:
            for arguments in (
                ("addr", "add", f"{address}/24", "dev", interface),
                ("link", "set", interface, "up"),
                ("link", "set", "lo", "up"),
            ):
                ip("-n", space, *arguments)
        yield hosts
    finally:
        for space, _, _ in hosts:
            ip("netns", "del", space)


def test_two_hosts_decide_as_one(alone: dict[str, Any], tmp_path: Path) -> None:
    with two_hosts() as hosts:
        runs = []
        for rank, (space, interface, _) in enumerate(hosts):
            command = ["ip", "netns", "exec", space, sys.executable, "-m", "torch.distributed.run"]
            # a namespace has its ports to itself
            command += ["--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1"]
            command += [f"--master-addr={hosts[0][2]}", "--master-port=29500"]
            command += [__file__, "everything", str(tmp_path), "torchrun"]
            env = environment(GLOO_SOCKET_IFNAME=interface)
            runs.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        try:
            errors = [run.communicate(timeout=LIMIT)[1].decode() for run in runs]
        finally:
            for run in runs:
                run.kill()
    assert [run.returncode for run in runs] == [0, 0], errors
    check_everything(results(tmp_path, 2), alone, tmp_path)


EXAMPLE = Path(__file__).parents[2] / "examples" / "distributed.py"


def last_words(command: list[str], *arguments: str) -> list[str]:
    """What the ranks of the example say at the end, without the number of the rank."""
    run = [*command, str(EXAMPLE), "--sweep-points", "40", *arguments]
    done = subprocess.run(run, env=environment(), capture_output=True, text=True, timeout=LIMIT)
    # spawned processes may abort at their very end, see work_and_leave
    assert done.returncode == 0 or "terminate called without an active exception" in done.stderr, done.stderr
    # two ranks that print at the same time may share a line
    return re.findall(r"rank \d: (accuracy [\d.]+, lr [\d.e-]+, clipped \d+/\d+)", done.stdout)


@needs_fsdp
def test_the_example_saves_with_two_sharded_processes_and_goes_on_with_one(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    sharded = last_words(launch, "--fsdp", "--epochs", "2", "--output", str(tmp_path))
    assert len(sharded) == 2
    assert sharded[0] == sharded[1]
    resume = ["--resume", str(tmp_path / "checkpoint_22.pt"), "--epochs", "2", "--output", str(tmp_path / "resumed")]
    (single,) = last_words([sys.executable], *resume)
    # the batches are drawn otherwise, but the rate and the number of updates are those of the first run
    _, rate, clipped = sharded[0].split(", ")
    assert rate in single
    assert single.endswith("/44")
    assert clipped.endswith("/44")
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


@pytest.mark.long
def test_the_example_with_copies_started_without_torchrun(tmp_path: Path) -> None:
    copies = last_words([sys.executable], "--processes", "2", "--epochs", "2", "--output", str(tmp_path))
    assert len(copies) == 2
    assert copies[0] == copies[1]


if __name__ == "__main__":
    main()
