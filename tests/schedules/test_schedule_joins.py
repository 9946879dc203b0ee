from __future__ import annotations

import math

import pytest

from ignite_lr.schedules import Clamp, Constant, Exponential, Join, Linear, PiecewiseLinear, Scale, Shift


def test_each_part_counts_from_its_own_0() -> None:
    joined = Join([Constant(), Linear(4), Constant(0.5)], [3, 5])
    assert joined.values(7) == [1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.5]


def test_a_part_without_updates_is_skipped() -> None:
    assert Join([Constant(), Constant(0.1), Constant(0.2)], [2, 2]).values(3) == [1.0, 1.0, 0.2]
    assert Join([Constant(), Constant(0.1)], [0]).values(2) == [0.1, 0.1]


def test_any_callable_is_a_part() -> None:
    assert Join([lambda step: float(step), Constant(0.5)], [2]).values(4) == [0.0, 1.0, 0.5, 0.5]


def test_shifts_go_both_ways() -> None:
    line = Linear(4)
    assert Shift(line, 2).values(3) == line.values(5)[2:]
    assert Shift(line, -2).values(4) == [1.0, 1.0, 1.0, 0.75]


def test_scale_and_clamp() -> None:
    assert Scale(Linear(2), 0.5).values(3) == [0.5, 0.25, 0.0]
    assert Clamp(Exponential(0.5), lower=0.3, upper=0.8).values(4) == [0.8, 0.5, 0.3, 0.3]


def test_a_clamp_does_not_hide_what_is_no_number() -> None:
    assert math.isnan(Clamp(lambda step: math.nan, lower=0.5)(0))


@pytest.mark.parametrize(("update", "factor"), [(0, 0.5), (2, 0.5), (3, 0.75), (4, 1.0), (8, 0.0), (100, 0.0)])
def test_points(update: int, factor: float) -> None:
    assert PiecewiseLinear([(2, 0.5), (4, 1.0), (8, 0.0)])(update) == factor
