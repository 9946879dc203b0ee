"""What a report says, against the counts that it prints beside it."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch

from ignite_lr.clipper import ClipReport
from ignite_lr.clipper._gradients import Gradients
from ignite_lr.clipper._on_host import OnHost
from ignite_lr.clipper._report import advice, line, quantiles, reported, too_often
from ignite_lr.clipper._state import ClipRule, ClipState
from ignite_lr.clipper._step_orders import StepOrders


def record(norms: Any, thresholds: Any = 2.0, *, updates: int | None = None, **changes: Any) -> ClipState:
    """A record of these norms, clipped where they are above these thresholds."""
    norms = np.asarray(norms, np.float64)
    thresholds = np.broadcast_to(np.asarray(thresholds, np.float64), norms.shape)
    clipped = norms > thresholds
    facts: dict[str, Any] = {
        "updates": len(norms) if updates is None else updates,
        "clipped": int(clipped.sum()),
        "threshold": float(thresholds[-1]) if len(norms) else math.inf,
        "norms": norms,
        "thresholds": thresholds,
        "decisions": clipped,
        "windows": [norms[np.isfinite(norms) & (norms > 0)]],
        "seen": [int((np.isfinite(norms) & (norms > 0)).sum())],
    }
    return ClipState(**{**facts, **changes})


WINDOW = ClipRule(window=100)
CEILING = ClipRule(100.0, max_norm=2.0)


@pytest.mark.parametrize(
    ("state", "rule", "words"),
    [
        pytest.param(ClipState(), WINDOW, "No update yet.", id="nothing yet"),
        pytest.param(record([1.0] * 200), WINDOW, "Nothing to change.", id="all is well"),
        pytest.param(record([1.0, 4.0] * 100), WINDOW, "Nothing to change.", id="half"),
        pytest.param(
            record([1.0, 8.0, 8.0] * 100, updates=700),
            ClipRule(window=300),
            "66.7% of recent updates were clipped; above 50% lower the learning rate instead: among those the typical "
            "norm is 4 times the threshold, so try 1/4 of it.",
            id="more than half",
        ),
        pytest.param(record([9.0] * 200), ClipRule(10.0, 100), "Nothing to change.", id="AutoClip's choice"),
        pytest.param(
            record([1.0] * 47 + [9.0] * 53, updates=300), ClipRule(50.0, 100), "Nothing to change.", id="by chance"
        ),
        pytest.param(record([9.0] * 10), WINDOW, "Nothing to change.", id="too few"),
        pytest.param(record([9.0] * 90), WINDOW, "Nothing to change.", id="window not full"),
    ],
)
def test_advice(state: ClipState, rule: ClipRule, words: str) -> None:
    assert advice(state, rule) == words


def test_the_factor_is_that_of_the_clipped_updates() -> None:
    state = record(([0.5] * 8 + [4.0] * 3 + [16.0] * 9) * 6)
    assert "8 times the threshold, so try 1/8 of it" in too_often(state, CEILING)


def test_a_factor_that_rounds_to_one_is_not_said() -> None:
    assert too_often(record([2.002] * 60), CEILING).endswith("lower the learning rate instead.")
    assert "1.01 times the threshold" in too_often(record([2.02] * 60), CEILING)


def test_norms_that_rise_at_the_start_are_no_reason_to_lower_the_rate() -> None:
    rising = np.linspace(1.0, 5.0, 150)
    assert too_often(record(rising, rising * 0.9, updates=150), WINDOW) == ""  # a third of them met a full window
    assert too_often(record(rising, rising * 0.9, updates=350), WINDOW) != ""
    assert (
        too_often(record(rising, 1e-3, updates=150), ClipRule(window=1000, max_norm=1e-3)) != ""
    )  # it was the ceiling


def test_a_short_window_is_judged_by_all_updates() -> None:
    assert "100.0% of all updates" in too_often(record([9.0] * 60), ClipRule(window=5))
    assert too_often(record([1.0] * 55 + [9.0] * 5), ClipRule(window=5)) == ""


def test_groups_that_are_clipped_apart_are_clipped_more_often() -> None:
    windows = {"windows": [np.ones(300)] * 9, "seen": [300] * 9}
    state = record([1.0] * 100 + [3.0] * 140, **windows, updates=300)
    assert too_often(state, ClipRule(window=100)) != ""
    state = record([1.0, 3.0] * 90 + [3.0] * 30, **windows, updates=300)
    assert too_often(state, ClipRule(window=200)) == ""  # eight groups: 57% by chance


@pytest.mark.parametrize(
    ("factor", "thresholds", "words"),
    [
        (2.0, 1.5, "The norms are rising (median 1, then 2), so more updates are clipped than 10%"),
        (0.5, 1.5, "The norms are falling (median 1, then 0.5), so fewer updates are clipped than 10%"),
        (2.0, 2.5, "Nothing to change."),
        (0.5, 0.9, "Nothing to change."),
    ],
)
def test_drifting_norms(factor: float, thresholds: float, words: str) -> None:
    norms = np.repeat([1.0, factor], [50, 50])
    assert words in advice(record(norms, thresholds), ClipRule())
    assert advice(record(norms[45:55], thresholds), ClipRule()) == "Nothing to change."


def test_norms_that_the_percentile_does_not_decide_about() -> None:
    norms = np.repeat([1.0, 0.5], [50, 50])
    for rule in (ClipRule(enabled=False), ClipRule(max_norm=1.5), ClipRule(warmup_updates=50)):
        assert advice(record(norms, 1.5), rule) == "Nothing to change."


def test_the_share_of_norms_that_are_not_finite() -> None:
    assert "2.0% of the norms were not finite" in advice(record([1.0] * 990, skipped=10, nonfinite=20), ClipRule())
    assert "100.0% of the norms" in advice(ClipState(skipped=3, nonfinite=3), ClipRule())
    assert "Less than 0.1% of the norms" in advice(record([1.0], updates=10_000, nonfinite=1), ClipRule())


def test_several_sentences() -> None:
    text = advice(record(np.repeat([1.0, 3.0], 50), 0.9, updates=300, nonfinite=1), WINDOW)
    assert text.count(". ") == 2


def test_the_line_is_one_half_except_near_it() -> None:
    assert line(90.0, 20) == line(70.0, 1000) == 0.5
    assert line(50.0, 20) > line(50.0, 1000) > 0.5
    assert line(49.9, 1000) == line(90.0, 19) == math.inf
    assert line(90.0, 1000, groups=8) > 0.57


def test_quantiles() -> None:
    norms = np.random.default_rng(0).lognormal(size=500)
    found = quantiles(norms)
    assert list(found.values()) == [np.percentile(norms, q) for q in (50, 90, 99, 100)]
    assert all(math.isnan(value) for value in quantiles(norms[:0]).values())


def test_a_report_reads_well() -> None:
    values = dict(zip((50, 90, 99, "max"), (1.0, 2.0, 3.0, 4.0), strict=True))
    report = ClipReport(10, 1, 0.1, 0.1, 0.1, 2.0, values, 0, 3, 0, "Nothing to change.")
    text = str(report)
    assert text.splitlines()[0] == "1 of 10 updates clipped (10.0%, recently 10.0%, nominally 10.0%) at threshold 2"
    assert text.splitlines()[1] == "norm percentiles 50: 1, 90: 2, 99: 3, max: 4"
    assert "3 norms exactly zero" in text
    assert text.endswith("Nothing to change.")
    assert reported(ClipState(), ClipRule(), "critic").name == "critic"
    assert str(reported(ClipState(), ClipRule(), "critic")).startswith("critic: 0 of 0 updates")
    assert "&lt;" in reported(ClipState(), ClipRule(), "<b>")._repr_html_()


# ---- every sentence against the counts


def told(norms: Any, rule: ClipRule) -> ClipState:
    """The record of these norms, kept by the code that keeps it in a training."""
    story = OnHost(rule, StepOrders(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)), ClipState())
    for norm in norms:
        whole = torch.tensor(norm, dtype=torch.float64)
        story.clip(Gradients({0: [whole.clone()]}, {0: whole}, whole), (), lambda: None)
    return story.state()


def series(rng: np.random.Generator) -> tuple[np.ndarray, ClipRule]:
    """Norms as training has them: drifting, jumping, noisy, some zero or not finite; and a rule."""
    count = int(rng.integers(1, 160))
    knots = np.cumsum(rng.normal(0.0, rng.choice([0.0, 0.3, 2.0]), 4))
    norms = np.exp(np.interp(np.linspace(0, 3, count), np.arange(4), knots))
    norms = norms * rng.lognormal(0.0, rng.choice([0.0, 0.001, 0.1, 1.0]), count)
    norms[rng.random(count) < rng.choice([0.0, 0.0, 0.5])] = 0.0
    norms[rng.random(count) < rng.choice([0.0, 0.0, 0.05])] = rng.choice([math.inf, math.nan])
    return norms, ClipRule(
        percentile=float(rng.choice([10.0, 50.0, 75.0, 90.0, 99.0, 100.0])),
        window=[None, 1, 5, 30, 50, 1000][rng.integers(6)],
        warmup_updates=int(rng.choice([0, 0, 20])),
        max_norm=float(rng.choice([math.inf, 0.9, 0.3])),
        enabled=bool(rng.random() < 0.9),
    )


def test_every_sentence_agrees_with_the_counts() -> None:
    rng = np.random.default_rng(0)
    said = {"lower": 0, "more": 0, "fewer": 0, "finite": 0, "times": 0}
    for _ in range(3_000):
        norms, rule = series(rng)
        state = told(norms, rule)
        report = reported(state, rule, "")
        ratios = check(report, rule)
        for word in said:
            said[word] += word in report.advice
        excess = state.norms[state.decisions] / state.thresholds[state.decisions]
        assert all(0.99 * excess.min() < ratio < 1.01 * excess.max() and ratio > 1 for ratio in ratios)
    assert min(said.values()) > 20, said


def check(report: ClipReport, rule: ClipRule) -> list[float]:
    """Hold each sentence against the report as it is printed; returns the factor that is named."""
    printed = [float(share) for share in re.findall(r"([\d.]+)%", str(report).splitlines()[0])]
    overall, recent, nominal = printed
    sentences = re.split(r"(?<=\.) (?=[A-Z\d])", report.advice)
    factors = []
    for sentence in sentences:
        if "lower the learning rate instead" in sentence:
            assert rule.percentile >= 50
            (share, which) = re.findall(r"^([\d.]+)% of (recent|all) updates", sentence)[0]
            assert float(share) == (recent if which == "recent" else overall) > 50
            factors = [float(number) for number in re.findall(r"is ([\d.e+]+) times", sentence)]
            assert "is 1 times" not in sentence
            assert all(f"1/{number:.3g} of it" in sentence for number in factors)
        elif sentence.startswith("The norms are"):
            before, after = (
                float(number) for number in re.findall(r"median ([\d.e+-]+), then ([\d.e+-]+)\)", sentence)[0]
            )
            if "rising" in sentence:
                assert after > before
                assert "more updates" in sentence
                assert min(overall, recent) > nominal
            else:
                assert after < before
                assert "fewer updates" in sentence
                assert max(overall, recent) <= nominal / 2
        elif "not finite" in sentence:
            assert report.nonfinite > 0
        else:
            assert sentence in ("Nothing to change.", "No update yet.")
    return factors
