from __future__ import annotations

import copy
import functools
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import (
    DeterministicEngine,
    Engine,
    Events,
    State,
    create_supervised_evaluator,
    create_supervised_trainer,
)
from ignite.handlers import Checkpoint, DiskSaver, TensorboardLogger
from ignite.metrics import Accuracy, Loss, RunningAverage
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from ignite_lr.lr_finder import LRFinder


class Training:
    """A small regression with a stock Ignite trainer."""

    def __init__(self, batches: int = 10, **trainer_options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.trainer = create_supervised_trainer(self.model, self.optimizer, nn.MSELoss(), **trainer_options)
        x = torch.randn(batches, 4, 3)
        self.data = [(batch, batch.sum(1, keepdim=True)) for batch in x]
        self.to_save = {"model": self.model, "optimizer": self.optimizer}

    def weights(self) -> list[torch.Tensor]:
        return [tensor.detach().clone() for tensor in self.model.state_dict().values()]

    def sweep(self, data: Any = None, **options: Any) -> LRFinder:
        finder = LRFinder()
        settings: dict[str, Any] = {"num_iter": 20, "start_lr": 1e-5, "end_lr": 0.1, **options}
        with without_divergence(), finder.attach(self.trainer, self.to_save, **settings) as sweep:
            sweep.run(self.data if data is None else data)
        return finder


@contextmanager
def without_divergence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Run completed without loss diverging")
        yield


def scripted(losses: Any, *, every: int = 1, **options: Any) -> tuple[LRFinder, list[float]]:
    """Sweep over a training step that returns these losses, and report the rates its updates really used."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    rates: list[float] = []
    losses = list(losses)

    def step(engine: Engine, batch: Any) -> Any:
        parameter.grad = torch.zeros(1)
        if engine.state.iteration % every == 0:
            optimizer.step()
        return losses[engine.state.iteration - 1]

    finder = LRFinder()
    settings: dict[str, Any] = {"num_iter": len(losses) // every, "start_lr": 1e-3, "end_lr": 1.0, **options}
    with without_divergence(), finder.attach(Engine(step), {"optimizer": optimizer}, **settings) as sweep:
        handle = optimizer.register_step_pre_hook(lambda *_: rates.append(float(optimizer.param_groups[0]["lr"])))
        sweep.run(range(7))
    handle.remove()
    return finder, rates


# -- points and rates


@pytest.mark.parametrize("step_mode", ["exp", "linear"])
@pytest.mark.parametrize("num_iter", [2, 7, 31])
def test_the_recorded_rates_are_the_applied_ones(step_mode: str, num_iter: int) -> None:
    finder, applied = scripted([1.0] * num_iter, step_mode=step_mode)
    spaced = np.geomspace if step_mode == "exp" else np.linspace
    assert finder.get_results()["lr"] == applied
    assert applied == pytest.approx(list(spaced(1e-3, 1.0, num_iter)), rel=1e-12)
    assert applied[0] == 1e-3
    assert applied[-1] == 1.0


def test_one_point_is_the_start() -> None:
    finder, applied = scripted([1.0])
    assert applied == [1e-3]
    assert finder.result.stop_reason == "num_iter"


def test_under_accumulation_a_point_is_an_update() -> None:
    losses = np.arange(30.0) + 1.0
    finder, applied = scripted(losses, every=3, diverge_th=1e9)
    assert len(applied) == 10
    assert finder.result.iterations == 30
    assert finder.get_results()["lr"] == applied
    assert finder.result.losses == pytest.approx(losses.reshape(10, 3).mean(axis=1))


def test_two_updates_an_iteration_are_two_points() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    applied: list[float] = []
    # after the step: a hook before it may come before the sweep's own
    optimizer.register_step_post_hook(lambda *_: applied.append(optimizer.param_groups[0]["lr"]))

    def step(engine: Engine, batch: Any) -> float:
        optimizer.step()
        optimizer.step()
        return float(engine.state.iteration)

    finder = LRFinder()
    with (
        without_divergence(),
        finder.attach(
            Engine(step), {"optimizer": optimizer}, num_iter=5, start_lr=0.1, end_lr=1.0, diverge_th=100
        ) as sweep,
    ):
        sweep.run(range(3))
    assert finder.get_results()["lr"] == applied[:5]
    assert finder.result.losses == (1.0, 1.0, 2.0, 2.0, 3.0)


def test_a_scheduler_inside_the_training_step_does_not_bend_the_sweep() -> None:
    training = Training()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(training.optimizer, 0.5)
    applied: list[float] = []
    original = training.trainer._process_function

    def step(engine: Engine, batch: Any) -> Any:
        output = original(engine, batch)
        scheduler.step()
        return output

    training.trainer._process_function = step
    training.to_save["scheduler"] = scheduler
    before = copy.deepcopy(scheduler.state_dict())
    training.optimizer.register_step_pre_hook(lambda *_: applied.append(training.optimizer.param_groups[0]["lr"]))
    finder = training.sweep()
    # this hook runs after the sweep's own
    assert finder.result.lrs == pytest.approx(np.geomspace(1e-5, 0.1, 20))
    assert scheduler.state_dict() == before
    assert training.optimizer.param_groups[0]["lr"] == 0.01


def test_tensor_rates_are_filled_in_place() -> None:
    training = Training()
    lr = training.optimizer.param_groups[0]["lr"] = torch.tensor(0.25)
    finder = training.sweep()
    assert finder.get_results()["lr"][0] == 1e-5
    assert training.optimizer.param_groups[0]["lr"] is lr
    assert lr == 0.25


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(int, id="int"),
        pytest.param(np.float32, id="numpy"),
        pytest.param(np.array, id="0-d array"),
        pytest.param(torch.tensor, id="0-d tensor"),
    ],
)
def test_numbers_of_all_kinds_are_taken(number: Callable[[Any], Any]) -> None:
    finder, applied = scripted([number(3)] * 4, start_lr=number(1), end_lr=number(8))
    assert applied == pytest.approx([1, 2, 4, 8])
    assert finder.result.losses == (3.0,) * 4
    assert all(type(value) is float for values in finder.get_results().values() for value in values)


def test_groups_have_their_own_bounds() -> None:
    training = Training()
    training.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.5})
    finder = training.sweep(start_lr=[1e-4, 1e-3], end_lr=[1e-2, 1.0])
    rates = finder.get_results()["lr"]
    assert rates[0] == [1e-4, 1e-3]
    assert rates[-1] == [1e-2, 1.0]
    assert [group["lr"] for group in training.optimizer.param_groups] == [0.01, 0.5]


def test_without_a_start_each_group_begins_at_its_present_rate() -> None:
    training = Training()
    training.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.5})
    finder = training.sweep(start_lr=None, end_lr=1.0)
    assert finder.get_results()["lr"][0] == [0.01, 0.5]


def test_ratios_can_be_kept() -> None:
    training = Training()
    training.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.001})
    training.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.0})
    finder = training.sweep(ratios="keep", start_lr=1e-4, end_lr=1.0)
    rates = np.array(finder.get_results()["lr"])
    assert rates[:, 0] == pytest.approx(np.geomspace(1e-4, 1.0, 20))
    assert rates[:, 1] == pytest.approx(rates[:, 0] / 10)
    assert (rates[:, 2] == 0).all()
    assert [group["lr"] for group in training.optimizer.param_groups] == [0.01, 0.001, 0.0]


# -- stopping


def test_running_to_the_end_warns() -> None:
    training = Training()
    finder = LRFinder()
    with (
        pytest.warns(UserWarning, match="Run completed without loss diverging, increase end_lr, decrease diverge_th"),
        finder.attach(training.trainer, training.to_save, num_iter=5, end_lr=0.1) as sweep,
    ):
        sweep.run(training.data)
    assert finder.result.stop_reason == "num_iter"
    assert finder.result.stop_lr == 0.1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_at_once(bad: float) -> None:
    finder, applied = scripted([1.0, 1.0, bad, 1.0, 1.0])
    assert finder.result.stop_reason == "non_finite"
    assert len(applied) == len(finder.result.lrs) == 3
    assert finder.result.stop_lr == applied[-1]


def test_the_originals_rule_for_positive_losses() -> None:
    losses = [4.0, 2.0, 1.0, 2.0, 4.9, 5.1, 6.0]
    finder, applied = scripted(losses, smooth_f=0)
    assert finder.result.stop_reason == "divergence"
    assert len(applied) == 6
    assert finder.result.stop_lr == applied[-1]


def test_smoothing_is_the_originals() -> None:
    finder, _ = scripted([4.0, 2.0, 8.0], smooth_f=0.25)
    assert finder.get_results()["loss"] == pytest.approx([4.0, 3.5, 4.625])
    assert finder.result.losses == (4.0, 2.0, 8.0)


@pytest.mark.parametrize("shift", [0.0, -3.0, -1000.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_losses_below_zero_neither_stop_too_early_nor_too_late(shift: float, scale: float) -> None:
    falling = np.linspace(3.0, 0.0, 30)
    losses = (np.concatenate([falling, np.geomspace(0.1, 1000, 20)]) + shift) * scale
    finder, applied = scripted(losses)
    assert finder.result.stop_reason == "divergence"
    assert 35 < len(applied) < 50


def test_noise_around_zero_is_no_divergence() -> None:
    losses = np.random.default_rng(0).normal(size=300)
    finder, _ = scripted(losses)
    assert finder.result.stop_reason == "num_iter"


def test_a_loss_that_starts_at_zero_is_no_divergence() -> None:
    finder, _ = scripted([0.0, 0.5, 0.1, -0.1, 0.2, 0.3, -0.2, 0.1])
    assert finder.result.stop_reason == "num_iter"


def test_the_users_handler_can_stop_the_sweep() -> None:
    training = Training()
    finder = LRFinder()
    with (
        without_divergence(),
        finder.attach(training.trainer, training.to_save, num_iter=50, start_lr=1e-4) as sweep,
        sweep.add_event_handler(Events.ITERATION_COMPLETED(once=4), lambda: sweep.terminate()),
    ):
        sweep.run(training.data)
    assert finder.result.stop_reason == "terminated"
    assert len(finder.result.lrs) == 4


def test_the_training_step_can_stop_the_sweep() -> None:
    training = Training()
    original = training.trainer._process_function

    def step(engine: Engine, batch: Any) -> Any:
        if engine.state.iteration == 3:
            training.trainer.terminate()
        return original(engine, batch)

    training.trainer._process_function = step
    finder = training.sweep()
    assert finder.result.stop_reason == "terminated"
    assert len(finder.result.lrs) == 3
    assert training.trainer.should_terminate is False


def test_a_step_that_never_updates_is_an_error_that_says_so() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    finder = LRFinder()
    calls: list[int] = []
    trainer = Engine(lambda engine, batch: calls.append(batch) or 1.0)
    with (
        pytest.raises(RuntimeError, match="200 iterations without an update of the swept optimizer"),
        finder.attach(trainer, {"optimizer": optimizer}, num_iter=10) as sweep,
    ):
        sweep.run([1])
    assert len(calls) == 200
    assert finder.result.lrs == ()
    assert finder.result.stop_reason == "exception:RuntimeError"


# -- mixed precision


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_no_point(fused: bool) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    used: list[float] = []

    def step(engine: Engine, batch: Any) -> float:
        optimizer.zero_grad()
        scaler.scale(parameter.sum()).backward()
        if engine.state.iteration % 4 == 2:
            parameter.grad.fill_(float("inf"))
        else:
            used.append(optimizer.param_groups[0]["lr"])
        scaler.step(optimizer)
        scaler.update()
        return 1.0

    trainer = Engine(step)
    trainer.state.scaler = scaler
    finder = LRFinder()
    with (
        without_divergence(),
        finder.attach(trainer, {"optimizer": optimizer}, num_iter=12, start_lr=1e-4, end_lr=1.0) as sweep,
    ):
        sweep.run(range(5))
    assert finder.get_results()["lr"] == used
    assert finder.result.lrs == pytest.approx(np.geomspace(1e-4, 1.0, 12))
    assert finder.result.iterations == 16
    assert scaler.get_scale() == 4.0
    assert not optimizer.state


def test_a_loss_that_overflows_under_a_scaler_stops_though_no_update_is_made() -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def step(engine: Engine, batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = parameter.sum() * (float("nan") if engine.state.iteration == 4 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    finder = LRFinder()
    with finder.attach(Engine(step), {"optimizer": optimizer, "scaler": scaler}, num_iter=12) as sweep:
        sweep.run(range(5))
    assert finder.result.stop_reason == "non_finite"
    assert len(finder.result.lrs) == 3
    assert finder.result.stop_lr > finder.result.lrs[-1]


# -- data


@pytest.mark.parametrize("length", [3, 20, 50])
def test_the_length_of_the_data_does_not_matter(length: int) -> None:
    training = Training(batches=length)
    assert len(training.sweep(num_iter=20).result.lrs) == 20


def test_without_num_iter_the_data_decides() -> None:
    training = Training(batches=6)
    assert len(training.sweep(num_iter=None).result.lrs) == 6
    finder = LRFinder()
    with without_divergence(), finder.attach(training.trainer, training.to_save, end_lr=0.1) as sweep:
        sweep.run(training.data, max_epochs=3)
    assert len(finder.result.lrs) == 18
    with without_divergence(), finder.attach(training.trainer, training.to_save, end_lr=0.1) as sweep:
        sweep.run(training.data, max_iters=4)
    assert len(finder.result.lrs) == 4


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, data: list[Any]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)


def test_data_without_a_length_needs_num_iter() -> None:
    training = Training(batches=6)
    stream = DataLoader(Stream(training.data), batch_size=None)
    assert len(training.sweep(stream).result.lrs) == 20
    finder = LRFinder()
    with (
        pytest.raises(ValueError, match="num_iter=None needs data with a length"),
        finder.attach(training.trainer, training.to_save) as sweep,
    ):
        sweep.run(stream)


def test_no_data_at_all() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)

    def step(engine: Engine, batch: Any) -> float:
        assert batch is None
        optimizer.step()
        return 1.0

    finder = LRFinder()
    with without_divergence(), finder.attach(Engine(step), {"optimizer": optimizer}, num_iter=9) as sweep:
        sweep.run(epoch_length=4)
    assert len(finder.result.lrs) == 9


def test_a_one_shot_iterator_is_warned_about() -> None:
    training = Training(batches=30)
    with pytest.warns(UserWarning, match="one-shot iterator"):
        assert len(training.sweep(iter(training.data), num_iter=20).result.lrs) == 20


def test_a_one_shot_iterator_that_runs_dry_says_so() -> None:
    training = Training(batches=7)
    before = training.weights()
    with (
        pytest.warns(UserWarning, match="one-shot iterator"),
        pytest.raises(RuntimeError, match="ran dry after 7 batches"),
    ):
        training.sweep(iter(training.data))
    assert all(map(torch.equal, before, training.weights()))


class EpochSampler(RandomSampler):
    """Shuffles by its epoch, as distributed samplers do."""

    epoch = 4

    def __init__(self, source: Any) -> None:
        super().__init__(source, generator=torch.Generator())
        self.epoch = 4
        self.seen: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.seen.append(self.epoch)
        return super().__iter__()


def test_recycled_data_gets_new_epochs_and_its_old_one_back() -> None:
    training = Training()
    x, y = (torch.cat(part) for part in zip(*training.data, strict=True))
    dataset = TensorDataset(x, y)
    sampler = EpochSampler(dataset)
    seen: list[int] = []
    sampler.seen = seen
    loader = DataLoader(dataset, batch_size=8, sampler=sampler)
    state = sampler.generator.get_state()
    epochs: list[int] = []
    original = sampler.set_epoch
    sampler.set_epoch = lambda epoch: (epochs.append(epoch), original(epoch))[0]  # type: ignore[method-assign]
    training.sweep(loader, num_iter=13)
    assert epochs == [5, 6]
    assert sampler.epoch == 4
    assert torch.equal(sampler.generator.get_state(), state)


# from Python 3.12 on, about the fork that PyTorch's loader makes for its workers
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_loader_with_persistent_workers_keeps_its_iterator() -> None:
    training = Training()
    x, y = (torch.cat(part) for part in zip(*training.data, strict=True))
    loader = DataLoader(TensorDataset(x, y), batch_size=8, num_workers=1, persistent_workers=True)
    iterator = iter(loader)
    first = next(iterator)
    with pytest.warns(UserWarning, match="persistent workers"):
        training.sweep(loader, num_iter=8)
    assert loader._iterator is iterator
    rest = list(iterator)
    assert len(rest) == len(loader) - 1
    assert torch.equal(torch.cat([first[0], *(batch[0] for batch in rest)]), x)
    iterator._shutdown_workers()


def test_generators_of_the_data_come_back() -> None:
    training = Training()
    x, y = (torch.cat(part) for part in zip(*training.data, strict=True))
    dataset = TensorDataset(x, y)
    dataset.rng = np.random.default_rng(3)  # as a data set with augmentation has one
    dataset.rng.normal(size=3)
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(dataset, batch_size=8, shuffle=True, generator=generator)
    before = generator.get_state(), dataset.rng.bit_generator.state
    original = training.trainer._process_function

    def step(engine: Engine, batch: Any) -> Any:
        dataset.rng.normal()
        return original(engine, batch)

    training.trainer._process_function = step
    training.sweep(loader)
    assert torch.equal(generator.get_state(), before[0])
    assert dataset.rng.bit_generator.state == before[1]


# -- the trainer


needs_max_iters = pytest.mark.skipif(not hasattr(State(), "max_iters"), reason="max_iters came after Ignite 0.5.2")


def fresh(training: Training) -> None:
    pass


def finished(training: Training) -> None:
    training.trainer.run(training.data, max_epochs=2)


def finished_by_max_iters(training: Training) -> None:
    training.trainer.run(training.data, max_iters=7)


def interrupted(training: Training) -> None:
    with training.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), training.trainer.interrupt):
        training.trainer.run(training.data, max_epochs=2)


def terminated(training: Training) -> None:
    with training.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), training.trainer.terminate):
        training.trainer.run(training.data, max_epochs=2)


def loaded(training: Training) -> None:
    training.trainer.load_state_dict({"iteration": 13, "max_epochs": 3, "epoch_length": 10})


def crashed(training: Training) -> None:
    def boom() -> None:
        raise ValueError("boom")

    handler = training.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), boom)
    with handler, pytest.raises(ValueError, match="boom"):
        training.trainer.run(training.data, max_epochs=2)


@pytest.mark.parametrize(
    "prepare",
    [
        fresh,
        finished,
        pytest.param(finished_by_max_iters, marks=needs_max_iters),
        interrupted,
        terminated,
        loaded,
        crashed,
    ],
    ids=lambda f: f.__name__,
)
def test_the_trainer_goes_on_as_if_nothing_had_been(prepare: Callable[[Training], None]) -> None:
    outcomes = []
    for sweeps in (False, True):
        training = Training()
        training.trainer.state.metrics["mine"] = 1.0
        prepare(training)
        state = training.trainer.state
        before = dict(vars(state))
        if sweeps:
            assert len(training.sweep().result.lrs) == 20
            assert training.trainer.state is state
            assert vars(state) == before
        ends = getattr(training.trainer.state, "max_iters", None)
        more = {"max_iters": 30} if ends else {"max_epochs": 4}
        training.trainer.run(training.data, **more)
        outcomes.append((training.weights(), training.trainer.state.iteration, training.trainer.state.epoch))
    (weights, *progress), (other_weights, *other_progress) = outcomes
    assert progress == other_progress
    assert all(map(torch.equal, weights, other_weights))


def sweep_in_passing(training: Training, loader: Any) -> None:
    training.sweep(loader, num_iter=15)


def test_a_sweep_in_the_middle_of_a_run() -> None:
    """From a handler of the training itself, between two of its batches."""
    weights = []
    for sweeps in (False, True):
        training = Training()
        x, y = (torch.cat(part) for part in zip(*training.data, strict=True))
        loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)
        if sweeps:
            training.trainer.add_event_handler(
                Events.ITERATION_COMPLETED(once=7), functools.partial(sweep_in_passing, training, loader)
            )
        training.trainer.run(loader, max_epochs=2)
        weights.append(training.weights())
    assert all(map(torch.equal, *weights))


def test_a_deterministic_engine() -> None:
    weights = []
    for sweeps in (False, True):
        training = Training()
        trainer = DeterministicEngine(training.trainer._process_function)
        training.trainer = trainer
        x, y = (torch.cat(part) for part in zip(*training.data, strict=True))
        loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)
        trainer.run(loader, max_epochs=1)
        if sweeps:
            training.sweep(loader)
        trainer.run(loader, max_epochs=2)
        weights.append(training.weights())
    assert all(map(torch.equal, *weights))


def test_the_users_handlers_do_not_fire(tmp_path: Path) -> None:
    training = Training()
    fired: list[Any] = []
    for event in (Events.STARTED, Events.ITERATION_STARTED, Events.ITERATION_COMPLETED, Events.COMPLETED):
        training.trainer.add_event_handler(event, lambda event=event: fired.append(event))
    saver = Checkpoint(training.to_save, DiskSaver(tmp_path))
    training.trainer.add_event_handler(Events.ITERATION_COMPLETED, saver)
    RunningAverage(output_transform=lambda output: output).attach(training.trainer, "average")
    training.sweep()
    assert fired == []
    assert list(tmp_path.iterdir()) == []
    assert training.trainer.state.metrics == {}


def test_custom_events_of_the_step_reach_their_handlers() -> None:
    training = Training()
    training.trainer.register_events("backward_done", event_to_attr={"backward_done": "backwards"})
    seen: list[int] = []
    training.trainer.add_event_handler("backward_done", lambda engine: seen.append(engine.state.iteration))
    original = training.trainer._process_function

    def step(engine: Engine, batch: Any) -> Any:
        output = original(engine, batch)
        training.trainer.state.backwards += 1
        engine.fire_event("backward_done")
        return output

    training.trainer._process_function = step
    training.sweep(num_iter=4)
    assert seen == [1, 2, 3, 4]
    assert training.trainer.state.backwards == 0
    assert training.trainer.last_event_name is None


def test_what_the_user_put_on_the_trainer_is_there_and_comes_back() -> None:
    training = Training()
    trainer = training.trainer
    trainer.calls = {"steps": [0]}
    trainer.state.alpha = [1.0]
    trainer.state.net = training.model
    original = trainer._process_function
    seen: list[Any] = []

    def step(engine: Engine, batch: Any) -> Any:
        engine.calls["steps"].append(1)
        trainer.state.alpha[0] += 1
        trainer.state.beta = 3
        trainer.added = True
        assert trainer.state is engine.state
        assert trainer.state.net is training.model
        seen.append((engine.state.iteration, engine.state.epoch, engine.state.batch is batch))
        return original(engine, batch)

    trainer._process_function = step
    calls = trainer.calls
    training.sweep(num_iter=12)
    assert seen == [(i, 1 if i <= 10 else 2, True) for i in range(1, 13)]
    assert trainer.calls is calls
    assert calls == {"steps": [0]}
    assert trainer.state.alpha == [1.0]
    assert not hasattr(trainer.state, "beta")
    assert not hasattr(trainer, "added")


@pytest.mark.parametrize(
    "box",
    [
        pytest.param(lambda item: item, id="bare"),
        pytest.param(lambda item: [item], id="in a list"),
        pytest.param(lambda item: {"a": (item,)}, id="in a dict"),
    ],
)
def test_generators_and_scalers_in_the_trainers_state_come_back(box: Callable[[Any], Any]) -> None:
    training = Training()
    state = training.trainer.state
    generator, scaler = torch.Generator(), torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    state.generator, state.scaler = box(generator), box(scaler)
    before = generator.get_state()
    original = training.trainer._process_function

    def held(value: Any) -> Any:
        while isinstance(value, (list, tuple, dict)):
            value = next(iter(value.values() if isinstance(value, dict) else value))
        return value

    def step(engine: Engine, batch: Any) -> Any:
        assert held(engine.state.scaler) is scaler
        torch.rand(1, generator=held(engine.state.generator))
        scaler.scale(torch.ones(1))
        scaler.update(16.0)
        return original(engine, batch)

    training.trainer._process_function = step
    training.sweep(num_iter=12)
    assert torch.equal(generator.get_state(), before)
    assert scaler.get_scale() == 8.0


# -- blocks


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, torch.OutOfMemoryError])
def test_an_exception_reaches_the_user_and_the_points_remain(error: type[BaseException]) -> None:
    training = Training()
    before = training.weights()

    def batches() -> Iterator[Any]:
        yield from training.data[:5]
        raise error("from the loader")

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            return batches()

    finder = LRFinder()
    with (
        pytest.raises(error, match="from the loader"),
        finder.attach(training.trainer, training.to_save, num_iter=20) as sweep,
    ):
        sweep.run(Loader())
    assert finder.result.stop_reason == f"exception:{error.__name__}"
    assert len(finder.result.lrs) == 5
    assert all(map(torch.equal, before, training.weights()))
    assert training.optimizer.param_groups[0]["lr"] == 0.01
    assert not training.optimizer._optimizer_step_pre_hooks
    assert len(training.sweep().result.lrs) == 20


def test_an_exception_in_the_block_restores_too() -> None:
    training = Training()
    before = training.weights()
    finder = LRFinder()
    with (  # noqa: PT012 - a block is what this is about
        without_divergence(),
        pytest.raises(ZeroDivisionError, match="division by zero"),
        finder.attach(training.trainer, training.to_save, num_iter=5) as sweep,
    ):
        sweep.run(training.data)
        assert not all(map(torch.equal, before, training.weights()))
        assert finder.result.stop_reason == "num_iter"
        raise ZeroDivisionError("division by zero")
    assert all(map(torch.equal, before, training.weights()))
    assert finder.result.stop_reason == "num_iter"


def test_a_block_inside_a_block_is_an_error_and_the_outer_one_restores() -> None:
    training, other = Training(), Training()
    before = training.weights()
    finder = LRFinder()
    with (  # noqa: PT012 - a block is what this is about
        without_divergence(),
        pytest.raises(RuntimeError, match="a range test is running already"),
        finder.attach(training.trainer, training.to_save, num_iter=5) as sweep,
    ):
        sweep.run(training.data)
        with LRFinder().attach(other.trainer, other.to_save):
            pass
    assert all(map(torch.equal, before, training.weights()))
    assert finder.result.stop_reason == "num_iter"
    assert len(training.sweep().result.lrs) == 20


def test_apply_is_for_after_the_block() -> None:
    training = Training()
    finder = LRFinder()
    with without_divergence(), finder.attach(training.trainer, training.to_save, num_iter=5) as sweep:
        sweep.run(training.data)
        with pytest.raises(RuntimeError, match=r"apply\(\) is for after the block"):
            finder.result.apply(training.optimizer, "minimum")
    finder.result.apply(training.optimizer, "minimum")
    assert training.optimizer.param_groups[0]["lr"] == finder.result.suggestion("minimum")


def test_running_twice_in_a_block_starts_over() -> None:
    training = Training()
    finder = LRFinder()
    before = training.weights()
    with without_divergence(), finder.attach(training.trainer, training.to_save, num_iter=8) as sweep:
        sweep.run(training.data)
        first = finder.result
        sweep.run(training.data)
    assert finder.result == first
    assert all(map(torch.equal, before, training.weights()))


def test_after_the_block_the_sweep_is_over() -> None:
    training = Training()
    finder = LRFinder()
    with finder.attach(training.trainer, training.to_save, num_iter=8) as sweep:
        pass
    with pytest.raises(RuntimeError, match="the block of this range test has ended"):
        sweep.run(training.data)
    with pytest.raises(RuntimeError, match="didn't run yet"):
        _ = finder.result


def test_nothing_happens_before_the_block() -> None:
    training = Training()
    LRFinder().attach(training.trainer, training.to_save)
    assert not any(training.trainer._event_handlers.values())
    assert not training.optimizer._optimizer_step_pre_hooks
    training.trainer.run(training.data)


class Stubborn:
    """State that can be captured, but not put back."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        raise OSError("disk on fire")


def test_what_cannot_be_restored_is_named_after_everything_else_is_restored() -> None:
    training = Training()
    stubborn = Stubborn()
    training.to_save = {"stubborn": stubborn, **training.to_save}
    before = training.weights()
    finder = LRFinder()
    with (  # noqa: PT012 - a block is what this is about
        without_divergence(),
        pytest.raises(RuntimeError, match=r"could not be restored.*stubborn: OSError: disk on fire"),
        finder.attach(training.trainer, training.to_save, num_iter=5) as sweep,
    ):
        sweep.run(training.data)
        stubborn.value = 1
    assert all(map(torch.equal, before, training.weights()))
    assert training.optimizer.param_groups[0]["lr"] == 0.01


def test_an_earlier_exception_stays_the_primary_one() -> None:
    training = Training()
    stubborn = Stubborn()
    training.to_save = {"stubborn": stubborn, **training.to_save}
    with (  # noqa: PT012 - a block is what this is about
        pytest.raises(ZeroDivisionError, match="division by zero") as caught,
        LRFinder().attach(training.trainer, training.to_save, num_iter=5),
    ):
        stubborn.value = 1
        raise ZeroDivisionError("division by zero")
    notes = getattr(caught.value, "__notes__", ["disk on fire"])  # Python 3.10 has no notes
    assert "disk on fire" in notes[0]


class Impatient(Stubborn):
    """Its owner presses Ctrl-C while it is being restored."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        self.value = state["value"]


def test_ctrl_c_while_restoring_waits_until_everything_is_restored() -> None:
    training = Training()
    impatient = Impatient()
    training.to_save = {"impatient": impatient, **training.to_save}
    before = training.weights()
    with (  # noqa: PT012 - a block is what this is about
        pytest.raises(KeyboardInterrupt, match=r"^$"),
        without_divergence(),
        LRFinder().attach(training.trainer, training.to_save, num_iter=5) as sweep,
    ):
        sweep.run(training.data)
        impatient.value = 1
    assert impatient.value == 0
    assert all(map(torch.equal, before, training.weights()))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_real_ctrl_c() -> None:
    training = Training()
    before = training.weights()
    original = training.trainer._process_function

    def step(engine: Engine, batch: Any) -> Any:
        if engine.state.iteration == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return original(engine, batch)

    training.trainer._process_function = step
    finder = LRFinder()
    with (
        pytest.raises(KeyboardInterrupt, match=r"^$"),
        finder.attach(training.trainer, training.to_save, num_iter=9) as sweep,
    ):
        sweep.run(training.data)
    assert finder.result.stop_reason == "exception:KeyboardInterrupt"
    assert len(finder.result.lrs) == 3
    assert all(map(torch.equal, before, training.weights()))


def test_a_block_that_cannot_begin_leaves_no_trace() -> None:
    training = Training()
    state, attributes = training.trainer.state, set(vars(training.trainer))
    evaluator = Engine(lambda engine, batch: None)
    with (
        pytest.raises(ValueError, match="has no metrics attached"),
        LRFinder().attach(training.trainer, training.to_save, validation=(evaluator, [], "loss")),
    ):
        pass
    assert training.trainer.state is state
    assert set(vars(training.trainer)) == attributes
    assert not training.optimizer._optimizer_step_pre_hooks
    assert len(training.sweep().result.lrs) == 20


def test_the_trainer_can_be_run_by_its_own_name() -> None:
    """As users of the original may do, which hands out the trainer itself."""
    training = Training()
    finder = LRFinder()
    with without_divergence(), finder.attach(training.trainer, training.to_save, num_iter=20, end_lr=0.1, repeats=2):
        training.trainer.run(training.data)
        training.trainer.run(training.data)
    assert len(finder.result.lrs) == 20
    assert "run" not in vars(training.trainer)
    assert training.trainer.run(training.data).iteration == 10


# -- arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"smooth_f": 1.0}, ValueError, r"smooth_f is outside the range \[0, 1\], got 1.0"),
        ({"smooth_f": "a"}, TypeError, "smooth_f should be a number"),
        ({"diverge_th": 0.5}, ValueError, "diverge_th should be larger than 1, got 0.5"),
        ({"diverge_th": float("nan")}, ValueError, "diverge_th should be larger than 1, got nan"),
        ({"num_iter": 2.0}, TypeError, "num_iter should be an integer, but give 2.0"),
        ({"num_iter": True}, TypeError, "num_iter should be an integer, but give True"),
        ({"num_iter": 0}, ValueError, "num_iter should be positive, but give 0"),
        ({"repeats": 0}, ValueError, "repeats should be positive, but give 0"),
        ({"step_mode": "log"}, ValueError, "step_mode should be 'exp' or 'linear', but given log"),
        ({"start_lr": 1.0, "end_lr": 0.1}, ValueError, "start_lr must be less than end_lr"),
        ({"start_lr": 1, "end_lr": 1}, ValueError, "start_lr must be less than end_lr"),
        ({"start_lr": 0.0}, ValueError, "start_lr must be positive for step_mode='exp', got 0.0"),
        ({"start_lr": -1.0, "step_mode": "linear"}, ValueError, "start_lr must be positive .*got -1.0"),
        ({"start_lr": [0.1, 0.2]}, ValueError, "Number of values of start_lr should be equal"),
        ({"end_lr": [1.0, 2.0]}, ValueError, "Number of values of end_lr should be equal"),
        ({"start_lr": "1"}, TypeError, "start_lr should be a float or list of floats"),
        ({"end_lr": None}, TypeError, "end_lr should be a float or list of floats"),
        ({"end_lr": float("inf")}, ValueError, "must be finite"),
        ({"ratios": "drop"}, ValueError, "ratios must be None or 'keep', got 'drop'"),
        ({"ratios": "keep", "start_lr": [0.1]}, ValueError, "start_lr must be one number with ratios='keep'"),
        ({"validation": 3}, TypeError, "validation must be a callable or a tuple"),
        ({"output_transform": None}, TypeError, "output_transform must be callable"),
        ({"progress_bar": "yes"}, TypeError, "progress_bar must be None, True or False"),
        ({"snapshot_to": 3}, TypeError, "snapshot_to must be None, a device or a directory"),
        ({"logger": 3}, TypeError, "logger should be a TensorboardLogger"),
        ({"optimizer_key": "other"}, ValueError, "should contain 'other' key"),
    ],
)
def test_wrong_arguments_are_refused_where_they_are_given(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    training = Training()
    with pytest.raises(error, match=message):
        LRFinder().attach(training.trainer, training.to_save, **arguments)


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ((1.0, 2.0), TypeError, "output of the engine should be of type float or 0d torch.Tensor"),
        (None, TypeError, "but got output of type NoneType"),
        (True, TypeError, "but got output of type bool"),
        (torch.ones(2), ValueError, "1 element, but got torch.Tensor of shape"),
        (torch.ones(1, 1), ValueError, "1 element, but got torch.Tensor of shape"),
    ],
)
def test_a_loss_must_be_one_number(output: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scripted([output] * 3)


def test_a_lazy_model_is_refused() -> None:
    model = nn.LazyLinear(2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with (
        pytest.raises(ValueError, match="model: parameter 'weight' must be initialized"),
        LRFinder().attach(Engine(lambda e, b: 1.0), {"model": model, "optimizer": optimizer}),
    ):
        pass


# -- further modes


def test_only_the_named_optimizer_is_swept() -> None:
    training = Training()
    critic = nn.Linear(1, 1)
    other = torch.optim.Adam(critic.parameters(), lr=0.3)
    original = training.trainer._process_function
    rates: set[float] = set()

    def step(engine: Engine, batch: Any) -> Any:
        critic(torch.ones(1, 1)).sum().backward()
        rates.add(other.param_groups[0]["lr"])
        other.step()
        return original(engine, batch)

    training.trainer._process_function = step
    training.to_save.update({"critic": critic, "critic_optimizer": other})
    before = [parameter.detach().clone() for parameter in critic.parameters()]
    finder = training.sweep()
    assert len(finder.result.lrs) == 20
    assert rates == {0.3}
    assert all(map(torch.equal, before, critic.parameters()))
    assert not other.state
    finder = training.sweep(optimizer_key="critic_optimizer")
    assert finder.result.lrs[0] == 1e-5
    assert training.optimizer.param_groups[0]["lr"] == 0.01


def test_an_optimizer_that_nobody_mentioned_is_restored_too() -> None:
    training = Training()
    critic = nn.Linear(1, 1)
    other = torch.optim.Adam(critic.parameters(), lr=0.3)
    stranger = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    original = training.trainer._process_function

    def step(engine: Engine, batch: Any) -> Any:
        other.zero_grad()
        critic(torch.ones(1, 1)).sum().backward()
        other.step()
        return original(engine, batch)

    training.trainer._process_function = step
    before = [parameter.detach().clone() for parameter in critic.parameters()]
    training.sweep(repeats=2)
    assert all(map(torch.equal, before, critic.parameters()))
    assert not other.state
    finder = LRFinder()
    with without_divergence(), finder.attach(training.trainer, training.to_save, num_iter=5) as sweep:
        sweep.run(training.data)
        stranger.param_groups[0]["params"][0].grad = torch.ones(1)
        stranger.step()
    assert stranger.param_groups[0]["params"][0] != 0


def test_validation_by_a_function() -> None:
    training = Training()

    def validate() -> float:
        training.model.eval()
        with torch.no_grad():
            return sum(nn.functional.mse_loss(training.model(x), y).item() for x, y in training.data)

    finder = training.sweep(validation=validate)
    assert finder.result.loss_name == "Validation loss"
    assert all(module.training for module in training.model.modules())
    training.model.eval()
    assert finder.result.losses[0] == pytest.approx(validate(), rel=1e-3)


def test_validation_by_an_evaluator_runs_only_its_metrics() -> None:
    training = Training()
    evaluator = create_supervised_evaluator(training.model, {"mse": Loss(nn.MSELoss())})
    fired: list[int] = []
    evaluator.add_event_handler(Events.COMPLETED, lambda: fired.append(1))
    finder = training.sweep(validation=(evaluator, training.data, "mse"), num_iter=5)
    state = evaluator.run(training.data)
    assert fired == [1]
    assert finder.result.losses[0] == pytest.approx(state.metrics["mse"], rel=1e-3)
    with pytest.raises(KeyError, match="the evaluator has no metric 'nll', but mse"):
        training.sweep(validation=(evaluator, training.data, "nll"))
    with pytest.raises(ValueError, match="has no metrics attached"):
        training.sweep(validation=(Engine(lambda e, b: None), training.data, "nll"))


def test_validation_by_a_metric_with_an_event_filter() -> None:
    training = Training()
    evaluator = create_supervised_evaluator(training.model)
    Accuracy(output_transform=lambda output: (output[0] > 0, output[1] > 0)).attach(evaluator, "accuracy")
    finder = training.sweep(validation=(evaluator, training.data, "accuracy"), num_iter=5)
    assert 0 <= finder.result.losses[0] <= 1


def test_repeats_start_from_the_same_weights_and_use_other_batches() -> None:
    training = Training(batches=100)
    before = training.weights()
    original = training.trainer._process_function
    firsts: list[Any] = []

    def step(engine: Engine, batch: Any) -> Any:
        if training.optimizer.param_groups[0]["lr"] == 1e-5:
            firsts.append((training.weights(), batch[0].sum().item(), dict(training.optimizer.state)))
        return original(engine, batch)

    training.trainer._process_function = step
    finder = training.sweep(repeats=3)
    assert len(firsts) == 3
    for weights, _, state in firsts:
        assert all(map(torch.equal, before, weights))
        assert not state
    assert len({total for _, total, _ in firsts}) == 3
    result = finder.result
    assert result.iterations == 60
    assert len(result.sweeps) == 3
    assert result.losses[0] == pytest.approx(np.mean([sweep.losses[0] for sweep in result.sweeps]))
    assert "3 sweeps" in repr(result)
    assert all(map(torch.equal, before, training.weights()))


@pytest.mark.parametrize("repeats", [1, 2])
def test_snapshots_on_disk_are_gone_afterwards(tmp_path: Path, repeats: int) -> None:
    training = Training()
    training.trainer.run(training.data)
    before, state = training.weights(), copy.deepcopy(training.optimizer.state_dict())
    place = tmp_path / "snapshots"
    original = training.trainer._process_function
    files: set[str] = set()

    def step(engine: Engine, batch: Any) -> Any:
        files.update(path.suffix for path in place.iterdir())
        return original(engine, batch)

    training.trainer._process_function = step
    training.sweep(snapshot_to=place, repeats=repeats)
    assert files == {".pt"}
    assert not place.exists()
    assert all(map(torch.equal, before, training.weights()))
    for key, value in state["state"].items():
        assert torch.equal(value["momentum_buffer"], training.optimizer.state_dict()["state"][key]["momentum_buffer"])


def test_a_snapshot_that_cannot_be_read_back_is_reported(tmp_path: Path) -> None:
    training = Training()
    with (
        pytest.raises(RuntimeError, match=r"could not be restored.*snapshot file"),
        LRFinder().attach(training.trainer, training.to_save, snapshot_to=tmp_path),
    ):
        next(tmp_path.iterdir()).write_bytes(b"")
    assert [path.suffix for path in tmp_path.iterdir()] == [".pt"]  # damaged as it is, it is the last copy
    assert len(training.sweep().result.lrs) == 20


def test_tensorboard_gets_the_curve_and_the_picture(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = Training()
    logger = TensorboardLogger(tmp_path)
    finder = training.sweep(logger=logger)
    logger.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    points = events.Scalars("range_test/loss")
    assert [point.step for point in points] == [round(1000 * np.log10(lr)) for lr in finder.result.lrs]
    assert [point.value for point in points] == pytest.approx(finder.result.losses)
    assert events.Tags()["images"] == ["range_test/curve"]


def test_the_progress_bar_shows_rate_and_loss(capsys: pytest.CaptureFixture[str]) -> None:
    training = Training()
    training.sweep()
    assert capsys.readouterr().err == ""
    training.sweep(progress_bar=True)
    shown = capsys.readouterr().err
    assert "20/20" in shown
    assert "lr=1.00e-01, loss=" in shown


# -- what was there before


def test_results_before_any_sweep() -> None:
    finder = LRFinder()
    assert finder.get_results() == {}
    with pytest.raises(RuntimeError, match="learning rate finder didn't run yet so lr_suggestion can't be returned"):
        finder.lr_suggestion()
    with pytest.raises(RuntimeError, match="learning rate finder didn't run yet so results can't be plotted"):
        finder.plot()
    with pytest.raises(RuntimeError, match="learning rate finder didn't run yet"):
        finder.apply_suggested_lr(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))
