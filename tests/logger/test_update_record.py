from __future__ import annotations

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from torch import nn

from ignite_lr.core.updates import Updates
from ignite_lr.logger._history import columns, restore, state_of
from ignite_lr.logger._record import Source, on_host
from ignite_lr.logger._track import Track


def made_source(lr: float | torch.Tensor = 0.1, history: int = 4, name: str = "SGD") -> tuple[Source, Track, Engine]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=lr, momentum=0.9)
    source = Source(name, optimizer, "", {"momentum": lambda group: group["momentum"]}, set(), history)
    trainer = Engine(lambda engine, batch: None)
    return source, Track(source, trainer, Updates.of(trainer, optimizer)), trainer


def update(track: Track, trainer: Engine, iteration: int) -> None:
    trainer.state.iteration = iteration
    track.before()
    track.counted()


def test_device_values_come_over_in_the_order_given() -> None:
    assert on_host([0.5, torch.tensor(2.0), None, 3, torch.tensor([4.0])]) == [0.5, 2.0, None, 3.0, 4.0]
    assert on_host([]) == []


def test_a_captured_tensor_is_not_written_over() -> None:
    lr = torch.tensor(0.5)
    source, track, trainer = made_source(lr)
    update(track, trainer, 1)
    lr.fill_(9.0)
    assert columns([source], "iteration")["lr/SGD"].item() == 0.5


def test_a_step_that_was_no_update_leaves_the_last_record() -> None:
    source, track, trainer = made_source()
    update(track, trainer, 1)
    source.optimizer.param_groups[0]["lr"] = 0.2
    trainer.state.iteration = 2
    track.before()
    assert track.last is not None
    assert (track.last.iteration, track.last.values) == (1, [0.1, 0.9])


def test_the_names_of_groups_once_used_are_kept() -> None:
    source, _, _ = made_source()
    assert source.paths(1) == ["SGD"]
    source.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "name": "head"})
    assert source.paths(2) == ["SGD", "SGD/head"]
    assert source.wanted_paths(2) == ["SGD/group_0", "SGD/head"]


@pytest.mark.parametrize("step", ["iteration", "update"])
def test_columns(step: str) -> None:
    source, track, trainer = made_source(history=2)
    for iteration in (3, 6, 9):
        update(track, trainer, iteration)
    table = columns([source], step)
    assert table["step"].tolist() == ([6, 9] if step == "iteration" else [2, 3])
    assert table["update"].tolist() == [2, 3]
    np.testing.assert_array_equal(table["momentum/SGD"], [0.9, 0.9])


def test_a_state_is_plain_numbers_and_restores_the_history() -> None:
    source, track, trainer = made_source(torch.tensor(0.5))
    for iteration in (1, 2):
        update(track, trainer, iteration)
    state = state_of([source])
    assert state["SGD"]["names"] == []
    assert state["SGD"]["updates"] == 2
    assert state["SGD"]["history"][0]["values"] == [0.5, pytest.approx(0.9)]
    other, _, _ = made_source()
    restore([other], state)
    assert state_of([other])["SGD"]["updates"] == 2
    for name, values in columns([source], "iteration").items():
        np.testing.assert_array_equal(columns([other], "iteration")[name], values)


@pytest.mark.parametrize("more", [True, False])
def test_a_history_restores_where_other_kinds_are_recorded(more: bool) -> None:
    one = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    kinds = {"momentum": lambda group: group["momentum"]}
    sources = [Source("SGD", one, "", kinds if with_it else {}, set(), 4) for with_it in (not more, more)]
    trainer = Engine(lambda engine, batch: None)
    update(Track(sources[0], trainer, Updates.of(trainer, one)), trainer, 1)
    restore(sources[1:], state_of(sources[:1]))
    table = columns(sources[1:], "iteration")
    assert set(table) == {"step", "update", "lr/SGD"}
    assert table["lr/SGD"].tolist() == [0.1]


def test_values_that_are_not_of_the_kinds_are_refused() -> None:
    source, track, trainer = made_source()
    update(track, trainer, 1)
    state = state_of([source])
    state["SGD"]["history"][0]["values"] = [0.1]
    with pytest.raises(ValueError, match=r"state_dict\['SGD'\] must be what LRLogger.state_dict\(\) gave"):
        restore([source], state)
    with pytest.raises(ValueError, match=r"updates, names, kinds and history"):
        restore([source], {"SGD": {**state["SGD"], "history": [], "updates": 2**63}})


def test_an_empty_name_is_none() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "name": name} for name in ("", "head")]
    source = Source("SGD", torch.optim.SGD(groups, lr=0.1), "", {}, set(), 0)
    assert source.paths(2) == ["SGD/group_0", "SGD/head"]
