from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator
from ignite.metrics import Loss, MeanSquaredError, MetricsLambda
from torch import nn

from ignite_lr.dry_run import Snapshot, validator

DATA = [(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(3)]


def test_a_function_is_called_with_the_modes_kept() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.Dropout())
    model[1].eval()

    def evaluate() -> torch.Tensor:
        model.train()
        return torch.tensor(2.5)

    assert validator(evaluate, Snapshot({"model": model}))() == 2.5
    assert [module.training for module in model] == [True, False]


def test_an_evaluator_runs_with_its_metrics_alone() -> None:
    model = nn.Linear(2, 1)
    model.train()
    error = MeanSquaredError()
    root = MetricsLambda(lambda value: value**0.5, error)
    evaluator = create_supervised_evaluator(model, {"loss": Loss(nn.MSELoss()), "mse": error, "rmse": root})
    fired: list[Any] = []
    for event in (Events.STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED, Events.COMPLETED):
        evaluator.add_event_handler(event, lambda event=event: fired.append(event))
    state = evaluator.state
    snapshot = Snapshot({"model": model})
    measured = {name: validator((evaluator, DATA, name), snapshot)() for name in ("loss", "mse", "rmse")}
    assert fired == []
    assert evaluator.state is state
    assert state.metrics == {}
    assert evaluator.last_event_name is None
    assert model.training
    assert evaluator.run(DATA).metrics == pytest.approx(measured)


def test_a_validation_that_fails_puts_the_evaluator_back() -> None:
    model = nn.Linear(2, 1)

    def boom(engine: Engine, batch: Any) -> Any:
        model.eval()
        raise ValueError("boom")

    evaluator = Engine(boom)
    Loss(nn.MSELoss()).attach(evaluator, "loss")
    state = evaluator.state
    with pytest.raises(ValueError, match="boom"):
        validator((evaluator, DATA, "loss"), Snapshot({"model": model}))()
    assert evaluator.state is state
    assert model.training
