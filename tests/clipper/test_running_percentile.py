from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ignite_lr.clipper import _on_host as percentile
from ignite_lr.clipper._on_device import DeviceRunningPercentile
from ignite_lr.clipper._on_host import RunningPercentile

CPU = torch.device("cpu")


def expected(values: np.ndarray, p: float) -> float:
    return float(np.percentile(values.astype(np.float64), p))


def random_windows(count: int, seed: int) -> list[tuple[np.ndarray, int, float]]:
    """Series of norms, some with many ties, with a window and a percentile each."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(count):
        values = rng.lognormal(0.0, 2.0, int(rng.integers(1, 80))).astype(np.float32)
        if i % 3 == 0:
            values = np.round(values)
        p = float(rng.choice([0.0, 10.0, 50.0, 90.0, 95.0, 99.9, 100.0, rng.uniform(0.0, 100.0)]))
        cases.append((values, int(rng.integers(1, 60)), p))
    return cases


def test_ten_thousand_random_windows_equal_numpy_to_the_bit() -> None:
    for values, window, p in random_windows(10_000, seed=1):
        running = RunningPercentile(window)
        for value in values.astype(float):
            running.add(value)
        last = values[-window:]
        assert running.percentile(p) == expected(last, p)
        assert np.array_equal(running.values(), last)


def test_on_a_device_windows_equal_numpy_to_the_bit() -> None:
    yes, no = torch.tensor(True), torch.tensor(False)
    for values, window, p in random_windows(300, seed=2):
        running = DeviceRunningPercentile(window, CPU)
        for value in values:
            running.add(torch.tensor(value), yes)
            running.add(torch.tensor(math.nan), no)
        assert running.percentile(p).item() == expected(values[-window:], p)
        assert running.seen.item() == len(values)


@pytest.mark.parametrize("window", [None, 5_000, 50_000])
def test_many_blocks_equal_numpy(window: int | None) -> None:
    rng = np.random.default_rng(3)
    values = rng.lognormal(0.0, 1.0, 60_000).astype(np.float32)
    running = RunningPercentile(window, values[:30_000])
    for i, value in enumerate(values[30_000:].astype(float), start=30_001):
        running.add(value)
        if i % 5_000 == 0:
            last = values[max(0, i - (window or i)) : i]
            assert [running.percentile(p) for p in (0.0, 33.0, 90.0, 100.0)] == [
                expected(last, p) for p in (0.0, 33.0, 90.0, 100.0)
            ]
    assert running.seen == 60_000


def test_blocks_that_run_empty_are_dropped() -> None:
    values = np.arange(40_000, dtype=np.float32)
    running = RunningPercentile(40_000, values)
    for value in range(40_000):  # every smallest value leaves
        running.add(50_000.0 + value)
    assert running.percentile(50.0) == expected(50_000.0 + values, 50.0)


def test_without_a_window_a_device_keeps_everything() -> None:
    values = np.random.default_rng(4).lognormal(0.0, 1.0, 2_500).astype(np.float32)
    running = DeviceRunningPercentile(None, CPU, values[:10])
    for i, value in enumerate(values[10:]):
        running.add(torch.tensor(value), torch.tensor(i % 7 != 0))
    kept = np.concatenate((values[:10], [v for i, v in enumerate(values[10:]) if i % 7 != 0]))
    assert running.percentile(90.0).item() == expected(kept, 90.0)


def test_a_smaller_window_keeps_the_newest() -> None:
    values = np.arange(10, dtype=np.float32)
    assert RunningPercentile(3, values, seen=25).values().tolist() == [7.0, 8.0, 9.0]
    assert RunningPercentile(3, values, seen=25).seen == 25
    device = DeviceRunningPercentile(3, CPU, values, seen=25)
    assert device.percentile(0.0).item() == 7.0
    device.add(torch.tensor(1.0), torch.tensor(True))
    assert device.percentile(100.0).item() == 9.0
    assert device.percentile(0.0).item() == 1.0


def test_values_keep_double_precision() -> None:
    running = RunningPercentile(2)
    for value in (0.1, 1e-60, 1e300):
        running.add(value)
    assert (running.percentile(0.0), running.percentile(100.0)) == (1e-60, 1e300)


def test_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        RunningPercentile(3).percentile(50.0)
    assert DeviceRunningPercentile(3, CPU).percentile(50.0).item() == math.inf
    assert len(RunningPercentile(3).values()) == 0


@given(st.lists(st.floats(0.0, 2.0**100, width=32), min_size=1, max_size=50), st.floats(0.0, 100.0))
def test_rank_and_interpolation_are_those_of_numpy(values: list[float], p: float) -> None:
    ordered = sorted(values)
    below, weight = percentile.rank(len(ordered), p)
    upper = ordered[min(below + 1, len(ordered) - 1)]
    assert percentile.interpolate(ordered[below], upper, weight) == float(np.percentile(ordered, p))
