from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch

from ignite_lr.clipper._gradients import Gradients
from ignite_lr.clipper._on_device import OnDevice
from ignite_lr.clipper._on_host import OnHost, histogram_bin
from ignite_lr.clipper._state import HISTOGRAM_EDGES, ClipRule, ClipState
from ignite_lr.clipper._step_orders import StepOrders
from ignite_lr.core import host

CPU = torch.device("cpu")


def orders() -> StepOrders:
    return StepOrders(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))


def on_host(rule: ClipRule) -> OnHost:
    return OnHost(rule, orders(), ClipState())


def on_device(rule: ClipRule) -> OnDevice:
    return OnDevice(rule, orders(), ClipState(), CPU)


def gradients(norm: float, found_inf: float | None = None) -> Gradients:
    whole = torch.tensor(norm, dtype=torch.float64)
    return Gradients(
        {0: [whole.clone()]}, {0: whole}, whole, found_inf=None if found_inf is None else torch.tensor(found_inf)
    )


def test_bins_are_those_of_numpy() -> None:
    norms = np.random.default_rng(0).lognormal(0.0, 12.0, 3_000).astype(np.float32)
    norms = np.concatenate((norms, [1e-300, 1e-13, 1e13, 1e300]))
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
    record, device = on_host(rule), on_device(rule)
    yes = torch.tensor(True)
    assert [record.limit(0, norm) for norm in norms] == limits
    assert host.read([device.limit(0, torch.tensor(norm), yes) for norm in norms]) == limits


def test_a_step_that_a_scaler_skips_leaves_no_trace_on_a_device() -> None:
    rule = ClipRule()
    record = on_device(rule)
    record.clip(gradients(math.inf, found_inf=1.0), (), lambda: None)
    state = record.state()
    assert (state.updates, state.nonfinite, state.histogram.sum(), len(state.norms)) == (0, 0, 0, 0)
    assert len(state.windows[0]) == 0


@pytest.mark.parametrize("window", [1, 3, 70_000, None])
def test_both_tell_the_same_story(window: int | None) -> None:
    rng = np.random.default_rng(0)
    norms = rng.lognormal(0.0, 1.0, 60)
    norms[rng.random(60) < 0.2] = 0.0
    norms[[7, 30]] = math.inf, math.nan
    rule = ClipRule(60.0, window, max_norm=2.0)
    stories = on_host(rule), on_device(rule)
    for norm in norms:
        for story in stories:
            story.clip(gradients(float(norm)), (), lambda: None)
        assert [float(value) for value in stories[0].metrics.values()] == pytest.approx(
            [float(value) for value in stories[1].metrics.values()], rel=1e-12, nan_ok=True
        )
    mine, theirs = (story.state() for story in stories)
    assert mine.zero > 0 < mine.clipped
    for name in vars(mine):
        np.testing.assert_array_equal(np.ravel(getattr(mine, name)), np.ravel(getattr(theirs, name)), err_msg=name)


@pytest.mark.long
def test_a_million_updates_take_less_than_20_megabytes() -> None:
    norms = np.random.default_rng(0).lognormal(0.0, 1.0, 1_000_000).astype(np.float32)
    tracemalloc.start()
    try:
        record = on_host(ClipRule(window=None))
        for norm in norms:
            value = float(norm)
            limit = record.limit(0, value)
            record._count(value, limit, value > limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert record.limit(0, 1.0) == np.percentile([*norms.astype(float), 1.0], 90.0)
