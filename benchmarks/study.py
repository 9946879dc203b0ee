"""What a study costs beside bare training steps, and what it finds beside Optuna's samplers and Ray Tune.

python benchmarks/study.py overhead
python benchmarks/study.py regret
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn

from ignite_lr import LRFinder, NoSuggestionError, Trial, run_study, trials


def overhead(updates: int, rounds: int) -> None:
    """What a study adds to an update, in processor time, which a busy machine does not change as it does the clock."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(64, 32)
    y = x.sum(1, keepdim=True)

    def step(engine: Engine | None, batch: Any) -> float:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    data = [0] * updates
    to_save = {"model": model, "optimizer": optimizer}
    engine = Engine(step)
    listed = [Trial(0.01), Trial(0.02)]
    added = []
    for _ in range(rounds):
        start = time.process_time()
        for batch in data * 2:
            step(None, batch)
        bare = time.process_time() - start
        start = time.process_time()
        run_study(engine, data, to_save, listed, num_updates=updates, progress_bar=False)
        added.append((time.process_time() - start - bare) / (2 * updates))
    cost = statistics.median(added)
    low, high = min(added), max(added)
    print(f"a study adds {cost * 1e6:.0f} us to an update ({low * 1e6:.0f} to {high * 1e6:.0f}, {rounds} rounds)")
    for step_ms in (1.0, 5.0):
        print(f"a step of {step_ms:g} ms: {1 + cost * 1000 / step_ms:.4f}x")


# -- what is found


def blobs(seed: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows around ten centres, and which centre each belongs to."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 20, generator=generator)
    y = torch.randint(10, (1500,), generator=generator)
    return centres[y] + spread * torch.randn(1500, 20, generator=generator), y


def mlp(depth: int, width: int = 48) -> nn.Module:
    """A network of so many inner layers, without anything that makes a deep one easy."""
    inner = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(20, width), nn.ReLU(), *inner, nn.Linear(width, 10))


TASKS: dict[str, tuple[int, float, Callable[[Any], torch.optim.Optimizer]]] = {
    "shallow, SGD": (1, 1.5, lambda p: torch.optim.SGD(p, lr=0.1)),
    "shallow, momentum": (1, 1.5, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "deep, momentum": (6, 1.0, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "deep, Adam": (6, 1.0, lambda p: torch.optim.Adam(p, lr=0.1)),
}


class Task:
    """A training of ``length`` updates with batches of 32, and the loss on 300 held-out rows after it."""

    def __init__(self, name: str, length: int) -> None:
        depth, spread, optimizer = TASKS[name]
        torch.manual_seed(1)
        x, y = blobs(0, spread)
        self.length = length
        self.model = mlp(depth)
        self.optimizer = optimizer(self.model.parameters())
        order = torch.randperm(1200)
        self.data = [(x[rows], y[rows]) for rows in order.split(32)]
        loss = nn.CrossEntropyLoss()

        def step(engine: Engine, batch: Any) -> float:
            self.optimizer.zero_grad()
            value = loss(self.model(batch[0]), batch[1])
            value.backward()
            self.optimizer.step()
            return value.item()

        def validate() -> float:
            with torch.no_grad():
                return float(loss(self.model(x[1200:]), y[1200:]))

        self.trainer, self.validate = Engine(step), validate
        self.to_save = {"model": self.model, "optimizer": self.optimizer}
        self.spent = 0
        self.known: dict[float, float] = {}

    def study(self, listed: Any, validate_every: int | None = None) -> Any:
        """Trials of the full length; their updates are counted."""
        options = {"validation": self.validate, "validate_every": validate_every}
        result = run_study(self.trainer, self.data, self.to_save, listed, self.length, **options)
        self.spent += sum(one.updates for one in result.trials)
        return result

    def score(self, lr: float) -> float:
        """The validation loss at a rate, at full length; at most that of no training."""
        (one,) = self.study([Trial(lr)]).trials
        return min(one.objective, self.untrained) if one.outcome == "completed" else self.untrained

    def measure(self) -> None:
        """The best rate of a dense grid, and the loss without training: what regret is counted between."""
        self.untrained = self.validate()
        grid = [1e-4 * 10 ** (i / 8) for i in range(41)]
        self.best = min(self.score(lr) for lr in grid)
        self.spent = 0

    def regret(self, score: float) -> float:
        """0 is the best rate of the grid, 1 no training."""
        return (score - self.best) / (self.untrained - self.best)


def ours(task: Task, n: int) -> list[tuple[float, float]]:
    """A range test, then a spread around its suggestion; (full trainings spent, regret so far) after each trial."""
    finder = LRFinder()
    with finder.attach(task.trainer, task.to_save, num_iter=100, start_lr=1e-6, end_lr=10.0) as sweep:
        sweep.run(task.data)
    task.spent += len(finder.result.losses)
    try:
        lr = finder.result.suggestion()
        assert isinstance(lr, float)
    except NoSuggestionError:
        lr = 0.01
    curve, best = [], task.untrained
    for trial in (Trial(lr), *trials.spread(lr / 10, 5 * lr, n - 1)):
        best = min(best, task.score(trial.lr))
        curve.append((task.spent / task.length, task.regret(best)))
    return curve


def optunas(task: Task, n: int, name: str, seed: int) -> list[tuple[float, float]]:
    """The same with a sampler of Optuna's over the whole range, each trial at full length."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = {
        "random": optuna.samplers.RandomSampler,
        "QMC": optuna.samplers.QMCSampler,
        "TPE": optuna.samplers.TPESampler,
    }
    study = optuna.create_study(sampler=samplers[name](seed=seed))
    curve, best = [], task.untrained
    for _ in range(n):
        asked = study.ask()
        score = task.score(asked.suggest_float("lr", 1e-6, 10.0, log=True))
        study.tell(asked, score)
        best = min(best, score)
        curve.append((task.spent / task.length, task.regret(best)))
    return curve


def halving(task: Task, n: int, seed: int) -> list[tuple[float, float]]:
    """The same with random rates and Optuna's successive halving: what it stops early costs the updates up to there."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rung = task.length // 8
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=rung, reduction_factor=2)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed), pruner=pruner)
    curve, best = [], task.untrained
    while task.spent < n * task.length:
        asked = study.ask()
        before = task.spent
        (one,) = task.study([Trial(asked.suggest_float("lr", 1e-6, 10.0, log=True))], validate_every=rung).trials
        state = optuna.trial.TrialState.PRUNED
        if one.outcome == "completed":
            state = optuna.trial.TrialState.COMPLETE
            for update, value in one.validations[:-1]:
                asked.report(value, update)
                if asked.should_prune():
                    task.spent, state = before + update, optuna.trial.TrialState.PRUNED
                    break
        complete = state is optuna.trial.TrialState.COMPLETE
        study.tell(asked, one.objective if complete else None, state=state)
        best = min(best, one.objective) if complete else best
        curve.append((task.spent / task.length, task.regret(best)))
    return curve


