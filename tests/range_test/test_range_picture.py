from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ignite_lr.core.figure import finite
from ignite_lr.range_test._picture import RangeTestPicture


def picture(**changes: Any) -> RangeTestPicture:
    values: dict[str, Any] = {
        "lrs": [[0.1, 1.0, 10.0]],
        "losses": [3.0, 1.0, 2.0],
        "smoothed": [3.0, 1.0, 2.0],
        "loss_name": "Loss",
        "log_lr": True,
        "default": "descent",
        "suggestions": {},
        "confidence": 0.5,
        "interval": None,
        "unstable_lr": None,
        "sweeps": [],
        "note": "",
        **changes,
    }
    return RangeTestPicture(**values)


def test_the_height_of_a_mark_is_on_the_smoothed_curve() -> None:
    assert picture().height(1.0) == 1.0
    assert picture().height(0.55) == pytest.approx(2.0)
    assert picture().height(1e-9) == 3.0
    assert picture(smoothed=[math.nan] * 3).height(1.0) == 0.0
    assert picture(smoothed=[3.0, 1.0, math.inf]).height(10.0) == 1.0


def test_the_picture_shows_the_descent_and_not_the_explosion() -> None:
    low, high = picture(losses=[3.0, 1.0, 1e9], smoothed=[3.0, 1.0, 1e8]).y_range(slice(None))  # type: ignore[misc]
    assert 0 < low < 1.0
    assert 3.0 < high < 6.0
    assert picture(losses=[math.inf] * 3).y_range(slice(None)) is None
    low, high = picture(losses=[0.0] * 3, smoothed=[0.0] * 3).y_range(slice(None))  # type: ignore[misc]
    assert low < 0 < high


def test_the_band_reaches_as_far_as_all_sweeps() -> None:
    assert picture().band() is None
    lrs, low, high = picture(sweeps=[([0.1, 1.0], [1.0, 4.0]), ([0.1, 1.0, 10.0], [2.0, 3.0, 9.0])]).band()  # type: ignore[misc]
    assert list(lrs) == [0.1, 1.0]
    assert low.tolist() == [1.0, 3.0]
    assert high.tolist() == [2.0, 4.0]


def test_skipping_more_than_there_is_leaves_nothing() -> None:
    assert picture().part(0, 0) == slice(0, 3)
    assert picture().part(1, 1) == slice(1, 2)
    assert picture().part(5, 0) == slice(3, 3)
    assert picture().part(0, 5) == slice(0, 0)


def test_labels() -> None:
    assert picture().label("valley", [0.1]) == "valley: 1.00e-01"
    assert picture().label("descent", [0.1, 1.0]) == "suggested: 1.00e-01, 1.00e+00 (confidence 0.50)"
    assert picture(interval=(0.1, 1.0)).label("descent", [0.5]).endswith("(confidence 0.50, 1.0e-01 to 1.0e+00)")


def test_what_is_not_finite_becomes_a_gap() -> None:
    assert np.array_equal(
        finite([1.0, math.inf, -math.inf, math.nan]), [1.0, math.nan, math.nan, math.nan], equal_nan=True
    )
