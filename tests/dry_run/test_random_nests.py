"""Random state in random nests at random places: after a sweep the training goes on as if there had been none."""

from __future__ import annotations

import array
import random
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler, Subset, random_split
from trainings import Training, frozen, net, pairs, same_as_without, training_of

# -- what changes: made anew for each training, advanced by each step, and read as a number


class Slotted:
    __slots__ = ("count", "later")

    def __init__(self) -> None:
        self.count = 0


@dataclass
class Running:
    mean: float = 0.0
    values: list[float] = field(default_factory=list)


class Through:
    """Its state is behind ``state_dict`` alone."""

    def __init__(self) -> None:
        def functions() -> Any:
            at = 0

            def step() -> int:
                nonlocal at
                at += 1
                return at

            def read() -> int:
                return at

            def write(value: int) -> None:
                nonlocal at
                at = value

            return step, read, write

        self.step, self._read, self._write = functions()

    def state_dict(self) -> dict[str, Any]:
        return {"at": self._read()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._write(state["at"])


def advance_slots(value: Slotted) -> float:
    value.count += 1
    value.later = value.count * 0.5
    return value.later


def advance_running(value: Running) -> float:
    value.values.append(len(value.values))
    value.mean = sum(value.values) / len(value.values)
    return value.mean


def advance_tensor(value: torch.Tensor) -> float:
    value.add_(1)
    return float(value.sum())


def advance_array(value: Any) -> float:
    value += 1
    return float(np.sum(value))


def advance_list(value: Any) -> float:
    value.append(len(value))
    return len(value)


def advance_dict(value: Any) -> float:
    value[len(value) % 3] = value.get(len(value) % 3, 0) + 1
    value[f"new {len(value)}"] = 1
    return len(value)


def advance_set(value: set[int]) -> float:
    value.add(len(value))
    return len(value)


def advance_module(value: nn.Module) -> float:
    value.p = min(value.p + 0.01, 0.9)
    return float(value.p)


def advance_rows(value: Any) -> float:
    """A container of fixed size whose contents change."""
    value[0] += 1
    return float(value[0])


# mutable leaves: how to make one, how to advance it in place and read it
LEAVES: dict[str, tuple[Callable[[], Any], Callable[[Any], float]]] = {
    "torch generator": (lambda: torch.Generator().manual_seed(3), lambda g: torch.rand(1, generator=g).item()),
    "python generator": (lambda: random.Random(3), lambda g: g.random()),
    "numpy generator": (lambda: np.random.default_rng(3), lambda g: g.random()),
    "numpy state": (lambda: np.random.RandomState(3), lambda g: g.rand()),
    "slots": (Slotted, advance_slots),
    "dataclass": (Running, advance_running),
    "state_dict": (Through, lambda value: value.step()),
    "tensor": (lambda: torch.zeros(2), advance_tensor),
    "parameter": (lambda: nn.Parameter(torch.zeros(2), requires_grad=False), advance_tensor),
    "array": (lambda: np.zeros(2), advance_array),
    "array.array": (lambda: array.array("d", [0.0]), advance_rows),
    "bytearray": (lambda: bytearray(2), lambda v: (v.__setitem__(0, (v[0] + 1) % 200), v[0])[1]),
    "list": (list, advance_list),
    "deque": (lambda: deque([1], maxlen=50), advance_list),
    "dict": (dict, advance_dict),
    "counter": (Counter, advance_dict),
    "ordered": (OrderedDict, advance_dict),
    "set": (set, advance_set),
    "dropout": (lambda: nn.Dropout(0.1), advance_module),
}
# values that cannot change: a new one takes the place of the old
VALUES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "int": (0, lambda value: value + 1),
    "float": (0.0, lambda value: value + 0.5),
    "np.int64": (np.int64(0), lambda value: value + np.int64(1)),
    "np.float32": (np.float32(0), lambda value: value + np.float32(0.25)),
    "tuple": ((0,), lambda value: (*value[-3:], value[-1] + 1)),
    "new tensor": (torch.zeros(()), lambda value: value + 1),
    "text": ("", lambda value: value + "a" if len(value) < 40 else ""),
}


def number(value: Any) -> float:
    return float(len(value) if isinstance(value, str) else value[-1] if isinstance(value, tuple) else value)


# -- where it lies: containers around containers


class Attributed:
    def __init__(self, item: Any) -> None:
        self.item = item


