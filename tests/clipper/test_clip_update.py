"""The arithmetic of clipping, against PyTorch's own, on the host and in the form for a device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import SGD, Adagrad, Adam, AdamW

from ignite_lr.clipper import GradNormClipper, _clipper
from ignite_lr.core import host

OPTIMIZERS = [
    pytest.param(SGD, {"momentum": 0.9}, id="SGD"),
    pytest.param(Adam, {}, id="Adam"),
    pytest.param(AdamW, {}, id="AdamW"),
    pytest.param(Adagrad, {}, id="Adagrad"),
]
BATCHES = [(1 + i % 5) * torch.randn(4, 3, generator=torch.Generator().manual_seed(i)) for i in range(12)]
BATCHES[7] = BATCHES[7] * math.inf


@pytest.fixture(params=["host", "device"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The form for a device runs on the CPU as well, it only never looks at a value."""
    if request.param == "device":
        monkeypatch.setattr(_clipper, "reads_freely", lambda device: False)
    return str(request.param)


@pytest.fixture
def no_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is brought to the host as long as the test runs."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a value was read on the host")

    monkeypatch.setattr(host, "read", refuse)
    monkeypatch.setattr(host, "arrays", refuse)
    yield
    monkeypatch.undo()


def model_and_optimizer(kind: type, options: dict[str, Any], fused: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    return model, kind(model.parameters(), lr=0.05, fused=fused, **options)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaling: str, batches: list[torch.Tensor], clipper: Any = None
) -> list[list[torch.Tensor]]:
    """Train on sums of squares. Returns the unscaled gradients of each update as the optimizer applied them."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaling != "none")
    applied = []

    def step(engine: Engine, batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale(model(batch).square().sum()).backward()
        if scaling == "unscale":
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()

    def record(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # a fused kernel leaves behind the gradients that it applied, unless it skipped
        if float(getattr(optimizer, "found_inf", 0.0)) == 0.0:
            applied.append([parameter.grad.clone() for parameter in model.parameters()])

    optimizer.register_step_post_hook(record)
    trainer = Engine(step)
    if clipper is not None:
        clipper.attach(trainer)
    trainer.run(batches)
    return applied


def train_with_torch(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[torch.Tensor], window: int, skip: bool
) -> tuple[list[list[torch.Tensor]], list[float], int]:
    """The same with PyTorch's clipping at NumPy's percentile. Returns gradients, finite norms, clipped updates."""
    applied, norms, clipped = [], [], 0
    for batch in batches:
        optimizer.zero_grad()
        model(batch).square().sum().backward()
        norm = get_total_norm([parameter.grad for parameter in model.parameters()])
        if not norm.isfinite():
            assert skip
            continue
        norms.append(float(norm))
        threshold = float(np.percentile(norms[-window:], 60.0))
        if norms[-1] > threshold:
            clipped += 1
            clip_grads_with_norm_(model.parameters(), threshold, norm)
        applied.append([parameter.grad.clone() for parameter in model.parameters()])
        optimizer.step()
    return applied, norms, clipped


@pytest.mark.parametrize("scaling", ["none", "scaler", "unscale"])
@pytest.mark.parametrize("fused", [False, True], ids=["eager", "fused"])
@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
def test_clipped_gradients_equal_those_of_torch(
    kind: type, options: dict[str, Any], fused: bool, scaling: str, form: str
) -> None:
    batches = BATCHES if scaling != "none" else BATCHES[:7] + BATCHES[8:]
    theirs, their_optimizer = model_and_optimizer(kind, options, fused)
    expected, norms, clipped = train_with_torch(theirs, their_optimizer, batches, window=5, skip=scaling != "none")

    mine, optimizer = model_and_optimizer(kind, options, fused)
    clipper = GradNormClipper(optimizer, percentile=60.0, window=5)
    applied = train(mine, optimizer, scaling, batches, clipper)

    assert len(applied) == len(expected) == 11
    for got, wanted in zip(applied, expected, strict=True):
        for gradient, reference in zip(got, wanted, strict=True):
            if not fused:
                assert torch.equal(gradient, reference)
            else:
                # the fused step divides; the weights then differ in the last bit, and what follows from them
                torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)
    report = clipper.report()
    assert (report.updates, report.clipped, report.nonfinite, report.skipped) == (11, clipped, 0, 0)
    assert clipped > 2
    assert not {"grad_scale", "found_inf"} & set(vars(optimizer))
    np.testing.assert_allclose(clipper.state_dict()["windows"][0], norms[-5:], rtol=1e-5)


@pytest.mark.parametrize("scaling", ["none", "scaler", "unscale"])
@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
def test_through_grad_scale_one_clipped_step_is_within_a_millionth(
    kind: type, options: dict[str, Any], scaling: str, form: str
) -> None:
    for batch in BATCHES[:4]:
        theirs, _ = model_and_optimizer(kind, options, False)
        theirs(batch).square().sum().backward()
        norm = get_total_norm([parameter.grad for parameter in theirs.parameters()])
        clip_grads_with_norm_(theirs.parameters(), 0.01, norm)
        mine, optimizer = model_and_optimizer(kind, options, True)
        (applied,) = train(mine, optimizer, scaling, [batch], GradNormClipper(optimizer, max_norm=0.01))
        for gradient, parameter in zip(applied, theirs.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("fused", [False, True], ids=["eager", "fused"])
@pytest.mark.parametrize(("kind", "options"), [*OPTIMIZERS, pytest.param(SGD, {"momentum": 0.9, "dampening": 0.5})])
@pytest.mark.parametrize("bad", [0, 3])
@pytest.mark.parametrize("scaling", ["none", "scaler"])
def test_a_skipped_update_changes_nothing(
    kind: type, options: dict[str, Any], fused: bool, bad: int, scaling: str, form: str
) -> None:
    """Training with the bad batch, and without it, ends with the same bits."""
    good = BATCHES[:5]
    batches = [*good[:bad], torch.full((4, 3), 2e19), *good[bad:]]  # finite gradients, no finite norm

    without, optimizer = model_and_optimizer(kind, options, fused)
    train(without, optimizer, scaling, good, GradNormClipper(optimizer, on_nonfinite="skip"))
    mine, skipping = model_and_optimizer(kind, options, fused)
    clipper = GradNormClipper(skipping, on_nonfinite="skip")
    steps = train_skipping(mine, skipping, scaling, batches, clipper)

    for got, wanted in zip(mine.parameters(), without.parameters(), strict=True):
        assert torch.equal(got, wanted)
    states = [one.state_dict()["state"].values() for one in (skipping, optimizer)]
    for got, wanted in zip(*states, strict=True):
        for key in wanted:
            assert torch.equal(torch.as_tensor(got[key]), torch.as_tensor(wanted[key])), key
    report = clipper.report()
    assert (report.updates, report.nonfinite, report.skipped) == (5, 1, 1)
    assert steps == 6
    assert not {"grad_scale", "found_inf"} & set(vars(skipping))
    assert all(parameter.grad is not None for parameter in mine.parameters())


def train_skipping(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaling: str, batches: list[torch.Tensor], clipper: Any
) -> int:
    """Train with a gradient of 1e30 in place of the batch whose elements say so."""
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=scaling != "none")
    steps = 0

    def step(engine: Engine, batch: torch.Tensor) -> None:
        nonlocal steps
        steps += 1
        optimizer.zero_grad()
        if batch[0, 0] == 2e19:
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 1e30)
            scaler.scale(torch.zeros(()))
        else:
            scaler.scale(model(batch).square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()

    trainer = Engine(step)
    clipper.attach(trainer)
    trainer.run(batches)
    return steps


def test_the_form_for_a_device_reads_nothing(form: str, no_reads: None) -> None:
    model, optimizer = model_and_optimizer(AdamW, {}, True)
    clipper = GradNormClipper(optimizer, on_nonfinite="skip", window=3)
    if form == "host":
        with pytest.raises(AssertionError, match="read on the host"):
            train(model, optimizer, "scaler", BATCHES, clipper)
    else:
        train(model, optimizer, "scaler", BATCHES, clipper)
    metrics = clipper.metrics
    assert (len(metrics) == 3) == (form == "device")


@pytest.mark.parametrize("options", [{}, {"window": None}, {"warmup_updates": 4}, {"per_group": True}])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_both_forms_keep_the_same_record(
    options: dict[str, Any], norm_type: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, reports = [], []
    for free in (True, False):
        monkeypatch.setattr(_clipper, "reads_freely", lambda device, free=free: free)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        groups = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
        optimizer = SGD(groups, lr=0.05)
        clipper = GradNormClipper(optimizer, percentile=60.0, norm_type=norm_type, **{"window": 5, **options})
        train(model, optimizer, "none", BATCHES[:7] + BATCHES[8:], clipper)
        states.append(clipper.state_dict())
        reports.append(clipper.report())
    mine, theirs = states
    assert mine["clipped"] == theirs["clipped"] > 0
    assert len(mine["windows"]) == len(theirs["windows"])
    for key in ("decisions", "histogram", "norms", "thresholds", "seen"):
        np.testing.assert_allclose(mine[key], theirs[key], rtol=1e-5, atol=1e-6, err_msg=key)
    for one, other in zip(mine["windows"], theirs["windows"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert reports[0].recent_frequency == reports[1].recent_frequency


def test_groups_are_clipped_apart(form: str) -> None:
    small, large = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = SGD([{"params": [small]}, {"params": [large]}], lr=1.0)
    clipper = GradNormClipper(optimizer, percentile=0.0, window=10, per_group=True)
    seen = []

    def step(engine: Engine, batch: tuple[float, float]) -> None:
        small.grad = torch.tensor([batch[0], 0.0])
        large.grad = torch.tensor([0.0, batch[1]])
        optimizer.step()
        seen.append((float(small.grad[0]), float(large.grad[1])))

    trainer = Engine(step)
    clipper.attach(trainer)
    trainer.run([(3.0, 400.0), (6.0, 200.0), (1.5, 300.0)])
    assert seen == [pytest.approx((3.0, 400.0)), pytest.approx((3.0, 200.0)), pytest.approx((1.5, 200.0))]
    report = clipper.report()
    assert (report.updates, report.clipped) == (3, 2)
    assert report.threshold == pytest.approx(math.hypot(1.5, 200.0))
    assert report.norm_quantiles["max"] == pytest.approx(math.hypot(3.0, 400.0))
    assert trainer.state.metrics["grad_norm"].item() == pytest.approx(math.hypot(1.5, 300.0))


def test_count_treats_a_norm_that_is_not_finite_as_torch_does(form: str) -> None:
    for gradient in ([math.inf, 1.0], [math.nan, 1.0]):
        theirs, mine = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
        optimizer = SGD([mine], lr=1.0)

        def step(engine: Engine, batch: list[float], mine: nn.Parameter = mine, optimizer: Any = optimizer) -> None:
            mine.grad = torch.tensor(batch)
            optimizer.step()

        trainer = Engine(step)
        clipper = GradNormClipper(optimizer)
        clipper.attach(trainer)
        trainer.run([[3.0, 4.0], gradient])
        theirs.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([theirs], 5.0)
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, equal_nan=True, rtol=0.0, atol=0.0)
        report = clipper.report()
        assert (report.updates, report.clipped, report.nonfinite) == (2, 0, 1)
        assert report.norm_quantiles["max"] == 5.0


def test_raise(form: str) -> None:
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = SGD([parameter], lr=1.0)
    clipper = GradNormClipper(optimizer, on_nonfinite="raise")

    def step(engine: Engine, batch: list[float]) -> None:
        parameter.grad = torch.tensor(batch)
        optimizer.step()

    trainer = Engine(step)
    clipper.attach(trainer)
    with pytest.raises(RuntimeError, match=r"gradient norm is inf.*on_nonfinite='raise'"):
        trainer.run([[1.0, math.inf]])
    assert torch.equal(parameter.detach(), torch.zeros(2))
