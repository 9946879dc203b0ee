"""Rates that ``find_lr`` verified by trials, on the tasks of the benchmark."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import suggestion_oracle as oracle
import torch
from suggestion_sweeps import END_LR, SEEDS, START_LR, training

from ignite_lr import NoSuggestionError, find_lr

CACHE = Path(__file__).parent / "data" / "verified.json"
VERIFY = 50
RULE = f"verify={VERIFY}"


def find(name: str, optimizer: str, seed: int, num_iter: int) -> dict[str, Any]:
    """What ``find_lr`` suggests, where its sweep started, and its trials: rate, last loss, updates, learns."""
    task = oracle.TASKS[name]
    trainer, to_save = training(task, optimizer, seed)
    torch.manual_seed(seed)
    result = find_lr(
        trainer,
        task.loader(seed, num_iter),
        to_save,
        num_iter=num_iter,
        start_lr=START_LR,
        end_lr=END_LR,
        verify=VERIFY,
        progress_bar=False,
    )
    try:
        lr = float(f"{result.suggestion():.6g}")
    except NoSuggestionError:
        lr = None
    start = np.mean(result.losses[: max(1, len(result.losses) // 10)])
    trials = [
        [*oracle.rounded(np.array([trial.lr, np.mean(trial.losses[-20:])])), len(trial.losses), trial.learns]
        for trial in result.verified
    ]
    return {"lr": lr, "start": float(f"{start:.6g}"), "trials": trials}


def settings() -> dict[str, Any]:
    """What the rates in the cache depend on."""
    return {"start_lr": START_LR, "end_lr": END_LR, "verify": VERIFY, "torch": torch.__version__}


def verified(pairs: list[tuple[str, str]], lengths: tuple[int, ...], seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """What was found by ``task/optimizer/seed/num_iter``; what the cache lacks is computed, as long as there is time.

    ``VERIFY_MINUTES`` in the environment is that time; what is not reached is left out.
    """
    cells = oracle.read_cache(CACHE, settings())
    until = time.monotonic() + 60 * float(os.environ.get("VERIFY_MINUTES", "inf"))
    for num_iter in lengths:
        for seed in seeds:
            for name in dict.fromkeys(name for name, _ in pairs):
                missing = [o for task, o in pairs if task == name and f"{name}/{o}/{seed}/{num_iter}" not in cells]
                for optimizer in missing if time.monotonic() < until else ():
                    cells[f"{name}/{optimizer}/{seed}/{num_iter}"] = find(name, optimizer, seed, num_iter)
                if missing and time.monotonic() < until:
                    oracle.write_cache(CACHE, settings(), cells)
                    print(f"verified {name} seed {seed}, {num_iter} iterations", flush=True)
    return cells
