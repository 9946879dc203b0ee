from __future__ import annotations

import copy
import gc
import random
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, Sampler
from trainings import pairs, sweep, training_of

from ignite_lr.dry_run import Snapshot

PLACES = ["memory", "cpu", "directory"]


def place(name: str, folder: Path) -> Any:
    return {"memory": None, "cpu": "cpu", "directory": folder / "deep" / "snapshots"}[name]


class Counting(nn.Module):
    """Keeps state wherever a module may keep some."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("hidden", torch.zeros(3), persistent=False)
        self.register_buffer("absent", None)
        self.register_buffer("spread", torch.ones(1).expand(4))
        self.calls = 0
        self.history: list[int] = []
        self.plain = torch.zeros(2)
        self.extra = {"seen": 0}

    def get_extra_state(self) -> dict[str, int]:
        return self.extra

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.extra = state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.history.append(self.calls)
        self.hidden += 1
        self.plain += 1
        self.absent = torch.ones(1)
        self.extra = {"seen": self.calls}
        self.newcomer = 3
        return self.norm(self.linear(x))


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("rounds", [1, 3])
def test_modules_come_back_with_all_they_keep(where: str, rounds: int, tmp_path: Path) -> None:
    model = Counting()
    model.norm.eval()
    model(torch.randn(4, 2)).sum().backward()
    model.newcomer = 1
    model.absent = None
    weight, grad, buffer = model.linear.weight, model.linear.weight.grad, model.hidden
    before = copy.deepcopy(vars(model)) | {"state": copy.deepcopy(model.state_dict()), "grad": grad.clone()}
    snapshot = Snapshot({"model": model}, place(where, tmp_path))
    for index in range(rounds):
        for _ in range(3):
            model.zero_grad(set_to_none=index % 2 == 0)
            model.train()
            model(torch.randn(4, 2)).square().sum().backward()
            with torch.no_grad():
                model.linear.weight.fill_(float("nan"))
            model.linear.bias.requires_grad_(False)
            model.hidden = torch.full((3,), 7.0)
        assert snapshot.restore(last=index == rounds - 1) == []
        assert model.linear.weight is weight
        assert model.hidden is buffer
        assert model.linear.bias.requires_grad
        assert model.linear.weight.grad is grad
        assert torch.equal(model.linear.weight.grad, before["grad"])
        assert torch.equal(model.hidden, torch.ones(3))
        assert torch.equal(model.plain, torch.ones(2))
        assert model.absent is None
        assert (model.calls, model.history, model.extra, model.newcomer) == (1, [1], {"seen": 1}, 1)
        assert (model.training, model.norm.training) == (True, False)
        after = model.state_dict()
        for key, value in before["state"].items():
            assert torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else value == after[key]
    snapshot.close()
    assert list(tmp_path.rglob("*.pt")) == []


def test_gradients_that_were_none_are_none_again() -> None:
    model = nn.Linear(2, 1)
    snapshot = Snapshot({"model": model})
    model(torch.randn(3, 2)).sum().backward()
    snapshot.restore()
    assert model.weight.grad is None


def test_a_gradient_that_somebody_holds_is_written_in_place() -> None:
    """Such as the buckets of DistributedDataParallel."""
    model = nn.Linear(2, 1)
    bucket = torch.ones(3)
    model.weight.grad, model.bias.grad = bucket[:2].view(1, 2), bucket[2:]
    view, other = model.weight.grad, model.bias.grad
    snapshot = Snapshot({"model": model})
    bucket.zero_()
    model.zero_grad()
    snapshot.restore()
    assert torch.equal(bucket, torch.ones(3))
    assert model.weight.grad is view
    assert model.bias.grad is other


def test_sparse_gradients() -> None:
    model = nn.Embedding(5, 2, sparse=True)
    model(torch.tensor([1, 3])).sum().backward()
    before = model.weight.grad.to_dense()
    snapshot = Snapshot({"model": model})
    model(torch.tensor([0, 1])).sum().backward()
    assert snapshot.restore() == []
    assert torch.equal(model.weight.grad.to_dense(), before)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), id="sgd"),
        pytest.param(lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1), foreach=False), id="tensor lr"),
        pytest.param(lambda p: torch.optim.AdamW(p, lr=0.1, fused=True), id="fused"),
        pytest.param(lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3), id="lbfgs"),
        pytest.param(lambda p: torch.optim.Rprop(p, lr=0.1), id="rprop"),
    ],
)
@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("where", PLACES)
def test_optimizers_come_back_in_place(make: Any, steps_before: int, where: str, tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = make([parameter])
    target = torch.arange(3.0)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (parameter - target).square().sum()
        loss.backward()
        return loss.item()

    for _ in range(steps_before):
        optimizer.step(closure)
    group, lr, states = optimizer.param_groups[0], optimizer.param_groups[0]["lr"], optimizer.state
    before, value = copy.deepcopy(optimizer.state_dict()), parameter.detach().clone()
    snapshot = Snapshot({"optimizer": optimizer}, place(where, tmp_path))
    optimizer.param_groups[0]["lr"] = 7.0
    for _ in range(3):
        optimizer.step(closure)
    optimizer.found_inf = torch.ones(1)
    assert snapshot.restore() == []
    snapshot.close()
    assert optimizer.param_groups[0] is group
    assert group["lr"] is lr
    assert optimizer.state is states
    assert torch.equal(parameter, value)
    assert not hasattr(optimizer, "found_inf")
    after = optimizer.state_dict()
    assert str(after) == str(before)


def test_what_hangs_on_the_optimizer_is_left_alone() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(3))], lr=0.1)
    snapshot = Snapshot({"optimizer": optimizer})
    optimizer.register_step_pre_hook(lambda *_: None)
    snapshot.restore()
    assert len(optimizer._optimizer_step_pre_hooks) == 1


def test_an_optimizer_inside_an_optimizer() -> None:
    class Lookahead(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            super().__init__(inner.param_groups, {})
            self.inner = inner
            self.counter = 0

        def step(self, closure: Any = None) -> None:
            self.counter += 1
            self.inner.step()

    parameter = nn.Parameter(torch.ones(3))
    optimizer = Lookahead(torch.optim.SGD([parameter], lr=0.1, momentum=0.9))
    snapshot = Snapshot({"optimizer": optimizer})
    parameter.grad = torch.ones(3)
    optimizer.step()
    snapshot.restore()
    assert not optimizer.inner.state
    assert optimizer.counter == 0
    assert torch.equal(parameter, torch.ones(3))


@pytest.mark.parametrize("used", [False, True])
def test_gradient_scalers_come_back_with_their_stage(used: bool) -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    if used:
        scaler.scale(parameter.sum()).backward()
        scaler.unscale_(optimizer)
    snapshot = Snapshot({"scaler": scaler})
    if not used:
        scaler.scale(parameter.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 16.0
    assert snapshot.restore() == []
    assert scaler.get_scale() == 8.0
    if used:
        with pytest.raises(RuntimeError, match=r"unscale_\(\) has already been called"):
            scaler.unscale_(optimizer)
    else:
        assert scaler._scale is None


class Stateful:
    """State behind ``state_dict``, with a record of what was loaded."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.loads = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loads += 1
        self.value = state["value"]


