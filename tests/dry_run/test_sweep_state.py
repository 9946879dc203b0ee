from __future__ import annotations

import threading
from typing import Any

import torch
from ignite.engine import Engine, State
from torch import nn

from ignite_lr.dry_run import private_state, stateful_values, user_values


class Statistics:
    """What users put on a state: values of their own, and references to what trains."""

    def __init__(self, model: Any) -> None:
        self.values = [1]
        self.weight = model.weight


def test_values_are_copied_and_what_trains_is_shared() -> None:
    engine = Engine(lambda engine, batch: None)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    lock = threading.Lock()
    state = engine.state
    state.iteration, state.max_epochs, state.batch = 7, 3, torch.ones(2)
    state.metrics["accuracy"] = 0.5
    state.numbers, state.model, state.lock = [1, {"a": 2}], model, lock
    state.statistics, state.tensor = Statistics(model), torch.ones(1)
    state.nested = {"model": model, "values": [1]}
    copied = private_state(engine, state, optimizer)
    assert type(copied) is State
    assert (copied.iteration, copied.max_epochs, copied.batch) == (0, None, None)
    assert copied.metrics == {"accuracy": 0.5}
    assert copied.metrics is not state.metrics
    assert copied.numbers == state.numbers
    assert copied.numbers[1] is not state.numbers[1]
    assert copied.model is copied.nested["model"] is model
    assert copied.nested["values"] is not state.nested["values"]
    assert copied.lock is lock
    assert copied.statistics is not state.statistics
    assert copied.statistics.weight is model.weight
    assert copied.tensor is not state.tensor
    assert "batch" not in user_values(engine, state, None)


def test_the_users_own_kind_of_state_stays_one() -> None:
    class Mine(State):
        @property
        def double(self) -> int:
            return 2 * self.iteration

    engine = Engine(lambda engine, batch: None)
    engine.state = Mine(answer=42)
    copied = private_state(engine, engine.state, None)
    copied.iteration = 3
    assert (copied.double, copied.answer) == (6, 42)


def test_objects_with_a_state_are_found_and_shared_inside_containers() -> None:
    engine = Engine(lambda engine, batch: None)
    model, generator = nn.Linear(1, 1), torch.Generator()
    state = engine.state
    state.models, state.sources, state.batch = [model], {"a": ({"b": generator},)}, model
    state.itself = [1]
    state.itself.append(state.itself)
    assert dict(stateful_values(state)) == {"models.0": model, "sources.a.0.b": generator}
    copied = private_state(engine, state, None)
    assert copied.models is not state.models
    assert copied.models[0] is model
