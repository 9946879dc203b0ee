"""An update that is not clipped is the one without a clipper, to the bit; one that is, that of ``clip_grad_norm_``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from ignite_lr.clipper import GradNormClipper, _clipper

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"momentum": 0.9}),
    ("Adam", {}),
    ("AdamW", {}),
    ("Adagrad", {}),
    ("RMSprop", {}),
    ("Muon", {}),
]
FUSED = ("SGD", "Adam", "AdamW", "Adagrad")
CASES = [
    pytest.param(name, {**options, **({"fused": True} if fused else {})}, id=f"{name}-{'fused' if fused else 'eager'}")
    for name, options in KINDS
    for fused in (False, True)
    if not fused or name in FUSED
]
NORMS = (1e-8, 1e-4, 1.0, 1e4)
SCALE = 1024.0


def gradients(norm: float) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(3, 4, generator=generator), torch.randn(5, 2, generator=generator)]
    return [norm * gradient / get_total_norm(drawn) for gradient in drawn]


def training(name: str, options: dict[str, Any]) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5, 2))]
    return weights, getattr(torch.optim, name)(weights, lr=0.1, **options)


def apply(
    weights: list[nn.Parameter], optimizer: torch.optim.Optimizer, norm: float, scaling: str, max_norm: float | None
) -> None:
    """One update in PyTorch's own words."""
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, enabled=scaling != "none")
    for weight, gradient in zip(weights, gradients(norm), strict=True):
        weight.grad = gradient * (SCALE if scaling != "none" else 1.0)
    scaler.scale(torch.zeros(()))
    if scaling == "unscale" or max_norm is not None:
        scaler.unscale_(optimizer)
    if max_norm is not None:
        clip_grad_norm_(weights, max_norm)
    scaler.step(optimizer)
    scaler.update()


def everything(weights: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    state = [value for weight in weights for value in optimizer.state[weight].values()]
    return [weight.detach() for weight in weights] + [value for value in state if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("form", ["host", "device"])
@pytest.mark.parametrize("scaling", ["none", "scaler", "unscale"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_left_alone_or_clipped_as_torch_does(
    name: str, options: dict[str, Any], scaling: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(torch.optim, name):
        pytest.skip(f"this PyTorch has no {name}")
    # the form for a device runs on the CPU as well, it only never looks at a value
    monkeypatch.setattr(_clipper, "reads_freely", lambda device: form == "host")
    for norm in NORMS:
        measured = float(get_total_norm(gradients(norm)))
        for limit in (2 * measured, measured, measured / 3):
            mine, optimizer = training(name, options)
            clipper = GradNormClipper(optimizer, percentile=100.0, max_norm=limit)

            def step(engine: Engine, norm: float, mine: Any = mine, optimizer: Any = optimizer) -> None:
                apply(mine, optimizer, norm, scaling, None)

            trainer = Engine(step)
            clipper.attach(trainer)
            trainer.run([norm])
            above = measured > limit
            assert clipper.report().clipped == above

            theirs, reference = training(name, options)
            apply(theirs, reference, norm, scaling, limit if above else None)
            for got, wanted in zip(everything(mine, optimizer), everything(theirs, reference), strict=True):
                if above and options.get("fused"):
                    # the kernel divides, where PyTorch multiplies by a reciprocal
                    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-12)
                else:
                    assert torch.equal(got, wanted), (norm, limit)


@pytest.mark.parametrize("form", ["host", "device"])
def test_a_group_that_is_not_clipped_is_left_alone(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_clipper, "reads_freely", lambda device: form == "host")
    small, large = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([{"params": [small]}, {"params": [large]}], lr=0.1)
    clipper = GradNormClipper(optimizer, percentile=100.0, max_norm=1e-5, per_group=True)
    tiny, big = torch.tensor([1e-7, -3e-8, 1e-40]), torch.tensor([1e-5, -2e-5, 1e-6])

    def step(engine: Engine, batch: int) -> None:
        small.grad, large.grad = tiny.clone(), big.clone()
        optimizer.step()

    trainer = Engine(step)
    clipper.attach(trainer)
    trainer.run([0])
    wanted = nn.Parameter(torch.zeros(3))
    wanted.grad = big.clone()
    clip_grad_norm_([wanted], 1e-5)
    assert small.grad is not None
    assert large.grad is not None
    assert torch.equal(small.grad, tiny)
    assert torch.equal(large.grad, wanted.grad)
    assert clipper.report().clipped == 1
