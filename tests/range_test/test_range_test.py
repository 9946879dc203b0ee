from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ignite_lr.core.rates import set_rates
from ignite_lr.range_test import RangeTestResult, SweepCurve
from ignite_lr.suggestion import DEFAULT, RULES, NoSuggestionError

LRS = tuple(np.geomspace(1e-6, 10.0, 200).tolist())


def losses(seed: int = 0, shift: float = 0.0) -> tuple[float, ...]:
    """Flat, then a descent around 1e-3, then up from 0.3 on."""
    x = np.log10(LRS)
    curve = 2.0 - 1.5 / (1 + np.exp(-3 * (x + 3))) + np.exp(4 * (x - np.log10(0.3))) * (x > -2)
    return tuple((curve + shift + 0.02 * np.random.default_rng(seed).normal(size=len(LRS))).tolist())


def result(**changes: Any) -> RangeTestResult:
    values: dict[str, Any] = {
        "lrs": LRS,
        "losses": losses(),
        "smoothed_losses": losses(),
        "stop_reason": "num_iter",
        "stop_lr": LRS[-1],
        "iterations": 200,
        **changes,
    }
    return RangeTestResult(**values)


def two_groups() -> RangeTestResult:
    return result(lrs=tuple((lr / 10, lr) for lr in LRS), stop_lr=(1.0, 10.0))


def flat() -> RangeTestResult:
    noise = tuple(np.random.default_rng(0).normal(2.0, 0.1, 200).tolist())
    return result(losses=noise, smoothed_losses=noise)


def repeated() -> RangeTestResult:
    sweeps = [SweepCurve(LRS[:n], losses(n)[:n], losses(n)[:n], "divergence", LRS[n - 1]) for n in (190, 200, 180)]
    return RangeTestResult.from_sweeps(sweeps, smooth_f=0.1, iterations=570, step_mode="exp", loss_name="Loss")


EMPTY = RangeTestResult((), (), (), "exception:ValueError", 1e-6)


# -- suggestions


def test_the_default_rule_reads_the_raw_losses_and_the_others_the_smoothed_ones() -> None:
    smooth = losses(shift=1.0)
    other = result(smoothed_losses=smooth)
    for name, rule in RULES.items():
        assert other.suggestion(name) == rule(LRS, other.losses if name == DEFAULT else smooth)
    assert other.suggestion() == other.suggestion(DEFAULT)


def test_all_suggestions_by_name() -> None:
    suggestions = result().suggestions()
    assert set(suggestions) == set(RULES)
    assert all(isinstance(rate, float) for rate in suggestions.values())


def test_an_unknown_rule() -> None:
    with pytest.raises(ValueError, match=r"method must be one of .*valley, got 'alley'"):
        result().suggestion("alley")


@pytest.mark.parametrize("method", sorted(RULES))
def test_groups_keep_the_ratio_they_were_swept_with(method: str) -> None:
    rate = result().suggestion(method)
    assert isinstance(rate, float)
    assert two_groups().suggestion(method) == pytest.approx([rate / 10, rate])


def test_a_rate_below_the_sweep_keeps_the_ratio_too() -> None:
    rising = tuple(np.linspace(1.0, 5.0, 200).tolist())
    swept = dataclasses.replace(two_groups(), smoothed_losses=rising)
    assert swept.suggestion("minimum") == pytest.approx([LRS[0] / 100, LRS[0] / 10])


def test_only_the_default_rule_abstains() -> None:
    with pytest.raises(NoSuggestionError, match="loss"):
        flat().suggestion()
    assert flat().suggestions()[DEFAULT] is None
    assert all(rate is not None for name, rate in flat().suggestions().items() if name != DEFAULT)


def test_a_result_without_points() -> None:
    with pytest.raises(NoSuggestionError, match="the sweep has no points: it stopped with 'exception:ValueError'"):
        EMPTY.suggestion()
    with pytest.raises(NoSuggestionError, match="too few with a finite loss"):
        EMPTY.suggestion("valley")
    assert set(EMPTY.suggestions().values()) == {None}
    assert EMPTY.unstable_lr is None
    assert EMPTY.confidence == 0.0
    assert "no points" in repr(EMPTY)


def test_points_after_a_loss_that_is_not_finite_are_no_obstacle() -> None:
    ended = result(losses=(*losses()[:-1], math.nan), smoothed_losses=(*losses()[:-1], math.nan))
    assert all(rate is not None for rate in ended.suggestions().values())


def test_a_linear_sweep_may_begin_at_zero() -> None:
    x = np.linspace(0.0, 1.0, 100)
    curve = tuple((2 - np.minimum(x, 0.4) * 3 + np.maximum(x - 0.6, 0) * 20).tolist())
    swept = result(lrs=tuple(x.tolist()), losses=curve, smoothed_losses=curve, step_mode="linear", stop_lr=1.0)
    assert swept.suggestion("minimum") == pytest.approx(0.04, rel=0.05)
    assert swept.unstable_lr is not None


