"""What a scheduler costs a step, and which PyTorch schedulers come out right under which handler.

Run it with ``python benchmarks/schedulers.py``; ``cost`` or ``rates`` as an argument runs one of the two.

Costs are CPU times, the least of many short runs taken in turns: what else the machine does weighs on all alike.
"""

from __future__ import annotations

import gc
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers.param_scheduler import LRScheduler as IgniteLRScheduler
from torch.optim import lr_scheduler

from ignite_lr import LRSchedulerHandler, ScheduleLR, schedules

GROUPS = (1, 10, 1000)
SCHEDULES: dict[str, Callable[[int], float]] = {
    "lambda step: 0.5": lambda step: 0.5,
    "InverseSqrt": schedules.InverseSqrt(warmup_steps=400),
    "Cosine": schedules.Cosine(total_steps=10**9, warmup_steps=400),
}
ROUNDS = 40


class Bare(torch.optim.Optimizer):
    """An optimizer whose step does nothing, so that only what is hooked around it is measured."""

    def __init__(self, groups: int) -> None:
        params = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)]
        super().__init__(params, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:
        """Nothing."""


def cpu_times(runs: dict[str, Callable[[int], Any]], n: int) -> dict[str, float]:
    """Microseconds of CPU time a step, the least of ``ROUNDS`` runs of ``n`` steps each, in turns."""
    best = dict.fromkeys(runs, float("inf"))
    gc.collect()
    gc.disable()
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.process_time()
            run(n)
            best[name] = min(best[name], (time.process_time() - start) / n * 1e6)
    gc.enable()
    return best


def stepping(scheduler: Any) -> Callable[[int], None]:
    """Steps of a scheduler and nothing else."""

    def run(n: int) -> None:
        step = scheduler.step
        for _ in range(n):
            step()

    return run


def training(trainer: Engine) -> Callable[[int], None]:
    """Iterations of a trainer."""

    def run(n: int) -> None:
        trainer.run(range(n), max_epochs=1, epoch_length=n)
        trainer.state.epoch = trainer.state.iteration = 0
        trainer.state.max_epochs = None

    return run


def without_scheduler(groups: int) -> Engine:
    """What is subtracted from the next two."""
    optimizer = Bare(groups)
    return Engine(lambda engine, batch: optimizer.step())


def written_in(groups: int, schedule: Callable[[int], float]) -> Engine:
    """``LambdaLR.step()`` written into the training step."""
    optimizer = Bare(groups)
    scheduler = lr_scheduler.LambdaLR(optimizer, schedule)

    def step(engine: Engine, batch: Any) -> None:
        optimizer.step()
        scheduler.step()

    return Engine(step)


def with_handler(groups: int, schedule: Callable[[int], float]) -> Engine:
    """``LRSchedulerHandler`` with ``ScheduleLR``: two hooks, one event handler, one step."""
    optimizer = Bare(groups)
    trainer = Engine(lambda engine, batch: optimizer.step())
    LRSchedulerHandler(ScheduleLR(optimizer, schedule)).attach(trainer)
    return trainer


def costs() -> None:
    """The cost table."""
    print(f"{'schedule':17} {'groups':>6} {'LambdaLR':>9} {'ScheduleLR':>10} {'ratio':>6}", end=" | ")
    print(f"{'in the step':>11} {'handler':>8} {'ratio':>6}   (us a step)")
    for name, schedule in SCHEDULES.items():
        for groups in GROUPS:
            bare = cpu_times(
                {
                    "LambdaLR": stepping(lr_scheduler.LambdaLR(Bare(groups), schedule)),
                    "ScheduleLR": stepping(ScheduleLR(Bare(groups), schedule)),
                },
                max(50, 5000 // groups),
            )
            trainers = {
                "none": without_scheduler(groups),
                "in the step": written_in(groups, schedule),
                "handler": with_handler(groups, schedule),
            }
            inside = cpu_times({key: training(trainer) for key, trainer in trainers.items()}, max(50, 2000 // groups))
            lambda_lr, handler = (inside[key] - inside["none"] for key in ("in the step", "handler"))
            print(
                f"{name:17} {groups:6d} {bare['LambdaLR']:9.2f} {bare['ScheduleLR']:10.2f} "
                f"{bare['ScheduleLR'] / bare['LambdaLR']:6.3f} | "
                f"{lambda_lr:11.2f} {handler:8.2f} {handler / lambda_lr:6.3f}"
            )


TORCH_SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=3, gamma=0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, milestones=[3, 6], gamma=0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, factor=0.5, total_iters=4),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=5),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, total_iters=8, power=2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=8),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=4),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=3, cycle_momentum=False),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.5, total_steps=20, cycle_momentum=False),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=4), lr_scheduler.ExponentialLR(o, gamma=0.9)],
        milestones=[4],
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, factor=0.5, total_iters=4), lr_scheduler.ExponentialLR(o, gamma=0.9)]
    ),
}
UPDATES = 12


def plain_loop(make: Callable[[torch.optim.Optimizer], Any]) -> list[float]:
    """The rate of each update in a plain PyTorch loop: what is right by definition."""
    optimizer = Bare(1)
    scheduler = make(optimizer)
    rates = []
    for _ in range(UPDATES):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def under(attach: Callable[[Engine, Any], Any], make: Callable[[torch.optim.Optimizer], Any]) -> list[float]:
    """The rate of each update under a handler."""
    optimizer = Bare(1)
    scheduler = make(optimizer)
    rates: list[float] = []

    def step(engine: Engine, batch: Any) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()

    trainer = Engine(step)
    attach(trainer, scheduler)
    trainer.run(range(UPDATES), max_epochs=1)
    return rates


def attach_handler(trainer: Engine, scheduler: Any) -> None:
    """Ours."""
    LRSchedulerHandler(scheduler).attach(trainer)


def attach_wrapper(trainer: Engine, scheduler: Any) -> None:
    """Ignite's."""
    # the event that its documentation uses
    trainer.add_event_handler(Events.ITERATION_STARTED, IgniteLRScheduler(scheduler))


def verdict(expected: list[float], attach: Callable[[Engine, Any], Any], make: Callable[[Any], Any]) -> str:
    """How the rates under a handler compare with those of a plain loop."""
    try:
        rates = under(attach, make)
    except Exception as error:  # the table is about whatever happens
        return type(error).__name__
    if rates == expected:
        return "equal"
    first = next(i for i, (mine, right) in enumerate(zip(rates, expected, strict=True)) if mine != right)
    worst = max(abs(mine - right) / right for mine, right in zip(rates, expected, strict=True) if right)
    return f"off by up to {worst:.0%}, from update {first} on"


def rates() -> None:
    """The table of PyTorch's schedulers."""
    print(f"{'PyTorch scheduler':28} {'LRSchedulerHandler':20} Ignite's LRScheduler wrapper")
    for name, make in TORCH_SCHEDULERS.items():
        expected = plain_loop(make)
        print(f"{name:28} {verdict(expected, attach_handler, make):20} {verdict(expected, attach_wrapper, make)}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or ["rates", "cost"]
    if "rates" in chosen:
        rates()
    if "cost" in chosen:
        costs()
