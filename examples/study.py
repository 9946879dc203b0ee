"""Three procedures of the Deep Learning Tuning Playbook, on scikit-learn's handwritten digits.

python examples/study.py stable   # is my rate stable? 2x, 5x and 10x of it
python examples/study.py warmup   # the shortest warmup that reaches 2x, 4x and 10x the largest stable rate
python examples/study.py search   # a quasi-random study around a suggestion, its record, then Optuna from there
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from ignite.engine import create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Loss
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr import LRFinder, StudyResult, Trial, run_study, trials


def training(batch_size: int) -> dict[str, Any]:
    """A plain CNN with Adam, which is dead at rates that are a little too high: what a study needs of it."""
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(x))
    train, valid = (TensorDataset(x[part], y[part]) for part in (order[300:], order[:300]))
    first, second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
    model = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    optimizer = torch.optim.Adam(model.parameters())
    loss = nn.functional.cross_entropy
    evaluator = create_supervised_evaluator(model, {"loss": Loss(loss)})
    return {
        "trainer": create_supervised_trainer(model, optimizer, loss),
        "data": DataLoader(train, batch_size=batch_size, shuffle=True),
        "to_save": {"model": model, "optimizer": optimizer},
        "validation": (evaluator, DataLoader(valid, batch_size=300), "loss"),
    }


def is_stable(setup: dict[str, Any], lr: float, num_updates: int) -> StudyResult:
    """Train at multiples of a rate: one that is about to fall apart shows it there."""
    result = run_study(**setup, trials=trials.multiples(lr), num_updates=num_updates)
    print(f"{result}\n{lr:.3g} is stable up to {result.stable_lr}, unstable at {result.unstable_lr}")
    return result


def shortest_warmups(setup: dict[str, Any], lr: float, num_updates: int) -> dict[int, int | None]:
    """For 2, 4 and 10 times the largest stable rate, the shortest warmup that makes it train."""
    stable = run_study(**setup, trials=trials.multiples(lr, (0.5, 1, 2, 4, 8)), num_updates=num_updates).stable_lr
    if stable is None:
        raise SystemExit(f"no multiple of {lr:.3g} trains: begin with a range test")
    lengths = (0, num_updates // 20, num_updates // 5, num_updates // 2)
    found = {}
    for multiple in (2, 4, 10):
        listed = trials.warmups(multiple * stable, lengths, post_warmup_steps=num_updates)
        # together with the stable rate, against which a trial that learns nothing is seen for what it is
        result = run_study(**setup, trials=(Trial(stable, name="stable"), *listed), num_updates=num_updates)
        able = [one.warmup_steps for one in result.trials[1:] if one.feasible]
        found[multiple] = min(able, default=None)
        print(f"{multiple} x {stable:.3g}: shortest warmup {found[multiple]}; {result.best}")
    return found


def search(setup: dict[str, Any], num_updates: int, n: int, more: int, folder: Path) -> dict[str, Any]:
    """A range test, a quasi-random study around its suggestion, its record, and Optuna from there."""
    finder = LRFinder()
    with finder.attach(setup["trainer"], setup["to_save"], num_iter=300, start_lr=1e-6, end_lr=10.0) as sweep:
        sweep.run(setup["data"])
    lr = finder.result.suggestion()
    assert isinstance(lr, float)  # one parameter group
    listed = trials.spread(lr / 10, 3 * lr, n)
    result = run_study(**setup, trials=listed, num_updates=num_updates, file=folder / "study.json")
    print(result, result.to_html(folder / "study.html"))

    optuna_study = result.to_optuna()
    for _ in range(more):
        asked = optuna_study.ask()
        rate = asked.suggest_float("lr", lr / 10, 3 * lr, log=True)
        one = run_study(**setup, trials=[Trial(rate)], num_updates=num_updates).trials[0]
        optuna_study.tell(asked, one.objective if one.outcome == "completed" else 1e3)
    record = {
        "name": "digits, rate",
        "trials": len(optuna_study.trials),
        "best score": optuna_study.best_value,
        "command": shlex.join(["python", *sys.argv]),
        "configuration": {"lr": optuna_study.best_params["lr"], "num_updates": num_updates, "suggestion": lr},
    }
    (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=("stable", "warmup", "search"))
    parser.add_argument("--lr", type=float, default=0.02, help="the rate in question")
    parser.add_argument("--updates", type=int, default=200, help="length of a trial")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--more", type=int, default=4, help="trials that Optuna adds")
    parser.add_argument("--output", type=Path, default=Path("runs/study"))
    arguments = parser.parse_args()
    setup = training(batch_size=32)
    if arguments.recipe == "stable":
        is_stable(setup, arguments.lr, arguments.updates)
    elif arguments.recipe == "warmup":
        shortest_warmups(setup, arguments.lr, arguments.updates)
    else:
        arguments.output.mkdir(parents=True, exist_ok=True)
        search(setup, arguments.updates, arguments.trials, arguments.more, arguments.output)


if __name__ == "__main__":
    main()