class Plain(dict):  # type: ignore[type-arg]  # of anything
    """A dict of a class of its own, which does not like to be written to."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setitem__("writes", self.get("writes", 0) + 1)


WRAPPINGS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any, Any], Any] | None]] = {
    "list": (lambda item: [1, item], lambda c: c[1], lambda c, v: c.__setitem__(1, v)),
    "tuple": (lambda item: (item, "b"), lambda c: c[0], None),
    "dict": (lambda item: {"a": item, 3: None}, lambda c: c["a"], lambda c, v: c.__setitem__("a", v)),
    "own dict": (lambda item: Plain(a=item), lambda c: c["a"], lambda c, v: c.__setitem__("a", v)),
    "user dict": (lambda item: UserDict(a=item), lambda c: c["a"], lambda c, v: c.__setitem__("a", v)),
    "defaultdict": (lambda item: defaultdict(int, a=item), lambda c: c["a"], lambda c, v: c.__setitem__("a", v)),
    "deque": (lambda item: deque([item, 2]), lambda c: c[0], lambda c, v: c.__setitem__(0, v)),
    "object": (Attributed, lambda c: c.item, lambda c, v: setattr(c, "item", v)),
    "namespace": (lambda item: SimpleNamespace(item=item), lambda c: c.item, lambda c, v: setattr(c, "item", v)),
    "object array": (
        lambda item: np.array([item, None], dtype=object),
        lambda c: c[0],
        lambda c, v: c.__setitem__(0, v),
    ),
}


class Nest:
    """One leaf in containers; not part of the training itself, which knows the outermost container only."""

    def __init__(self, leaf: str, wrappings: list[str]) -> None:
        self.leaf = leaf
        self.path = wrappings

    def make(self) -> Any:
        made = LEAVES[self.leaf][0]() if self.leaf in LEAVES else VALUES[self.leaf][0]
        for name in self.path:
            made = WRAPPINGS[name][0](made)
        return made

    def advance(self, outermost: Any) -> float:
        holder, item = None, outermost
        for name in reversed(self.path):
            holder, item = item, WRAPPINGS[name][1](item)
        if self.leaf in LEAVES:
            return LEAVES[self.leaf][1](item)
        new = VALUES[self.leaf][1](item)
        write = WRAPPINGS[self.path[0]][2]
        assert write is not None
        write(holder, new)
        return number(new)


def nests() -> st.SearchStrategy[Nest]:
    names = st.lists(st.sampled_from(sorted(WRAPPINGS)), min_size=1, max_size=4)
    nest = st.builds(Nest, st.sampled_from(sorted([*LEAVES, *VALUES])), names)
    return nest.filter(lambda n: n.leaf in LEAVES or n.path[0] not in ("tuple",))


# -- where it hangs


class Data(Dataset):  # type: ignore[type-arg]  # of pairs
    def __init__(self) -> None:
        self.pairs = pairs(24)
        self.transform: Any = Attributed(None)

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        return self.pairs[index]


class Collate:
    def __call__(self, rows: Any) -> Any:
        return torch.utils.data.default_collate(rows)


class Mover:
    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader

    def __len__(self) -> int:
        return len(self.loader)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.extra: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


SPLITS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda data: data,
    "subset": lambda data: Subset(data, range(16)),
    "concat": lambda data: ConcatDataset([data, data]),
    "split": lambda data: random_split(data, [16, 8], torch.Generator().manual_seed(1))[0],
    "nested": lambda data: Subset(ConcatDataset([Subset(data, range(20)), data]), range(30)),
}
PLACES: dict[str, Callable[[Any], Any]] = {
    "model": lambda parts: parts.model,
    "linear": lambda parts: parts.model.net[0],
    "sequential": lambda parts: parts.model.net,
    "parameter": lambda parts: parts.model.net[0].weight,
    "optimizer": lambda parts: parts.optimizer,
    "scheduler": lambda parts: parts.scheduler,
    "trainer": lambda parts: parts.trainer,
    "dataset": lambda parts: parts.data,
    "transform": lambda parts: parts.data.transform,
    "collate": lambda parts: parts.collate,
    "sampler": lambda parts: parts.loader.sampler,
    "loader": lambda parts: parts.loader,
    "wrapper": lambda parts: parts.wrapper,
    "saved": lambda parts: parts.saved,
}


class Saved:
    """Something of the user's in ``to_save``."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError("there is nothing to load")


@dataclass
class Scene:
    """Which nests hang where, and what else differs."""

    hung: list[tuple[str, Nest]]
    split: str
    in_state: bool

    def build(self) -> Training:
        model, data, collate = Model(), Data(), Collate()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        split = SPLITS[self.split](data)
        sampler = RandomSampler(split, generator=torch.Generator().manual_seed(2))
        loader = DataLoader(split, 4, sampler=sampler, collate_fn=collate)
        parts = SimpleNamespace(model=model, data=data, collate=collate, optimizer=optimizer, loader=loader)
        parts.scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
        parts.wrapper, parts.saved = Mover(loader), Saved()
        turns: list[Callable[[], float]] = []

        def first(_: Any) -> None:
            with torch.no_grad():
                model.net[2].bias += 1e-3 * sum(turn() % 17 for turn in turns)

        training = training_of(
            model,
            optimizer,
            data=parts.wrapper,
            first=first,
            more=lambda: [frozen(holder_of(name)) for name in range(len(self.hung))],
            scheduler=parts.scheduler,
            saved=parts.saved,
        )
        parts.trainer = training.trainer
        for index, (place, nest) in enumerate(self.hung):
            holder, name = PLACES[place](parts), f"hung_{index}"
            setattr(holder, name, nest.make())
            turns.append(lambda holder=holder, name=name, nest=nest: nest.advance(getattr(holder, name)))  # type: ignore[misc]  # bound here
        if self.in_state:
            for p in model.parameters():
                optimizer.state[p]["running"] = Running()
            turns.append(lambda: sum(advance_running(s["running"]) for s in optimizer.state.values() if "running" in s))

        def holder_of(index: int) -> Any:
            return getattr(PLACES[self.hung[index][0]](parts), f"hung_{index}")

        return training


def scenes() -> st.SearchStrategy[Scene]:
    hung = st.lists(st.tuples(st.sampled_from(sorted(PLACES)), nests()), min_size=1, max_size=5)
    return st.builds(Scene, hung, st.sampled_from(sorted(SPLITS)), st.booleans())


def check(scene: Scene) -> None:
    assert same_as_without(scene.build, before=4, after=8, num_iter=5) == []


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(scenes())
def test_whatever_hangs_anywhere_comes_back(scene: Scene) -> None:
    check(scene)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=2000, deadline=None, suppress_health_check=QUIET)
@given(scenes())
def test_whatever_hangs_anywhere_comes_back_at_length(scene: Scene) -> None:
    check(scene)
