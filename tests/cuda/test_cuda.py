"""What only a real CUDA device can show. ``python -m pytest -m cuda tests/cuda``; elsewhere every test is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# before the first use of cuBLAS, which takes it for deterministic products
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from ignite_lr import schedules
from ignite_lr.clipper import GradNormClipper
from ignite_lr.logger import JSONLinesLogger, LRLogger
from ignite_lr.lr_finder import LRFinder
from ignite_lr.scheduler import LRSchedulerHandler, ScheduleLR

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SCHEDULE = schedules.InverseSqrt(warmup_steps=5, warmup_start=0.1)
FUSED = pytest.mark.parametrize("fused", [False, True], ids=["foreach", "fused"])


@contextmanager
def no_waiting() -> Iterator[None]:
    """Every wait of the host for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


class Training:
    """A trainer whose step reads nothing from the device."""

    def __init__(
        self,
        device: str = "cuda",
        dtype: torch.dtype = torch.float32,
        dropout: float = 0.0,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
        lr: Any = 0.01,
        **options: Any,
    ) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, 1)).to(device)
        self.optimizer = optimizer(self.model.parameters(), lr=lr, **options)
        self.scaler = torch.amp.GradScaler(device, init_scale=1024.0, enabled=dtype is torch.float16)
        self.device, self.dtype = device, dtype
        self.poison: set[int] = set()
        self.trainer = Engine(self.step)
        generator = torch.Generator().manual_seed(1)
        self.data = [torch.randn(8, 16, generator=generator).to(device) for _ in range(10)]

    def step(self, engine: Engine, batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device, self.dtype, enabled=self.dtype is not torch.float32):
            loss = nn.functional.mse_loss(self.model(batch).float(), batch.sum(1, keepdim=True))
        if engine.state.iteration in self.poison:
            loss = loss * torch.inf
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def run(self, updates: int) -> None:
        # a run of its own each time
        self.trainer.state.max_epochs = None
        self.trainer.run(self.data, max_epochs=1, epoch_length=updates)

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]


@FUSED
@pytest.mark.parametrize(
    "options",
    [{}, {"window": None}, {"per_group": True}, {"max_norm": 1.0}, {"norm_type": float("inf")}, {"enabled": False}],
    ids=str,
)
def test_between_log_events_nothing_waits(fused: bool, options: dict[str, Any], tmp_path: Path) -> None:
    training = Training(fused=fused)
    scheduler = ScheduleLR(training.optimizer, SCHEDULE)
    clipper = GradNormClipper(training.optimizer, percentile=60.0, **{"window": 20, **options})
    logger = LRLogger(training.optimizer, clipper=clipper, history=50)
    lines = JSONLinesLogger(tmp_path / "rates.jsonl")
    for handler in (LRSchedulerHandler(scheduler), clipper):
        handler.attach(training.trainer)
    lines.attach(training.trainer, logger, Events.ITERATION_COMPLETED(every=50))
    training.run(50)  # memory is allocated, kernels are loaded, and the event fires
    with no_waiting():
        training.run(49)
    training.run(50)
    lines.close()
    assert scheduler.last_epoch == clipper.report().updates == 149
    assert len(lines.path.read_text().splitlines()) == 2


def test_a_fused_optimizer_skips_without_waiting() -> None:
    training = Training(fused=True)
    clipper = GradNormClipper(training.optimizer, on_nonfinite="skip")
    clipper.attach(training.trainer)
    scheduler = ScheduleLR(training.optimizer, SCHEDULE)
    handle = LRSchedulerHandler(scheduler).attach(training.trainer)
    training.run(10)
    training.poison = {3}
    with no_waiting():
        training.run(10)
    handle.remove()  # what is due is done
    report = clipper.report()
    assert (report.updates, report.skipped, scheduler.last_epoch) == (19, 1, 19)
    assert all(weight.isfinite().all() for weight in training.weights())


@FUSED
def test_norms_and_thresholds_are_those_of_the_cpu(fused: bool) -> None:
    seen = []
    for device in ("cpu", "cuda"):
        training = Training(device, fused=fused, optimizer=torch.optim.SGD)
        clipper = GradNormClipper(training.optimizer, percentile=60.0, window=20)
        logger = LRLogger(training.optimizer, clipper=clipper, history=60)
        for handler in (clipper, logger):
            handler.attach(training.trainer)
        training.run(60)
        seen.append((logger.history(), [weight.cpu() for weight in training.weights()], clipper.report().clipped))
    (here, weights_here, clipped_here), (there, weights_there, clipped_there) = seen
    for tag in here:
        np.testing.assert_allclose(there[tag], here[tag], rtol=2e-3, atol=1e-5, err_msg=tag)
    for mine, theirs in zip(weights_there, weights_here, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=1e-4)
    assert abs(clipped_here - clipped_there) <= 1


