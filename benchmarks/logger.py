"""Measure what logging costs an iteration, beside Ignite's own handlers.

    OMP_NUM_THREADS=1 python benchmarks/logger.py            # about a minute
    OMP_NUM_THREADS=1 python benchmarks/logger.py --quick    # a first look

Every contestant trains with an optimizer whose step does nothing, and writes to TensorBoard through tensorboardX. A
figure is what the contestant adds to an iteration with such a step, as a multiple of a bare Ignite iteration that does
nothing at all, all in one run. Times are CPU time of the whole process, the writers' threads included. Each turn runs a
contestant right after the iteration with the step that it is compared with, and the median of its turns counts, so that
other work on the machine touches both sides of a comparison.

The second table compares the norm, the threshold and the frequency of every update, as the clipper makes them and the
logger writes them, with Ignite's ``GradsScalarHandler`` on a model of 100 tensors.
"""

from __future__ import annotations

import argparse
import gc
import statistics
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
from ignite_lr.core.subscription import Phase
from ignite_lr.core.updates import Updates
from ignite_lr.logger import LRLogger

Attach = Callable[[Engine, torch.optim.Optimizer, TensorboardLogger], list[Any]]


class Nothing(torch.optim.Optimizer):
    """An optimizer that changes nothing: its step costs what its hooks cost."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: None = None) -> None:
        """Do nothing."""


def of_an_iteration(attach: Attach | None, optimizer: torch.optim.Optimizer | None, iterations: int) -> float:
    """CPU seconds of one iteration of a trainer whose step does nothing but call the optimizer's, if there is one."""
    if optimizer is None:
        trainer = Engine(lambda engine, batch: None)
    else:
        trainer = Engine(lambda engine, batch: optimizer.step())
    with tempfile.TemporaryDirectory() as folder, TensorboardLogger(folder) as logger:
        handles = [] if attach is None or optimizer is None else attach(trainer, optimizer, logger)
        gc.collect()
        gc.disable()
        start = time.process_time()
        trainer.run(range(iterations), max_epochs=1)
        seconds = time.process_time() - start
        gc.enable()
        for handle in handles:
            handle.remove()
    return seconds / iterations


def added(
    contestants: dict[str, Attach], optimizer: torch.optim.Optimizer, iterations: int, turns: int
) -> tuple[float, float, dict[str, float]]:
    """Medians over the turns.

    Returns:
        CPU seconds of a bare iteration and of one with a step, and by contestant what it adds to the latter, in bare
        iterations of the same turn.
    """
    bare: list[float] = []
    steps: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(turns):
        bare.append(of_an_iteration(None, None, iterations))
        for name, attach in contestants.items():
            steps.append(of_an_iteration(None, optimizer, iterations))
            took = of_an_iteration(attach, optimizer, iterations)
            ratios[name].append((took - steps[-1]) / bare[-1])
    medians = {name: statistics.median(each) for name, each in ratios.items()}
    return statistics.median(bare), statistics.median(steps), medians


def subscription(trainer: Engine, optimizer: torch.optim.Optimizer, logger: TensorboardLogger) -> list[Any]:
    """What everything of this package pays: somebody is told of every update."""
    return [Updates.of(trainer, optimizer).subscribe(logger, Phase.RECORD, before=_nothing, counted=_nothing)]


def _nothing() -> None:
    pass


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


def floor(trainer: Engine, optimizer: torch.optim.Optimizer, logger: TensorboardLogger) -> list[Any]:
    """One norm over all gradients: no more is needed for it, and nothing can be had for less."""
    gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
    return [trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: torch._foreach_norm(gradients))]


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer turns")
    turns = 3 if parser.parse_args().quick else 12

    optimizer = Nothing([nn.Parameter(torch.zeros(1))])
    bare, step, ratios = added(
        {
            "a bare subscription to updates": subscription,
            "history only, every update": history,
            "LRLogger.attach, every 50 updates": ours(50),
            "LRLogger.attach, every update": ours(1),
            "logger.attach(LRLogger), every 50 iterations": through_ignite(50),
            "logger.attach(LRLogger), every iteration": through_ignite(1),
            "OptimizerParamsHandler, every 50 iterations": params_handler(50),
            "OptimizerParamsHandler, every iteration": params_handler(1),
        },
        optimizer,
        iterations=5000,
        turns=turns,
    )
    print(f"a bare iteration takes {bare * 1e6:.1f} us, one with a step {step * 1e6:.1f} us; added to the latter:")
    for name, ratio in ratios.items():
        print(f"  {name:46s} {ratio:6.2f}x")

    model = nn.Sequential(*[nn.Linear(20, 20) for _ in range(50)])
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    grads: Attach = lambda trainer, optimizer, logger: [  # noqa: E731  # one line of a table
        logger.attach(trainer, GradsScalarHandler(model), Events.ITERATION_COMPLETED)
    ]
    bare, _, ratios = added(
        {"norm, threshold and frequency": norms, "GradsScalarHandler": grads, "torch._foreach_norm alone": floor},
        Nothing(list(model.parameters())),
        iterations=300,
        turns=turns,
    )
    print("100 gradients, every update:")
    for name, ratio in ratios.items():
        print(f"  {name:46s} {ratio * bare * 1e6:6.0f} us   {ratios['GradsScalarHandler'] / ratio:4.0f} times as fast")


if __name__ == "__main__":
    main()
