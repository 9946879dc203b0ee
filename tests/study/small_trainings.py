"""Small real trainings for the tests of studies, each made anew from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine, create_supervised_trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@dataclass
class Training:
    model: nn.Module
    optimizer: torch.optim.Optimizer
    trainer: Engine
    loader: DataLoader[Any]

    @property
    def to_save(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer}


def make(seed: int = 0, *, accumulation: int = 1, shuffle: bool = True, optimizer: Any = None) -> Training:
    """A small network with dropout and batch norm, so that random numbers and buffers matter."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Tanh(), nn.Linear(16, 1))
    made = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) if optimizer is None else optimizer(model)
    x = torch.randn(64, 4)
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=shuffle)
    trainer = create_supervised_trainer(model, made, nn.functional.mse_loss, gradient_accumulation_steps=accumulation)
    return Training(model, made, trainer, loader)


def endlessly(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def plain_loop(training: Training, rates: tuple[float, ...], accumulation: int = 1) -> list[float]:
    """The losses of updates at these rates, in a plain PyTorch loop without engine or package."""
    model, optimizer = training.model, training.optimizer
    losses: list[float] = []
    batches = endlessly(training.loader)
    model.train()
    for rate in rates:
        optimizer.zero_grad()
        micro = []
        for _ in range(accumulation):
            x, y = next(batches)
            loss = nn.functional.mse_loss(model(x), y)
            if accumulation > 1:
                loss = loss / accumulation
            loss.backward()
            micro.append(loss.item() * accumulation)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(sum(micro) / accumulation)
    return losses


def fingerprint(training: Training) -> list[bytes]:
    """Every bit that a training goes on from."""
    tensors = [*training.model.parameters(), *training.model.buffers()]
    for state in training.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    found = [tensor.detach().numpy().tobytes() for tensor in tensors]
    found.append(torch.get_rng_state().numpy().tobytes())
    found.append(repr([group["lr"] for group in training.optimizer.param_groups]).encode())
    return found
