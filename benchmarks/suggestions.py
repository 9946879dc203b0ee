"""Compare rules that suggest a learning rate, by what following them costs.

    python benchmarks/suggestions.py            # the table, from the cached measurements
    python benchmarks/suggestions.py --verify   # with the rates that find_lr verifies by trials
    python benchmarks/suggestions.py --quick    # a small part, measured afresh

Measurements that are not in ``benchmarks/data`` are made and added to it; an interrupted run goes
on where it was. The peers' own packages run in the environment of ``make bench-env``.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import suggestion_oracle as oracle
import suggestion_sweeps as sweeps
import suggestion_verified as trials
import torch
from suggestion_oracle import FIELD_TASKS, TASKS

from ignite_lr import suggestion

PEERS = Path(__file__).parent / "data" / "peers.json"
BENCH_PYTHON = Path(__file__).parent.parent / ".venv-bench" / "bin" / "python"
QUICK = ("wine_mlp", "iris_pairs")
SMOOTHING = 0.05  # weight of the new loss: the default of LRFinder, for the rules that read smoothed losses
Suggestions = dict[str, dict[str, float | None]]


def ours(curves: dict[str, list[float]]) -> Suggestions:
    """What this package's rules say: ``descent`` about raw losses, the other about smoothed."""
    found: Suggestions = {}
    for key, losses in curves.items():
        lrs = sweeps.rates(len(losses), int(key.rsplit("/", 1)[1]))
        found[key] = {
            "descent": suggestion.judge(lrs, losses).lr,
            "steepest": suggestion.steepest(lrs, smoothed(losses)),
        }
    return found


def smoothed(losses: list[float]) -> list[float]:
    """The smoothed losses of a sweep with ``LRFinder``'s defaults."""
    found = losses[:1]
    for value in losses[1:]:
        found.append(SMOOTHING * value + (1 - SMOOTHING) * found[-1])
    return found


def peers(names: list[str], run: bool) -> Suggestions:
    """What the peers' packages say; asked where their environment is installed."""
    if run and BENCH_PYTHON.exists():
        script = Path(__file__).with_name("suggestion_peers.py")
        subprocess.run([BENCH_PYTHON, script, "--tasks", *names], check=True)
    return oracle.read_cache(PEERS, {})


class Row:
    """One line of the table: how one rule did on some cells.

    A rule that abstains looks better than one that always answers, so there are two columns beside its own curves:
    ``shared`` holds the curves on which ``descent`` answers, and ``strict`` counts each abstention as a regret of 1.
    """

    def __init__(self, rule: str, asked: Suggestions, cells: dict[str, Any]) -> None:
        self.rule, self.asked, self.abstained = rule, 0, 0
        self.regret: dict[str, list[float]] = {horizon: [] for horizon in oracle.HORIZONS}
        self.shared: dict[str, list[float]] = {horizon: [] for horizon in oracle.HORIZONS}
        self.strict: dict[str, list[float]] = {horizon: [] for horizon in oracle.HORIZONS}
        rates: dict[str, list[float]] = {}
        for key, answers in asked.items():
            if rule not in answers:
                continue
            task, optimizer, _, _ = key.split("/")
            lr = answers[rule]
            self.asked += 1
            if lr is None:
                self.abstained += 1
                for values in self.strict.values():
                    values.append(1.0)
                continue
            rates.setdefault(f"{task}/{optimizer}", []).append(math.log10(lr))
            for horizon, values in self.regret.items():
                regret = sweeps.regret_at(cells[f"{task}/{optimizer}/{horizon}"], lr)
                values.append(regret)
                self.strict[horizon].append(regret)
                if answers.get("descent") is not None:
                    self.shared[horizon].append(regret)
        spread = [np.std(group, ddof=1) for group in rates.values() if len(group) > 1]
        self.sd = (float(np.mean(spread)), float(np.median(spread))) if spread else (0.0, 0.0)

    def __str__(self) -> str:
        parts = [f"{self.rule:16}"]
        for values in self.regret.values():
            regret = np.array(values)
            parts.append(f"{regret.mean():.3f} {np.quantile(regret, 0.9):.3f} {np.mean(regret > 0.5):5.1%}")
        parts.append(f"{self.sd[0]:.2f} {self.sd[1]:.2f}")
        parts.append(f"{self.abstained / self.asked:5.1%}")
        means = [f"{np.mean(values):.3f}" if values else "-" for values in self.shared.values()]
        parts.append(f"{' '.join(means):11}")
        for values in self.strict.values():
            regret = np.array(values)
            parts.append(f"{regret.mean():.3f} {np.quantile(regret, 0.9):.3f} {np.mean(regret > 0.5):5.1%}")
        return " | ".join(parts)


# RAdam takes plain gradient steps first. On this task they are of order 10^4 and explode at every rate near those that
# the rest of the training wants; a sweep makes these steps at its smallest rates and cannot see it. The tables hold the
# cell, and the default rule is also shown without it.
BLIND = "diabetes_unscaled/radam"

HALVES = {
    "choose": ("choose",),
    "report": ("report",),
    "unseen": ("unseen",),
    "all": ("choose", "report", "unseen"),
    "field choose": ("field choose",),
    "field report": ("field report",),
    "field all": ("field choose", "field report"),
    "all with field": ("choose", "report", "unseen", "field choose", "field report"),
}

