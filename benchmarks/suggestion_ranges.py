"""How far a suggestion moves when the range of the sweep does: another range should not give another rate.

    python benchmarks/suggestion_ranges.py

The same training is swept over ranges of four to eight decades. The answers of each rule are compared on all ranges in
which it answers, and with those that it gives from seed to seed over one range. The peers' rules read the smoothed
curve of the same sweep, with the functions of ``ignite_lr.suggestion``, which are equal to the originals.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import suggestion_oracle as oracle
import suggestion_sweeps as sweeps
import torch
from suggestions import smoothed

from ignite_lr import suggestion

CACHE = Path(__file__).parent / "data" / "ranges.json"
RANGES = ((1e-8, 1), (1e-7, 1), (1e-6, 1), (1e-5, 1), (1e-4, 1), (1e-6, 10), (1e-6, 100))
TASKS = {
    "choose": (
        "digits_mlp",
        "digits_autoencoder",
        "cancer_unscaled",
        "wine_mlp",
        "diabetes_linear",
        "digits_layernorm",
    ),
    "report": ("digits_softmax", "digits_halves", "digits_deep_tanh", "cancer_mlp", "iris_pairs"),
}
OPTIMIZERS = ("sgd", "nesterov", "adam", "rmsprop", "radam")
Rule = Callable[[np.ndarray, list[float]], float | None]


RULES: dict[str, Rule] = {
    "descent": lambda lrs, losses: suggestion.judge(lrs, losses).lr,
    "fastai minimum": lambda lrs, losses: suggestion.minimum(lrs, smoothed(losses)),
    "fastai valley": lambda lrs, losses: suggestion.valley(lrs, smoothed(losses)),
    "fastai steep": lambda lrs, losses: suggestion.steep(lrs, smoothed(losses)),
    "FastaiLRFinder": lambda lrs, losses: suggestion.fastai_lr_finder(lrs, smoothed(losses)),
}


def curves() -> dict[str, list[float]]:
    """Losses by ``task/optimizer/range/num_iter``; what the cache lacks is computed."""
    made_with = {"ranges": [list(map(float, one)) for one in RANGES]}
    cells = oracle.read_cache(CACHE, made_with)
    for name in (name for names in TASKS.values() for name in names):
        for optimizer in OPTIMIZERS:
            missing = [
                (index, num_iter)
                for num_iter in sweeps.ITERATIONS
                for index in range(len(RANGES))
                if f"{name}/{optimizer}/{index}/{num_iter}" not in cells
            ]
            for index, num_iter in missing:
                losses = sweeps.sweep(oracle.TASKS[name], optimizer, 0, num_iter, RANGES[index])
                cells[f"{name}/{optimizer}/{index}/{num_iter}"] = [
                    float(f"{loss:.4g}") if math.isfinite(loss) else None for loss in losses
                ]
            if missing:
                oracle.write_cache(CACHE, made_with, cells)
                print(f"ranges {name} {optimizer}", flush=True)
    return {key: [math.nan if loss is None else loss for loss in losses] for key, losses in cells.items()}


def spread(rates: list[float | None]) -> float | None:
    """Standard deviation in decades of those that were given; None of less than two."""
    logs = [math.log10(lr) for lr in rates if lr is not None]
    return float(np.std(logs, ddof=1)) if len(logs) > 1 else None


def over_ranges(rule: Rule, found: dict[str, list[float]], half: str, num_iter: int) -> list[float]:
    """The spread over the ranges, a number for each task and optimizer."""
    spreads = []
    for name in TASKS[half]:
        for optimizer in OPTIMIZERS:
            rates = []
            for index, bounds in enumerate(RANGES):
                losses = found[f"{name}/{optimizer}/{index}/{num_iter}"]
                rates.append(rule(sweeps.rates(len(losses), num_iter, bounds), losses))
            spreads.append(spread(rates))
    return [one for one in spreads if one is not None]


def over_seeds(rule: Rule, found: dict[str, list[float]], half: str, num_iter: int) -> list[float]:
    """The spread over the seeds of the sweeps from 1e-7 to 10, likewise."""
    spreads = []
    for name in TASKS[half]:
        for optimizer in OPTIMIZERS:
            one = [found[f"{name}/{optimizer}/{seed}/{num_iter}"] for seed in sweeps.SEEDS]
            spreads.append(spread([rule(sweeps.rates(len(losses), num_iter), losses) for losses in one]))
    return [one for one in spreads if one is not None]


def main() -> None:
    """Measure what is missing and print the table."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Run completed without loss diverging")
    found = curves()
    seeds = sweeps.curves([(name, optimizer) for names in TASKS.values() for name in names for optimizer in OPTIMIZERS])
    print("standard deviation in decades, median and 90th percentile over cells")
    for num_iter in sweeps.ITERATIONS:
        for title, halves in {**{half: (half,) for half in TASKS}, "all": tuple(TASKS)}.items():
            print(f"\n{num_iter} iterations, {title:6} | over ranges | over seeds")
            for name, rule in RULES.items():
                ours = [
                    [one for half in halves for one in spreads(rule, curves_of, half, num_iter)]
                    for spreads, curves_of in ((over_ranges, found), (over_seeds, seeds))
                ]
                texts = [f"{np.median(values):.2f}, {np.quantile(values, 0.9):.2f}" for values in ours]
                print(f"{name:22} | {texts[0]:11} | {texts[1]}")


if __name__ == "__main__":
    main()
