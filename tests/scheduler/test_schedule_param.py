"""Schedules of weight decay and momentum."""

from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Engine
from worked_out import FACTOR, close, sgd

from ignite_lr import LRSchedulerHandler, ScheduleLR, ScheduleParam, schedules


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
