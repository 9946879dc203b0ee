"""Trials after a sweep, in real trainings."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr import LRFinder, NoSuggestionError, RangeTestResult, VerifiedRate, find_lr

pytestmark = pytest.mark.filterwarnings("ignore:Run completed without loss diverging")


class Training:
    def __init__(self, seed: int = 0, groups: int = 1) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))
        parts = [self.model[0], self.model[3]] if groups == 2 else [self.model]
        self.optimizer = torch.optim.SGD(
            [{"params": list(part.parameters()), "lr": 0.1 / (i + 1)} for i, part in enumerate(parts)], momentum=0.9
        )
        self.trainer = create_supervised_trainer(self.model, self.optimizer, mse_loss)
        x = torch.randn(64, 4)
        self.data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 8, shuffle=True)
        self.to_save = {"model": self.model, "optimizer": self.optimizer}

    def state(self) -> list[Any]:
        tensors = [*self.model.state_dict().values(), torch.get_rng_state()]
        return [tensor.clone() for tensor in tensors]

    def find(self, **options: Any) -> RangeTestResult:
        return find_lr(self.trainer, self.data, self.to_save, **{"num_iter": 100, "verify": 20, **options})


def test_trials_are_plain_trainings_from_the_start() -> None:
    result = Training().find()
    assert len(result.verified) >= 2
    assert result.suggestion() == max(trial.lr for trial in result.verified if trial.learns)
    for trial in result.verified:
        training = Training()
        batches = itertools.chain.from_iterable(iter(training.data) for _ in itertools.count())
        losses = []
        for _ in range(20):
            training.optimizer.param_groups[0]["lr"] = trial.lr
            x, y = next(batches)
            training.optimizer.zero_grad()
            loss = mse_loss(training.model(x), y)
            loss.backward()
            training.optimizer.step()
            losses += [loss.item()]
        assert trial.losses == tuple(losses)


def test_rates_go_down_from_the_default_rules_suggestion_in_halves() -> None:
    result = Training().find()
    first = result.suggestion("descent")
    assert [trial.lr for trial in result.verified] == [first / 2**k for k in range(len(result.verified))]
    assert result.control == ()


def test_nothing_of_it_remains() -> None:
    ends = []
    for verify in (None, 20):
        training = Training()
        before = training.state()
        if verify is not None:
            assert training.find(verify=verify).verified
            assert all(torch.equal(a, b) for a, b in zip(before, training.state(), strict=True))
        training.trainer.run(training.data, max_epochs=2)
        ends.append(training.state())
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_the_sweep_is_that_of_a_finder_without_trials() -> None:
    finder, training = LRFinder(), Training()
    with finder.attach(training.trainer, training.to_save, num_iter=100, start_lr=1e-7) as engine:
        engine.run(training.data)
    result = Training().find()
    assert finder.result.verified == ()
    assert (result.lrs, result.losses, result.iterations) == (
        finder.result.lrs,
        finder.result.losses,
        finder.result.iterations,
    )


def test_several_groups_keep_the_rates_they_had_at_that_point() -> None:
    result = Training(groups=2).find(ratios="keep")
    assert isinstance(result.suggestion(), list)
    for trial in result.verified:
        assert trial.lr[1] == pytest.approx(trial.lr[0] / 2)


def test_repeats_are_followed_by_trials_over_the_first_batches() -> None:
    result = Training().find(repeats=2)
    training = Training()
    training.optimizer.param_groups[0]["lr"] = result.verified[0].lr
    training.trainer.run(training.data, epoch_length=1, max_epochs=1)
    assert result.verified[0].losses[0] == training.trainer.state.output


def test_the_validation_loss_is_judged_where_one_is_given() -> None:
    training = Training()
    losses = itertools.count(1000, -1)
    result = training.find(validation=lambda: next(losses) / 1000, verify=5)
    assert [len(trial.losses) for trial in result.verified][:1] == [5]
    assert all(loss == round(loss, 3) for trial in result.verified for loss in trial.losses)


@pytest.mark.parametrize("end", ["terminate", "exception", "ctrl-c"])
def test_what_ends_a_verification_early_leaves_the_sweeps_result(end: str) -> None:
    finder, training = LRFinder(), Training()
    before = training.state()
    trials = 0

    def act(engine: Engine) -> None:
        nonlocal trials
        if len(finder._result.losses if finder._result else ()) and engine.state.iteration == 10:
            trials += 1
            if trials == 2:
                if end == "terminate":
                    engine.terminate()
                else:
                    raise KeyboardInterrupt("stop") if end == "ctrl-c" else ValueError("stop")

    def run() -> None:
        with finder.attach(training.trainer, training.to_save, num_iter=100, start_lr=1e-7, verify=20) as engine:
            engine.add_event_handler(Events.ITERATION_COMPLETED, act)
            engine.run(training.data)

    if end == "terminate":
        run()
    else:
        with pytest.raises((KeyboardInterrupt, ValueError), match="stop"):
            run()
    assert trials == 2
    assert finder.result.verified == ()
    assert finder.result.losses == Training().find(verify=0).losses
    assert finder.result.suggestion() == finder.result.suggestion("descent")
    assert all(torch.equal(a, b) for a, b in zip(before, training.state(), strict=True))


def test_a_sweep_that_was_stopped_is_not_verified() -> None:
    finder, training = LRFinder(), Training()
    with finder.attach(training.trainer, training.to_save, num_iter=100, start_lr=1e-7, verify=20) as engine:
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=50), lambda: engine.terminate())
        engine.run(training.data)
    assert finder.result.stop_reason == "terminated"
    assert finder.result.verified == ()


def test_the_progress_bar_counts_the_updates_of_the_trials(capsys: pytest.CaptureFixture[str]) -> None:
    result = Training().find(progress_bar=True)
    shown = capsys.readouterr().err
    updates = len(result.losses) + sum(len(trial.losses) for trial in result.verified)
    assert f"{updates}/{updates}" in shown
    assert "trial, lr=" in shown


def test_where_the_rule_abstains_they_come_from_the_edge() -> None:
    """The loss is flat over the whole sweep, because one update is far too little; it falls after a hundred."""
    training = Training()
    noise = torch.Generator().manual_seed(0)
    count = itertools.count(1)

    def step(engine: Engine, batch: Any) -> float:
        training.optimizer.step()
        rate = training.optimizer.param_groups[0]["lr"]
        learns = engine.state.iteration > 60 and rate == training.optimizer.param_groups[0].setdefault("last", rate)
        training.optimizer.param_groups[0]["last"] = rate
        next(count)
        return 2.0 - 1.0 * (learns and 0.05 < rate < 5) + 0.05 * float(torch.randn((), generator=noise))

    training.trainer._process_function = step
    result = training.find(verify=25)
    assert [len(trial.losses) for trial in result.verified] == [100] * len(result.verified)
    assert result.verified[0] == VerifiedRate(result.stop_lr, result.verified[0].losses, learns=False)
    assert 0.05 < result.suggestion() < 5


class Noisy(Training):
    """What batches are worth differs by ten times what there is to learn."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        x, worth = torch.randn(256, 4), 20.0 * torch.rand(256, 1)
        self.data = DataLoader(TensorDataset(x, torch.cat([x.sum(1, keepdim=True), worth], 1)), 8, shuffle=True)
        self.trainer = create_supervised_trainer(self.model, self.optimizer, self.loss)

    @staticmethod
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return mse_loss(output, target[:, :1]) + target[:, 1].mean()


