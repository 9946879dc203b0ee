from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ignite_lr.clipper._state import ClipRule


def test_no_ceiling_is_infinite() -> None:
    assert ClipRule.checked(percentile=90, window=None, max_norm=None) == ClipRule(90.0, None, 0, math.inf)


def test_numbers_of_numpy_and_scalars_of_torch_become_those_of_python() -> None:
    rule = ClipRule.checked(
        percentile=np.float32(50), window=np.int64(3), warmup_updates=np.int32(1), max_norm=np.float64(2), norm_type=1
    )
    assert rule == ClipRule(50.0, 3, 1, 2.0, 1.0)
    assert type(rule.window) is int
    assert (
        ClipRule.checked(max_norm=torch.tensor(2.0))
        == ClipRule.checked(max_norm=torch.tensor(2))
        == ClipRule(max_norm=2.0)
    )


@pytest.mark.parametrize("infinite", ["inf", math.inf, np.float64(math.inf)])
def test_infinity_is_a_norm(infinite: Any) -> None:
    assert ClipRule.checked(norm_type=infinite).norm_type == math.inf


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"percentile": 101}, ValueError, "percentile must be at most 100, got 101"),
        ({"window": 0}, ValueError, "window must be at least 1, got 0"),
        ({"window": "all"}, TypeError, "window must be an integer or None, got 'all' of type str"),
        ({"warmup_updates": True}, TypeError, "warmup_updates must be an integer, got True of type bool"),
        ({"max_norm": -1.0}, ValueError, "max_norm must be greater than 0, got -1.0"),
        ({"max_norm": torch.ones(2)}, TypeError, "max_norm must be a real number, got tensor"),
        ({"max_norm": torch.tensor(True)}, TypeError, "max_norm must be a real number, got tensor"),
        ({"norm_type": math.nan}, ValueError, "norm_type must be finite, got nan"),
        ({"norm_type": "two"}, TypeError, "norm_type must be a real number, got 'two'"),
    ],
)
def test_wrong_settings(settings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClipRule.checked(**settings)
