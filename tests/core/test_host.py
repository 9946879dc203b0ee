from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ignite_lr.core import host


def test_read_returns_values_in_the_order_given() -> None:
    values = [torch.tensor(1.5), torch.tensor([2], dtype=torch.int64), torch.tensor(0.1, dtype=torch.float64)]
    assert host.read(values) == [1.5, 2.0, 0.1]


def test_read_of_nothing() -> None:
    assert host.read([]) == []


def test_read_keeps_non_finite_values() -> None:
    inf, nan = host.read([torch.tensor(float("inf")), torch.tensor(float("nan"), dtype=torch.bfloat16)])
    assert inf == float("inf")
    assert nan != nan


def test_read_is_one_copy_for_all_values_together() -> None:
    copies = 0

    class CountCopies(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal copies
            # tolist() of a CPU tensor does not dispatch, so what is counted is the stacking into one tensor
            copies += func is torch.ops.aten.stack.default
            return func(*args, **(kwargs or {}))

    with CountCopies():
        host.read([torch.tensor(float(i)) for i in range(20)])
    assert copies == 1


def test_readback_keeps_the_value_of_the_moment_it_was_made() -> None:
    scalar = torch.tensor(1.0)
    readback = host.Readback(scalar)
    scalar.fill_(2.0)
    assert readback.value() == 1.0
    assert not readback.is_remote


def test_reading_a_device_value_shows_under_fake_cuda() -> None:
    """The instrument that proves the handlers free of synchronisation does see a read made here."""
    with FakeTensorMode(), pytest.raises(Exception, match=r"item|data-dependent|local_scalar|tolist"):
        host.read([torch.ones((), device="cuda")])
