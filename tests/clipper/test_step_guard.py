from __future__ import annotations

import copy
import gc
import inspect
import weakref

import pytest
import torch
from torch.optim.lr_scheduler import StepLR

from ignite_lr.clipper._step_guard import StepGuard


def made() -> torch.optim.Optimizer:
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    return torch.optim.SGD([parameter], lr=0.1)


def test_cleans_up_after_a_step_and_after_one_that_raises() -> None:
    optimizer, raised = made(), []
    StepGuard.of(optimizer).add(raised.append)
    optimizer.step()
    handle = optimizer.register_step_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division"):
        optimizer.step()
    handle.remove()
    optimizer.step(closure=None)
    assert raised == [False, True, False]
    assert not StepGuard.of(optimizer).active


def test_is_active_only_during_a_step() -> None:
    optimizer, active = made(), []
    guard = StepGuard.of(optimizer)
    guard.add(lambda raised: None)
    optimizer.register_step_pre_hook(lambda *_: active.append(guard.active))
    optimizer.step()
    type(optimizer).step(optimizer)  # around the wrapper
    assert active == [True, False]


def test_the_step_looks_as_it_did() -> None:
    optimizer = made()
    signature, name = inspect.signature(optimizer.step), optimizer.step.__name__
    StepGuard.of(optimizer).add(lambda raised: None)
    assert inspect.signature(optimizer.step) == signature
    assert optimizer.step.__name__ == name


def test_removal_leaves_nothing() -> None:
    optimizer, one, two = made(), [].append, [].append
    guard = StepGuard.of(optimizer)
    guard.add(one)
    guard.add(two)
    guard.discard(one)
    assert "step" in vars(optimizer)
    guard.discard(two)
    guard.discard(two)
    assert "step" not in vars(optimizer)


@pytest.mark.parametrize("scheduler_first", [True, False])
def test_schedulers_of_pytorch_wrap_the_step_too(scheduler_first: bool) -> None:
    optimizer, raised = made(), []
    guard = StepGuard.of(optimizer)
    if scheduler_first:
        scheduler = StepLR(optimizer, 1)
        theirs = optimizer.step
        guard.add(raised.append)
    else:
        guard.add(raised.append)
        scheduler = StepLR(optimizer, 1)
        theirs = optimizer.step
    for _ in range(2):
        optimizer.step()
        scheduler.step()  # warns, which is an error here, unless it saw the step
    guard.discard(raised.append)
    assert optimizer.step is theirs
    optimizer.step()
    guard.add(raised.append)
    optimizer.step()
    assert raised == [False, False, False]


def test_copies_of_the_optimizer_are_free() -> None:
    optimizer, raised = made(), []
    StepGuard.of(optimizer).add(raised.append)
    twin = copy.deepcopy(optimizer)
    assert "step" not in vars(twin)
    twin.step()
    assert raised == []


def test_keeps_no_optimizer_alive() -> None:
    optimizer = made()
    StepGuard.of(optimizer).add(lambda raised: None)
    optimizer.step()
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None


def test_a_compiled_step_is_compiled_once() -> None:
    optimizer, raised, graphs = made(), [], []
    StepGuard.of(optimizer).add(raised.append)
    optimizer.register_step_pre_hook(torch.compiler.disable(lambda *_: None))

    def backend(graph: torch.fx.GraphModule, example_inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    step = torch.compile(optimizer.step, backend=backend)
    for _ in range(4):
        step()
    assert raised == [False] * 4
    assert len(graphs) == 1
