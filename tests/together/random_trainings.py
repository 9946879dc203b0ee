"""Trainings drawn from a seed, and sweeps in them."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from torch import nn

import ignite_lr
from ignite_lr import schedules

DATA = torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(1))

OPTIMIZERS: list[Any] = [
    lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
    lambda parameters: torch.optim.AdamW(parameters, lr=0.01, amsgrad=True),
    lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, centered=True),
    lambda parameters: torch.optim.Adagrad(parameters, lr=0.05),
    lambda parameters: torch.optim.AdamW(parameters, lr=torch.tensor(0.01)),
]


class BoomError(Exception):
    pass


class RandomState:
    """That of PyTorch, for dropout: what a checkpoint of such a training has to hold."""

    def state_dict(self) -> dict[str, Any]:
        return {"state": torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["state"])


class Training:
    """Drawn from a seed: model, optimizer, accumulation, schedule, clipper. The batch follows from the iteration."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, 4), rng.choice([nn.BatchNorm1d, nn.LayerNorm])(4), nn.Tanh())
        self.model.extend([nn.Dropout(rng.choice([0.0, 0.3])), nn.Linear(4, 1)])
        halves = [{"params": self.model[0].parameters()}, {"params": self.model[1:].parameters()}]
        self.optimizer = rng.choice(OPTIMIZERS)(rng.choice([self.model.parameters(), halves]))
        self.every = rng.choice([1, 1, 2, 3])
        self.iterations = self.every * rng.randint(6, 12)
        schedule = rng.choice([
            schedules.Cosine(12, warmup_steps=3),
            schedules.InverseSqrt(warmup_steps=4),
            schedules.WarmupStableDecay(2, stable_steps=4, decay_steps=4),
            schedules.Step(3, gamma=0.5),
        ])  # fmt: skip
        scheduler = ignite_lr.ScheduleLR(self.optimizer, schedule)
        clipper = ignite_lr.GradNormClipper(
            self.optimizer, rng.choice([50.0, 90.0]), window=rng.choice([3, None]), per_group=rng.random() < 0.5
        )
        self.trainer = Engine(self.step)
        self.parts: dict[str, Any] = {
            "scheduler": scheduler,
            "handler": ignite_lr.LRSchedulerHandler(scheduler, every=rng.choice([1, 2])),
            "clipper": clipper,
            "logger": ignite_lr.LRLogger(self.optimizer, clipper=clipper, history=100),
        }
        for name in rng.sample(["handler", "clipper", "logger"], 3):
            self.parts[name].attach(self.trainer)
        self.trouble = 0
        self.pause = 0.0

    def step(self, engine: Engine, batch: Any) -> float:
        time.sleep(self.pause)
        self.model.train()
        loss = self.model(DATA[engine.state.iteration % len(DATA)]).square().mean()
        (loss / self.every).backward()
        if engine.state.iteration % self.every == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.trouble and engine.state.iteration == self.trouble:
            raise BoomError
        return loss.item()

    def objects(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            **self.parts,
            "trainer": self.trainer,
            "rng": RandomState(),
        }

    def state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.objects().items()}

    def load(self, state: dict[str, Any], rng: random.Random) -> None:
        names = list(self.objects())
        rng.shuffle(names)  # in any order
        for name in names:
            self.objects()[name].load_state_dict(state[name])

    def run(self) -> Training:
        # one epoch: which batch it is follows from the iteration, not from the data
        self.trainer.run(range(self.iterations), max_epochs=1)
        return self

    def outcome(self) -> str:
        history = {name: column.tobytes() for name, column in self.parts["logger"].history().items()}
        return repr([flat(self.state()), history])


def flat(value: Any) -> Any:
    """A comparable picture, to the last bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.detach().numpy().tobytes()
    if isinstance(value, dict):
        return [(str(key), flat(item)) for key, item in value.items()]
    return [flat(item) for item in value] if isinstance(value, list | tuple) else value


def sweep(training: Training, rng: random.Random, folder: Path) -> None:
    """A range test or a study, whole or ended by an exception in its training step."""
    to_save = {"model": training.model, "optimizer": training.optimizer}
    training.trouble, before = rng.choice([0, 0, 2, 5]), training.trouble
    options = {"snapshot_to": rng.choice([None, "cpu", folder]), "progress_bar": False}
    points = rng.randint(1, 8)
    try:
        if rng.random() < 0.3:
            trials = [ignite_lr.Trial(rng.choice([0.001, 0.1, 10.0])) for _ in range(2)]
            ignite_lr.run_study(training.trainer, range(9), to_save, trials, points, **options)
        else:
            more = {"verify": rng.choice([0, 3]), "repeats": rng.choice([1, 2])}
            ignite_lr.find_lr(training.trainer, range(9), to_save, num_iter=points, start_lr=1e-3, **more, **options)
    except BoomError:
        pass
    finally:
        training.trouble = before
