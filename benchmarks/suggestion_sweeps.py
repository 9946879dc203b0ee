"""Range tests for the rules of this package, and regret: what a suggested rate costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, create_supervised_trainer
from suggestion_oracle import FIELD_TASKS, GRID, OPTIMIZERS, TASKS, read_cache, write_cache
from suggestion_tasks import Task

from ignite_lr.lr_finder import LRFinder

CACHE = Path(__file__).parent / "data" / "sweeps.json"
FIELD_CACHE = CACHE.with_name("field_sweeps.json")
START_LR, END_LR = 1e-7, 10.0
ITERATIONS = (300, 100)
SEEDS = (0, 1, 2)


def rates(count: int, num_iter: int, bounds: tuple[float, float] = (START_LR, END_LR)) -> np.ndarray:
    """The first ``count`` of ``num_iter`` rates between the bounds."""
    return bounds[0] * (bounds[1] / bounds[0]) ** (np.arange(count) / (num_iter - 1))


def training(task: Task, optimizer: str, seed: int) -> tuple[Engine, dict[str, Any]]:
    """A trainer, with the accumulation, clipping and scaler of the task, and its ``to_save``."""
    model = task.model(seed)
    stepper = OPTIMIZERS[optimizer](model.parameters(), START_LR)
    to_save = {"model": model, "optimizer": task.clipped(stepper)}
    if not task.scaler:
        return create_supervised_trainer(
            model, stepper, task.loss, gradient_accumulation_steps=task.accumulate
        ), to_save
    scaler = torch.amp.GradScaler("cpu")

    def step(engine: Engine, batch: Any) -> float:
        model.train()
        stepper.zero_grad()
        loss = task.loss(model(batch[0]), batch[1])
        scaler.scale(loss).backward()
        scaler.step(stepper)
        scaler.update()
        return loss.item()

    return Engine(step), {**to_save, "scaler": scaler}


def sweep(
    task: Task, optimizer: str, seed: int, num_iter: int, bounds: tuple[float, float] = (START_LR, END_LR)
) -> list[float]:
    """Raw losses of a range test with ``LRFinder`` and its defaults."""
    trainer, to_save = training(task, optimizer, seed)
    torch.manual_seed(seed)
    finder = LRFinder()
    with finder.attach(
        trainer, to_save, num_iter=num_iter, start_lr=bounds[0], end_lr=bounds[1], progress_bar=False
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


def curves(pairs: list[tuple[str, str]]) -> dict[str, list[float]]:
    """Raw losses of tasks and optimizers by ``task/optimizer/seed/num_iter``; what the caches lack is computed."""
    field = [pair for pair in pairs if pair[0] in FIELD_TASKS]
    return _curves([pair for pair in pairs if pair not in field], CACHE) | _curves(field, FIELD_CACHE)


def _curves(pairs: list[tuple[str, str]], cache: Path) -> dict[str, list[float]]:
    cells = read_cache(cache, settings())
    for seed in SEEDS:
        for num_iter in ITERATIONS:
            for name in dict.fromkeys(name for name, _ in pairs):
                missing = [o for task, o in pairs if task == name and f"{name}/{o}/{seed}/{num_iter}" not in cells]
                for optimizer in missing:
                    losses = sweep(TASKS[name], optimizer, seed, num_iter)
                    cells[f"{name}/{optimizer}/{seed}/{num_iter}"] = [
                        float(f"{value:.5g}") if math.isfinite(value) else None for value in losses
                    ]
                if missing:
                    write_cache(cache, settings(), cells)
                    print(f"sweep {name} seed {seed}, {num_iter} iterations", flush=True)
    return {key: [math.nan if value is None else value for value in losses] for key, losses in cells.items()}


def regrets(cell: dict[str, Any]) -> np.ndarray:
    """Regret over ``GRID``: (L(lr) - L*) / (L0 - L*) of the seeds' mean validation loss.

    A loss above the untrained one, or none that is finite, counts as the untrained one. Beyond the part of the grid
    that was measured the regret is that of its edge.
    """
    before = float(np.mean(cell["before"]))
    after = np.array([[math.nan if v is None else v for v in row] for row in cell["after"]])
    mean = np.where(np.isfinite(after), np.minimum(after, before), before).mean(axis=0)
    best = mean.min()
    first, last = cell.get("grid", (0, len(GRID)))
    return np.pad(np.clip((mean - best) / max(before - best, 1e-12), 0.0, 1.0), (first, len(GRID) - last), "edge")


def regret_at(grid_regrets: np.ndarray, lr: float) -> float:
    """Regret at any rate, interpolated over log lr; outside the grid it is that of the edge."""
    return float(np.interp(math.log10(lr), np.log10(GRID), grid_regrets))
