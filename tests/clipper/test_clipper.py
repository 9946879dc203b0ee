from __future__ import annotations

import copy
import gc
import io
import math
import os
import pickle
import signal
import subprocess
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers.tensorboard_logger import TensorboardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from ignite_lr.clipper import ClipReport, GradNormClipper


class Training:
    """One parameter whose gradient is the batch, so that every norm is known."""

    def __init__(self, make: Any = torch.optim.SGD, accumulate: int = 1, **options: Any) -> None:
        self.parameter = nn.Parameter(torch.zeros(2))
        self.optimizer = make([self.parameter], lr=0.1, **options)
        self.accumulate = accumulate
        self.norms: list[float] = []
        self.trainer = Engine(self.step)

    def step(self, engine: Engine, norm: float) -> None:
        direction = torch.tensor([0.6, 0.8])
        self.parameter.grad = norm * direction
        if engine.state.iteration % self.accumulate == 0:
            self.optimizer.step()
            self.norms.append(float(self.parameter.grad.norm()))

    def clipped_to(self) -> list[float]:
        return [round(norm, 5) for norm in self.norms]


def lognormal(count: int, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).lognormal(0.0, 1.0, count).astype(np.float32).astype(float).tolist()


def test_in_one_line_with_an_unchanged_trainer() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    clipper = GradNormClipper(optimizer, percentile=90.0, window=1000)
    norms, thresholds = [], []

    @trainer.on(Events.ITERATION_COMPLETED)
    def collect(engine: Engine) -> None:
        norms.append(engine.state.metrics["grad_norm"])
        thresholds.append(engine.state.metrics["clip_threshold"])

    clipper.attach(trainer)  # later than who reads it
    trainer.run([(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(30)])
    assert [float(t) for t in thresholds] == [
        np.percentile([float(n) for n in norms[: i + 1]], 90.0) for i in range(30)
    ]
    assert len({id(norm) for norm in norms}) == 30
    assert all(value.ndim == 0 for value in trainer.state.metrics.values())
    report = clipper.report()
    assert report.updates == 30
    assert report.clipped == sum(float(n) > float(t) for n, t in zip(norms, thresholds, strict=True))
    assert report.threshold == float(thresholds[-1])
    assert float(trainer.state.metrics["clip_frequency"]) == report.recent_frequency == report.frequency


def test_the_gradients_are_clipped_before_the_update() -> None:
    training = Training()
    GradNormClipper(training.optimizer, percentile=0.0, window=2).attach(training.trainer)
    training.trainer.run([2.0, 8.0, 4.0, 1.0, 5.0])
    assert training.clipped_to() == [2.0, 2.0, 4.0, 1.0, 1.0]
    torch.testing.assert_close(training.parameter.detach(), -0.1 * sum(training.norms) * torch.tensor([0.6, 0.8]))


def test_max_norm_is_a_ceiling_beside_the_percentile() -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer, percentile=100.0, max_norm=3.0)
    clipper.attach(training.trainer)
    training.trainer.run([2.0, 8.0, 1.0])
    assert training.clipped_to() == [2.0, 3.0, 1.0]
    assert clipper.report().threshold == 3.0


def test_nothing_is_clipped_before_the_warm_up_is_over() -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer, percentile=0.0, max_norm=50.0, warmup_updates=3)
    clipper.attach(training.trainer)
    thresholds = []
    training.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: thresholds.append(float(e.state.metrics["clip_threshold"]))
    )
    training.trainer.run([5.0, 100.0, 4.0, 100.0])
    assert training.clipped_to() == [5.0, 100.0, 4.0, 4.0]
    assert thresholds == [math.inf, math.inf, math.inf, 4.0]
    assert clipper.report().clipped == 1


def test_disabled_only_measures() -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer, percentile=0.0, on_nonfinite="raise", enabled=False)
    clipper.attach(training.trainer)
    training.trainer.run([1.0, 5.0, math.inf])
    assert training.clipped_to() == [1.0, 5.0, math.inf]
    report = clipper.report()
    assert (report.updates, report.clipped, report.nonfinite, report.threshold) == (3, 0, 1, 1.0)


