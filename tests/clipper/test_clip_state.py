from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch

from ignite_lr.clipper._state import ClipState, NormWindow


def made() -> ClipState:
    return ClipState(
        updates=10,
        clipped=2,
        nonfinite=3,
        skipped=1,
        threshold=2.5,
        decisions=np.array([0, 1, 0], np.uint8),
        histogram=np.arange(482),
        stretch=np.array([[1.0, 2.5, 0.0], [3.0, 2.5, 1.0]], np.float32),
        windows=[NormWindow(np.array([1.0, 3.0], np.float32), 8)],
    )


def test_comes_back_as_it_was_through_a_safe_load() -> None:
    buffer = io.BytesIO()
    torch.save(made().to_dict(), buffer)
    buffer.seek(0)
    state, expected = ClipState.from_dict(torch.load(buffer, weights_only=True)), made()
    for name in ("updates", "clipped", "nonfinite", "skipped", "threshold"):
        assert getattr(state, name) == getattr(expected, name)
    for name in ("decisions", "histogram", "stretch"):
        np.testing.assert_array_equal(getattr(state, name), getattr(expected, name))
    np.testing.assert_array_equal(state.windows[0].norms, expected.windows[0].norms)
    assert state.windows[0].seen == 8


def test_what_is_saved_is_a_copy() -> None:
    state = made()
    saved = state.to_dict()
    state.histogram[:] = -1
    state.windows[0].norms[:] = 0.0
    assert saved["histogram"].min() == 0
    assert saved["windows"][0]["norms"].min() == 1.0


def broken(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"windows": None}, ValueError, "it lacks windows"),
        ({"format": 2}, ValueError, r"\['format'\] must be 1, got 2"),
        ({"updates": 1.5}, TypeError, r"\['updates'\] must be an int, got float"),
        ({"updates": -1}, ValueError, r"\['updates'\] must be at least 0 and below 2\*\*63, got -1"),
        ({"updates": 2**63}, ValueError, r"\['updates'\] must be at least 0 and below 2\*\*63, got 9223"),
        ({"format": True}, ValueError, r"\['format'\] must be 1, got True"),
        ({"threshold": 10**400}, ValueError, r"\['threshold'\] must be a float of at least 0, got 1000"),
        ({"clipped": 99}, ValueError, "more clipped than updates"),
        ({"threshold": "1"}, TypeError, r"\['threshold'\] must be a number, got str"),
        ({"threshold": math.nan}, ValueError, r"\['threshold'\] must be a float of at least 0, got nan"),
        ({"decisions": [0, 1]}, TypeError, r"\['decisions'\] must be a tensor, got list"),
        ({"decisions": torch.zeros(2)}, ValueError, r"\['decisions'\] must be a tensor of torch.uint8"),
        ({"decisions": torch.tensor([2], dtype=torch.uint8)}, ValueError, "must hold 0 and 1 only, got 2"),
        ({"decisions": torch.zeros(50, dtype=torch.uint8)}, ValueError, "must not outnumber the 10 updates, got 50"),
        ({"histogram": torch.zeros(3, dtype=torch.int64)}, ValueError, r"shape \(482,\), got torch.int64 and \(3,\)"),
        ({"histogram": torch.full((482,), -1)}, ValueError, "must not be negative, got -1"),
        ({"stretch": torch.zeros(3)}, ValueError, r"\['stretch'\] must be a tensor of torch.float32 and shape"),
        ({"windows": {}}, TypeError, r"\['windows'\] must be a list, got dict"),
        ({"windows": []}, ValueError, "must hold the norms of 10 updates, got none"),
        ({"windows": [1]}, ValueError, "must be a mapping with 'norms' and 'seen'"),
        ({"windows": [{"norms": torch.tensor([math.nan]), "seen": 1}]}, ValueError, "must be finite and at least 0"),
        ({"windows": [{"norms": torch.ones(4), "seen": 1}]}, ValueError, "at least the number of norms, 4, got 1"),
    ],
)
def test_a_state_that_cannot_be_true_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClipState.from_dict(broken(made().to_dict(), **changes))


@pytest.mark.parametrize("foreign", [None, [1], 3])
def test_what_is_no_state_is_refused(foreign: Any) -> None:
    with pytest.raises(TypeError, match="must be a mapping made by GradNormClipper"):
        ClipState.from_dict(foreign)


def test_a_foreign_state_is_refused() -> None:
    with pytest.raises(ValueError, match="it lacks clipped, decisions, format"):
        ClipState.from_dict(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0).state_dict())


def test_a_million_norms_are_saved_in_less_than_8_megabytes() -> None:
    norms = np.random.default_rng(0).lognormal(0.0, 1.0, 1_000_000).astype(np.float32)
    window = NormWindow(norms, 1_000_000)
    state = ClipState(updates=1_000_000, decisions=np.zeros(1_000_000, np.uint8), windows=[window])
    buffer = io.BytesIO()
    torch.save(state.to_dict(), buffer)
    assert buffer.getbuffer().nbytes < 8e6
