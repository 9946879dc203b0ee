"""A training that saw a range test goes on bitwise like one that never did, by whatever way the sweep ended."""

from __future__ import annotations

import dataclasses
import functools
import random
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import EMAHandler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr import schedules
from ignite_lr.clipper import GradNormClipper
from ignite_lr.logger import LRLogger
from ignite_lr.lr_finder import LRFinder
from ignite_lr.scheduler import LRSchedulerHandler, ScheduleLR

SWEEP_POINTS = 24

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
    "adamw": torch.optim.AdamW,
    "fused_adamw": functools.partial(torch.optim.AdamW, fused=True),
    "adagrad": torch.optim.Adagrad,
}
VARIANTS = ("plain", "batchnorm_dropout", "amp", "accumulation", "tensor_lr", "two_groups", "ema")
ENDS = ("num_iter", "divergence", "exception", "interrupt")


class BoomError(Exception):
    """What the training step of these tests raises."""


class Training:
    """A small training with everything that a sweep could disturb."""

    def __init__(self, optimizer: str, variant: str) -> None:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - the global state is what is looked at
        self.raises: type[BaseException] | None = None
        extra = [nn.BatchNorm1d(8), nn.Dropout(0.3)] if variant == "batchnorm_dropout" else []
        self.model = nn.Sequential(nn.Linear(4, 8), *extra, nn.Tanh(), nn.Linear(8, 1))
        lr: Any = torch.tensor(0.01) if variant == "tensor_lr" else 0.01
        groups: Any = self.model.parameters()
        if variant == "two_groups":
            groups = [
                {"params": self.model[0].parameters(), "lr": 0.02},
                {"params": self.model[-1].parameters(), "weight_decay": 0.1},
            ]
        self.optimizer = OPTIMIZERS[optimizer](groups, lr=lr)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=7, enabled=variant == "amp")
        self.every = 3 if variant == "accumulation" else 1
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(40, 4, generator=generator)
        self.loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=5, shuffle=True)
        self.trainer = Engine(self.step)
        self.losses: list[float] = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: self.losses.append(e.state.output))
        self.to_save = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        self.ema: EMAHandler | None = None
        if variant == "ema":
            self.ema = EMAHandler(self.model, momentum=0.1)
            self.ema.attach(self.trainer)

    def step(self, engine: Engine, batch: Any) -> float:
        self.model.train()
        x, y = batch
        # noise from all generators, as augmentation would draw it
        x = x + 0.01 * torch.randn_like(x) + 0.01 * random.random() + 0.01 * np.random.rand()  # noqa: NPY002 - see above
        with torch.autocast("cpu", torch.bfloat16, enabled=self.scaler.is_enabled()):
            loss = nn.functional.mse_loss(self.model(x).float(), y)
        if (engine.state.iteration - 1) % self.every == 0:
            self.optimizer.zero_grad()
        self.scaler.scale(loss / self.every).backward()
        if self.raises is not None and engine.state.iteration == 10:
            raise self.raises("in the middle of a step")
        if engine.state.iteration % self.every == 0:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.item()

    def run(self, updates: int) -> None:
        # an epoch for each update: max_iters is not in Ignite 0.5.2
        self.trainer.run(self.loader, max_epochs=self.trainer.state.epoch + updates, epoch_length=self.every)

    def sweep(self, end: str) -> None:
        finder = LRFinder()
        self.raises = {"exception": BoomError, "interrupt": KeyboardInterrupt}.get(end)
        end_lr = 1e6 if end == "divergence" else 0.1
        settings = {"num_iter": SWEEP_POINTS, "start_lr": 1e-6, "end_lr": end_lr}
        if end == "divergence":
            settings["diverge_th"] = 1.5
        with (
            warnings.catch_warnings(),
            nullcontext() if self.raises is None else pytest.raises(self.raises, match="in the middle of a step"),
            finder.attach(self.trainer, self.to_save, **settings) as sweep,
        ):
            warnings.filterwarnings("ignore", "Run completed without loss diverging")
            sweep.run(self.loader)
        expected = "num_iter" if self.raises is None else f"exception:{self.raises.__name__}"
        assert finder.result.stop_reason in ({"divergence", "non_finite"} if end == "divergence" else {expected})
        assert len(finder.result.lrs) > 2
        self.raises = None

    def everything(self) -> dict[str, Any]:
        """All that has to be the same, bit for bit."""
        return {
            "losses": self.losses,
            "model": self.model.state_dict(),
            "gradients": [parameter.grad for parameter in self.model.parameters()],
            "modes": [module.training for module in self.model.modules()],
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "stages": list(getattr(self.scaler, "_per_optimizer_states", {}).values()),
            "ema": self.ema.ema_model.state_dict() if self.ema is not None else None,
            "trainer": {key: value for key, value in vars(self.trainer.state).items() if key not in ("times", "batch")},
            "torch": torch.get_rng_state(),
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002 - see above
        }