def test_what_the_batches_hide_is_seen_beside_a_control() -> None:
    training = Noisy()
    before, seen = training.state(), []
    step = training.trainer._process_function
    training.trainer._process_function = lambda engine, batch: (seen.append(1), step(engine, batch))[1]
    result = training.find(verify=25)
    with pytest.raises(NoSuggestionError, match="standard errors, where batches differ by"):
        result.suggestion("descent")
    assert len(result.verified) == 12
    assert 0.005 < result.suggestion() < 0.5  # plain training without that noise diverges at 0.5 and does well below
    assert len(result.control) == 100
    # one more trial is made, and it is no rate that was tried
    assert len(seen) == len(result.losses) + sum(len(trial.losses) for trial in result.verified) + 100
    assert all(torch.equal(a, b) for a, b in zip(before, training.state(), strict=True))


def test_a_sweep_from_a_rate_that_learns_has_a_control_all_the_same() -> None:
    result = Noisy().find(verify=25, start_lr=0.01, num_iter=60)
    with pytest.raises(NoSuggestionError, match="standard errors, where batches differ by"):
        result.suggestion("descent")
    assert len(result.verified) < 12  # the first rate swept is the least that is tried
    assert 0.01 <= result.suggestion() < 0.5


def test_groups_swept_from_zero_are_tried_below_the_second_point() -> None:
    training = Training(groups=2)
    training.trainer._process_function = lambda engine, batch: (training.optimizer.step(), 2.0)[1]
    result = training.find(step_mode="linear", start_lr=0.0, end_lr=[1.0, 0.5], num_iter=20)
    assert result.lrs[1][0] > result.verified[-1].lr[0] > 0
    for trial in result.verified:
        assert trial.lr[1] == pytest.approx(trial.lr[0] / 2)


