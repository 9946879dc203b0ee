"""A long run with every handler: does memory grow, does it slow down, are the counts exact?

    python benchmarks/soak.py                 # 200,000 updates
    python benchmarks/soak.py --updates 20000

Time is that of the process's own CPU, in blocks of 1,000 updates, so that a busy machine does not count. Memory is the
private resident memory at the end of each tenth of the run; the first tenth is the warm-up.
"""

from __future__ import annotations

import argparse
import gc
import platform
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import ignite
import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from torch import nn

from ignite_lr import GradNormClipper, LRFinder, LRLogger, LRSchedulerHandler, ScheduleLR, schedules
from ignite_lr.logger import JSONLinesLogger

BLOCK = 1000


def private_memory() -> int:
    """Bytes of this process's own resident memory, what is shared with others or backed by files left out."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("needs Linux, with /proc/self/smaps_rollup")


class Clock:
    """CPU time by block and memory by tenth."""

    def __init__(self, updates: int) -> None:
        self.blocks: list[float] = []
        self.memory: list[int] = []
        self.tenth = updates // 10
        self.last = time.process_time()

    def __call__(self, engine: Engine) -> None:
        """An iteration was completed."""
        iteration = engine.state.iteration
        if iteration % BLOCK == 0:
            now = time.process_time()
            self.blocks.append(now - self.last)
            if iteration % self.tenth == 0:
                gc.collect()
                self.memory.append(private_memory())
            # what the measuring took does not count
            self.last = time.process_time()


def main() -> None:
    """Run, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200_000, help="a multiple of 10,000")
    updates = parser.parse_args().updates
    if updates < 10_000 or updates % 10_000:
        parser.error(f"--updates must be a positive multiple of 10,000, got {updates}")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    x = torch.randn(500, 8, 16)
    data = [(batch, batch.sum(1, keepdim=True) + torch.randn(8, 1)) for batch in x]

    with LRFinder().attach(trainer, {"model": model, "optimizer": optimizer}, num_iter=100, start_lr=1e-6) as sweep:
        sweep.run(data)
    scheduler = ScheduleLR(optimizer, schedules.Cosine(total_steps=updates, warmup_steps=1000))
    LRSchedulerHandler(scheduler).attach(trainer)
    clipper = GradNormClipper(optimizer, percentile=90.0, window=1000)
    clipper.attach(trainer)
    with tempfile.TemporaryDirectory() as folder:
        lines = JSONLinesLogger(Path(folder) / "rates.jsonl")
        logger = LRLogger(optimizer, clipper=clipper, history=1000)
        lines.attach(trainer, logger, Events.ITERATION_COMPLETED(every=10))
        clock = Clock(updates)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, clock)
        trainer.run(data, max_epochs=updates // len(data))
        lines.close()
        written = sum(1 for _ in lines.path.open())

    report, history = clipper.report(), logger.history()
    counts = (
        scheduler.last_epoch,
        report.updates,
        int(history["update"][-1]),
        written * 10,
        int(clipper.histogram()[1].sum()),
    )
    tenth = len(clock.blocks) // 10
    first, last = median(clock.blocks[:tenth]), median(clock.blocks[-tenth:])
    growth = clock.memory[-1] - clock.memory[0]
    checks = {
        f"counts {counts}, all {updates}": set(counts) == {updates},
        f"memory from {clock.memory[0] / 2**20:.1f} MiB after a tenth to {clock.memory[-1] / 2**20:.1f} MiB: "
        f"{growth / 1e6:+.3f} MB, under 1 MB": growth < 1e6,
        f"CPU time of an update, median of blocks: first tenth {first / BLOCK * 1e6:.1f} us, last tenth "
        f"{last / BLOCK * 1e6:.1f} us: {last / first - 1:+.1%}, under +5%": last < 1.05 * first,
        f"clipped {report.frequency:.2%} of the updates": report.clipped > 0,
    }
    print(f"{date.today()}, Python {platform.python_version()}, torch {torch.__version__}, ignite {ignite.__version__}")
    for said, well in checks.items():
        print(("ok    " if well else "FAILED") + f" {said}")
    raise SystemExit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
