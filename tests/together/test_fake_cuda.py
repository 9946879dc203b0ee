"""No handler makes the host wait for the device: shown on fake CUDA tensors, which have no values to read.

Under ``FakeTensorMode`` whatever asks for a value raises; copies to the host, which it lets pass, are refused by a mode
of our own. So are copies from the host, which from pageable memory are waited for too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ignite_lr import schedules
from ignite_lr.clipper import GradNormClipper
from ignite_lr.logger import LRLogger
from ignite_lr.scheduler import LRSchedulerHandler, ScheduleLR


class NoCrossing(TorchDispatchMode):
    """Refuses every operation that takes or makes tensors on two devices."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            raise AssertionError(f"{func} crosses between host and device")
        return result


@contextmanager
def fake_cuda() -> Iterator[None]:
    with FakeTensorMode(), NoCrossing():
        yield


Step = Callable[[Engine, int], Any]


def training(**options: Any) -> tuple[Engine, torch.optim.Optimizer]:
    """A trainer of parameters on CUDA, in two groups. Gradients are set: autograd needs a real device."""
    parameters = [nn.Parameter(torch.ones(shape, device="cuda")) for shape in ((3, 8), (8,), (8, 1))]
    groups = [{"params": parameters[:2]}, {"params": parameters[2:]}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, **options)

    def step(engine: Engine, batch: int) -> None:
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.5 * batch)
        optimizer.step()

    return Engine(step), optimizer


CLIPPERS = [
    {},
    {"window": None},
    {"window": 100_000},
    {"warmup_updates": 2, "max_norm": 1.0},
    {"per_group": True},
    {"norm_type": math.inf},
    {"enabled": False},
]


@pytest.mark.parametrize("options", CLIPPERS, ids=str)
def test_whole_iterations_between_log_events_read_nothing(options: dict[str, Any]) -> None:
    with fake_cuda():
        trainer, optimizer = training()
        clipper = GradNormClipper(optimizer, **options)
        scheduler = ScheduleLR(optimizer, schedules.InverseSqrt(warmup_steps=2))
        handlers = [clipper, LRSchedulerHandler(scheduler), LRLogger(optimizer, clipper=clipper, history=10)]
        for handler in handlers:
            handler.attach(trainer)  # type: ignore[attr-defined]
        trainer.run([1, 2, 3])
        metrics = [trainer.state.metrics[key] for key in ("grad_norm", "clip_threshold", "clip_frequency")]
    assert [(value.device.type, value.ndim) for value in metrics] == [("cuda", 0)] * 3
    assert trainer.state.iteration == 3


def test_a_planted_read_is_found() -> None:
    with fake_cuda():
        trainer, optimizer = training()
        GradNormClipper(optimizer).attach(trainer)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: e.state.metrics["grad_norm"].item())
        with pytest.raises(Exception, match="local_scalar"):
            trainer.run([1, 2, 3])


@pytest.mark.parametrize("copy", [lambda t: t.cpu(), lambda t: t.to("cpu")], ids=["cpu", "to"])
def test_a_planted_copy_is_found(copy: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with fake_cuda():
        trainer, optimizer = training()
        GradNormClipper(optimizer).attach(trainer)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: copy(e.state.metrics["grad_norm"]))
        with pytest.raises(AssertionError, match="crosses between host and device"):
            trainer.run([1, 2, 3])


@pytest.mark.parametrize("read", ["report", "state_dict", "histogram"])
def test_what_reads_is_found_too(read: str) -> None:
    with fake_cuda():
        trainer, optimizer = training()
        clipper = GradNormClipper(optimizer)
        clipper.attach(trainer)
        trainer.run([1])
        with pytest.raises(AssertionError, match="crosses between host and device"):
            getattr(clipper, read)()


@pytest.mark.parametrize("on_nonfinite", ["skip", "raise"])
def test_skip_and_raise_read_one_value_with_an_optimizer_that_cannot_skip(on_nonfinite: Any) -> None:
    with fake_cuda():
        trainer, optimizer = training()
        GradNormClipper(optimizer, on_nonfinite=on_nonfinite).attach(trainer)
        with pytest.raises(Exception, match="local_scalar"):
            trainer.run([1])