def test_a_control_does_not_make_something_of_nothing() -> None:
    training = Noisy()
    training.trainer._process_function = lambda engine, batch: (training.optimizer.step(), batch[1][:, 1].mean())[1]
    result = training.find(verify=25)
    assert len(result.verified) == 12
    with pytest.raises(NoSuggestionError, match="none of the 12 rates that were tried learns"):
        result.suggestion()


def test_a_control_that_is_stopped_leaves_the_sweeps_result() -> None:
    finder, training = LRFinder(), Noisy()
    whole = Noisy().find(verify=25)
    until = whole.iterations + sum(len(trial.losses) for trial in whole.verified) + 10
    with finder.attach(training.trainer, training.to_save, num_iter=100, start_lr=1e-7, verify=25) as engine:
        seen: list[int] = []

        def count() -> None:
            seen.append(1)
            if len(seen) == until:
                engine.terminate()

        engine.add_event_handler(Events.ITERATION_COMPLETED, count)
        engine.run(training.data)
    assert len(seen) == until
    assert finder.result.verified == ()
    assert finder.result.losses == whole.losses


def test_no_trial_learns_where_there_is_nothing_to_learn() -> None:
    training = Training()
    noise = torch.Generator().manual_seed(0)
    training.trainer._process_function = lambda engine, batch: (
        training.optimizer.step(),
        2.0 + 0.1 * float(torch.randn((), generator=noise)),
    )[1]
    result = training.find()
    assert [len(trial.losses) for trial in result.verified] == [80] * 12
    with pytest.raises(RuntimeError, match="none of the 12 rates that were tried learns"):
        result.suggestion()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (-1, ValueError, "verify should be"),
        (2.5, TypeError, "verify should be an integer"),
        (True, TypeError, "verify should be an integer"),
        (10**30, ValueError, "verify should be at most"),
    ],
)
def test_verify_is_a_count(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Training().find(verify=wrong)


@pytest.mark.parametrize("name", ["num_iter", "repeats"])
def test_counts_beyond_all_memory_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} should be at most 10,000,000, but give 1000"):
        Training().find(**{name: 10**30})


def test_an_iterator_cannot_be_read_again() -> None:
    training = Training()
    with pytest.raises(ValueError, match="verify needs data that can be read again, got a one-shot iterator"):
        find_lr(training.trainer, iter(training.data), training.to_save, num_iter=5)


def test_options_are_those_of_attach() -> None:
    assert Training().find(step_mode="linear", verify=0).step_mode == "linear"
    with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
        Training().find(speed=3)
