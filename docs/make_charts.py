"""Draw the charts of the benchmarks page from what the benchmarks printed into ``benchmarks/README.md``.

    python docs/make_charts.py

The figures are read from the page that shows them, so a chart never says anything else than its table.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "benchmarks" / "README.md"
OURS, OTHERS = "#4051b5", "#b4bac6"
# rule | short: mean ... | long: mean ... | ... | the same where an abstention counts as regret 1
_RULE = re.compile(
    r"^(?P<rule>[\w.-]+(?: \w+)?) +\| (?P<short>[\d.]+) [^|]*\| (?P<long>[\d.]+) [^|]*\|.*"
    r"\| (?P<strict_short>[\d.]+) (?P<strict_long>[\d.]+)$",
    re.MULTILINE,
)
_COST = re.compile(r"^  (?P<what>\S.*?\S) {2,}(?P<ratio>[\d.]+)x$", re.MULTILINE)


def regrets(page: str) -> dict[str, tuple[float, float]]:
    """Mean regret at both horizons by rule, of all tasks after 300 iterations; an abstention counts as regret 1."""
    start = page.index("300 iterations, tasks: all")
    block = page[start : page.index("abstentions of descent", start)].partition("without ")[0]
    all_sweeps = {
        found["rule"]: (float(found["strict_short"]), float(found["strict_long"])) for found in _RULE.finditer(block)
    }
    answered = next(found for found in _RULE.finditer(block) if found["rule"] == "descent")
    return all_sweeps | {"descent, where it answers": (float(answered["short"]), float(answered["long"]))}


def costs(page: str) -> dict[str, float]:
    """What logging adds to an iteration, in bare Ignite iterations."""
    block = page[page.index("## Logging") : page.index("## Schedulers")]
    return {found["what"]: float(found["ratio"]) for found in _COST.finditer(block)}


def regret_chart(page: str) -> Figure:
    """Two bars a rule, the shorter the better."""
    found = sorted(regrets(page).items(), key=lambda pair: -sum(pair[1]))
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    ax = figure.subplots()
    rows = range(len(found))
    for shift, horizon in enumerate(("after 300 updates", "after 1,500 with decay")):
        colours = [OURS if rule.startswith("descent") else OTHERS for rule, _ in found]
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


CHARTS = {"chart_regret": regret_chart, "chart_logging": cost_chart}


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
