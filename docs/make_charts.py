"""Draw the charts from what the benchmarks printed into ``benchmarks/README.md`` and wrote to ``benchmarks/data``.

    python docs/make_charts.py

The figures are read from the page that shows them, so a chart never says anything else than its table.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "benchmarks" / "README.md"
TRAININGS = ROOT / "benchmarks" / "data" / "trainings.json"
OURS, OTHERS = "#4051b5", "#b4bac6"
TIMES = {
    "0.1": ("a tenth of the suggestion", "#8fb3e8"),
    "1": ("the suggestion", OURS),
    "10": ("ten times the suggestion", "#e0663a"),
}
ANSWERS = {
    "find_lr": ("find_lr", "*", OURS),
    "FastaiLRFinder": ("FastaiLRFinder", "o", "#2a9d8f"),
    "fastai valley": ("fastai valley", "^", "#8d6bb8"),
    "torch-lr-finder": ("torch-lr-finder", "s", "#d99a1c"),
    "Lightning": ("Lightning", "D", "#c0392b"),
}
# rule | short: mean ... | long: mean ... | ... | the same where an abstention counts as regret 1
_RULE = re.compile(
    r"^(?P<rule>[\w.=-]+(?: \w+)?) +\| (?P<short>[\d.]+) [^|]*\| (?P<long>[\d.]+) [^|]*\|.*"
    r"\| (?P<strict_short>[\d.]+) [\d.]+ +[\d.]+% \| (?P<strict_long>[\d.]+) [\d.]+ +[\d.]+%$",
    re.MULTILINE,
)
_COST = re.compile(r"^  (?P<what>\S.*?\S) {2,}(?P<ratio>[\d.]+)x$", re.MULTILINE)


def regrets(page: str, tasks: str = "all") -> dict[str, tuple[float, float]]:
    """Mean regret at both horizons by rule, of some tasks after 300 iterations; an abstention counts as regret 1."""
    start = page.index(f"300 iterations, tasks: {tasks},")
    block = page[start : page.index("abstentions of descent", start)].partition("without ")[0]
    all_sweeps = {
        found["rule"]: (float(found["strict_short"]), float(found["strict_long"])) for found in _RULE.finditer(block)
    }
    all_sweeps["find_lr, with trials"] = all_sweeps.pop("verify=50")
    answered = next(found for found in _RULE.finditer(block) if found["rule"] == "descent")
    return all_sweeps | {"descent, where it answers": (float(answered["short"]), float(answered["long"]))}


def costs(page: str) -> dict[str, float]:
    """What logging adds to an iteration, in bare Ignite iterations."""
    block = page[page.index("## Logging") : page.index("## Schedulers")]
    return {found["what"]: float(found["ratio"]) for found in _COST.finditer(block)}


def regret_chart(page: str, tasks: str = "all") -> Figure:
    """Two bars a rule, the shorter the better."""
    found = sorted(regrets(page, tasks).items(), key=lambda pair: -sum(pair[1]))
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    ax = figure.subplots()
    rows = range(len(found))
    for shift, horizon in enumerate(("after 300 updates", "after 1,500 with decay")):
        colours = [OURS if rule.startswith(("descent", "find_lr")) else OTHERS for rule, _ in found]
        bars = ax.barh(
            [row + 0.2 - 0.4 * shift for row in rows], [pair[shift] for _, pair in found], 0.36, color=colours
        )
        for bar in bars:
            bar.set_alpha(1.0 if shift == 0 else 0.6)
        ax.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
        ax.plot([], [], "s", color=OTHERS, alpha=1.0 if shift == 0 else 0.6, label=horizon)
    ax.set_yticks(list(rows), [rule for rule, _ in found])
    ax.set_xlabel("Mean regret: 0, nothing in the grid is better; 1, as good as no training")
    ax.set_xlim(0, 1.05)
    ax.legend(frameon=False, loc="center right")
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def cost_chart(page: str) -> Figure:
    """A bar for each way to log."""
    found = list(costs(page).items())[::-1]
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    ax = figure.subplots()
    colours = [OTHERS if what.startswith(("OptimizerParams", "GradsScalar")) else OURS for what, _ in found]
    bars = ax.barh([what for what, _ in found], [ratio for _, ratio in found], color=colours)
    ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    ax.set_xlabel("Added to an iteration, in bare Ignite iterations")
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def trainings_chart(_: str) -> Figure:
    """Three trainings at a tenth of, at, and at ten times the suggestion; below, what the peers suggest for them."""
    measured = json.loads(TRAININGS.read_text(encoding="utf-8"))
    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    top, below = figure.subplots(2, 3)
    for column, (title, task) in enumerate(measured["tasks"].items()):
        worst = 1.1 * task["before"]
        ax = top[column]
        for factor, (label, colour) in TIMES.items():
            losses = [math.inf if loss is None else min(loss, 2 * worst) for loss in task["curves"][factor]]
            updates = [measured["every"] * index for index in range(len(losses))]
            ax.plot(updates, losses, color=colour, label=label, linewidth=3.2 if factor == "1" else 2.2)
        ax.set_title(title, fontsize=14)
        ax.set_xlabel("updates")
        ax = below[column]
        after = [task["before"] if loss is None else min(loss, task["before"]) for loss in task["after"]]
        ax.semilogx(task["grid"], after, color="#59616e", linewidth=1.8)
        low, height = min(after), worst - min(after)
        placed: list[float] = []
        for rule, (label, marker, colour) in ANSWERS.items():
            lr = task["lr"] if rule == "find_lr" else task["peers"].get(rule)
            if lr is None:
                continue
            place = math.log10(min(max(lr, task["grid"][0]), task["grid"][-1]))
            loss = float(np.interp(place, np.log10(task["grid"]), after))
            over = sum(abs(place - other) < 0.6 for other in placed)  # answers beside each other are stacked
            placed.append(place)
            size = 260 if rule == "find_lr" else 80
            ax.scatter(
                [10**place], [loss + 0.09 * height * over], size, color=colour, marker=marker, label=label, zorder=3
            )
        ax.set_xlabel("learning rate")
        for ax in (top[column], below[column]):
            ax.set_ylim(low - 0.07 * height, worst)
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize=10)
    top[0].set_ylabel("validation loss")
    below[0].set_ylabel("loss after 300 updates")
    rows = [ax.get_legend_handles_labels() for ax in (top[0], below[0])]
    for (handles, labels), place in zip(rows, ("outside upper center", "outside lower center"), strict=True):
        figure.legend(handles, labels, loc=place, ncols=len(labels), frameon=False, fontsize=12, handletextpad=0.4)
    return figure


CHARTS: dict[str, Callable[[str], Figure]] = {
    "chart_regret": regret_chart,
    "chart_field": partial(regret_chart, tasks="field all"),
    "chart_logging": cost_chart,
    "chart_trainings": trainings_chart,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", help="the folder to write to")
    output = parser.parse_args().output
    for name, chart in CHARTS.items():
        path = output / f"{name}.png"
        chart(PAGE.read_text(encoding="utf-8")).savefig(path, dpi=90)
        print(path)


if __name__ == "__main__":
    main()