@FUSED
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_mixed_precision(fused: bool, dtype: torch.dtype) -> None:
    training = Training(dtype=dtype, fused=fused)
    scheduler = ScheduleLR(training.optimizer, SCHEDULE)
    handler = LRSchedulerHandler(scheduler)
    clipper = GradNormClipper(training.optimizer, percentile=100.0, window=50)
    logger = LRLogger(training.optimizer, clipper=clipper, history=50)
    handles = [one.attach(training.trainer) for one in (handler, clipper, logger)]
    norms: list[float] = []

    def reference(engine: Engine) -> None:
        # gradients after the step, which a fused optimizer leaves scaled
        scale = training.scaler.get_scale() if fused and training.scaler.is_enabled() else 1.0
        gradients = [p.grad for p in training.model.parameters() if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.stack([g.float().norm() for g in gradients]))) / scale)

    training.trainer.add_event_handler(Events.ITERATION_COMPLETED, reference)
    training.poison = {7} if dtype is torch.float16 else set()
    training.run(20)
    handles[0].remove()  # what is due is done
    made = 20 - len(training.poison)
    assert scheduler.last_epoch == clipper.report().updates == made
    history = logger.history()
    assert len(history["update"]) == made
    assert history["lr/AdamW"].tolist() == pytest.approx([0.01 * factor for factor in SCHEDULE.values(made)])
    # what the step after the overflow was scaled by has changed, so only those before it are compared
    np.testing.assert_allclose(history["clip/grad_norm"][:6], norms[:6], rtol=1e-2)
    assert np.isfinite(history["clip/grad_norm"]).all()


def test_a_rate_that_is_a_tensor_is_filled_in_place_without_waiting() -> None:
    training = Training(lr=torch.tensor(0.01, device="cuda"), capturable=True)
    scheduler = ScheduleLR(training.optimizer, SCHEDULE)
    LRSchedulerHandler(scheduler).attach(training.trainer)
    rate = training.optimizer.param_groups[0]["lr"]
    training.run(3)
    with no_waiting():
        training.run(7)
    assert training.optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.01 * SCHEDULE(10))


def test_a_graphed_step_uses_the_rates_of_the_schedule() -> None:
    weights = []
    for graphed in (False, True):
        training = Training(lr=torch.tensor(0.01, device="cuda"), capturable=True)
        still = torch.zeros_like(training.data[0])
        replay = training.step
        if graphed:
            # warm up on a side stream, as capture asks for, and put everything back
            saved = [p.detach().clone() for p in training.model.parameters()]
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    training.step(training.trainer, still)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                training.step(training.trainer, still)
            with torch.no_grad():
                for parameter, value in zip(training.model.parameters(), saved, strict=True):
                    parameter.copy_(value)
                for state in training.optimizer.state.values():
                    for value in state.values():
                        value.zero_()

            def replay(engine: Engine, batch: torch.Tensor, still: Any = still, graph: Any = graph) -> None:
                still.copy_(batch)
                graph.replay()

        trainer = Engine(replay)
        scheduler = ScheduleLR(training.optimizer, SCHEDULE)
        LRSchedulerHandler(scheduler, interval="iteration").attach(trainer)
        trainer.run(training.data, max_epochs=1)
        assert scheduler.last_epoch == len(training.data)
        weights.append(training.weights())
    for mine, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(mine, theirs)


@FUSED
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("snapshot_to", [None, "cpu"])
@pytest.mark.usefixtures("deterministic")
def test_training_after_a_sweep_is_bitwise_the_same(fused: bool, dtype: torch.dtype, snapshot_to: str | None) -> None:
    outcomes = []
    for sweeps in (False, True):
        training = Training(dtype=dtype, fused=fused, dropout=0.3)
        training.run(10)
        if sweeps:
            to_save = {"model": training.model, "optimizer": training.optimizer, "scaler": training.scaler}
            finder = LRFinder()
            with finder.attach(training.trainer, to_save, num_iter=40, end_lr=1e6, snapshot_to=snapshot_to) as sweep:
                sweep.run(training.data)
            assert finder.result.stop_reason in ("divergence", "non_finite")
        training.run(10)
        outcomes.append((training.weights(), training.scaler.state_dict(), torch.cuda.get_rng_state()))
    for mine, theirs in zip(outcomes[0][0], outcomes[1][0], strict=True):
        assert torch.equal(mine, theirs)
    assert outcomes[0][1] == outcomes[1][1]
    assert torch.equal(outcomes[0][2], outcomes[1][2])


def test_out_of_memory_in_a_sweep_restores() -> None:
    training = Training()
    training.run(3)
    before, held = training.weights(), []

    def step(engine: Engine, batch: torch.Tensor) -> torch.Tensor:
        if engine.state.iteration == 5:
            free, _ = torch.cuda.mem_get_info()
            held.append(torch.empty(2 * free, dtype=torch.uint8, device="cuda"))
        return training.step(engine, batch)

    finder = LRFinder()
    to_save = {"model": training.model, "optimizer": training.optimizer}
    with (
        pytest.raises(torch.OutOfMemoryError, match="out of memory"),
        finder.attach(Engine(step), to_save, num_iter=20, start_lr=1e-5) as sweep,
    ):
        sweep.run(training.data)
    assert finder.result.stop_reason == "exception:OutOfMemoryError"
    assert len(finder.result.losses) == 4
    for mine, theirs in zip(training.weights(), before, strict=True):
        assert torch.equal(mine, theirs)
    training.run(3)


@pytest.mark.parametrize("wrap", [[], ["--fsdp"]], ids=["ddp", "fsdp"])
def test_two_devices_over_nccl(wrap: list[str], tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    example = Path(__file__).parents[2] / "examples" / "distributed.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(example)]
    command += [*wrap, "--epochs", "2", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "rank 0: accuracy" in done.stdout