# Standard deviations over seeds: mean and median. None: abstentions. Same curves: mean regrets where the default rule
# answers. Strict: the first columns again, with an abstention counted as 1.
HEADER = (
    f"{'rule':16} | short: mean p90 >.5 | {'long':18} | {'sd':9} | {'none':5} | same curves "
    "| strict short        | strict long"
)


def hopeless(asked: Suggestions, cells: dict[str, Any]) -> tuple[int, int]:
    """Abstentions of ``descent``, and those among them where every other answer fails too.

    An answer fails where its regret is above 0.5 at a horizon.
    """
    abstained = failing = 0
    for key, answers in asked.items():
        if answers.get("descent", 0.0) is not None:
            continue
        abstained += 1
        task, optimizer, _, _ = key.split("/")
        grids = [cells[f"{task}/{optimizer}/{horizon}"] for horizon in oracle.HORIZONS]
        rates = [lr for lr in answers.values() if lr is not None]
        failing += all(max(sweeps.regret_at(grid, lr) for grid in grids) > 0.5 for lr in rates)
    return abstained, failing


def report(asked: Suggestions, cells: dict[str, Any], say: Callable[[str], None] = print) -> None:
    """Print one table for each sweep length and each part of the tasks."""
    grids = {key: sweeps.regrets(cell) for key, cell in cells.items()}
    for num_iter in sweeps.ITERATIONS:
        for name, halves in HALVES.items():
            part = {
                key: answers
                for key, answers in asked.items()
                if key.endswith(f"/{num_iter}") and TASKS[key.split("/")[0]].half in halves
            }
            if not part:
                continue
            say(f"\n{num_iter} iterations, tasks: {name}, {len(part)} sweeps\n{HEADER}")
            rules = {rule: None for answers in part.values() for rule in answers}
            rows = [Row(rule, part, grids) for rule in rules]
            for row in sorted(rows, key=lambda row: sum(map(np.mean, row.regret.values()))):
                say(str(row))
            seeing = {
                key: {"descent": answers["descent"]} for key, answers in part.items() if not key.startswith(BLIND)
            }
            if len(seeing) < len(part):
                say(f"without {BLIND}:\n{Row('descent', seeing, grids)}")
            say("abstentions of descent: {}, on curves where every rule fails: {}".format(*hopeless(part, grids)))


def factors(asked: Suggestions, cells: dict[str, Any], say: Callable[[str], None] = print) -> None:
    """Print what the default rule costs when its suggestion is multiplied: does one factor serve both horizons?"""
    grids = {key: sweeps.regrets(cell) for key, cell in cells.items()}
    for num_iter in sweeps.ITERATIONS:
        say(f"\n{num_iter} iterations, all tasks, descent multiplied by a factor\n{HEADER}")
        for factor in (0.25, 0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0):
            scaled = {
                key: {f"x {factor:g}": None if answers["descent"] is None else factor * answers["descent"]}
                for key, answers in asked.items()
                if key.endswith(f"/{num_iter}") and not key.startswith(BLIND)
            }
            say(str(Row(f"x {factor:g}", scaled, grids)))


def costs(found: dict[str, Any], say: Callable[[str], None] = print) -> None:
    """Print how many trials and updates the verification took."""
    for num_iter in sweeps.ITERATIONS:
        made = [cell["trials"] for key, cell in found.items() if key.endswith(f"/{num_iter}")]
        if made:
            counts = [len(cell) for cell in made]
            updates = [sum(trial[2] for trial in cell) for cell in made]
            say(
                f"\n{num_iter} iterations: in the mean {np.mean(counts):.1f} trials of {np.mean(updates):.0f} updates "
                f"in all, at the 90th percentile {np.quantile(counts, 0.9):.0f} and {np.quantile(updates, 0.9):.0f}"
            )


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small part, measured afresh")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--field", action="store_true", help="measure what is missing of the field tasks, for hours")
    parser.add_argument("--factors", action="store_true", help="the default rule times a factor instead")
    parser.add_argument("--check", action="store_true", help="compare the oracle to torch.optim")
    parser.add_argument("--verify", action="store_true", help="beside it what find_lr verifies")
    parser.add_argument(
        "--lengths", nargs="+", type=int, default=list(sweeps.ITERATIONS), help="of the sweeps verified"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    warnings.filterwarnings("ignore", message="Run completed without loss diverging")
    if arguments.check:
        print(f"largest relative difference to torch.optim: {oracle.check():.1e}")
        return
    names = list(QUICK) if arguments.quick else arguments.tasks
    with tempfile.TemporaryDirectory() as folder:
        if arguments.quick:
            oracle.CACHE = Path(folder) / "oracle.json"
            sweeps.CACHE = Path(folder) / "sweeps.json"
        cells = oracle.compute([name for name in names if arguments.field or name not in FIELD_TASKS])
        pairs = oracle.measured(cells, names)
        curves = sweeps.curves(pairs)
    asked = ours({key: losses for key, losses in curves.items() if tuple(key.split("/")[:2]) in pairs})
    if arguments.factors:
        factors(asked, cells)
        return
    for key, answers in peers(names, run=not arguments.quick).items():
        if key in asked:
            asked[key].update(answers)
    if arguments.verify:
        found = trials.verified(pairs, tuple(arguments.lengths))
        asked = {key: {**answers, trials.RULE: found[key]["lr"]} for key, answers in asked.items() if key in found}
        costs(found)
    report(asked, cells)


if __name__ == "__main__":
    main()