def test_counts_updates_not_iterations() -> None:
    training = Training(accumulate=3)
    clipper = GradNormClipper(training.optimizer)
    clipper.attach(training.trainer)
    training.trainer.run([1.0] * 10)
    assert clipper.report().updates == 3


def test_a_step_without_gradients_is_an_update_of_no_norm() -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer)
    trainer = Engine(lambda engine, batch: training.optimizer.step())
    clipper.attach(trainer)
    trainer.run([0, 1])
    report = clipper.report()
    assert (report.updates, report.clipped, report.zero, report.nonfinite) == (2, 0, 0, 0)
    assert [float(value) for value in clipper.metrics.values()] == [0.0, math.inf, 0.0]


def test_steps_outside_the_trainer_are_left_alone() -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer, percentile=0.0)
    clipper.attach(training.trainer)
    training.trainer.run([1.0])
    training.parameter.grad = torch.tensor([30.0, 40.0])
    training.optimizer.step()
    assert training.parameter.grad.norm() == 50.0
    assert clipper.report().updates == 1


def test_parameters_join_and_freeze_in_mid_run() -> None:
    training = Training()
    late = nn.Parameter(torch.zeros(1))
    clipper = GradNormClipper(training.optimizer, per_group=True, percentile=100.0)
    clipper.attach(training.trainer)

    @training.trainer.on(Events.ITERATION_STARTED)
    def change(engine: Engine) -> None:
        if engine.state.iteration == 3:
            training.optimizer.add_param_group({"params": [late]})
        late.grad = torch.tensor([2.0]) if engine.state.iteration in (3, 4) else None

    training.trainer.run([1.0] * 6)
    assert clipper.state_dict()["seen"] == [6, 6, 2]
    assert clipper.report().norm_quantiles["max"] == pytest.approx(math.hypot(1.0, 2.0))


def test_several_clippers_on_one_trainer() -> None:
    one, two = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizers = [torch.optim.SGD([one], lr=0.1), torch.optim.Adam([two], lr=0.1)]

    def step(engine: Engine, batch: float) -> None:
        one.grad, two.grad = torch.tensor([batch]), torch.tensor([2 * batch])
        for optimizer in optimizers:
            optimizer.step()

    trainer = Engine(step)
    clippers = [
        GradNormClipper(optimizer, name=name) for optimizer, name in zip(optimizers, ("first", "second"), strict=True)
    ]
    handles = [clipper.attach(trainer) for clipper in clippers]
    trainer.run([3.0])
    assert trainer.state.metrics["first_grad_norm"].item() == 3.0
    assert trainer.state.metrics["second_grad_norm"].item() == 6.0
    third = GradNormClipper(optimizers[0], name="first")
    with pytest.raises(ValueError, match=r"name must differ.*'first' is taken"):
        third.attach(trainer)
    handles[0].remove()
    third.attach(trainer)


@pytest.mark.parametrize("fused", [False, True])
def test_two_clippers_on_one_optimizer_act_one_after_the_other(fused: bool) -> None:
    training = Training(fused=fused)
    for ceiling, name in ((4.0, "first"), (3.0, "second")):
        GradNormClipper(training.optimizer, max_norm=ceiling, name=name).attach(training.trainer)
    training.trainer.run([8.0, 3.5, 1.0])
    assert training.clipped_to() == [3.0, 3.0, 1.0]
    assert not {"grad_scale", "found_inf"} & set(vars(training.optimizer))