def test_other_objects_are_loaded_only_if_something_changed() -> None:
    quiet, loud = Stateful([torch.ones(2), {"a": np.ones(2)}]), Stateful([1])
    snapshot = Snapshot({"quiet": quiet, "loud": loud})
    loud.value.append(2)
    assert snapshot.restore() == []
    assert (quiet.loads, loud.loads, loud.value) == (0, 1, [1])


def test_a_state_that_cannot_be_copied_is_named() -> None:
    with pytest.raises(RuntimeError, match="handler: the state of Stateful cannot be copied"):
        Snapshot({"handler": Stateful(i for i in ())})


def test_what_fails_does_not_keep_the_rest_from_coming_back() -> None:
    class Broken(Stateful):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise OSError("no")

    first, broken, last = Stateful(1), Broken(1), nn.Linear(1, 1)
    snapshot = Snapshot({"first": first, "broken": broken, "last": last})
    first.value = broken.value = 2
    weight = last.weight.detach().clone()
    nn.init.zeros_(last.weight)
    ((name, error),) = snapshot.restore()
    assert (name, str(error)) == ("broken", "no")
    assert first.value == 1
    assert torch.equal(last.weight, weight)


def test_engines_are_left_alone_but_their_flags_can_be_kept() -> None:
    engine = Engine(lambda engine, batch: None)
    engine.mine = [1]
    snapshot = Snapshot({"trainer": engine})
    snapshot.add_trainer("trainer", engine)
    state = engine.state
    engine.state.iteration = 3
    engine.terminate()
    engine.mine.append(2)
    engine.new = 1
    snapshot.restore()
    assert engine.state is state
    assert engine.state.iteration == 3
    assert engine.should_terminate is False
    assert engine.mine == [1]
    assert not hasattr(engine, "new")


