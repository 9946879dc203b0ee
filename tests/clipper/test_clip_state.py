from __future__ import annotations

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from through_file import through_file

from ignite_lr.clipper._state import ClipState


def made() -> ClipState:
    return ClipState(
        updates=10,
        clipped=2,
        nonfinite=3,
        zero=1,
        skipped=1,
        threshold=2.5,
        histogram=np.arange(482),
        norms=np.array([1.0, 3.0, math.nan, math.inf]),
        thresholds=np.array([2.5, 2.5, math.inf, 2.5]),
        decisions=np.array([False, True, False, False]),
        windows=[np.array([1e-60, 3.0]), np.zeros(0)],
        seen=[8, 0],
    )


def assert_same(state: ClipState, expected: ClipState) -> None:
    for name in vars(expected):
        for got, wanted in zip(
            np.atleast_1d(getattr(state, name)) if name != "windows" else state.windows,
            np.atleast_1d(getattr(expected, name)) if name != "windows" else expected.windows,
            strict=True,
        ):
            np.testing.assert_array_equal(got, wanted)


def test_comes_back_as_it_was_through_a_safe_load() -> None:
    assert_same(ClipState.from_dict(through_file(made().to_dict())), made())


def test_what_is_saved_is_a_copy() -> None:
    state = made()
    saved = state.to_dict()
    state.histogram[:] = -1
    state.windows[0][:] = 0.0
    state.seen[0] = 0
    assert min(saved["histogram"]) == 0
    assert saved["windows"][0][0] == 1e-60
    assert saved["seen"] == [8, 0]


def test_no_shape_depends_on_what_there_has_been() -> None:
    """torch.distributed.checkpoint loads a tensor only into one of the same shape, and knows a value by its key."""
    for state in (made(), ClipState()):
        saved = state.to_dict()
        assert saved.keys() == ClipState().to_dict().keys()
        assert not any(isinstance(value, torch.Tensor | dict) for value in saved.values())


def test_the_state_of_release_0_1_0_is_read() -> None:
    saved = {
        "format": 1,
        **{name: getattr(made(), name) for name in ("updates", "clipped", "nonfinite", "skipped", "threshold")},
        "decisions": torch.tensor([0, 1], dtype=torch.uint8),
        "histogram": torch.arange(482),
        "stretch": torch.tensor([[1.0, 2.5, 0.0], [3.0, 2.5, 1.0]]),
        "windows": [{"norms": torch.tensor([0.0, 1.0, 3.0]), "seen": 8}, {"norms": torch.zeros(0), "seen": 0}],
    }
    state = ClipState.from_dict(saved)
    assert (state.updates, state.clipped, state.zero, state.seen) == (10, 2, 0, [8, 0])
    assert [list(norms) for norms in state.windows] == [[1.0, 3.0], []]
    assert (list(state.norms), list(state.decisions)) == ([1.0, 3.0], [False, True])


def broken(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**copy.deepcopy(state), **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"windows": None}, ValueError, "it lacks windows"),
        ({"format": 3}, ValueError, r"\['format'\] must be 2, got 3"),
        ({"updates": 1.5}, TypeError, r"\['updates'\] must be an integer, got 1.5 of type float"),
        ({"updates": -1}, ValueError, r"\['updates'\] must be at least 0, got -1"),
        ({"updates": 2**63}, ValueError, r"\['updates'\] must be at most 2\*\*63 - 1"),
        ({"format": True}, ValueError, "must be made by|must be 2, got True"),
        ({"threshold": 10**400}, ValueError, r"\['threshold'\] must be finite as a float"),
        ({"clipped": 99}, ValueError, "more clipped than updates"),
        ({"threshold": "1"}, TypeError, r"\['threshold'\] must be a real number, got '1'"),
        ({"threshold": math.nan}, ValueError, r"\['threshold'\] must be finite, got nan"),
        ({"threshold": -1.0}, ValueError, r"\['threshold'\] must be at least 0, got -1"),
        ({"decisions": torch.zeros(4)}, TypeError, "'decisions' must be a list of numbers, got tensor"),
        ({"decisions": [True]}, ValueError, r"must be of one length .* 10 updates, got \(4, 4, 1\)"),
        ({"updates": 3}, ValueError, "not outnumber the 3 updates"),
        ({"histogram": [1, 2]}, ValueError, r"\['histogram'\] must hold 482 counts, got \[1, 2\]"),
        ({"histogram": [-1] * 482}, ValueError, r"\['histogram'\] must hold 482 counts, got \[-1"),
        ({"histogram": [2**70] * 482}, ValueError, "must hold numbers below"),
        ({"norms": ["a"]}, TypeError, "'norms' must be a list of numbers"),
        ({"windows": {}}, TypeError, r"\['windows'\] must be a list, got"),
        ({"windows": []}, ValueError, r"\['seen'\] must hold 0 counts, got 2"),
        ({"windows": [1, 2]}, TypeError, "must be a list of numbers, got 1"),
        ({"windows": [[math.nan], []]}, ValueError, r"\['windows'\]\[0\] must hold finite norms of at least 0"),
        ({"seen": [1, 0]}, ValueError, r"\['seen'\]\[0\] must be at least the number of norms, 2, got 1"),
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
    with pytest.raises(ValueError, match=r"must be made by GradNormClipper\.state_dict"):
        ClipState.from_dict({"format": 1})


def test_a_million_norms_are_saved_in_ten_megabytes() -> None:
    """Eight bytes of a norm in double precision, and one that says so."""
    norms = np.random.default_rng(0).lognormal(0.0, 1.0, 1_000_000)
    buffer = io.BytesIO()
    torch.save(ClipState(updates=1_000_000, windows=[norms], seen=[1_000_000]).to_dict(), buffer)
    assert buffer.getbuffer().nbytes < 10e6