def test_metrics_go_to_an_ignite_logger(tmp_path: Path) -> None:
    training = Training()
    with TensorboardLogger(str(tmp_path)) as logger:
        logger.attach_output_handler(
            training.trainer, Events.ITERATION_COMPLETED, "training", metric_names=["grad_norm", "clip_threshold"]
        )
        GradNormClipper(training.optimizer).attach(training.trainer)
        training.trainer.run([1.0, 3.0])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.value for event in events.Scalars("training/grad_norm")] == pytest.approx([1.0, 3.0])
    assert [event.value for event in events.Scalars("training/clip_threshold")] == pytest.approx([1.0, 2.8])


# ---- attaching and removing


@pytest.mark.parametrize("fused", [False, True])
def test_attach_and_remove(fused: bool) -> None:
    training = Training(fused=fused)
    before = (set(vars(training.optimizer)), len(training.optimizer._optimizer_step_pre_hooks))
    clipper = GradNormClipper(training.optimizer, percentile=0.0)
    with clipper.attach(training.trainer) as handle:
        with pytest.raises(RuntimeError, match="already attached"):
            clipper.attach(training.trainer)
        training.trainer.run([1.0, 2.0])
    handle.remove()
    assert (set(vars(training.optimizer)), len(training.optimizer._optimizer_step_pre_hooks)) == before
    assert not any(training.trainer._event_handlers.values())
    training.trainer.run([5.0, 6.0], max_epochs=2)
    assert training.clipped_to() == [1.0, 1.0, 5.0, 6.0]
    clipper.attach(training.trainer)


def test_as_an_event_handler_it_says_to_use_attach() -> None:
    training = Training()
    training.trainer.add_event_handler(Events.ITERATION_COMPLETED, GradNormClipper(training.optimizer))
    with pytest.raises(RuntimeError, match=r"clipper\.attach\(trainer\)"):
        training.trainer.run([1.0])


def test_a_closure_is_refused() -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.LBFGS([parameter])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    trainer = Engine(lambda engine, batch: optimizer.step(closure))
    GradNormClipper(optimizer).attach(trainer)
    with pytest.raises(RuntimeError, match="closure"):
        trainer.run([0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda clipper: pickle.loads(pickle.dumps(clipper))])