def assert_same(left: Any, right: Any, where: str = "") -> None:
    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype, where
        assert torch.equal(left, right), where
    elif isinstance(left, np.ndarray):
        assert np.array_equal(left, right), where
    elif isinstance(left, dict):
        assert list(left) == list(right), where
        for key in left:
            assert_same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    elif not isinstance(left, DataLoader):
        assert left == right, where


@functools.cache
def undisturbed(optimizer: str, variant: str) -> dict[str, Any]:
    training = Training(optimizer, variant)
    training.run(5)
    training.run(30)
    return training.everything()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_after_a_sweep_is_bitwise_the_same(optimizer: str, variant: str, end: str) -> None:
    expected = undisturbed(optimizer, variant)
    training = Training(optimizer, variant)
    training.run(5)
    identities = [id(group["lr"]) for group in training.optimizer.param_groups if variant == "tensor_lr"]
    state = training.trainer.state
    training.sweep(end)
    assert training.trainer.state is state
    assert identities == [id(group["lr"]) for group in training.optimizer.param_groups if variant == "tensor_lr"]
    training.run(30)
    assert_same(expected, training.everything())


@pytest.mark.parametrize("variant", ["plain", "amp"])
@pytest.mark.parametrize("end", ["num_iter", "exception"])
def test_a_sweep_before_any_training_leaves_no_trace(variant: str, end: str) -> None:
    """Also the first update finds an optimizer without state and gradients that are None."""
    fresh = Training("adamw", variant)
    before = fresh.everything()
    fresh.sweep(end)
    assert not fresh.optimizer.state
    assert all(parameter.grad is None for parameter in fresh.model.parameters())
    assert_same(Training("adamw", variant).everything() | {"trainer": before["trainer"]}, fresh.everything())
    fresh.run(5)
    fresh.run(30)
    assert_same(undisturbed("adamw", variant), fresh.everything())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_several_sweeps_in_a_row_are_as_harmless(optimizer: str) -> None:
    training = Training(optimizer, "batchnorm_dropout")
    training.run(5)
    for end in ENDS:
        training.sweep(end)
    training.run(30)
    assert_same(undisturbed(optimizer, "batchnorm_dropout"), training.everything())


class Equipped:
    """A stock trainer with a scheduler, a clipper and a logger of this package."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.trainer = create_supervised_trainer(self.model, self.optimizer, nn.MSELoss())
        self.scheduler = ScheduleLR(self.optimizer, schedules.InverseSqrt(warmup_steps=4))
        self.handler = LRSchedulerHandler(self.scheduler)
        self.clipper = GradNormClipper(self.optimizer, percentile=50.0, window=10)
        self.logger = LRLogger(self.optimizer, clipper=self.clipper, history=1000)
        for part in (self.handler, self.clipper, self.logger):
            part.attach(self.trainer)
        self.data = [(x, x.sum(1, keepdim=True)) for x in torch.randn(10, 4, 4)]

    def sweep(self, *keys: str) -> None:
        to_save = {"model": self.model, "optimizer": self.optimizer, **{key: getattr(self, key) for key in keys}}
        with (
            warnings.catch_warnings(),
            LRFinder().attach(self.trainer, to_save, num_iter=SWEEP_POINTS, start_lr=1e-6, end_lr=10.0) as sweep,
        ):
            warnings.filterwarnings("ignore", "Run completed without loss diverging")
            sweep.run(self.data)

    def everything(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "handler": self.handler.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "clipper": self.clipper.state_dict(),
            "report": dataclasses.asdict(self.clipper.report()),
            "history": self.logger.history(),
        }


@pytest.mark.parametrize("keys", [(), ("scheduler", "handler", "clipper", "logger")], ids=["model only", "all saved"])
@pytest.mark.parametrize(
    "when", ["before", "between", Events.ITERATION_STARTED(once=7), Events.ITERATION_COMPLETED(once=7)]
)
def test_the_packages_own_handlers_do_not_notice(when: Any, keys: tuple[str, ...]) -> None:
    plain = Equipped()
    plain.trainer.run(plain.data, max_epochs=2)
    plain.trainer.run(plain.data, max_epochs=4)
    swept = Equipped()
    if when == "before":
        swept.sweep(*keys)
    elif when != "between":
        swept.trainer.add_event_handler(when, lambda: swept.sweep(*keys))
    swept.trainer.run(swept.data, max_epochs=2)
    if when == "between":
        swept.sweep(*keys)
    swept.trainer.run(swept.data, max_epochs=4)
    assert_same(plain.everything(), swept.everything())
