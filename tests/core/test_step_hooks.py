from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

from ignite_lr.core.step_hooks import StepHooks, steps_on_stack


class Watcher:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def before_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls.append("before")

    def after_step(self) -> None:
        self.calls.append("after")


class Seeker:
    """Adds a watcher when a step begins that nobody has found."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.found = False
        self.watchers: list[Watcher] = []

    def seek(self) -> None:
        self.watchers.append(Watcher())
        StepHooks.of(self.optimizer).watch(self.watchers[-1])


@pytest.fixture
def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


def test_a_watcher_is_told_of_each_step(optimizer: torch.optim.Optimizer) -> None:
    watcher = Watcher()
    StepHooks.of(optimizer).watch(watcher)
    optimizer.step()
    assert watcher.calls == ["before", "after"]
    assert StepHooks.of(optimizer) is StepHooks.of(optimizer)
    assert len(optimizer._optimizer_step_pre_hooks) == 1


def test_who_joins_during_a_step_is_told_of_it(optimizer: torch.optim.Optimizer) -> None:
    first, seeker = Watcher(), Seeker(optimizer)
    StepHooks.of(optimizer).watch(first)
    StepHooks.of(optimizer).seek(seeker)
    # hooks of others, before and after ours in the dictionary that torch iterates over
    optimizer.register_step_pre_hook(lambda *_: None)
    optimizer.step()
    assert seeker.watchers[0].calls == first.calls == ["before", "after"]


def test_a_seeker_looks_only_where_nobody_has_found(optimizer: torch.optim.Optimizer) -> None:
    seeker = Seeker(optimizer)
    StepHooks.of(optimizer).seek(seeker)
    optimizer.step()
    seeker.found = True
    optimizer.step()
    optimizer.step()
    assert len(seeker.watchers) == 2


def test_the_last_to_leave_takes_the_hooks(optimizer: torch.optim.Optimizer) -> None:
    watchers = [Watcher(), Watcher()]
    for watcher in watchers:
        StepHooks.of(optimizer).watch(watcher)
    StepHooks.of(optimizer).remove(watchers[0])
    assert optimizer._optimizer_step_pre_hooks
    for watcher in watchers:
        StepHooks.of(optimizer).remove(watcher)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_leaving_during_a_step_disturbs_nobody(optimizer: torch.optim.Optimizer) -> None:
    class Leaving(Watcher):
        def before_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            super().before_step(args, kwargs)
            StepHooks.of(optimizer).remove(self)

    leaving, later = Leaving(), []
    StepHooks.of(optimizer).watch(leaving)
    optimizer.register_step_pre_hook(lambda *_: later.append(1))
    optimizer.step()
    optimizer.step()
    assert leaving.calls == ["before"]
    assert later == [1, 1]


def test_steps_under_way_are_counted(optimizer: torch.optim.Optimizer) -> None:
    seen = []
    optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(steps_on_stack(optimizer)))
    optimizer.step()
    assert seen == [1]
    assert steps_on_stack(optimizer) == 0


def test_the_optimizer_takes_its_hooks_with_it() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    watcher = Watcher()
    StepHooks.of(optimizer).watch(watcher)
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None


def test_a_copied_optimizer_has_hooks_of_its_own(optimizer: torch.optim.Optimizer) -> None:
    watcher = Watcher()
    StepHooks.of(optimizer).watch(watcher)
    twin = copy.deepcopy(optimizer)
    twin.step()
    assert watcher.calls == []
    assert StepHooks.of(twin) is not StepHooks.of(optimizer)
