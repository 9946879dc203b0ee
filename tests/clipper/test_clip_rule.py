from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ignite_lr.clipper._rule import ClipRule, check_positive


def test_no_ceiling_is_infinite() -> None:
    assert ClipRule.checked(90, None, 0, None) == ClipRule(90.0, None, 0, math.inf)


def test_numbers_of_numpy_become_those_of_python() -> None:
    rule = ClipRule.checked(np.float32(50), np.int64(3), np.int32(1), np.float64(2))  # type: ignore[arg-type]
    assert rule == ClipRule(50.0, 3, 1, 2.0)
    assert type(rule.window) is int


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ((101, 10, 0, None), ValueError, "percentile must be between 0 and 100, got 101"),
        ((90, 0, 0, None), ValueError, "window must be at least 1 or None, got 0"),
        ((90, "all", 0, None), TypeError, "window must be an int or None, got str: 'all'"),
        ((90, 10, True, None), TypeError, "warmup_updates must be an int, got bool"),
        ((90, 10, 0, -1.0), ValueError, "max_norm must be positive, got -1.0"),
    ],
)
def test_wrong_settings(settings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClipRule.checked(*settings)


def test_infinity_is_positive() -> None:
    check_positive("norm_type", math.inf)
    with pytest.raises(ValueError, match="norm_type must be positive, got nan"):
        check_positive("norm_type", math.nan)
