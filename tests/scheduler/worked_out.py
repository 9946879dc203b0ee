"""Trainings small enough to be worked out by hand."""

from __future__ import annotations

import warnings

import pytest
import torch
from ignite.engine import Engine
from torch.optim import lr_scheduler

from ignite_lr import GradNormClipper, LRLogger, LRSchedulerHandler, ScheduleLR, schedules

FACTOR = schedules.Exponential(gamma=0.9)  # factor of update i: 0.9 ** i


def keeps_tensors_apart():
    """Whether PyTorch's SequentialLR leaves a rate and its base two tensors; where not, LambdaLR is wrong in it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(1.0))
    parts = [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ConstantLR(optimizer)]
    lr_scheduler.SequentialLR(optimizer, parts, [1])
    return optimizer.param_groups[0]["lr"] is not optimizer.param_groups[0]["initial_lr"]


def sgd(lr=1.0, groups=1, names=None, **options):
    """An SGD with one float64 weight a group."""
    several = [{"params": [torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))]} for _ in range(groups)]
    for group, name in zip(several, names or (), strict=False):
        group["name"] = name
    return torch.optim.SGD(several, lr=lr, **options)


def update(optimizer, rates=None):
    """One update with gradient 1 from weight 0: how far the first weight goes is the rate that was really used."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.data.zero_()
            weight.grad = torch.ones_like(weight)
    optimizer.step()
    if rates is not None:
        rates.append(-optimizer.param_groups[0]["params"][0].item())


def trainer_of(optimizer, rates=None):
    """One update an iteration; notes the rate of each in ``rates``."""
    return Engine(lambda engine, batch: update(optimizer, rates))


def close(got, wanted):
    return got == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def warnings_of(act):
    """What ``act`` returned, and the warnings it caused, whoever caused them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = act()
    return result, [one for one in caught if issubclass(one.category, UserWarning)]


def plateau_of(optimizer):
    return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)


def attach_one(what, optimizer, trainer):
    """Attach the scheduler's handler, the clipper or the logger; returns how many updates it has seen."""
    if what == "schedule":
        scheduler = ScheduleLR(optimizer, FACTOR)
        LRSchedulerHandler(scheduler).attach(trainer)
        return lambda: scheduler.last_epoch
    if what == "clipper":
        clipper = GradNormClipper(optimizer)
        clipper.attach(trainer)
        return lambda: clipper.report().updates
    logger = LRLogger(optimizer, history=10)
    logger.attach(trainer)
    return lambda: len(logger.history()["update"])
