from __future__ import annotations

import random
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest
import torch

from ignite_lr.dry_run._tensors import TensorCopies
from ignite_lr.dry_run._values import same
from ignite_lr.dry_run._walk import Walk


def captured(value: Any) -> Any:
    copies = TensorCopies(None)
    walk = Walk(copies)
    walk("value", value)

    def again() -> Any:
        failures: list[Any] = []
        copies.begin(failures, last=True)
        walk.restore(failures, surroundings=True)
        assert failures == []
        return value

    return again


def test_containers_keep_their_identity_all_the_way_down() -> None:
    inner, tensor, numbers = {"a": [1, {2}]}, torch.ones(2), np.ones(2)
    value = {"inner": inner, "tensor": tensor, "deque": deque([numbers], maxlen=3), "pair": (tensor, [4])}
    restore = captured(value)
    inner["a"][1].add(5)
    inner["a"].append(9)
    inner["b"] = 1
    tensor.zero_()
    numbers[:] = 0
    value["deque"].append(1)
    value["pair"][1].clear()
    del value["tensor"]
    assert restore() is value
    assert value["inner"] is inner
    assert inner == {"a": [1, {2}]}
    assert value["tensor"] is tensor
    assert torch.equal(tensor, torch.ones(2))
    assert value["deque"][0] is numbers
    assert numbers.tolist() == [1, 1]
    assert value["pair"][1] == [4]


@pytest.mark.parametrize("kind", [dict, OrderedDict, lambda items: defaultdict(list, items)])
def test_mappings_keep_their_order(kind: Any) -> None:
    value = kind([("b", 1), ("a", 2)])
    restore = captured(value)
    del value["b"]
    value["b"] = 3
    assert list(restore().items()) == [("b", 1), ("a", 2)]


def test_a_counter_has_its_counts_again() -> None:
    value = Counter(a=2)
    restore = captured(value)
    value.update("ab")
    assert restore() is value
    assert value == {"a": 2}
    assert list(value) == ["a"]


def test_containers_that_hold_themselves() -> None:
    value: list[Any] = [1]
    value.append(value)
    restore = captured(value)
    value[0] = 2
    assert restore()[0] == 1
    assert value[1] is value


@pytest.mark.parametrize(
    ("generator", "draw"),
    [
        (torch.Generator(), lambda g: torch.rand(2, generator=g).tolist()),
        (random.Random(1), lambda g: g.random()),
        (np.random.default_rng(1), lambda g: g.normal()),
        (np.random.RandomState(1), lambda g: g.normal()),
    ],
)
def test_generators_go_back_to_where_they_were(generator: Any, draw: Any) -> None:
    restore = captured([generator])
    first = draw(generator)
    assert draw(generator) != first
    restore()
    assert draw(generator) == first


def test_other_objects_are_left_as_they_are() -> None:
    value = object()
    assert captured(value)() is value
    array = np.ones(2)
    array.flags.writeable = False
    assert captured(array)() is array


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (1, True, False),
        (None, None, True),
        ("a", "b", False),
        ([1, (2, 3)], [1, (2, 3)], True),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, False),
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), False),
        (torch.ones(2), 1, False),
        (np.ones(2), np.ones(2), True),
        (np.ones(2), np.zeros(2), False),
        (deque([1]), deque([1]), True),
        (object(), object(), False),
    ],
)
def test_sameness(left: Any, right: Any, expected: bool) -> None:
    assert same(left, right) is expected