def test_a_copy_is_attached_nowhere(copied: Any) -> None:
    training = Training(torch.optim.Adam, fused=True)
    clipper = GradNormClipper(training.optimizer, on_nonfinite="skip")
    clipper.attach(training.trainer)
    training.trainer.run([1.0, 2.0, 3.0])
    other = copied(clipper)
    assert other.report() == clipper.report()

    (parameter,) = other.optimizer.param_groups[0]["params"]

    def step(engine: Engine, norm: float) -> None:
        parameter.grad = norm * torch.tensor([0.6, 0.8])
        other.optimizer.step()

    trainer = Engine(step)
    with other.attach(trainer):
        assert "step" in vars(other.optimizer)  # guarded, which the first one's guard would not do
        trainer.run([4.0])
    assert "step" not in vars(other.optimizer)
    assert other.report().updates == 4
    assert clipper.report().updates == 3


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("on_nonfinite", ["count", "skip"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_dropped_training_is_freed_without_the_collector(fused: bool, on_nonfinite: Any, removed: bool) -> None:
    def dropped() -> list[weakref.ref[Any]]:
        parameter = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([parameter], lr=0.1, fused=fused)

        def step(engine: Engine, norm: float) -> None:
            parameter.grad = torch.full((2,), norm)
            optimizer.step()

        trainer = Engine(step)
        clipper = GradNormClipper(optimizer, on_nonfinite=on_nonfinite)
        handle = clipper.attach(trainer)
        trainer.run([1.0, 2.0, math.nan])
        if removed:
            handle.remove()
        return [weakref.ref(one) for one in (optimizer, parameter, trainer, clipper)]

    dropped()  # what is imported and compiled for the first one leaves frames behind
    gc.collect()
    gc.disable()
    try:
        assert [one() for one in dropped()] == [None] * 4
    finally:
        gc.enable()


def test_a_trainer_that_is_dropped_leaves_nothing_on_the_optimizer() -> None:
    training = Training(fused=True)
    before = (set(vars(training.optimizer)), len(training.optimizer._optimizer_step_pre_hooks))
    clipper = GradNormClipper(training.optimizer, on_nonfinite="skip", name="one")
    handle = clipper.attach(training.trainer)
    training.trainer.run([1.0])
    del training.trainer
    gc.collect()
    assert (set(vars(training.optimizer)), len(training.optimizer._optimizer_step_pre_hooks)) == before
    handle.remove()
    clipper.attach(Engine(training.step))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("on_nonfinite", ["count", "skip"])
@pytest.mark.parametrize("culprit", ["hook before", "hook after", "kernel"])
def test_a_step_that_raises_leaves_nothing_behind(scaled: bool, on_nonfinite: Any, culprit: str) -> None:
    training = Training(torch.optim.Adam, fused=True)
    optimizer = training.optimizer
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaled)
    clipper = GradNormClipper(optimizer, percentile=0.0, on_nonfinite=on_nonfinite)
    fail = False

    def hook(*_: Any) -> None:
        if fail:
            raise RuntimeError("planted")

    def step(engine: Engine, norm: float) -> None:
        training.parameter.grad = torch.tensor([0.0, norm])
        scaler.scale(torch.zeros(()))
        scaler.step(optimizer)
        scaler.update()

    trainer = Engine(step)
    if culprit == "hook before":
        optimizer.register_step_pre_hook(hook)
    clipper.attach(trainer)
    if culprit == "hook after":
        optimizer.register_step_pre_hook(hook)
    trainer.run([4.0])
    if culprit == "kernel":
        optimizer.state[training.parameter]["exp_avg"] = torch.zeros(2, dtype=torch.int64)
    fail = True
    with pytest.raises(RuntimeError, match=r"planted|type"):
        trainer.run([4.0, 400.0, 400.0], max_epochs=3)
    assert not {"grad_scale", "found_inf"} & set(vars(optimizer))
    assert training.parameter.grad is not None


def test_gradients_set_aside_come_back_when_the_step_raises() -> None:
    """Around the guard nobody can leave the step, so it is only given no gradients."""
    training = Training()
    parameter, optimizer, seen = training.parameter, training.optimizer, []

    def step(engine: Engine, norm: float) -> None:
        if norm:
            parameter.grad = torch.full((2,), norm)
        try:
            type(optimizer).step(optimizer)
        except ZeroDivisionError:
            seen.append(parameter.grad)

    trainer = Engine(step)
    GradNormClipper(optimizer, on_nonfinite="skip").attach(trainer)
    optimizer.register_step_pre_hook(lambda *_: 1 / 0 if parameter.grad is None else None)
    trainer.run([math.inf, 2.0, math.inf, 0.0])
    assert seen == [None, None, None]
    assert parameter.grad is None
    torch.testing.assert_close(parameter.detach(), torch.full((2,), -0.2))


def test_a_compiled_step_is_compiled_once() -> None:
    for fused, before in ((False, False), (False, True), (True, False), (True, True)):
        torch._dynamo.reset()
        training = Training(torch.optim.AdamW, fused=fused)
        counter = CompileCounter()
        clipper = GradNormClipper(training.optimizer, percentile=50.0, window=5)
        if before:
            compiled = torch.compile(training.optimizer.step, backend=counter)
        clipper.attach(training.trainer)
        if not before:
            compiled = torch.compile(training.optimizer.step, backend=counter)

        def step(engine: Engine, norm: float, training: Training = training, compiled: Any = compiled) -> None:
            training.parameter.grad = norm * torch.tensor([0.6, 0.8])
            compiled()

        training.trainer._process_function = step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own, on compiling its optimizers
            training.trainer.run([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
        assert clipper.report().clipped == 3
        assert counter.frame_count <= 1, (fused, before)


# ---- the report


def test_report_before_any_update() -> None:
    report = GradNormClipper(Training().optimizer, percentile=95.0).report()
    assert isinstance(report, ClipReport)
    assert (report.updates, report.clipped, report.frequency, report.recent_frequency) == (0, 0, 0.0, 0.0)
    assert report.nominal_frequency == pytest.approx(0.05)
    assert report.threshold == math.inf
    assert list(report.norm_quantiles) == [50, 90, 99, "max"]
    assert report.advice == "No update yet."
    with pytest.raises(AttributeError, match="cannot assign"):
        report.updates = 1  # type: ignore[misc]


def test_frequency_recent_and_overall() -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer, percentile=100.0, window=4, max_norm=5.0)
    clipper.attach(training.trainer)
    training.trainer.run([9.0, 9.0, 9.0, 1.0, 1.0, 1.0, 9.0, 1.0])
    report = clipper.report()
    assert (report.clipped, report.frequency, report.recent_frequency) == (4, 0.5, 0.25)
    assert training.trainer.state.metrics["clip_frequency"].item() == 0.25


def test_more_than_half_clipped_is_warned_of_once() -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer, max_norm=1.0)
    clipper.attach(training.trainer)
    with pytest.warns(UserWarning, match=r"lower the learning rate.*5 times the threshold") as caught:
        training.trainer.run([5.0] * 100)
    assert len(caught) == 1
    assert "lower the learning rate" in clipper.report().advice


def test_the_advice_says_by_how_much_the_norms_outgrow_their_thresholds() -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer, percentile=90.0, window=21)
    clipper.attach(training.trainer)
    # each is 1.1 squared times the second newest before it, which is the 90th percentile of 21
    with pytest.warns(UserWarning, match=r"typical norm is 1\.\d+ times the threshold"):
        training.trainer.run([1.1**i for i in range(60)])
    assert "the typical norm is 1.21 times the threshold, so try 1/1.21 of it" in clipper.report().advice