def test_unstable_lr_and_confidence() -> None:
    assert result().unstable_lr == pytest.approx(0.3, rel=0.5)
    assert result(losses=tuple(sorted(losses(), reverse=True))).unstable_lr is None
    assert flat().confidence < 0.5 < result().confidence <= 1.0


def recorded(key: str) -> RangeTestResult:
    """A sweep of the benchmarks."""
    data = Path(__file__).parents[2] / "benchmarks" / "data" / "sweeps.json"
    curve = tuple(json.loads(data.read_text(encoding="utf-8"))["cells"][key])
    num_iter = int(key.split("/")[3])
    lrs = tuple((1e-7 * 1e8 ** (np.arange(len(curve)) / (num_iter - 1))).tolist())
    return result(lrs=lrs, losses=curve, smoothed_losses=curve, stop_lr=lrs[-1], iterations=len(curve))


def test_no_suggestion_lies_where_the_loss_is_back_at_its_start() -> None:
    swept = recorded("digits_layernorm/rmsprop/1/100")
    assert swept.suggestion() == swept.unstable_lr / 2 == RULES[DEFAULT](swept.lrs, swept.losses)
    assert swept.confidence == 0.5
    assert "on the loss is back at its start, and the rate is half of that one" in swept.reason
    cut = result(lrs=swept.lrs[-8:], losses=swept.losses[-8:], smoothed_losses=swept.losses[-8:])
    assert cut.suggestions()[DEFAULT] is None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([30, 100, 300]), st.floats(0.01, 1.0), st.floats(-4, 0), st.floats(-4, 0))
def test_a_suggestion_is_within_the_rates_that_are_stable(
    seed: int, points: int, noise: float, falls_at: float, rises_at: float
) -> None:
    rng, x = np.random.default_rng(seed), np.linspace(-6, 1, points)
    curve = 2 - 1.5 / (1 + np.exp(-3 * (x - falls_at))) + np.exp(np.minimum(4 * (x - rises_at), 5))
    noisy, again = (tuple((curve + noise * rng.normal(size=points)).tolist()) for _ in range(2))
    swept = result(lrs=tuple((10**x).tolist()), losses=noisy, smoothed_losses=noisy)
    suggested = swept.suggestions()[DEFAULT]
    assert suggested is None or swept.lrs[0] <= suggested <= swept.lrs[-1]
    assert suggested is None or swept.unstable_lr is None or suggested < swept.unstable_lr
    sweeps = [
        SweepCurve(swept.lrs, noisy, noisy, "num_iter", 10.0),
        SweepCurve(swept.lrs, again, again, "num_iter", 10.0),
    ]
    both = RangeTestResult.from_sweeps(sweeps, smooth_f=0.1)
    suggested = both.suggestions()[DEFAULT]
    assert suggested is None or both.unstable_lr is None or suggested < both.unstable_lr


def test_repeats_suggest_together() -> None:
    together = repeated()
    assert len(together.losses) == len(together.lrs) == 180
    assert together.interval is not None
    low, high = together.interval
    assert low <= together.suggestion() <= high
    assert result().interval is None


def test_the_repr_says_what_matters() -> None:
    text = repr(result())
    assert f"suggestion {result().suggestion():.3g}, confidence" in text
    assert "stopped by num_iter at lr 10; 200 points, 200 iterations" in text
    assert "no suggestion" in repr(flat())
    assert "3 sweeps, 570 iterations" in repr(repeated())
    assert "interval" in repr(repeated())
    assert "at lr [1, 10]" in repr(two_groups())


def test_a_result_is_frozen_and_comparable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'lrs'"):
        result().lrs = ()  # type: ignore[misc]
    assert result() == result()
    assert result() != flat()
    assert hash(result()) == hash(result())


@pytest.mark.parametrize("method", [None, *sorted(RULES)])
def test_a_rule_reads_what_is_not_skipped(method: str | None) -> None:
    made = result()
    part = result(lrs=LRS[20:-30], losses=made.losses[20:-30], smoothed_losses=made.smoothed_losses[20:-30])
    assert made.suggestion(method, skip_start=20, skip_end=30) == part.suggestion(method)
    assert repeated().suggestion(skip_start=20) > LRS[20]
    with pytest.raises(NoSuggestionError, match=r"has no points|too few with a finite loss"):
        made.suggestion(method, skip_start=150, skip_end=50)


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)])
def test_what_is_no_count_to_skip_is_named(wrong: Any, error: type[Exception]) -> None:
    for call in (result().suggestion, result().plot):
        with pytest.raises(error, match="skip_end must be"):
            call(skip_end=wrong)


