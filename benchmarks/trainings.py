"""What a suggestion is worth, to be seen: three trainings at a tenth of it, at it, and at ten times as much.

    python benchmarks/trainings.py     # measures; docs/make_charts.py draws

For each of three field tasks: ``find_lr`` with its defaults, then 300 updates at each of the three rates. Beside them
lie the peers' answers on the same model and batches, and the validation loss that 300 updates reach at every rate
of the oracle's grid, both from the cached measurements.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import suggestion_oracle as oracle
import suggestion_sweeps as sweeps
import torch
from ignite.engine import Events
from suggestion_peers import CACHE as PEERS

from ignite_lr import find_lr

OUTPUT = Path(__file__).parent / "data" / "trainings.json"
SHOWN = {
    "Super-resolution, SGD": ("patches_upscale", "sgd"),
    "Transformer, Adam": ("words_postln", "adam"),
    "Noisy labels, Nesterov": ("digits_rare_wrong", "nesterov"),
}
FACTORS = (0.1, 1.0, 10.0)
UPDATES, SEED, EVERY = 300, 0, 5


def curve(task: str, optimizer: str, lr: float) -> list[float]:
    """The validation loss before the training and after every ``EVERY`` updates at a constant rate."""
    trainer, to_save = sweeps.training(oracle.TASKS[task], optimizer, SEED)
    model, stepper, data = to_save["model"], to_save["optimizer"], oracle.TASKS[task].data()
    stepper.param_groups[0]["lr"] = lr
    losses: list[float] = []

    def validate() -> None:
        model.eval()
        with torch.no_grad():
            losses.append(oracle.TASKS[task].loss(model(data.x_val), data.y_val).item())
        model.train()

    each = EVERY * oracle.TASKS[task].accumulate
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=each), validate)
    validate()
    torch.manual_seed(SEED)
    trainer.run(oracle.TASKS[task].loader(SEED, UPDATES), max_iters=UPDATES * oracle.TASKS[task].accumulate)
    return losses


def measure(task: str, optimizer: str) -> dict[str, Any]:
    """All that the picture of one task shows."""
    trainer, to_save = sweeps.training(oracle.TASKS[task], optimizer, SEED)
    torch.manual_seed(SEED)
    batches = oracle.TASKS[task].loader(SEED, UPDATES)
    lr = find_lr(trainer, batches, to_save, progress_bar=False).suggestion()
    cell = oracle.read_cache(oracle.CACHE, {})[f"{task}/{optimizer}/short"]
    after = np.array([[np.nan if loss is None else loss for loss in row] for row in cell["after"]]).mean(axis=0)
    first, last = cell.get("grid", (0, len(oracle.GRID)))
    return {
        "lr": float(f"{lr:.4g}"),
        "curves": {f"{factor:g}": oracle.rounded(np.array(curve(task, optimizer, factor * lr))) for factor in FACTORS},
        "peers": oracle.read_cache(PEERS, {})[f"{task}/{optimizer}/{SEED}/{UPDATES}"],
        "before": float(np.mean(cell["before"])),
        "grid": [float(f"{rate:.4g}") for rate in oracle.GRID[first:last]],
        "after": oracle.rounded(after),
    }


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    found = {title: measure(*of) for title, of in SHOWN.items()}
    OUTPUT.write_text(json.dumps({"every": EVERY, "tasks": found}, indent=None) + "\n")
    for title, one in found.items():
        ends = ", ".join(f"{factor} x: {losses[-1]}" for factor, losses in one["curves"].items())
        print(f"{title}: {one['lr']:.3g}; validation loss after {UPDATES} updates at {ends}; peers {one['peers']}")


if __name__ == "__main__":
    main()
