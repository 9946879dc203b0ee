"""Measure what logging costs an iteration, beside Ignite's own handlers.

    OMP_NUM_THREADS=1 python benchmarks/logger.py            # about a minute
    OMP_NUM_THREADS=1 python benchmarks/logger.py --quick    # a first look

Every contestant trains with an optimizer whose step does nothing, and writes to TensorBoard through tensorboardX. A
figure is what the contestant adds to an iteration with such a step, as a multiple of a bare Ignite iteration that does
nothing at all, all in one run. Contestants work in turn, and the fastest of their turns counts.

The second table compares the norm, the threshold and the frequency of every update, as the clipper makes them and the
logger writes them, with Ignite's ``GradsScalarHandler`` on a model of 100 tensors.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import TensorboardLogger
from ignite.handlers.tensorboard_logger import GradsScalarHandler, OptimizerParamsHandler
from torch import nn

from ignite_lr.clipper import GradNormClipper
from ignite_lr.logger import LRLogger

Attach = Callable[[Engine, torch.optim.Optimizer, TensorboardLogger], list[Any]]


class Nothing(torch.optim.Optimizer):
    """An optimizer that changes nothing: its step costs what its hooks cost."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: None = None) -> None:
        """Do nothing."""


def of_an_iteration(attach: Attach | None, optimizer: torch.optim.Optimizer | None, iterations: int) -> float:
    """Seconds of one iteration of a trainer whose step does nothing but call the optimizer's, if there is one."""
    if optimizer is None:
        trainer = Engine(lambda engine, batch: None)
    else:
        trainer = Engine(lambda engine, batch: optimizer.step())
    with tempfile.TemporaryDirectory() as folder, TensorboardLogger(folder) as logger:
        handles = [] if attach is None or optimizer is None else attach(trainer, optimizer, logger)
        gc.collect()
        gc.disable()
        start = time.perf_counter()
        trainer.run(range(iterations), max_epochs=1)
        seconds = time.perf_counter() - start
        gc.enable()
        for handle in handles:
            handle.remove()
    return seconds / iterations


def measured(
    contestants: dict[str, tuple[Attach | None, torch.optim.Optimizer | None]], iterations: int, turns: int
) -> dict[str, float]:
    """The fastest turn of each, in seconds an iteration."""
    seconds = dict.fromkeys(contestants, float("inf"))
    for _ in range(turns):
        for name, (attach, optimizer) in contestants.items():
            seconds[name] = min(seconds[name], of_an_iteration(attach, optimizer, iterations))
    return seconds


def ours(every: int) -> Attach:
    """Our own attach, which counts updates."""
    return lambda trainer, optimizer, logger: [LRLogger(optimizer).attach(trainer, logger, every=every)]


def through_ignite(every: int) -> Attach:
    """As a log handler, with Ignite's event filter."""
    event = Events.ITERATION_COMPLETED if every == 1 else Events.ITERATION_COMPLETED(every=every)
    return lambda trainer, optimizer, logger: [logger.attach(trainer, LRLogger(optimizer), event)]


def history(trainer: Engine, optimizer: torch.optim.Optimizer, logger: TensorboardLogger) -> list[Any]:
    """Only the history of the last updates."""
    return [LRLogger(optimizer, history=1000).attach(trainer)]


def params_handler(every: int) -> Attach:
    """Ignite's handler of the same purpose."""
    event = Events.ITERATION_COMPLETED if every == 1 else Events.ITERATION_COMPLETED(every=every)
    return lambda trainer, optimizer, logger: [logger.attach(trainer, OptimizerParamsHandler(optimizer), event)]


def norms(trainer: Engine, optimizer: torch.optim.Optimizer, logger: TensorboardLogger) -> list[Any]:
    """The clipper, and all that it says of an update."""
    clipper = GradNormClipper(optimizer)
    return [clipper.attach(trainer), LRLogger(optimizer, clipper=clipper).attach(trainer, logger)]


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    turns = 3 if parser.parse_args().quick else 12

    optimizer = Nothing([nn.Parameter(torch.zeros(1))])
    seconds = measured(
        {
            "bare iteration": (None, None),
            "iteration with a step": (None, optimizer),
            "history only, every update": (history, optimizer),
            "LRLogger.attach, every 50 updates": (ours(50), optimizer),
            "LRLogger.attach, every update": (ours(1), optimizer),
            "logger.attach(LRLogger), every 50 iterations": (through_ignite(50), optimizer),
            "logger.attach(LRLogger), every iteration": (through_ignite(1), optimizer),
            "OptimizerParamsHandler, every 50 iterations": (params_handler(50), optimizer),
            "OptimizerParamsHandler, every iteration": (params_handler(1), optimizer),
        },
        iterations=5000,
        turns=turns,
    )
    bare, step = seconds.pop("bare iteration"), seconds.pop("iteration with a step")
    print(f"a bare iteration takes {bare * 1e6:.1f} us, one with a step {step * 1e6:.1f} us; added to the latter:")
    for name, took in seconds.items():
        print(f"  {name:46s} {(took - step) / bare:6.2f}x")

    model = nn.Sequential(*[nn.Linear(20, 20) for _ in range(50)])
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    of_model = Nothing(list(model.parameters()))
    grads: Attach = lambda trainer, optimizer, logger: [  # noqa: E731  # one line of a table
        logger.attach(trainer, GradsScalarHandler(model), Events.ITERATION_COMPLETED)
    ]
    seconds = measured(
        {"step": (None, of_model), "norms": (norms, of_model), "GradsScalarHandler": (grads, of_model)},
        iterations=300,
        turns=turns,
    )
    ratio = (seconds["GradsScalarHandler"] - seconds["step"]) / (seconds["norms"] - seconds["step"])
    print("100 gradients, every update:")
    for name in ("norms", "GradsScalarHandler"):
        print(f"  {name:46s} {(seconds[name] - seconds['step']) * 1e6:6.0f} us")
    print(f"  GradsScalarHandler takes {ratio:.0f} times as long")


if __name__ == "__main__":
    main()
