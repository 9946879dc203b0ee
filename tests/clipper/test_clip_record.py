from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch

from ignite_lr.clipper._record import HISTOGRAM_EDGES, ClipRecord, DeviceClipRecord, histogram_bin
from ignite_lr.clipper._rule import ClipRule
from ignite_lr.clipper._state import ClipState
from ignite_lr.core import host

CPU = torch.device("cpu")


def test_bins_are_those_of_numpy() -> None:
    norms = np.random.default_rng(0).lognormal(0.0, 12.0, 3_000).astype(np.float32)
    norms = np.concatenate((norms, [0.0, 1e-13, 1e13, float(np.finfo(np.float32).max)]))
    mine = np.bincount([histogram_bin(float(norm)) for norm in norms], minlength=len(HISTOGRAM_EDGES) - 1)
    np.testing.assert_array_equal(mine, np.histogram(norms, HISTOGRAM_EDGES)[0])


@pytest.mark.parametrize(
    ("rule", "norms", "limits"),
    [
        pytest.param(ClipRule(50.0, window=3), [4.0, 2.0, 8.0, 1.0], [4.0, 3.0, 4.0, 2.0], id="percentile"),
        pytest.param(ClipRule(50.0, max_norm=2.5), [4.0, 1.0, 1.0], [2.5, 2.5, 1.0], id="ceiling"),
        pytest.param(ClipRule(0.0, warmup_updates=2), [4.0, 2.0, 8.0], [math.inf, math.inf, 2.0], id="warm-up"),
        pytest.param(ClipRule(0.0), [math.nan, 2.0, math.inf, 3.0], [math.inf, 2.0, 2.0, 2.0], id="not finite"),
        pytest.param(ClipRule(0.0, max_norm=9.0), [math.inf], [9.0], id="ceiling alone"),
    ],
)
def test_thresholds(rule: ClipRule, norms: list[float], limits: list[float]) -> None:
    record, device = ClipRecord(rule, ClipState()), DeviceClipRecord(rule, ClipState(), CPU)
    yes = torch.tensor(True)
    assert [record.limit(0, norm) for norm in norms] == limits
    assert host.read([device.limit(0, torch.tensor(norm), yes) for norm in norms]) == limits


def test_a_step_that_a_scaler_skips_leaves_no_trace_on_a_device() -> None:
    rule = ClipRule()
    record = DeviceClipRecord(rule, ClipState(), CPU)
    no, norm = torch.tensor(False), torch.tensor(math.inf)
    limit = record.limit(0, norm, no)
    record.update(norm, limit, counts=no, clipped=no, skipped=no)
    state = DeviceClipRecord.state(*host.arrays(record.tensors()))
    assert (state.updates, state.nonfinite, state.histogram.sum(), len(state.stretch)) == (0, 0, 0, 0)
    assert len(state.windows[0].norms) == 0


@pytest.mark.long
def test_a_million_updates_take_less_than_20_megabytes() -> None:
    norms = np.random.default_rng(0).lognormal(0.0, 1.0, 1_000_000).astype(np.float32)
    tracemalloc.start()
    try:
        record = ClipRecord(ClipRule(window=None), ClipState())
        for norm in norms:
            value = float(norm)
            limit = record.limit(0, value)
            record.update(value, limit, value > limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert record.limit(0, 1.0) == np.percentile([*norms.astype(float), 1.0], 90.0)
