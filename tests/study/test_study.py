"""Studies of real trainings: every trial as a plain loop would have it, and nothing left behind."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator
from ignite.metrics import Loss
from small_trainings import fingerprint, make, plain_loop
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr import (
    GradNormClipper,
    LRLogger,
    LRSchedulerHandler,
    LRStudy,
    ScheduleLR,
    StudyResult,
    Trial,
    run_study,
    schedules,
    trials,
)

SEVERAL = (Trial(0.02), Trial(0.1, schedules.Cosine(12, warmup_steps=3)), Trial(0.05, lambda step: 1 / (1 + step)))


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_trial_is_a_plain_loop_at_its_rates(accumulation: int, shuffle: bool) -> None:
    training = make(accumulation=accumulation, shuffle=shuffle)
    result = run_study(training.trainer, training.loader, training.to_save, SEVERAL, num_updates=12)
    for found in result.trials:
        losses = plain_loop(make(shuffle=shuffle), found.trial.rates(12), accumulation)
        if accumulation == 1:
            assert list(found.losses) == losses
        else:
            assert found.losses == pytest.approx(losses, rel=1e-6)


def test_training_afterwards_is_bitwise_the_same() -> None:
    with_study, without = make(), make()
    for training in (with_study, without):
        torch.manual_seed(1)
        training.trainer.run(training.loader, max_epochs=1)
    run_study(with_study.trainer, with_study.loader, with_study.to_save, SEVERAL, num_updates=12, repeats=2)
    assert fingerprint(with_study) == fingerprint(without)
    for training in (with_study, without):
        torch.manual_seed(2)
        training.trainer.run(training.loader, max_epochs=2)
    assert fingerprint(with_study) == fingerprint(without)


def test_each_trial_sees_the_same_state() -> None:
    training = make()
    seen: list[tuple[int, int, int]] = []
    step = training.trainer._process_function

    def watched(engine: Engine, batch: Any) -> Any:
        seen.append((engine.state.iteration, engine.state.epoch, int(torch.randint(10**6, ()))))
        return step(engine, batch)

    trainer = Engine(watched)
    run_study(trainer, training.loader, training.to_save, [Trial(0.1)] * 3, num_updates=20)
    assert len(seen) == 60
    assert seen[:20] == seen[20:40] == seen[40:]
    assert [one[:2] for one in seen[:20]] == [(i, 1 + (i - 1) // 8) for i in range(1, 21)]


def test_no_handler_of_the_user_fires_and_the_packages_own_are_suspended() -> None:
    training = make()
    trainer, optimizer = training.trainer, training.optimizer
    fired: list[int] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: fired.append(engine.state.iteration))
    scheduler = ScheduleLR(optimizer, schedules.Linear(100))
    clipper, logger = GradNormClipper(optimizer), LRLogger(optimizer, history=100)
    LRSchedulerHandler(scheduler).attach(trainer)
    clipper.attach(trainer)
    logger.attach(trainer)
    run_study(trainer, training.loader, training.to_save, [Trial(0.02), Trial(0.04)], num_updates=10)
    assert fired == []
    assert (scheduler.last_epoch, clipper.report().updates, len(logger.history()["step"])) == (0, 0, 0)


def test_groups_keep_the_ratios_of_their_base_rates() -> None:
    training = make(optimizer=lambda model: torch.optim.SGD([
        {"params": model[0].parameters(), "lr": 0.01}, {"params": list(model.parameters())[2:], "lr": 0.04},
    ]))  # fmt: skip
    # a warmup from 0 has already been there
    ScheduleLR(training.optimizer, schedules.Constant(warmup_steps=10))
    assert [group["lr"] for group in training.optimizer.param_groups] == [0.0, 0.0]
    seen: list[list[float]] = []
    training.optimizer.register_step_pre_hook(lambda opt, *_: seen.append([g["lr"] for g in opt.param_groups]))
    trial = Trial(0.8, lambda step: 1.0 if step < 2 else 0.5)
    result = run_study(training.trainer, training.loader, training.to_save, [trial], num_updates=3)
    assert seen == [[0.2, 0.8], [0.2, 0.8], [0.1, 0.4]]
    assert result.settings.ratios == (0.25, 1.0)


def test_groups_at_rate_zero() -> None:
    training = make(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0))
    with pytest.raises(ValueError, match="a parameter group with a positive base rate"):
        LRStudy().attach(training.trainer, training.to_save, [Trial(0.1)], 10)


def test_apply_writes_the_best_rate_to_each_group_and_refuses_inside_the_block() -> None:
    training = make()
    study = LRStudy()
    with study.attach(training.trainer, training.to_save, [Trial(0.02), Trial(50.0)], 30) as engine:
        engine.run(training.loader)
        with pytest.raises(RuntimeError, match="apply\\(\\) is for after the block"):
            study.result.apply(training.optimizer)
    assert training.optimizer.param_groups[0]["lr"] == 0.1
    assert study.result.apply(training.optimizer) == 0.02
    assert training.optimizer.param_groups[0]["lr"] == 0.02


def test_outcomes() -> None:
    training = make()
    listed = [Trial(0.02), Trial(1e30), Trial(100.0)]
    result = run_study(training.trainer, training.loader, training.to_save, listed, num_updates=40)
    assert [one.outcome for one in result.trials] == ["completed", "non_finite", "diverged"]
    assert [one.feasible for one in result.trials] == [True, False, False]
    assert result.trials[1].rise == math.inf
    assert len(result.trials[2].losses) < 40
    assert math.isnan(result.trials[2].objective)


def test_five_times_a_loss_near_zero_is_an_ordinary_batch() -> None:
    losses = iter([1.0, 1e-6, *[1e-5] * 8])
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)

    def step(engine: Engine, batch: Any) -> float:
        parameter.grad = torch.zeros(1)
        optimizer.step()
        return next(losses)

    result = run_study(Engine(step), [0] * 10, {"optimizer": optimizer}, [Trial(0.1)], 10, smooth_f=0.9)
    assert result.trials[0].outcome == "completed"


def test_terminate_leaves_the_trial_under_way_as_the_last_entry() -> None:
    training, untouched = make(), make()
    calls = itertools.count(1)
    step = training.trainer._process_function

    def stopping(engine: Engine, batch: Any) -> Any:
        if next(calls) == 15:
            engine.terminate()
        return step(engine, batch)

    study = LRStudy()
    with study.attach(Engine(stopping), training.to_save, [Trial(0.02), Trial(0.03), Trial(0.04)], 10) as engine:
        engine.run(training.loader)
    assert [one.outcome for one in study.result.trials] == ["completed", "terminated"]
    assert [one.updates for one in study.result.trials] == [10, 5]
    assert fingerprint(training) == fingerprint(untouched)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_after_an_exception_only_finished_trials_are_there(error: type[BaseException]) -> None:
    training, untouched = make(), make()
    calls = itertools.count(1)
    step = training.trainer._process_function

    def failing(engine: Engine, batch: Any) -> Any:
        if next(calls) == 15:
            raise error("now")
        return step(engine, batch)

    study = LRStudy()
    with (
        pytest.raises(error, match="now"),
        study.attach(Engine(failing), training.to_save, [Trial(0.02), Trial(0.03)], 10) as engine,
    ):
        engine.run(training.loader)
    assert [one.trial.lr for one in study.result.trials] == [0.02]
    assert fingerprint(training) == fingerprint(untouched)


def test_inside_a_handler_of_the_running_trainer() -> None:
    with_study, without = make(), make()
    found: list[StudyResult] = []

    @with_study.trainer.on(Events.ITERATION_COMPLETED(once=5))
    def _(engine: Engine) -> None:
        found.append(run_study(engine, with_study.loader, with_study.to_save, SEVERAL, num_updates=6))

    for training in (with_study, without):
        torch.manual_seed(1)
        training.trainer.run(training.loader, max_epochs=2)
    assert len(found[0].trials) == 3
    assert fingerprint(with_study) == fingerprint(without)


def test_a_gradient_scaler_and_a_second_optimizer() -> None:
    def adversarial() -> tuple[Engine, dict[str, Any], list[Any]]:
        torch.manual_seed(0)
        nets = [nn.Linear(4, 1), nn.Linear(4, 1)]
        optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in nets]
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
        data = [torch.randn(8, 4) for _ in range(6)]

        def step(engine: Engine, batch: torch.Tensor) -> float:
            total = 0.0
            for net, optimizer in zip(nets, optimizers, strict=True):
                optimizer.zero_grad()
                loss = (net(batch) - batch.sum(1, keepdim=True)).square().mean()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                total = loss.item() if net is nets[0] else total
            scaler.update()
            return total

        to_save = {"net": nets[0], "other": nets[1], "optimizer": optimizers[0], "second": optimizers[1],
                   "scaler": scaler}  # fmt: skip
        return Engine(step), to_save, data

    trainer, to_save, data = adversarial()
    rates = (0.02, 0.1)
    result = run_study(trainer, data, to_save, [Trial(rate) for rate in rates], num_updates=15)
    for rate, one in zip(rates, result.trials, strict=True):
        plain, state, batches = adversarial()
        state["optimizer"].param_groups[0]["lr"] = rate
        losses = [plain._process_function(plain, batch) for batch in itertools.islice(itertools.cycle(batches), 15)]
        assert list(one.losses) == losses
    assert to_save["scaler"].get_scale() == 8.0
    assert to_save["second"].param_groups[0]["lr"] == 0.1


# -- repeats


def test_repeats_read_other_batches_the_same_for_all_trials() -> None:
    training = make()
    first = run_study(training.trainer, training.loader, training.to_save, [Trial(0.02)], num_updates=8)
    result = run_study(
        training.trainer, training.loader, training.to_save, [Trial(0.02), Trial(0.03)], num_updates=8, repeats=3
    )
    starts = [[run.losses[0] for run in one.repeats] for one in result.trials]
    assert starts[0] == starts[1]
    assert len(set(starts[0])) == 3
    assert result.trials[0].repeats[0].losses == first.trials[0].losses
    # a stream depends on the start and its number alone
    fewer = run_study(training.trainer, training.loader, training.to_save, [Trial(0.03)], num_updates=8, repeats=2)
    assert fewer.trials[0].repeats == result.trials[1].repeats[:2]
    mean = [sum(at) / 3 for at in zip(*(run.losses for run in result.trials[0].repeats), strict=True)]
    assert list(result.trials[0].losses) == pytest.approx(mean)


def test_data_without_randomness_is_read_a_share_of_a_pass_later() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    seen: list[int] = []

    def step(engine: Engine, batch: int) -> float:
        seen.append(batch)
        parameter.grad = torch.zeros(1)
        optimizer.step()
        return 1.0

    run_study(Engine(step), list(range(9)), {"optimizer": optimizer}, [Trial(0.1)], num_updates=4, repeats=3)
    assert seen == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 0]


class EpochSampler(torch.utils.data.Sampler[int]):
    """As ``DistributedSampler``: the order depends on the epoch alone."""

    def __init__(self) -> None:
        self.epoch = 0
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 16

    def __iter__(self) -> Any:
        self.epochs.append(self.epoch)
        return iter(torch.randperm(16, generator=torch.Generator().manual_seed(self.epoch)).tolist())


def test_epoch_samplers_read_epochs_of_their_own() -> None:
    training = make()
    sampler = EpochSampler()
    loader = DataLoader(training.loader.dataset, batch_size=8, sampler=sampler)
    result = run_study(training.trainer, loader, training.to_save, [Trial(0.02)], num_updates=2, repeats=2)
    one, other = result.trials[0].repeats
    assert one.losses != other.losses
    assert sampler.epoch == 0


# -- validation


def evaluated(training: Any) -> tuple[Engine, DataLoader[Any], str]:
    evaluator = create_supervised_evaluator(training.model, {"loss": Loss(nn.functional.mse_loss)})
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    return evaluator, DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=True), "loss"


def test_validation_at_times_and_at_the_end_changes_no_trial() -> None:
    training = make()
    plain = run_study(training.trainer, training.loader, training.to_save, [Trial(0.02), Trial(0.05)], num_updates=11)
    result = run_study(
        training.trainer, training.loader, training.to_save, [Trial(0.02), Trial(0.05)], num_updates=11,
        validation=evaluated(training), validate_every=4,
    )  # fmt: skip
    assert [one.losses for one in result.trials] == [one.losses for one in plain.trials]
    assert [[update for update, _ in one.validations] for one in result.trials] == [[4, 8, 11], [4, 8, 11]]
    assert [one.objective for one in result.trials] == [one.validations[-1][1] for one in result.trials]
    assert "training_loss" not in {found.kind for found in result.findings}
    assert "training_loss" in {found.kind for found in plain.findings}


def test_validation_by_a_function_in_either_direction() -> None:
    training = make()
    values = iter([0.9, 0.5])
    result = run_study(
        training.trainer, training.loader, training.to_save, [Trial(0.02), Trial(0.03)], num_updates=30,
        validation=lambda: next(values), mode="max",
    )  # fmt: skip
    assert [one.objective for one in result.trials] == [0.9, 0.5]
    assert result.suggestion() == 0.02


# -- arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"trials": Trial(0.1)}, TypeError, "trials must be a list of trials, got a Trial", id="bare"),
        pytest.param({"num_updates": None}, ValueError, "num_updates must be given.*lr 0.1 has none", id="no-length"),
        pytest.param({"num_updates": 0}, ValueError, "num_updates must be at least 1, got 0", id="zero"),
        pytest.param({"repeats": 0}, ValueError, "repeats must be at least 1, got 0", id="repeats"),
        pytest.param({"smooth_f": 1.0}, ValueError, "smooth_f must be less than 1, got 1.0", id="smooth"),
        pytest.param({"diverge_th": 0.5}, ValueError, "diverge_th must be at least 1, got 0.5", id="threshold"),
        pytest.param({"mode": "up"}, ValueError, "mode must be one of 'min', 'max', got 'up'", id="mode"),
        pytest.param({"mode": "max"}, ValueError, "mode must be 'min' without a validation", id="max-of-a-loss"),
        pytest.param({"validate_every": 5}, ValueError, "validate_every must be None without", id="no-validation"),
        pytest.param({"logger": 3}, TypeError, "logger must be a TensorboardLogger, got int", id="logger"),
        pytest.param({"optimizer_key": "sgd"}, ValueError, "'sgd'", id="key"),
        pytest.param(
            {"trials": [Trial(0.1, lambda step: -1.0)]}, ValueError, "schedule at update 0 must be", id="negative-rate"
        ),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    training = make()
    given: dict[str, Any] = {"trials": [Trial(0.1)], "num_updates": 10, **options}
    with pytest.raises(error, match=message):
        LRStudy().attach(training.trainer, training.to_save, **given)


def test_an_iterator_is_refused_before_anything_is_touched() -> None:
    training, untouched = make(), make()
    before = fingerprint(untouched)
    with pytest.raises(ValueError, match="got list_iterator, an iterator: pass a data loader or a list"):
        run_study(training.trainer, iter([1, 2]), training.to_save, [Trial(0.1)], num_updates=10)
    assert fingerprint(training) == before


def test_there_is_no_result_before_a_run() -> None:
    study = LRStudy()
    with pytest.raises(RuntimeError, match="didn't run yet"):
        _ = study.result
    training = make()
    with pytest.raises(AttributeError, match="write 'with"):
        study.attach(training.trainer, training.to_save, [Trial(0.1)], 10).run(training.loader)


def test_a_second_run_in_a_block_starts_from_the_same_place() -> None:
    training = make()
    study = LRStudy()
    with study.attach(training.trainer, training.to_save, [Trial(0.02), Trial(0.05)], 6) as engine:
        engine.run(training.loader)
        first = study.result
        engine.run(training.loader)
    assert study.result == first


# -- what is seen meanwhile and afterwards


def test_tensorboard_gets_a_curve_a_trial_and_the_picture() -> None:
    training = make()
    written: dict[str, list[tuple[float, int]]] = {}

    class Writer:
        def add_scalar(self, tag: str, value: float, step: int) -> None:
            written.setdefault(tag, []).append((value, step))

        def add_figure(self, tag: str, figure: Any) -> None:
            written[tag] = []

    result = run_study(
        training.trainer, training.loader, training.to_save,
        (Trial(0.02), Trial(0.02), *trials.warmups(0.1, (2,))), num_updates=4, logger=Writer(),
    )  # fmt: skip
    assert list(written) == ["study/lr_0.02", "study/lr_0.02_2", "study/lr_0.1_warmup_2", "study/objective"]
    assert written["study/lr_0.02"] == [(loss, step) for step, loss in enumerate(result.trials[0].losses, start=1)]


def test_the_real_tensorboard_takes_it(tmp_path: Path) -> None:
    from ignite.handlers import TensorboardLogger

    training = make()
    with TensorboardLogger(log_dir=str(tmp_path)) as logger:
        run_study(training.trainer, training.loader, training.to_save, [Trial(0.02)], num_updates=4, logger=logger)
    assert list(tmp_path.iterdir())


def test_the_progress_bar_counts_all_updates_and_names_the_trial(capsys: pytest.CaptureFixture[str]) -> None:
    training = make()
    run_study(
        training.trainer, training.loader, training.to_save, [Trial(0.02), Trial(0.05, name="mine")], num_updates=5,
        repeats=2, progress_bar=True,
    )  # fmt: skip
    text = capsys.readouterr().err
    assert "20/20" in text
    assert "mine, stream 2 of 2, lr=5.00e-02, loss=" in text
