from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ignite_lr.clipper import (
    ClipReport,
)
from ignite_lr.clipper._report import (
    advise,
    judged,
    line,
    quantiles,
    too_often,
    typical_excess,
)


def advice(**changes: Any) -> str:
    facts: dict[str, Any] = {
        "updates": 1000,
        "skipped": 0,
        "nonfinite": 0,
        "frequency": 0.1,
        "counted": 1000,
        "percentile": 90.0,
        "excess": 0.5,
        "norms": np.ones(1000, np.float32),
    }
    return advise(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"updates": 0}, "No update yet.", id="nothing yet"),
        pytest.param({}, "Nothing to change.", id="all is well"),
        pytest.param({"frequency": 0.5}, "Nothing to change.", id="half"),
        pytest.param(
            {"frequency": 0.51, "excess": 4.0},
            "51% of recent updates were clipped; above 50% lower the learning rate instead: the typical norm is 4 "
            "times the threshold, so try 1/4 of it.",
            id="more than half",
        ),
        pytest.param({"frequency": 0.9, "percentile": 10.0}, "Nothing to change.", id="AutoClip's choice"),
        pytest.param({"frequency": 0.53, "percentile": 50.0}, "Nothing to change.", id="chance at the median"),
        pytest.param({"frequency": 0.9, "counted": 10}, "Nothing to change.", id="too few"),
    ],
)
def test_advice(changes: dict[str, Any], words: str) -> None:
    assert advice(**changes) == words


@pytest.mark.parametrize(("factor", "word"), [(2.0, "rising"), (0.5, "falling")])
def test_drifting_norms(factor: float, word: str) -> None:
    norms = np.repeat(np.float32([1.0, factor]), 50)
    assert f"The norms are {word} (median 1, then {factor:.3g})" in advice(norms=norms)
    assert advice(norms=norms[45:55]) == "Nothing to change."


def test_the_share_of_norms_that_are_not_finite() -> None:
    assert "2.0% of the norms were not finite" in advice(updates=990, skipped=10, nonfinite=20)
    assert "100.0% of the norms" in advice(updates=0, skipped=3, nonfinite=3, norms=np.zeros(0, np.float32))


def test_several_sentences() -> None:
    text = advice(frequency=0.8, nonfinite=1, norms=np.repeat(np.float32([1.0, 3.0]), 50))
    assert text.count(".") >= 3


def test_the_line_is_one_half_except_near_it() -> None:
    assert line(90.0, 20) == line(70.0, 1000) == 0.5
    assert line(50.0, 20) > line(50.0, 1000) > 0.5
    assert line(49.9, 1000) == line(90.0, 19) == math.inf


@pytest.mark.parametrize(("facts", "expected"), [((0.3, 50, 1, 2), (0.3, 50)), ((0.3, 5, 20, 80), (0.25, 80))])
def test_a_short_window_is_not_judged_by(facts: Any, expected: tuple[float, int]) -> None:
    assert judged(*facts) == expected
    assert judged(0.0, 0, 0, 0) == (0.0, 0)


def test_a_norm_is_compared_with_the_threshold_it_met() -> None:
    norms, thresholds = np.float32([1, 9, 4, math.nan, 4, 4]), np.float32([1, 3, 2, 1, math.inf, 0])
    assert typical_excess(norms, thresholds) == 2.0


@pytest.mark.parametrize("excess", [math.nan, 1.0, 0.9])
def test_no_factor_where_the_norms_exceed_nothing(excess: float) -> None:
    assert too_often(0.6, excess).endswith("instead.")
    assert math.isnan(typical_excess(np.ones(3, np.float32), np.zeros(3, np.float32)))


def test_quantiles() -> None:
    norms = np.random.default_rng(0).lognormal(size=500).astype(np.float32)
    found = quantiles(norms)
    assert list(found.values()) == [np.percentile(norms.astype(float), q) for q in (50, 90, 99, 100)]
    assert all(math.isnan(value) for value in quantiles(norms[:0]).values())


def test_a_report_reads_well() -> None:
    values = dict(zip((50, 90, 99, "max"), (1.0, 2.0, 3.0, 4.0), strict=True))
    text = str(ClipReport(10, 1, 0.1, 0.1, 0.1, 2.0, values, 0, 0, "Nothing to change."))
    assert text.splitlines()[0] == "1 of 10 updates clipped (10.0%, recently 10.0%, nominally 10.0%) at threshold 2"
    assert text.splitlines()[1] == "norm percentiles 50: 1, 90: 2, 99: 3, max: 4"
    assert text.endswith("Nothing to change.")