def asha(task: Task, name: str, n: int, seed: int) -> list[tuple[float, float]]:
    """The same with Ray Tune: random rates and its asynchronous successive halving, one trial at a time."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    length, rung = task.length, task.length // 8

    def train(config: dict[str, float]) -> None:
        torch.set_num_threads(1)
        inner = Task(name, length)
        inner.untrained = inner.validate()
        (one,) = inner.study([Trial(config["lr"])], validate_every=rung).trials
        for update, value in one.validations:
            tune.report({"loss": min(value, inner.untrained), "updates": update})
        if not one.validations:  # stopped before the first rung
            tune.report({"loss": inner.untrained, "updates": one.updates})

    if not ray.is_initialized():
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    fitted = tune.Tuner(
        train,
        param_space={"lr": tune.loguniform(1e-6, 10.0)},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=3 * n,  # most are stopped early
            reuse_actors=True,
            scheduler=ASHAScheduler("updates", max_t=length, grace_period=rung, reduction_factor=2),
            search_alg=tune.search.BasicVariantGenerator(random_state=seed),
        ),
        run_config=tune.RunConfig(
            verbose=0, storage_path=tempfile.mkdtemp(), failure_config=tune.FailureConfig(max_failures=3)
        ),
    ).fit()
    spent, best, curve = 0, task.untrained, []
    for result in sorted(fitted, key=lambda result: result.metrics["timestamp"]):
        spent += result.metrics["updates"]
        if result.metrics["updates"] >= length:
            best = min(best, result.metrics["loss"])
        curve.append((spent / length, task.regret(best)))
    return curve


def at(curve: list[tuple[float, float]], budget: float) -> float:
    """The regret after so many full trainings; 1 before the first trial is done."""
    return next((regret for spent, regret in reversed(curve) if spent <= budget), 1.0)


def regret(length: int, n: int, seeds: int) -> None:
    """A table: regret after so many updates, for each way to spend them."""
    budgets = (1.5, 2.5, 4, 6, 10)
    rows: dict[str, list[list[float]]] = {}
    for name in TASKS:
        task = Task(name, length)
        task.measure()
        methods: dict[str, list[Callable[[], list[tuple[float, float]]]]] = {"study": [lambda t=task: ours(t, n)]}  # type: ignore[misc]  # mypy cannot infer a lambda's default
        for sampler in ("random", "QMC", "TPE"):
            methods[sampler] = [lambda t=task, s=sampler, k=seed: optunas(t, n, s, k) for seed in range(seeds)]  # type: ignore[misc]  # likewise
        methods["halving"] = [lambda t=task, k=seed: halving(t, n, k) for seed in range(seeds)]  # type: ignore[misc]  # likewise
        methods["Ray Tune"] = [lambda t=task, m=name, k=seed: asha(t, m, n, k) for seed in range(seeds)]  # type: ignore[misc]  # likewise
        for method, runs in methods.items():
            for run in runs:
                task.spent = 0
                curve = run()
                rows.setdefault(method, []).append([at(curve, budget) for budget in budgets])
    print(f"mean regret over {len(TASKS)} tasks after so many full trainings of {length} updates (range test included)")
    print("| | " + " | ".join(f"{budget:g}" for budget in budgets) + " |")
    print("|---|" + "---|" * len(budgets))
    for method, found in rows.items():
        print(f"| {method} | " + " | ".join(f"{value:.3f}" for value in np.mean(found, axis=0)) + " |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "regret"))
    parser.add_argument("--length", type=int, default=300, help="updates of a full training")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="of Optuna's samplers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "overhead":
        overhead(updates=1000, rounds=9)
    else:
        regret(arguments.length, arguments.trials, arguments.seeds)


if __name__ == "__main__":
    main()
