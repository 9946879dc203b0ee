"""Batches without a loss: those that the training step skips, and losses that are not finite."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from torch import nn

from ignite_lr import LRFinder, Trial, find_lr, run_study

NAN = float("nan")


@pytest.fixture(autouse=True)
def without_divergence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Run completed without loss diverging")
        yield


class Training:
    """A regression, some of whose batches are bad; ``rates`` are those of the updates with good ones."""

    def __init__(self, bad: Callable[[int], bool], *, says: Any = None, steps: bool = False, every: int = 1) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.to_save = {"model": self.model, "optimizer": self.optimizer}
        self.bad, self.says, self.steps, self.every = bad, says, steps, every
        self.rates: list[float] = []
        self.data = list(torch.randn(40, 8, 3))
        self.trainer = Engine(
            lambda engine, batch: self.step(engine, batch)
        )  # a closure: its ``rates`` are not restored

    def step(self, engine: Engine, batch: torch.Tensor) -> Any:
        bad = self.bad(engine.state.iteration)
        loss = (self.model(batch) - batch.sum(1, keepdim=True)).square().mean()
        if not bad:
            loss.backward()
        if (not bad or self.steps) and engine.state.iteration % self.every == 0:
            self.rates += [] if bad else [self.optimizer.param_groups[0]["lr"]]
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self.says if bad else loss.item()

    def sweep(self, **options: Any) -> LRFinder:
        finder = LRFinder()
        settings = {"num_iter": 30, "start_lr": 1e-5, "end_lr": 1e-2, **options}
        with finder.attach(self.trainer, self.to_save, **settings) as sweep:
            sweep.run(self.data)
        return finder


def every_third(iteration: int) -> bool:
    return iteration % 3 == 1


@pytest.mark.parametrize("steps", [False, True], ids=["without a step", "with a step"])
def test_a_batch_without_a_loss_is_no_point_and_no_stop(steps: bool) -> None:
    training = Training(every_third, steps=steps)
    result = training.sweep().result
    assert result.stop_reason == "num_iter"
    assert result.lrs == tuple(training.rates)
    assert result.lrs == pytest.approx(np.geomspace(1e-5, 1e-2, 30))
    assert len(result.losses) == 30
    assert result.iterations == 45


@pytest.mark.parametrize(
    ("wrap", "transform"),
    [
        pytest.param(lambda loss: {"loss": loss}, lambda output: output["loss"], id="dict"),
        pytest.param(lambda loss: (loss, "more"), lambda output: output[0], id="tuple"),
        pytest.param(lambda loss: _Output(loss), lambda output: output.loss, id="object"),
    ],
)
@pytest.mark.parametrize("bare", [False, True], ids=["None inside", "None alone"])
def test_none_through_an_output_transform(wrap: Any, transform: Any, bare: bool) -> None:
    training = Training(every_third)
    plain = training.trainer._process_function

    def step(engine: Engine, batch: Any) -> Any:
        loss = plain(engine, batch)
        return None if loss is None and bare else wrap(loss)

    training.trainer = Engine(step)
    assert training.sweep(output_transform=transform).result.lrs == tuple(training.rates)


class _Output:
    def __init__(self, loss: float | None) -> None:
        self.loss = loss


def test_a_transform_that_fails_on_an_output_is_an_error_still() -> None:
    training = Training(lambda iteration: False)
    with pytest.raises(TypeError, match="not subscriptable"):
        training.sweep(output_transform=lambda output: output["loss"])


def test_a_transform_may_find_the_loss_elsewhere() -> None:
    training = Training(lambda iteration: False)
    plain, last = training.trainer._process_function, []
    training.trainer = Engine(lambda engine, batch: last.append(plain(engine, batch)))
    assert len(training.sweep(output_transform=lambda output: last[-1]).result.losses) == 30


def test_micro_batches_without_a_loss_are_left_out_of_the_mean() -> None:
    losses = [1.0, None, 3.0, None, None, 6.0, 5.0, 6.0, None, None, None, None, 2.0, 4.0, None]
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)

    def step(engine: Engine, batch: Any) -> float | None:
        parameter.grad = torch.zeros(1)
        if engine.state.iteration % 3 == 0:
            optimizer.step()
        return losses[engine.state.iteration - 1]

    finder = LRFinder()
    with finder.attach(Engine(step), {"optimizer": optimizer}, num_iter=4, start_lr=1e-3, end_lr=1.0) as sweep:
        sweep.run(range(20))
    assert finder.result.losses == (2.0, 6.0, 5.5, 3.0)  # three in a row without any are no point
    assert finder.result.iterations == 15


def test_no_loss_at_all_is_an_error_that_says_what_a_loss_is() -> None:
    training = Training(lambda iteration: True, steps=True)
    with pytest.raises(TypeError, match=r"but got output of type NoneType.*output_transform"):
        training.sweep()


def test_a_step_that_skips_every_batch_is_an_error_that_says_so() -> None:
    training = Training(lambda iteration: True)
    with pytest.raises(RuntimeError, match=r"200 iterations without an update .* skips every one"):
        training.sweep()


@pytest.mark.parametrize("bad", [NAN, float("inf"), torch.tensor(NAN)], ids=str)
@pytest.mark.parametrize("steps", [False, True], ids=["without a step", "with a step"])
def test_so_many_losses_that_are_not_finite_pass(bad: Any, steps: bool) -> None:
    training = Training(lambda iteration: iteration in (3, 11), says=bad, steps=steps)
    result = training.sweep(skip_nonfinite=2).result
    assert result.stop_reason == "num_iter"
    assert result.lrs == tuple(training.rates)
    assert np.isfinite(result.losses).all()
    stopped = Training(lambda iteration: iteration in (3, 11), says=bad, steps=steps).sweep(skip_nonfinite=1).result
    assert stopped.stop_reason == "non_finite"
    assert stopped.iterations == 11
    at_once = Training(lambda iteration: iteration in (3, 11), says=bad, steps=steps).sweep().result
    assert at_once.stop_reason == "non_finite"
    assert at_once.iterations == 3


def test_a_network_that_is_gone_uses_them_up() -> None:
    training = Training(lambda iteration: iteration > 12, says=NAN, steps=True)
    result = training.sweep(skip_nonfinite=20).result
    assert result.stop_reason == "non_finite"
    assert result.iterations == 33
    assert result.losses[:12] == Training(lambda iteration: False).sweep().result.losses[:12]
    assert len(result.losses) == 13


def test_each_sweep_and_each_trial_may_skip_as_many() -> None:
    training = Training(lambda iteration: iteration in (2, 5), says=NAN)
    training.model.weight.data.zero_()
    result = find_lr(
        training.trainer, training.data, training.to_save, num_iter=60, start_lr=1e-4, verify=20, skip_nonfinite=2
    )
    assert result.verified
    assert all(len(trial.losses) == 20 and np.isfinite(trial.losses).all() for trial in result.verified)
    assert result.suggestion() in [trial.lr for trial in result.verified]


@pytest.mark.parametrize("fused", [False, True])
def test_losses_that_overflow_under_a_scaler_pass(fused: bool) -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    rates: list[float] = []

    def step(engine: Engine, batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        bad = engine.state.iteration % 4 == 2
        loss = parameter.sum() * (NAN if bad else 1.0)
        scaler.scale(loss).backward()
        rates.extend([] if bad else [optimizer.param_groups[0]["lr"]])
        scaler.step(optimizer)
        scaler.update()
        return loss

    finder = LRFinder()
    to_save = {"optimizer": optimizer, "scaler": scaler}
    with finder.attach(Engine(step), to_save, num_iter=12, start_lr=1e-5, end_lr=1e-3, skip_nonfinite=4) as sweep:
        sweep.run(range(20))
    assert finder.result.stop_reason == "num_iter"
    assert finder.result.lrs == tuple(rates)
    assert finder.result.iterations == 16
    assert scaler.get_scale() == 4.0


def test_studies_skip_batches_too() -> None:
    training = Training(every_third)
    result = run_study(training.trainer, training.data, training.to_save, [Trial(1e-3), Trial(1e-2)], num_updates=20)
    assert [len(trial.losses) for trial in result.trials] == [20, 20]
    assert training.rates == [1e-3] * 20 + [1e-2] * 20


def test_validation_stands_in_for_a_loss_that_nobody_returns() -> None:
    training = Training(every_third, steps=True)
    values = iter([5.0, NAN, 4.0, 3.0, 2.0, 1.0])
    finder = training.sweep(num_iter=5, validation=lambda: next(values), skip_nonfinite=1)
    assert finder.result.losses == (5.0, 4.0, 3.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (-1, ValueError, "skip_nonfinite must be at least 0, got -1"),
        (1.0, TypeError, "skip_nonfinite must be an integer, got 1.0"),
        (True, TypeError, "skip_nonfinite must be an integer, got True"),
    ],
)
def test_skip_nonfinite_is_a_count(wrong: Any, error: type[Exception], message: str) -> None:
    training = Training(every_third)
    with pytest.raises(error, match=message):
        LRFinder().attach(training.trainer, training.to_save, skip_nonfinite=wrong)


class TestWithoutAStart:
    """The sweep begins at the present rate, and where that is too high the result says where it comes from."""

    @staticmethod
    def training(lr: float) -> Training:
        training = Training(lambda iteration: False)
        training.optimizer.param_groups[0]["lr"] = lr
        training.model.weight.data.zero_()
        training.model.bias.data.fill_(3.0)
        return training

    def test_a_curve_that_is_cut_off_says_so(self, tmp_path: Any) -> None:
        result = self.training(0.2).sweep(num_iter=100, start_lr=None, end_lr=10.0).result
        assert result.present_start
        assert "lower start_lr" in result.reason
        assert "without a start_lr the sweep began at the optimizer's present rate, 0.2" in result.reason
        assert result.load(result.save(tmp_path / "result.json")) == result

    def test_a_rate_that_somebody_chose_is_not_explained(self) -> None:
        result = self.training(0.2).sweep(num_iter=100, start_lr=0.2, end_lr=10.0).result
        assert "lower start_lr" in result.reason
        assert "present rate" not in result.reason

    def test_nor_one_that_is_low_enough(self) -> None:
        result = self.training(1e-6).sweep(num_iter=200, start_lr=None, end_lr=10.0).result
        assert result.suggestion() > 1e-3
        assert "start_lr" not in result.reason
