from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignite_lr.range_test import Curve, leading_lrs, sweep_rates

RATES = st.floats(1e-12, 1e6)


@given(start=RATES, factor=st.floats(1.001, 1e9), num_iter=st.integers(2, 500), mode=st.sampled_from(["exp", "linear"]))
def test_rates_rise_from_the_start_to_the_end(start: float, factor: float, num_iter: int, mode: str) -> None:
    end = start * factor
    rates = [rate for (rate,) in sweep_rates([start], [end], num_iter, mode)]
    assert len(rates) == num_iter
    assert (rates[0], rates[-1]) == (start, end)
    assert rates == sorted(rates)
    spaced = np.geomspace if mode == "exp" else np.linspace
    assert rates == pytest.approx(spaced(start, end, num_iter).tolist(), rel=1e-9)


def test_each_group_has_its_own_rates() -> None:
    assert sweep_rates([1.0, 0.0], [4.0, 0.0], 3, "exp") == [(1.0, 0.0), (2.0, 0.0), (4.0, 0.0)]


def test_the_leading_group_has_the_largest_rates() -> None:
    assert leading_lrs([(1.0, 0.1), (2.0, 3.0)]) == [0.1, 3.0]
    assert leading_lrs([1.0, 2.0]) == [1.0, 2.0]
    assert leading_lrs([]) == []


def stops_at(losses: list[float], diverge_th: float = 5.0, smooth_f: float = 0.0) -> tuple[int, str] | None:
    curve = Curve([(1.0,)] * (len(losses) + 1), smooth_f, diverge_th)
    for index, loss in enumerate(losses):
        reason = curve.add(loss)
        if reason is not None:
            return index, reason
    return None


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60), st.floats(1.0, 10.0), st.floats(0.0, 0.9))
def test_positive_losses_follow_the_originals_rule(losses: list[float], diverge_th: float, smooth_f: float) -> None:
    smoothed: list[float] = []
    expected = None
    for index, loss in enumerate(losses):
        smoothed.append(smooth_f * loss + (1 - smooth_f) * smoothed[-1] if smoothed and smooth_f else loss)
        if smoothed[-1] > diverge_th * min(smoothed):
            expected = (index, "divergence")
            break
    assert stops_at(losses, diverge_th, smooth_f) == expected


@given(
    st.lists(st.floats(-1.0, 1.0, width=32), min_size=6, max_size=60),
    st.sampled_from([2.0**k for k in range(-20, 21)]),
)
def test_for_other_losses_the_scale_does_not_matter(losses: list[float], scale: float) -> None:
    losses = [-1.0, *losses]
    assert stops_at(losses) == stops_at([scale * loss for loss in losses])


@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=100))
def test_losses_within_the_range_of_the_first_ones_go_on(losses: list[float]) -> None:
    assert stops_at([1.0, -1.0, 0.0, 1.0, -1.0, *losses]) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stops_at_once(bad: float) -> None:
    assert stops_at([1.0, bad]) == (1, "non_finite")
    assert stops_at([bad]) == (0, "non_finite")


def test_an_infinite_threshold_never_stops() -> None:
    assert stops_at([1.0, 1e-9, 1e9], math.inf) is None
    assert stops_at([-1.0] * 8 + [1e9], math.inf) is None


def test_the_last_point_ends_the_sweep() -> None:
    curve = Curve([(0.1,), (1.0,)], 0.5, 5.0)
    assert curve.add(2.0) is None
    assert curve.add(1.0) == "num_iter"
    frozen = curve.freeze("num_iter", 1)
    assert frozen.lrs == (0.1, 1.0)
    assert frozen.losses == (2.0, 1.0)
    assert frozen.smoothed_losses == (2.0, 1.5)
    assert (frozen.stop_reason, frozen.stop_lr) == ("num_iter", 1.0)
