"""Random sequences of what people do with a training, against a plain model of what should be true.

The model knows nothing of hooks and events: it counts on paper. After every step, rates, counts, norms and records of
the real handlers are those of the model.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ignite.engine import Engine
from torch import nn

from ignite_lr import schedules
from ignite_lr.clipper import GradNormClipper
from ignite_lr.logger import LRLogger
from ignite_lr.lr_finder import LRFinder
from ignite_lr.scheduler import LRSchedulerHandler, ScheduleLR

SCHEDULE = schedules.WarmupStableDecay(warmup_steps=6, stable_steps=5, decay_steps=30, warmup_start=0.1)
BATCH = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
NAMES = ("schedule", "clipper", "logger")
WINDOW, PERCENTILE, HISTORY = 5, 60.0, 1000


class BoomError(Exception):
    """An accident in the training step."""


class Paper:
    """What should be true, on paper."""

    def __init__(self) -> None:
        self.scheduled = 0  # updates that the scheduler saw
        self.bases = [0.1]
        self.norms: list[float] = []
        self.clipped = 0
        self.logged: list[float] = []
        self.weights: list[torch.Tensor] = []

    def copy(self) -> Paper:
        other = Paper()
        for name, value in vars(self).items():
            setattr(other, name, list(value) if isinstance(value, list) else value)
        return other


class Machine(RuleBasedStateMachine):
    """One trainer and its handlers."""

    @initialize(every=st.integers(1, 3))
    def begin(self, every: int) -> None:
        torch.manual_seed(0)
        self.every = every
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.extra = [nn.Parameter(torch.ones(2)) for _ in range(4)]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.5)
        self.trouble: str | None = None
        self.paper = Paper()
        self.attached: dict[str, Any] = {}
        self.saved: tuple[bytes, Paper, int] | None = None
        self.make()

    def make(self) -> None:
        """What a program makes at its start."""
        # a bound method would have each sweep capture this machine, and with it all of Hypothesis
        self.trainer = Engine(lambda engine, batch: self.step(engine, batch))
        self.scheduler = ScheduleLR(self.optimizer, SCHEDULE)
        self.handlers: dict[str, Any] = {
            "schedule": LRSchedulerHandler(self.scheduler),
            "clipper": GradNormClipper(self.optimizer, PERCENTILE, WINDOW),
            "logger": LRLogger(self.optimizer, history=HISTORY),
        }

    def step(self, engine: Engine, batch: torch.Tensor) -> float:
        scale = 1.0 + engine.state.iteration % 5
        loss = self.model(batch * scale).square().mean() + sum(p.square().sum() for p in self.used())
        (loss / self.every).backward()
        if self.trouble == "raise":
            raise BoomError
        if engine.state.iteration % self.every == 0:
            self.expect()
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.trouble == "terminate":
            engine.terminate()
        return loss.item()

    def used(self) -> list[nn.Parameter]:
        """The parameters of the groups that were added."""
        return [p for group in self.optimizer.param_groups[1:] for p in group["params"]]

    def expect(self) -> None:
        """On paper, the update that is about to be made."""
        if self.sweeping:
            return
        paper = self.paper
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients])))
        rates = [group["lr"] for group in self.optimizer.param_groups]
        due = [base * SCHEDULE(paper.scheduled) for base in paper.bases]
        if len(rates) == len(paper.bases) and "schedule" in self.attached:
            assert rates == pytest.approx(due)
        if "schedule" in self.attached:
            paper.scheduled += 1
        if "clipper" in self.attached:
            paper.norms.append(norm)
            threshold = float(np.percentile(np.float32(paper.norms[-WINDOW:]).astype(np.float64), PERCENTILE))
            paper.clipped += norm > threshold * (1 + 1e-5)
        if "logger" in self.attached:
            paper.logged.append(rates[0])

    sweeping = False

    # -- what people do

    @rule(iterations=st.integers(1, 7))
    def run(self, iterations: int) -> None:
        self.train([BATCH] * iterations)

    def train(self, data: list[torch.Tensor]) -> None:
        # a run of its own each time, also where the last one was cut short
        self.trainer.state.max_epochs = None
        self.trainer.run(data, max_epochs=1)

    @rule(iterations=st.integers(1, 4))
    def run_into_trouble(self, iterations: int) -> None:
        self.trouble = "raise"
        try:
            with pytest.raises(BoomError, match=r"^$"):
                self.train([BATCH] * iterations)
        finally:
            self.trouble = None
        self.optimizer.zero_grad()
        # after an exception a program goes on with a new trainer
        self.start_again()

    @rule()
    def terminate(self) -> None:
        self.trouble = "terminate"
        self.train([BATCH] * 3)
        self.trouble = None

    @rule(name=st.sampled_from(NAMES))
    def attach(self, name: str) -> None:
        if name in self.attached:
            with pytest.raises(RuntimeError, match="already attached"):
                self.handlers[name].attach(self.trainer)
        else:
            self.attached[name] = self.handlers[name].attach(self.trainer)

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        handle = self.attached.pop(name, None)
        if handle is not None:
            handle.remove()
            handle.remove()

    @rule(points=st.integers(2, 6), end=st.sampled_from(["end", "raise"]))
    def sweep(self, points: int, end: str) -> None:
        before = [p.detach().clone() for p in self.model.parameters()]
        gradients = [None if p.grad is None else p.grad.clone() for p in self.model.parameters()]
        finder = LRFinder()
        to_save = {"model": self.model, "optimizer": self.optimizer}
        self.sweeping = True
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Run completed without loss diverging")
                with finder.attach(self.trainer, to_save, num_iter=points, start_lr=1e-5, end_lr=1e-3) as sweep:
                    if end == "raise":
                        self.trouble = "raise"
                    sweep.run([BATCH] * 4)
        except BoomError:
            assert end == "raise"
        finally:
            self.trouble = None
            self.sweeping = False
        assert len(finder.result.losses) == (0 if end == "raise" else points)
        for mine, theirs in zip(self.model.parameters(), before, strict=True):
            assert torch.equal(mine, theirs)
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            assert (parameter.grad is None) == (gradient is None)
            assert gradient is None or torch.equal(parameter.grad, gradient)

    @rule()
    def steps_of_somebody_else(self) -> None:
        self.optimizer.step()

    @rule()
    def checkpoint(self) -> None:
        memory = io.BytesIO()
        torch.save({key: item.state_dict() for key, item in self.to_save().items()}, memory)
        self.saved = (memory.getvalue(), self.paper.copy(), len(self.optimizer.param_groups))

    @precondition(lambda self: self.saved is not None)
    @rule()
    def load(self) -> None:
        assert self.saved is not None
        content, paper, groups = self.saved
        if groups != len(self.optimizer.param_groups):
            with pytest.raises(ValueError, match="groups"):
                self.scheduler.load_state_dict(torch.load(io.BytesIO(content), weights_only=True)["scheduler"])
            return
        state = torch.load(io.BytesIO(content), weights_only=True)
        for key, item in self.to_save().items():
            item.load_state_dict(state[key])
        self.paper = paper.copy()

    @precondition(lambda self: len(self.optimizer.param_groups) < 4)
    @rule(rate=st.sampled_from([0.01, 0.2]))
    def add_group(self, rate: float) -> None:
        index = len(self.optimizer.param_groups)
        self.optimizer.add_param_group({"params": [self.extra[index]], "lr": rate})
        self.paper.bases.append(rate)
        # until the next update it has the rate it came with
        self.scheduler.follow()

    @rule()
    def start_again(self) -> None:
        """As a new process does: new trainer, new handlers, and the state of the old."""
        states = {key: item.state_dict() for key, item in self.to_save().items() if key not in ("model", "optimizer")}
        names = list(self.attached)
        for name in names:
            self.remove(name)
        for group in self.optimizer.param_groups:
            group.pop("initial_lr", None)
        self.make()
        for key, item in self.to_save().items():
            if key in states:
                item.load_state_dict(states[key])
        self.optimizer.zero_grad()
        for name in reversed(names):
            self.attach(name)

    def to_save(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, **self.handlers}

    # -- what is true at all times

    @invariant()
    def as_on_paper(self) -> None:
        if not hasattr(self, "paper"):
            return
        paper = self.paper
        assert self.scheduler.last_epoch == paper.scheduled
        assert self.scheduler.get_last_lr() == pytest.approx([base * SCHEDULE(paper.scheduled) for base in paper.bases])
        report = self.handlers["clipper"].report()
        assert report.updates == len(paper.norms)
        window = self.handlers["clipper"].state_dict()["windows"]
        recent = window[0] if window else []
        assert recent == pytest.approx(paper.norms[-WINDOW:], rel=1e-5)
        assert abs(report.clipped - paper.clipped) <= 1  # a norm that lies on the threshold may be rounded either way
        history = self.handlers["logger"].history()
        logged = next((v for k, v in history.items() if k.startswith("lr/")), np.zeros(0))
        assert logged.tolist() == paper.logged[-HISTORY:]

    @invariant()
    def nothing_left_behind(self) -> None:
        if hasattr(self, "attached") and not self.attached:
            assert not any(self.trainer._event_handlers.values())

    def teardown(self) -> None:
        for handle in getattr(self, "attached", {}).values():
            handle.remove()


def checks(examples: int, steps: int, **more: Any) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        **more,
    )


TestHandlersAgainstPaper = Machine.TestCase
TestHandlersAgainstPaper.settings = checks(120, 15, derandomize=True)


@pytest.mark.long
@pytest.mark.timeout(3000)
class TestHandlersAgainstPaperForLong(Machine.TestCase):
    settings = checks(1500, 40, derandomize=False)
