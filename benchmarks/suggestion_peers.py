"""Range tests by the peers' own packages; runs in the environment of ``make bench-env``.

Every package gets the same model, the same batches and the same number of iterations; all its
other settings are its own defaults. A task that accumulates gives them whole batches. What a
package refuses to answer is stored as None.

    .venv-bench/bin/python benchmarks/suggestion_peers.py
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from suggestion_oracle import CACHE as ORACLE
from suggestion_oracle import OPTIMIZERS, TASKS, measured, read_cache, write_cache
from suggestion_tasks import Task
from torch import nn

CACHE = Path(__file__).parent / "data" / "peers.json"
START_LR, END_LR = 1e-7, 10.0
ITERATIONS = (300, 100)
SEEDS = (0, 1, 2)
PACKAGES = ("torch", "pytorch-ignite", "fastai", "lightning", "torch-lr-finder")
Answers = dict[str, float | None]


def ignite(task: Task, optimizer: str, seed: int, num_iter: int) -> Answers:
    """Ignite's FastaiLRFinder."""
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import FastaiLRFinder

    model = task.model(seed)
    stepper = task.clipped(OPTIMIZERS[optimizer](model.parameters(), START_LR))
    trainer = create_supervised_trainer(model, stepper, task.loss)
    finder = FastaiLRFinder()
    to_save = {"model": model, "optimizer": stepper}
    with finder.attach(trainer, to_save, num_iter=num_iter, start_lr=START_LR, end_lr=END_LR) as sweep:
        sweep.run(task.loader(seed, num_iter, whole=True))
        try:
            return {"FastaiLRFinder": float(finder.lr_suggestion())}
        except RuntimeError:
            return {"FastaiLRFinder": None}


def fastai(task: Task, optimizer: str, seed: int, num_iter: int) -> Answers:
    """The four rules of fastai on its own sweep."""
    from fastai.callback.schedule import minimum, slide, steep, valley
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    rules = {"minimum": minimum, "valley": valley, "slide": slide, "steep": steep}
    answers: Answers = {}
    with tempfile.TemporaryDirectory() as folder:
        batches = task.loader(seed, num_iter, whole=True)
        learner = Learner(
            DataLoaders(batches, batches, device="cpu"),
            task.model(seed),
            loss_func=task.loss,
            opt_func=partial(OptimWrapper, opt=partial(_torch_optimizer, task, optimizer)),
            path=folder,
        )
        with learner.no_bar(), learner.no_logging():
            learner.lr_find(START_LR, END_LR, num_iter, show_plot=False, suggest_funcs=None)
    # The rules are called as `lr_find` itself calls them: on what its recorder kept.
    lrs = torch.tensor(learner.recorder.lrs[num_iter // 10 : -5])
    losses = torch.tensor(learner.recorder.losses[num_iter // 10 : -5])
    if nan_at := torch.isnan(losses).nonzero().flatten().tolist():
        lrs, losses = lrs[: nan_at[0]], losses[: nan_at[0]]
    for name, rule in rules.items():
        try:
            answers[f"fastai {name}"] = float(rule(lrs, losses, num_iter)[0])
        except (IndexError, RuntimeError, ValueError):  # noqa: PERF203 - one rule's failure is not the others'
            answers[f"fastai {name}"] = None
    return answers


def _torch_optimizer(task: Task, name: str, params: Iterable[nn.Parameter], lr: float, **_: Any) -> Any:
    return task.clipped(OPTIMIZERS[name](params, lr))


def lightning(task: Task, optimizer: str, seed: int, num_iter: int) -> Answers:
    """Lightning's tuner."""
    import lightning.pytorch as pl
    from lightning.pytorch.tuner import Tuner

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lr = task.model(seed), START_LR

        def training_step(self, batch: Any, _: int) -> Any:
            return task.loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return task.clipped(OPTIMIZERS[optimizer](self.parameters(), self.lr))

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=10,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        finder = Tuner(trainer).lr_find(
            Module(),
            task.loader(seed, num_iter, whole=True),
            min_lr=START_LR,
            max_lr=END_LR,
            num_training=num_iter,
            update_attr=False,
        )
        answer = None if finder is None else finder.suggestion()
    return {"Lightning": None if answer is None else float(answer)}


def torch_lr_finder(task: Task, optimizer: str, seed: int, num_iter: int) -> Answers:
    """torch-lr-finder, whose suggestion comes with its plot."""
    import matplotlib.pyplot as plt
    from torch_lr_finder import LRFinder

    model = task.model(seed)
    stepper = task.clipped(OPTIMIZERS[optimizer](model.parameters(), START_LR))
    finder = LRFinder(model, stepper, nn.Module(), device="cpu")
    finder.criterion = task.loss
    finder.range_test(task.loader(seed, num_iter, whole=True), end_lr=END_LR, num_iter=num_iter)
    figure, ax = plt.subplots()
    try:
        answer = finder.plot(ax=ax)[1]
    except (RuntimeError, ValueError):
        return {"torch-lr-finder": None}
    finally:
        plt.close(figure)
    return {"torch-lr-finder": float(answer)}


PEERS: tuple[Callable[[Task, str, int, int], Answers], ...] = (
    ignite,
    fastai,
    lightning,
    torch_lr_finder,
)


def settings() -> dict[str, Any]:
    """What the numbers in the cache depend on."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"start_lr": START_LR, "end_lr": END_LR, "versions": versions}


def ask(name: str, optimizer: str, seed: int, num_iter: int) -> Answers:
    """What all peers say about one task, optimizer and seed."""
    answers: Answers = {}
    for peer in PEERS:
        torch.manual_seed(seed)
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            answers |= peer(TASKS[name], optimizer, seed, num_iter)
    return {rule: float(f"{lr:.6g}") if lr is not None and math.isfinite(lr) else None for rule, lr in answers.items()}


def main() -> None:
    """Fill the cache; an interrupted run goes on where it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    mpl.use("Agg")
    os.environ["TQDM_DISABLE"] = "1"
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    cells = read_cache(CACHE, settings())
    saved = time.monotonic()
    known = measured(read_cache(ORACLE, {}), arguments.tasks)
    for seed in SEEDS:
        for num_iter in ITERATIONS:
            for name in arguments.tasks:
                for optimizer in (optimizer for task, optimizer in known if task == name):
                    key = f"{name}/{optimizer}/{seed}/{num_iter}"
                    if key not in cells:
                        cells[key] = ask(name, optimizer, seed, num_iter)
                        print(key, cells[key], flush=True)
                if time.monotonic() - saved > 10:
                    write_cache(CACHE, settings(), cells)
                    saved = time.monotonic()
    write_cache(CACHE, settings(), cells)


if __name__ == "__main__":
    main()
