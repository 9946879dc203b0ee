"""Range tests for the rules of this package, and regret: what a suggested rate costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import create_supervised_trainer
from suggestion_oracle import GRID, OPTIMIZERS, TASKS, read_cache, write_cache
from suggestion_tasks import Task

from ignite_lr.lr_finder import LRFinder

CACHE = Path(__file__).parent / "data" / "sweeps.json"
START_LR, END_LR = 1e-7, 10.0
ITERATIONS = (300, 100)
SEEDS = (0, 1, 2)


def rates(count: int, num_iter: int) -> np.ndarray:
    """The first ``count`` of ``num_iter`` rates between ``START_LR`` and ``END_LR``."""
    return START_LR * (END_LR / START_LR) ** (np.arange(count) / (num_iter - 1))


def sweep(task: Task, optimizer: str, seed: int, num_iter: int) -> list[float]:
    """Raw losses of a range test with ``LRFinder`` and its defaults."""
    model = task.model(seed)
    stepper = OPTIMIZERS[optimizer](model.parameters(), START_LR)
    trainer = create_supervised_trainer(model, stepper, task.loss)
    torch.manual_seed(seed)
    finder = LRFinder()
    to_save = {"model": model, "optimizer": stepper}
    with finder.attach(
        trainer, to_save, num_iter=num_iter, start_lr=START_LR, end_lr=END_LR, progress_bar=False
    ) as run:
        run.run(task.loader(seed, num_iter))
    return [float(loss) for loss in finder.result.losses]


def settings() -> dict[str, Any]:
    """What the curves in the cache depend on."""
    return {
        "start_lr": START_LR,
        "end_lr": END_LR,
        "torch": torch.__version__,
    }


def curves(names: list[str]) -> dict[str, list[float]]:
    """Raw losses by ``task/optimizer/seed/num_iter``; what the cache lacks is computed."""
    cells = read_cache(CACHE, settings())
    for seed in SEEDS:
        for num_iter in ITERATIONS:
            for name in names:
                missing = [o for o in OPTIMIZERS if f"{name}/{o}/{seed}/{num_iter}" not in cells]
                for optimizer in missing:
                    losses = sweep(TASKS[name], optimizer, seed, num_iter)
                    cells[f"{name}/{optimizer}/{seed}/{num_iter}"] = [
                        float(f"{value:.5g}") if math.isfinite(value) else None for value in losses
                    ]
                if missing:
                    write_cache(CACHE, settings(), cells)
                    print(f"sweep {name} seed {seed}, {num_iter} iterations", flush=True)
    return {key: [math.nan if value is None else value for value in losses] for key, losses in cells.items()}


def regrets(cell: dict[str, Any]) -> np.ndarray:
    """Regret over ``GRID``: (L(lr) - L*) / (L0 - L*) of the seeds' mean validation loss.

    A loss above the untrained one, or none that is finite, counts as the untrained one.
    """
    before = float(np.mean(cell["before"]))
    after = np.array([[math.nan if v is None else v for v in row] for row in cell["after"]])
    mean = np.where(np.isfinite(after), np.minimum(after, before), before).mean(axis=0)
    best = mean.min()
    return np.clip((mean - best) / max(before - best, 1e-12), 0.0, 1.0)


def regret_at(grid_regrets: np.ndarray, lr: float) -> float:
    """Regret at any rate, interpolated over log lr; outside the grid it is that of the edge."""
    return float(np.interp(math.log10(lr), np.log10(GRID), grid_regrets))
