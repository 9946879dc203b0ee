"""What a logger keeps of the updates: histories, names and states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from test_logger import ListLogger
from torch import nn

from ignite_lr import LRLogger


def trained(
    iterations: Sequence[int] = (1, 2), lr: Any = 0.1, history: int = 4, **options: Any
) -> tuple[LRLogger, torch.optim.Optimizer]:
    """A logger after updates in these iterations only."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr, momentum=0.9)
    trainer = Engine(lambda engine, batch: optimizer.step() if batch in iterations else None)
    logger = LRLogger(optimizer, history=history, **options)
    with logger.attach(trainer):
        trainer.run(range(1, max(iterations, default=1) + 1))
    return logger, optimizer


def test_a_captured_tensor_is_not_written_over() -> None:
    lr = torch.tensor(0.5)
    logger, _ = trained([1], lr)
    lr.fill_(9.0)
    assert logger.history()["lr/SGD"].item() == 0.5


def test_a_step_that_was_no_update_leaves_the_last_record() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def step(engine: Engine, batch: float) -> None:
        optimizer.param_groups[0]["lr"] = 0.1 * engine.state.iteration
        weight.grad = scaler.scale(torch.full((1,), batch))
        scaler.step(optimizer)
        scaler.update()

    trainer = Engine(step)
    output, logger = ListLogger(), LRLogger(optimizer, history=4)
    logger.attach(trainer, output)
    trainer.run([1.0, float("inf")])
    assert output.records == [(1, {"lr/SGD": 0.1})]
    assert logger.history()["lr/SGD"].tolist() == [0.1]


@pytest.mark.parametrize("step", ["iteration", "update"])
def test_columns(step: str) -> None:
    logger, _ = trained((3, 6, 9), history=2, step=step, momentum=True)
    table = logger.history()
    assert table["step"].tolist() == ([6, 9] if step == "iteration" else [2, 3])
    assert table["update"].tolist() == [2, 3]
    np.testing.assert_array_equal(table["momentum/SGD"], [0.9, 0.9])


def test_a_state_is_plain_numbers_and_restores_the_history() -> None:
    logger, _ = trained(lr=torch.tensor(0.5), momentum=True)
    state = logger.state_dict()
    assert state["SGD"]["names"] == []
    assert state["SGD"]["updates"] == 2
    assert state["SGD"]["history"] == [[0, 1, 1, [0.5, 0.9], []], [1, 2, 2, [0.5, 0.9], []]]
    other = LRLogger(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9), history=4, momentum=True)
    other.load_state_dict(state)
    assert other.state_dict() == state
    for name, values in logger.history().items():
        np.testing.assert_array_equal(other.history()[name], values)


@pytest.mark.parametrize("more", [True, False])
def test_a_history_restores_where_other_kinds_are_recorded(more: bool) -> None:
    state = trained([1], momentum=not more)[0].state_dict()
    fresh, _ = trained([], momentum=more)
    fresh.load_state_dict(state)
    table = fresh.history()
    assert set(table) == {"step", "update", "lr/SGD"}
    assert table["lr/SGD"].tolist() == [0.1]


def test_values_that_are_not_of_the_kinds_are_refused() -> None:
    logger, _ = trained(momentum=True)
    state = logger.state_dict()
    state["SGD"]["history"][0][3] = [0.1]
    with pytest.raises(ValueError, match=r"state_dict\['SGD'\] must be what LRLogger.state_dict\(\) gave"):
        logger.load_state_dict(state)
    with pytest.raises(ValueError, match=r"updates, names, kinds and history"):
        logger.load_state_dict({"SGD": {**state["SGD"], "history": [], "updates": 2**63}})


def test_a_state_of_0_1_0_is_read() -> None:
    rows = [
        {"order": 7 + i, "update": 1 + i, "iteration": 3 + i, "values": [0.5**i], "clip": {"grad_norm": float(i)}}
        for i in range(3)
    ]
    logger, _ = trained([])
    logger.load_state_dict({"SGD": {"updates": 3, "names": ["SGD"], "kinds": ["lr"], "history": rows}})
    history = logger.history()
    assert history["step"].tolist() == [3, 4, 5]
    assert history["lr/SGD"].tolist() == [1.0, 0.5, 0.25]
    assert history["clip/grad_norm"].tolist() == [0.0, 1.0, 2.0]
    for wrong in ({"clip": 3}, {"order": -1}, {"values": None}):
        with pytest.raises(ValueError, match=r"state_dict\['SGD'\] must be what LRLogger"):
            logger.load_state_dict(
                {"SGD": {"updates": 3, "names": [], "kinds": ["lr"], "history": [{**rows[0], **wrong}]}}
            )


def test_the_state_does_not_depend_on_what_else_was_logged() -> None:
    assert trained()[0].state_dict() == trained()[0].state_dict()


def test_an_empty_name_is_none() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "name": name} for name in ("", "head")]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    trainer = Engine(lambda engine, batch: optimizer.step())
    logger = LRLogger(optimizer, history=1)
    logger.attach(trainer)
    trainer.run([0])
    assert list(logger.history())[2:] == ["lr/SGD/group_0", "lr/SGD/head"]
