from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ignite_lr import schedules
from ignite_lr.core.arguments import is_number


def test_get_by_name() -> None:
    assert schedules.get("inverse_sqrt", warmup_steps=10) == schedules.InverseSqrt(10)
    assert schedules.get("one_cycle", total_steps=10, anneal="linear") == schedules.OneCycle(10, anneal="linear")


def test_a_config_file_may_nest_and_leave_out_what_has_a_default() -> None:
    config = {
        "name": "join",
        "schedules": [
            {"name": "constant"},
            {"name": "scale", "schedule": {"name": "linear", "total_steps": 5}, "factor": 2},
        ],
        "boundaries": [3],
    }
    expected = schedules.Join([schedules.Constant(), schedules.Scale(schedules.Linear(5), 2.0)], [3])
    assert schedules.from_dict(config) == expected


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("cosin", {}, ValueError, "name must be one of .*'cosine'.*got 'cosin'"),
        (3, {}, TypeError, "name must be a string, got 3"),
        ("linear", {"total_step": 3}, TypeError, "Linear takes total_steps, .*got 'total_step'"),
        ("linear", {}, TypeError, "Linear needs total_steps, got {}"),
    ],
)
def test_get_says_what_is_wrong(name: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        schedules.get(name, **arguments)


def test_from_dict_says_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="d must be a dict, got 3"):
        schedules.from_dict(3)  # type: ignore[arg-type]  # what is being tested
    with pytest.raises(ValueError, match="d must have the name of the schedule under 'name'"):
        schedules.from_dict({"total_steps": 3})
    with pytest.raises(ValueError, match="d must describe a Cosine"):
        schedules.Cosine.from_dict({"name": "linear", "total_steps": 3})


def test_a_function_cannot_be_written_to_a_dict() -> None:
    with pytest.raises(TypeError, match="only the schedules of this package can be written to a dict"):
        schedules.Scale(lambda step: 1.0, 0.5).to_dict()


def test_numpy_numbers_become_pythons_own() -> None:
    schedule = schedules.Cosine(np.int64(10), final_factor=np.float32(0.5), warmup_steps=np.int32(2))
    assert [type(value) for value in (schedule.total_steps, schedule.final_factor, schedule.warmup_steps)] == [
        int,
        float,
        int,
    ]


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, True), (0.5, True), (np.float32(1), True), (True, False), (np.bool_(True), False), ("1", False)],
)
def test_truth_values_are_no_numbers(value: Any, number: bool) -> None:
    assert is_number(value) is number


def test_values_are_counted() -> None:
    assert schedules.Linear(2).values(0) == []
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        schedules.Linear(2).values(-1)
    with pytest.raises(TypeError, match=r"n must be an integer, got 2\.5"):
        schedules.Linear(2).values(2.5)  # type: ignore[arg-type]  # what is being tested