def test_the_verdict_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from ignite_lr import suggestion

    calls = []
    judge = suggestion.judge_repeats
    monkeypatch.setattr(suggestion, "judge_repeats", lambda *args: calls.append(1) or judge(*args))
    made = result()
    assert made.confidence > 0.5
    assert f"{made.suggestion():.3g}" in repr(made)
    assert made.plot().get_legend() is not None
    assert made.interval is None
    assert calls == [1]


# -- apply


def optimizer(groups: int = 1, **options: Any) -> torch.optim.Optimizer:
    made = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    for _ in range(groups - 1):
        made.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    for group in made.param_groups:
        group.update(options)
    return made


def test_apply_writes_every_group_and_its_initial_lr() -> None:
    target = optimizer(groups=3, initial_lr=0.5)
    with pytest.warns(UserWarning, match="a scheduler was made for this optimizer before"):
        rate = result().apply(target)
    assert [(group["lr"], group["initial_lr"]) for group in target.param_groups] == [(rate, rate)] * 3
    plain = optimizer()
    result().apply(plain)
    assert "initial_lr" not in plain.param_groups[0]


def test_apply_by_name() -> None:
    target = optimizer()
    assert result().apply(target, "minimum") == target.param_groups[0]["lr"] == result().suggestion("minimum")


def test_apply_fills_tensor_rates_in_place() -> None:
    lr = torch.tensor(0.5)
    target = optimizer(lr=lr)
    rate = result().apply(target)
    assert target.param_groups[0]["lr"] is lr
    assert lr == torch.tensor(rate)


def test_apply_to_several_groups() -> None:
    target = optimizer(groups=2)
    assert two_groups().apply(target) == [group["lr"] for group in target.param_groups]
    with pytest.raises(ValueError, match="the range test swept 2, the optimizer has 3"):
        two_groups().apply(optimizer(groups=3))


def test_without_a_suggestion_the_optimizer_is_left_alone() -> None:
    target = optimizer(initial_lr=0.25)
    with pytest.raises(NoSuggestionError, match="loss"):
        flat().apply(target)
    assert (target.param_groups[0]["lr"], target.param_groups[0]["initial_lr"]) == (0.5, 0.25)


def test_set_rates_needs_one_for_each_group() -> None:
    with pytest.raises(ValueError, match="shorter"):
        set_rates(optimizer(groups=2), [0.1])


# -- files


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(result(), id="plain"),
        pytest.param(two_groups(), id="groups"),
        pytest.param(repeated(), id="repeats"),
        pytest.param(EMPTY, id="empty"),
        pytest.param(result(loss_name="Validation loss", step_mode="linear"), id="validation"),
        pytest.param(result(losses=(*losses()[:-2], math.inf, -math.inf)), id="infinite"),
    ],
)
def test_saved_and_loaded_it_is_the_same(made: RangeTestResult, tmp_path: Path) -> None:
    path = made.save(tmp_path / "result.json")
    assert RangeTestResult.load(path) == made
    assert RangeTestResult.load(str(path)).suggestions() == made.suggestions()


def test_the_file_is_json_for_anybody(tmp_path: Path) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(f"not RFC 8259: {text}")

    path = result(losses=(*losses()[:-1], math.nan), stop_lr=math.inf).save(tmp_path / "result.json")
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["losses"][-1] == "nan"
    assert content["stop_lr"] == "inf"
    loaded = RangeTestResult.load(path)
    assert math.isnan(loaded.losses[-1])
    assert loaded.stop_lr == math.inf
    assert loaded.losses[:-1] == losses()[:-1]


# -- pictures: that they can be had from a result; what is in them is tested with the pictures


@pytest.mark.parametrize("made", [result(), two_groups(), flat(), repeated(), EMPTY])
def test_pictures_never_raise(made: RangeTestResult, tmp_path: Path) -> None:
    ax = made.plot(title="any")
    ax.figure.savefig(tmp_path / "plot.png")
    assert made.plot(ax=ax) is ax
    assert made.to_html(str(tmp_path / "plot.html")).stat().st_size > 100_000


@pytest.mark.parametrize("made", [result(), two_groups(), flat(), repeated(), EMPTY])
def test_a_result_shows_its_picture_in_a_notebook(made: RangeTestResult) -> None:
    from matplotlib import pyplot

    shown = made._repr_png_()
    assert shown is not None
    assert shown.startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(("name", "wrong"), [("ax", 3), ("title", 3)])
def test_a_wrong_argument_of_a_picture_is_named(name: str, wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"{name} must be .* got 3 of type int"):
        result().plot(**{name: wrong})
    if name == "title":
        with pytest.raises(TypeError, match="title must be a string"):
            result().to_html(tmp_path / "plot.html", title=wrong)


def test_skipping_points() -> None:
    full = result().plot(suggestions=False).lines[0].get_xdata()
    part = result().plot(skip_start=10, skip_end=5, suggestions=False).lines[0].get_xdata()
    assert list(part) == list(full)[10:-5]
    result().plot(skip_start=1000)
