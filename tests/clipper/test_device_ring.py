from __future__ import annotations

import numpy as np
import pytest
import torch

from ignite_lr.clipper._on_device import DeviceRing, sent
from ignite_lr.core import host

CPU = torch.device("cpu")


def values(ring: DeviceRing) -> np.ndarray:
    return DeviceRing.values(*host.arrays(ring.tensors()))


@pytest.mark.parametrize("size", [1, 3, 70_000, None])
def test_keeps_the_last_values_that_count_in_order(size: int | None) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=3_000).astype(np.float32)
    counts = rng.random(3_000) < 0.7
    ring = DeviceRing(size, CPU, np.zeros(0, np.float32))
    for number, count in zip(numbers, counts, strict=True):
        ring.add(torch.tensor(number), torch.tensor(bool(count)))
    kept = numbers[counts]
    assert np.array_equal(values(ring), kept if size is None else kept[-size:])


def test_a_large_ring_grows_to_its_size_and_no_further() -> None:
    ring = DeviceRing(70_000, CPU, np.arange(69_990, dtype=np.float32))
    for number in range(69_990, 70_020):
        ring.add(torch.tensor(float(number)), torch.tensor(True))
    assert len(ring.buffer) == 70_000
    assert np.array_equal(values(ring), np.arange(20, 70_020, dtype=np.float32))


def test_up_to_65536_the_buffer_is_written_in_place() -> None:
    ring = DeviceRing(1_000, CPU, np.zeros(0, np.float32))
    address = ring.buffer.data_ptr()
    for number in range(2_500):
        ring.add(torch.tensor(float(number)), torch.tensor(True))
    assert ring.buffer.data_ptr() == address


def test_rows() -> None:
    ring = DeviceRing(2, CPU, np.zeros((0, 3), np.float32))
    for number in range(3):
        ring.add(torch.full((3,), float(number)), torch.tensor(True))
    assert values(ring).tolist() == [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]


def test_starts_with_the_newest_values() -> None:
    ring = DeviceRing(3, CPU, np.arange(5, dtype=np.uint8))
    assert values(ring).tolist() == [2, 3, 4]
    ring.add(torch.tensor(True), torch.tensor(True))
    assert values(ring).tolist() == [3, 4, 1]


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.int64), np.array([1, 2], np.uint8), np.array([1.5], np.float32)])
def test_sent_arrays_arrive_unchanged(array: np.ndarray) -> None:
    tensor = sent(array, CPU)
    assert np.array_equal(tensor.numpy(), array)
    assert tensor.numpy().dtype == array.dtype