def test_random_states_come_back_unless_the_surroundings_stay() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002 - the global state is meant

    snapshot = Snapshot({})
    snapshot.add_random_state()
    first = draw()
    snapshot.restore(last=False, surroundings=False)
    assert draw() != first
    snapshot.restore()
    assert draw() == first


def test_what_the_first_batch_built_is_built_again() -> None:
    class Lazy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not hasattr(self, "calls"):
                self.calls, self.cache = 0, torch.zeros(1)
            self.calls += 1
            return x * self.calls

    model = nn.Sequential(Lazy())
    snapshot = Snapshot({"model": model})
    model(torch.ones(1))
    snapshot.restore()
    assert not {"calls", "cache"} & set(vars(model[0]))
    assert model(torch.ones(1)) == 1


class Counted(RandomSampler):
    """A sampler with an epoch and a position of its own."""

    epoch = 0
    position = 0


def test_samplers_and_small_data_come_back() -> None:
    data = torch.zeros(1000, 2)
    sampler = Counted(data, generator=torch.Generator())
    sampler.epoch = 3
    sampler.position = 5
    loader = DataLoader(data, sampler=sampler, batch_size=2, generator=torch.Generator())
    snapshot = Snapshot({})
    snapshot.add_data("data", loader)
    states = sampler.generator.get_state(), loader.generator.get_state()
    list(loader)
    sampler.epoch = sampler.position = 9
    data.add_(1)
    snapshot.restore()
    assert (sampler.epoch, sampler.position) == (3, 5)
    assert torch.equal(sampler.generator.get_state(), states[0])
    assert torch.equal(loader.generator.get_state(), states[1])
    assert data.max() == 0


def test_a_sampler_inside_a_sampler_is_found_under_any_name() -> None:
    class Wrapped(Sampler[int]):
        def __init__(self, inner: Sampler[int]) -> None:
            self.inner = inner

        def __iter__(self) -> Iterator[int]:
            return iter(self.inner)

    inner = RandomSampler(range(20), generator=torch.Generator())
    loader = DataLoader(torch.zeros(20, 2), sampler=Wrapped(inner), batch_size=2)
    snapshot = Snapshot({})
    snapshot.add_data("data", loader)
    state = inner.generator.get_state()
    list(loader)
    assert not torch.equal(inner.generator.get_state(), state)
    snapshot.restore()
    assert torch.equal(inner.generator.get_state(), state)


@pytest.mark.parametrize("data", [[1, 2], None, (i for i in range(3)), {"a": 1}])
def test_data_of_any_kind_is_taken(data: Any) -> None:
    snapshot = Snapshot({})
    snapshot.add_data("data", data)
    assert snapshot.restore() == []


def test_lazy_buffers_and_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"net: parameter '0.weight' must be initialized before a range test"):
        Snapshot({"net": nn.Sequential(nn.LazyLinear(3))})


def test_the_copies_are_as_large_as_the_training_and_no_larger() -> None:
    model = nn.Linear(64, 64)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 64)).sum().backward()
    optimizer.step()
    snapshot = Snapshot({"model": model, "optimizer": optimizer, "again": model})
    held = sum(tensor.numel() for tensor in snapshot._tensors._copies)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert held == 4 * numbers + 2  # values, gradients, two moments, and a step count for each parameter


def test_a_training_is_freed_at_once_after_a_sweep() -> None:
    """By reference counting, not only by the collector, also while the finder and its result are kept."""
    training = training_of(nn.Linear(4, 1), data=[pairs(8).tensors] * 4)
    model, optimizer = training.to_save["model"], training.to_save["optimizer"]
    held = [weakref.ref(training.trainer), weakref.ref(model), weakref.ref(optimizer)]
    gc.collect()
    gc.disable()
    try:
        finder, _ = sweep(training, num_iter=5)
        del training, model, optimizer
        assert [reference() for reference in held] == [None] * 3
    finally:
        gc.enable()
    assert len(finder.result.lrs) > 0
