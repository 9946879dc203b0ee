"""What a range test costs: time over the bare training steps, and memory of the snapshot.

    python benchmarks/range_test.py            # about two minutes
    python benchmarks/range_test.py --quick    # some seconds

Time: the same number of training steps, bare in an Ignite engine, under ``LRFinder`` and under Ignite's
``FastaiLRFinder``, in turns within one process, so that each is paired with its neighbours. What is printed is the
median of the paired ratios with its quartiles. Entering and leaving the block is counted apart, since it is paid once.
The clock is the CPU time of the one thread that works, which other processes on the machine disturb least.

Memory: the bytes in tensors that the snapshot keeps, against parameters + buffers + existing gradients + optimizer
state, counted once.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import ignite
import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import FastaiLRFinder
from torch import nn

from ignite_lr import LRFinder
from ignite_lr.dry_run import Snapshot


def training(width: int, batch: int) -> tuple[nn.Module, torch.optim.Optimizer, Engine, list[Any]]:
    """A small network, its optimizer, its trainer and 20 batches."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    x = torch.randn(20, batch, 64)
    return model, optimizer, trainer, [(b, b.sum(1, keepdim=True)) for b in x]


class Clock:
    """Time from the first iteration of an engine to its last, so that setting up and restoring are not in it."""

    def __init__(self, engine: Engine) -> None:
        self.start = self.end = 0.0
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.tick)

    def begin(self) -> None:
        """The run starts."""
        self.start = time.thread_time()

    def tick(self) -> None:
        """One more iteration is done."""
        self.end = time.thread_time()

    @property
    def seconds(self) -> float:
        """From start to last iteration."""
        return self.end - self.start


def bare(width: int, batch: int, steps: int) -> tuple[float, float]:
    """Seconds of the steps alone and of the whole run, in a plain engine."""
    _, _, trainer, data = training(width, batch)
    clock = Clock(trainer)
    began = time.thread_time()
    trainer.run(data, max_iters=steps)
    return clock.seconds, time.thread_time() - began


def ours(width: int, batch: int, steps: int) -> tuple[float, float]:
    """The same under ``LRFinder``."""
    model, optimizer, trainer, data = training(width, batch)
    began = time.thread_time()
    with LRFinder().attach(
        trainer, {"model": model, "optimizer": optimizer}, num_iter=steps, start_lr=1e-7, end_lr=1e-6
    ) as sweep:
        clock = Clock(sweep)
        sweep.run(data)
    return clock.seconds, time.thread_time() - began


def original(width: int, batch: int, steps: int) -> tuple[float, float]:
    """The same under ``FastaiLRFinder``."""
    model, optimizer, trainer, data = training(width, batch)
    clock = Clock(trainer)
    began = time.thread_time()
    with FastaiLRFinder().attach(
        trainer, {"model": model, "optimizer": optimizer}, num_iter=steps - 1, start_lr=1e-7, end_lr=1e-6
    ) as sweep:  # one less, because it runs one more
        sweep.run(data)
    return clock.seconds, time.thread_time() - began


def pairs(width: int, batch: int, steps: int, rounds: int) -> None:
    """Measure one size of step and print the ratios."""
    runs: dict[str, Callable[[int, int, int], tuple[float, float]]] = {
        "LRFinder": ours,
        "FastaiLRFinder": original,
    }
    ratios: dict[str, list[float]] = {name: [] for name in runs}
    whole: dict[str, list[float]] = {name: [] for name in runs}
    against: list[float] = []
    step_times: list[float] = []
    for run in (bare, ours, original):
        run(width, batch, max(steps // 10, 5))
    for index in range(rounds):
        # the bare run on both sides, so that a drift of the machine cancels; the order of the two alternates
        before, total_before = bare(width, batch, steps)
        order = list(runs) if index % 2 else list(reversed(runs))
        seconds = {name: runs[name](width, batch, steps) for name in order}
        after, total_after = bare(width, batch, steps)
        step_times.append((before + after) / 2 / steps)
        for name, (inside, total) in seconds.items():
            ratios[name].append(inside / ((before + after) / 2))
            whole[name].append(total / ((total_before + total_after) / 2))
        against.append(seconds["LRFinder"][1] / seconds["FastaiLRFinder"][1])
    print(f"\nstep of {statistics.median(step_times) * 1e3:.2f} ms ({steps} steps, {rounds} rounds)")
    for name in runs:
        print(f"  {name:15} steps {spread(ratios[name])}   with entering and leaving {spread(whole[name])}")
    print(f"  LRFinder / FastaiLRFinder, whole block: {spread(against)}")


def spread(values: list[float]) -> str:
    """Median and quartiles, as text."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f}x [{low:.3f}, {high:.3f}]"


def tensor_bytes() -> int:
    """Bytes in all tensors that Python knows of."""
    storages = {}
    for item in gc.get_objects():
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def memory() -> None:
    """Measure the snapshot and print what it holds."""
    model = nn.Sequential(nn.Linear(512, 2048), nn.BatchNorm1d(2048), nn.ReLU(), nn.Linear(2048, 512))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(8, 512)).sum().backward()
    optimizer.step()
    once = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    once += sum(p.grad.numel() * p.grad.element_size() for p in model.parameters() if p.grad is not None)
    once += sum(v.numel() * v.element_size() for s in optimizer.state.values() for v in s.values())
    gc.collect()
    before = tensor_bytes()
    snapshot = Snapshot({"model": model, "optimizer": optimizer})
    held = tensor_bytes() - before
    # A sweep that makes new gradients and keeps none of the old ones does not hold them twice.
    optimizer.zero_grad(set_to_none=True)
    gc.collect()
    without_gradients = tensor_bytes() - before
    snapshot.restore()
    snapshot.close()
    gc.collect()
    print("\nmemory of the snapshot, AdamW after a step, parameters + buffers + gradients + optimizer state = 1")
    print(f"  taken: {held / once:.3f}   and after the gradients were dropped: {without_gradients / once:.3f}")
    print(f"  after the block: {(tensor_bytes() - before) / once:.3f}")


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    versions = f"PyTorch {torch.__version__}, Ignite {ignite.__version__}, Python {platform.python_version()}"
    print(f"{versions}, {platform.machine()}, one thread")
    rounds = 3 if quick else 15
    pairs(width=768, batch=160, steps=30 if quick else 150, rounds=rounds)
    pairs(width=32, batch=8, steps=100 if quick else 300, rounds=rounds)
    memory()


if __name__ == "__main__":
    main()
