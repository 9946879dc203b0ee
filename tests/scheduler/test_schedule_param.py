"""Schedules of weight decay and momentum."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Engine

from ignite_lr import LRSchedulerHandler, ScheduleLR, ScheduleParam, schedules



FACTOR = schedules.Exponential(gamma=0.9)  # factor of update i: 0.9 ** i


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


def decayed(optimizer, seen):
    """A trainer that notes the weight decay that each update used."""

    def step(engine, batch):
        weight = optimizer.param_groups[0]["params"][0]
        weight.data.fill_(1.0)
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        seen.append(1.0 - weight.item())

    return Engine(step)


def test_weight_decay_follows_a_schedule_beside_the_rate():
    """The weight decay is to rise from a tenth to its full value, beside a schedule for the rate; resumed half-way.

    The decay that each update really used is ``rate(i) * weight_decay * factor(i)``.
    """
    from ignite_lr import ScheduleParam

    def build():
        optimizer, seen = sgd(weight_decay=0.5), []
        trainer = decayed(optimizer, seen)
        parts = {
            "optimizer": optimizer,
            "rate": ScheduleLR(optimizer, FACTOR),
            "decay": ScheduleParam(optimizer, "weight_decay", schedules.Linear(total_steps=20, final_factor=0.1)),
        }
        for name in ("rate", "decay"):
            parts[f"{name}_handler"] = handler = LRSchedulerHandler(parts[name])
            handler.attach(trainer)
        return trainer, parts, seen

    trainer, parts, before = build()
    trainer.run([0] * 4)
    saved = copy.deepcopy({key: part.state_dict() for key, part in parts.items()})
    trainer, parts, after = build()
    for key, part in parts.items():
        part.load_state_dict(saved[key])
    trainer.run([0] * 4)
    assert close(before + after, [0.9**i * 0.5 * (1 - 0.9 * i / 20) for i in range(8)])


def test_momentum_is_scheduled_in_betas():
    """``ScheduleParam(adam, "momentum", ...)``: the momentum of Adam is the first of its betas.

    The first beta follows the schedule, the second is left alone.
    """
    from ignite_lr import ScheduleParam

    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.Adam([weight], lr=0.1, betas=(0.8, 0.99))
    used = []

    def step(engine, batch):
        weight.grad = torch.ones(1)
        used.append(tuple(optimizer.param_groups[0]["betas"]))
        optimizer.step()

    trainer = Engine(step)
    LRSchedulerHandler(ScheduleParam(optimizer, "momentum", FACTOR)).attach(trainer)
    trainer.run([0] * 3)
    assert [beta for beta, _ in used] == pytest.approx([0.8, 0.8 * 0.9, 0.8 * 0.81])
    assert [beta for _, beta in used] == [0.99] * 3