def test_more_than_half_clipped_is_the_intention_of_a_low_percentile() -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer, percentile=10.0)
    clipper.attach(training.trainer)
    training.trainer.run(lognormal(100))
    report = clipper.report()
    assert report.recent_frequency > 0.8
    assert report.advice == "Nothing to change."


def test_histogram_of_all_unclipped_norms() -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer, window=10)
    clipper.attach(training.trainer)
    norms = lognormal(500)
    training.trainer.run([*norms, math.nan])
    edges, counts = clipper.histogram()
    assert counts.sum() == 500
    assert counts[0] > 0
    assert counts[-1] > 0
    np.testing.assert_array_equal(counts, np.histogram(norms, edges)[0])


def test_plot(tmp_path: Path) -> None:
    training = Training()
    clipper = GradNormClipper(training.optimizer, window=10, warmup_updates=3)
    clipper.plot().figure.savefig(tmp_path / "empty.png")
    clipper.attach(training.trainer)
    training.trainer.run([*lognormal(50), math.inf])
    clipper.plot(title="norms").figure.savefig(tmp_path / "norms.png")
    assert (tmp_path / "norms.png").stat().st_size > 5_000


# ---- arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"percentile": 101}, ValueError, "percentile must be at most 100, got 101"),
        ({"percentile": math.nan}, ValueError, "percentile must be finite, got nan"),
        ({"percentile": "90"}, TypeError, "percentile must be a real number, got '90' of type str"),
        ({"percentile": True}, TypeError, "percentile must be a real number, got True of type bool"),
        ({"window": 0}, ValueError, "window must be at least 1, got 0"),
        ({"window": 10.0}, TypeError, "window must be an integer or None, got 10.0 of type float"),
        ({"warmup_updates": -1}, ValueError, "warmup_updates must be at least 0, got -1"),
        ({"warmup_updates": 1.5}, TypeError, "warmup_updates must be an integer, got 1.5 of type float"),
        ({"max_norm": 0.0}, ValueError, "max_norm must be greater than 0, got 0.0"),
        ({"max_norm": math.nan}, ValueError, "max_norm must be finite, got nan"),
        ({"max_norm": torch.ones(2)}, TypeError, "max_norm must be a real number, got tensor"),
        ({"norm_type": 0}, ValueError, "norm_type must be greater than 0, got 0"),
        ({"norm_type": None}, TypeError, "norm_type must be a real number, got None of type NoneType"),
        ({"on_nonfinite": "ignore"}, ValueError, "on_nonfinite must be one of .*count.*, got 'ignore'"),
        ({"per_group": 1}, TypeError, "per_group must be True or False, got 1 of type int"),
        ({"enabled": None}, TypeError, "enabled must be True or False, got None of type NoneType"),
        ({"name": 3}, TypeError, "name must be a string, got 3 of type int"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GradNormClipper(Training().optimizer, **options)


def test_wrong_optimizer_and_trainer() -> None:
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer, got .* of type Linear"):
        GradNormClipper(nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"trainer must be an ignite\.engine\.Engine, got SGD"):
        GradNormClipper(Training().optimizer).attach(Training().optimizer)  # type: ignore[arg-type]


def test_numpy_numbers_are_numbers() -> None:
    clipper = GradNormClipper(Training().optimizer, percentile=np.float32(50), window=np.int64(3))
    assert clipper.report().nominal_frequency == 0.5


# ---- state


def saved_and_loaded(clipper: GradNormClipper) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(clipper.state_dict(), buffer)
    buffer.seek(0)
    state: dict[str, Any] = torch.load(buffer, weights_only=True)
    return state


@pytest.mark.parametrize("window", [None, 7, 1000])
@pytest.mark.parametrize("stop", [1, 13, 40])
def test_a_resumed_run_is_the_uninterrupted_one(window: int | None, stop: int) -> None:
    norms = [*lognormal(40), math.inf, *lognormal(39, seed=1)]
    whole, first, second = Training(), Training(), Training()
    clippers = [GradNormClipper(t.optimizer, window=window, warmup_updates=3) for t in (whole, first, second)]
    for training, clipper in zip((whole, first, second), clippers, strict=True):
        clipper.attach(training.trainer)
    whole.trainer.run(norms)
    first.trainer.run(norms[:stop])
    clippers[2].load_state_dict(saved_and_loaded(clippers[1]))
    second.trainer.run(norms[stop:])
    np.testing.assert_array_equal(first.norms + second.norms, whole.norms)
    assert clippers[2].report() == clippers[0].report()
    mine, theirs = clippers[2].state_dict(), clippers[0].state_dict()
    for key in ("decisions", "histogram", "norms", "thresholds"):
        np.testing.assert_array_equal(mine[key], theirs[key], err_msg=key)


@pytest.mark.parametrize(("before", "after"), [(None, 5), (50, 5), (5, 50), (5, None)])
def test_restores_across_window_sizes(before: int | None, after: int | None) -> None:
    norms = lognormal(30)
    first, second = Training(), Training()
    old, new = GradNormClipper(first.optimizer, window=before), GradNormClipper(second.optimizer, window=after)
    old.attach(first.trainer)
    first.trainer.run(norms)
    new.load_state_dict(saved_and_loaded(old))
    kept = norms[-min(before or 30, after or 30) :]
    assert new.state_dict()["windows"][0] == pytest.approx(kept, rel=1e-6)
    assert new.report().recent_frequency == pytest.approx(np.mean(old.state_dict()["decisions"][-len(kept) :]))
    assert (new.report().updates, new.report().clipped) == (30, old.report().clipped)
    new.attach(second.trainer)
    second.trainer.run([0.5])
    last = [*kept, 0.5][-(after or 31) :]
    assert new.report().threshold == pytest.approx(np.percentile(last, 90.0), rel=1e-6)


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_clipper import Training, GradNormClipper, lognormal, torch, Events
from ignite.handlers import Checkpoint, DiskSaver

training = Training()
clipper = GradNormClipper(training.optimizer, window=9)
clipper.attach(training.trainer)
to_save = {{"trainer": training.trainer, "optimizer": training.optimizer, "clipper": clipper}}
saver = DiskSaver({folder!r}, require_empty=False)
training.trainer.add_event_handler(Events.ITERATION_COMPLETED, Checkpoint(to_save, saver, n_saved=2))
training.trainer.add_event_handler(Events.ITERATION_STARTED(once=24), lambda: os.kill(os.getpid(), signal.SIGKILL))
training.trainer.run(lognormal(40))
"""


def test_killed_and_resumed(tmp_path: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = max(tmp_path.glob("*.pt"), key=lambda path: int(path.stem.rsplit("_", 1)[1]))
    saved = torch.load(last, weights_only=True)
    assert saved["clipper"]["updates"] == 23
    whole, resumed = Training(), Training()
    clippers = [GradNormClipper(t.optimizer, window=9) for t in (whole, resumed)]
    for training, clipper in zip((whole, resumed), clippers, strict=True):
        clipper.attach(training.trainer)
    whole.trainer.run(lognormal(40))
    clippers[1].load_state_dict(saved["clipper"])
    resumed.trainer.run(lognormal(40)[23:])
    assert resumed.norms == whole.norms[23:]
    assert clippers[1].report() == clippers[0].report()


# ---- shards, on two processes


def _train_sharded(rank: int, store: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        for fused in (False, True):
            for on_nonfinite in ("count", "skip"):
                torch.manual_seed(0)
                model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
                fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
                optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=fused)
                clipper = GradNormClipper(optimizer, percentile=50.0, window=5, on_nonfinite=on_nonfinite)
                found = _train_model(model, optimizer, clipper)
                weights = [parameter.full_tensor().detach() for parameter in model.parameters()]
                torch.save((found, weights), Path(folder) / f"{fused}-{on_nonfinite}-{rank}.pt")
    finally:
        dist.destroy_process_group()
    # now and then a spawned process with a gloo group aborts while its interpreter shuts down, when all is done
    os._exit(0)


def _train_model(model: nn.Module, optimizer: torch.optim.Optimizer, clipper: GradNormClipper) -> list[list[float]]:
    """Train on the same batches on every rank, one of them not finite. Returns norms and thresholds."""
    batches = [(1 + i % 3) * torch.randn(4, 3, generator=torch.Generator().manual_seed(i)) for i in range(12)]
    found: list[list[float]] = []

    def step(engine: Engine, batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss = model(batch).square().sum()
        (loss * (math.inf if engine.state.iteration == 6 and clipper_skips else 1.0)).backward()
        optimizer.step()

    clipper_skips = clipper._rule.on_nonfinite == "skip"
    trainer = Engine(step)
    clipper.attach(trainer)

    @trainer.on(Events.ITERATION_COMPLETED)
    def collect(engine: Engine) -> None:
        found.append([float(engine.state.metrics[key]) for key in ("grad_norm", "clip_threshold", "clip_frequency")])

    trainer.run(batches)
    assert clipper.report().skipped == clipper_skips
    return found


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="FSDP2 on CPUs needs PyTorch 2.7")
def test_sharded_training_is_that_of_one_process(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_train_sharded, args=(str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    for on_nonfinite in ("count", "skip"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        clipper = GradNormClipper(optimizer, percentile=50.0, window=5, on_nonfinite=on_nonfinite)  # type: ignore[arg-type]
        expected = _train_model(model, optimizer, clipper)
        for fused in (False, True):
            ranks = [torch.load(tmp_path / f"{fused}-{on_nonfinite}-{rank}.pt") for rank in (0, 1)]
            assert ranks[0][0] == ranks[1][0]  # the same decisions, to the bit
            np.testing.assert_allclose(ranks[0][0], expected, rtol=1e-4)
            for mine, parameter in zip(ranks[0][1], model.parameters(), strict=True):
                torch.testing.assert_close(mine, parameter.detach(), rtol=1e-3, atol=1e-5)
