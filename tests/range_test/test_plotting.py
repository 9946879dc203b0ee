from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest

from ignite_lr.clipper._picture import (
    grad_norm_curve,
)
from ignite_lr.core.figure import png, private_figure
from ignite_lr.logger._picture import (
    lr_history,
)
from ignite_lr.range_test._matplotlib import (
    range_test,
)
from ignite_lr.range_test._picture import RangeTestPicture
from ignite_lr.schedules._picture import (
    schedule_curve,
)

matplotlib = pytest.importorskip("matplotlib")


def ink(figure: Any) -> int:
    """How many pixels of the saved picture are not white."""
    from matplotlib.image import imread

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    file.seek(0)
    return int((imread(file)[..., :3].min(axis=-1) < 0.9).sum())


def picture(**changes: Any) -> RangeTestPicture:
    lrs = np.geomspace(1e-5, 1.0, 100)
    smoothed = np.concatenate([2.0 - np.linspace(0, 1.5, 90), np.geomspace(1, 1e9, 10)])
    values: dict[str, Any] = {
        "lrs": [lrs.tolist()],
        "losses": smoothed.tolist(),
        "smoothed": smoothed.tolist(),
        "loss_name": "Loss",
        "log_lr": True,
        "default": "descent",
        "suggestions": {"valley": [3e-3], "descent": [1e-2], "slide": None},
        "confidence": 0.9,
        "interval": None,
        "unstable_lr": 0.5,
        "sweeps": [],
        "note": "100 points",
        **changes,
    }
    return RangeTestPicture(**values)


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_range_test_shows_curves_suggestions_and_the_unstable_region() -> None:
    ax = range_test(picture(), title="Title")
    assert legend(ax) == [
        "raw",
        "smoothed",
        "suggested: 1.00e-02 (confidence 0.90)",
        "valley: 3.00e-03",
        "unstable",
    ]
    assert ax.get_title(loc="left") == "Title"
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("Learning rate", "Loss", "log")
    assert ax.get_xlim() == pytest.approx((1e-5, 1.0))
    assert ax.get_ylim()[1] < 10  # an exploding loss does not flatten the rest
    assert ink(ax.figure) > 3000


def test_several_groups_are_several_curves() -> None:
    lrs = np.geomspace(1e-5, 1.0, 100)
    ax = range_test(
        picture(lrs=[lrs.tolist(), (lrs / 10).tolist()], suggestions={"descent": [1e-2, 1e-3], "valley": [1e-3, 1e-4]})
    )
    assert "group 1, smoothed" in legend(ax)
    assert "suggested: 1.00e-02, 1.00e-03 (confidence 0.90)" in legend(ax)
    assert ax.get_xlim()[0] == pytest.approx(1e-6)


def test_repeats_are_a_band_and_an_interval() -> None:
    lrs = np.geomspace(1e-5, 1.0, 100)
    sweeps = [(lrs.tolist(), np.linspace(2, 1, 100).tolist()), (lrs[:50].tolist(), np.linspace(3, 2, 50).tolist())]
    ax = range_test(picture(sweeps=sweeps, interval=(5e-3, 2e-2)))
    assert "2 sweeps" in legend(ax)
    assert "suggested: 1.00e-02 (confidence 0.90, 5.0e-03 to 2.0e-02)" in legend(ax)


def test_without_a_suggestion_the_picture_says_so() -> None:
    assert "no suggestion" in legend(range_test(picture(suggestions={"descent": None})))
    assert "no suggestion" not in legend(range_test(picture(suggestions={"descent": None}), suggestions=False))


@pytest.mark.parametrize(
    "drawn",
    [
        pytest.param(picture(lrs=[], losses=[], smoothed=[], suggestions={}, unstable_lr=None), id="no points"),
        pytest.param(picture(lrs=[[0.1]], losses=[1.0], smoothed=[1.0], suggestions={}, unstable_lr=None), id="one"),
        pytest.param(picture(losses=[np.nan] * 100, smoothed=[np.inf] * 100), id="nothing finite"),
        pytest.param(picture(losses=[1.0] * 100, smoothed=[1.0] * 100), id="constant"),
        pytest.param(picture(log_lr=False, lrs=[np.linspace(0, 1, 100).tolist()]), id="linear from zero"),
    ],
)
def test_odd_curves_can_be_drawn(drawn: RangeTestPicture) -> None:
    assert ink(range_test(drawn, title="odd").figure) > 500


def test_skipped_points_are_not_drawn_but_the_suggestion_stays_visible() -> None:
    ax = range_test(picture(suggestions={"descent": [2e-5]}), skip_start=50, skip_end=10)
    assert len(ax.lines[0].get_xdata()) == 40
    assert ax.get_xlim()[0] == pytest.approx(2e-5)


@pytest.mark.parametrize("text", ["costs $5 and $6", "$\\undefined{x}$", "100% <b>&amp;</b>", "a_b^c"])
def test_texts_of_the_users_are_taken_literally(text: str) -> None:
    assert ink(range_test(picture(note=text, loss_name=text), title=text).figure) > 500
    assert ink(schedule_curve([0.0, 1.0], title=text, xlabel=text, ylabel=text).figure) > 500
    assert ink(lr_history([1, 2], {text: [0.1, 0.2], "_hidden": [0.2, 0.1]}, title=text).figure) > 500
    assert ink(grad_norm_curve([1.0], [2.0], [False], [0.0, 2.0], [1], title=text).figure) > 500


def test_axes_of_the_users_are_drawn_on() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    first, second, third = figure.subplots(3)
    assert range_test(picture(), ax=first) is first
    assert schedule_curve([1.0, 0.5], ax=second) is second
    assert lr_history([1], {"lr": [0.1]}, ax=third) is third


def test_a_schedule() -> None:
    ax = schedule_curve([0.0, 0.5, 1.0, 0.5])
    assert list(ax.lines[0].get_ydata()) == [0.0, 0.5, 1.0, 0.5]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_ylim()[0]) == ("update", "factor", 0.0)
    assert ink(schedule_curve([]).figure) > 300


def test_a_history_of_rates() -> None:
    ax = lr_history([1, 2, 3], {"lr/a": [0.1, 0.1, 0.2], "lr/b": [0.3, float("nan"), 0.4]})
    assert legend(ax) == ["lr/a", "lr/b"]
    assert ax.get_yscale() == "linear"
    assert lr_history([1, 2], {"lr": [1e-5, 1.0]}).get_yscale() == "log"
    assert lr_history([1, 2], {"lr": [1e-5, 1.0]}).get_ylabel() == "lr"
    assert ink(lr_history([], {}).figure) > 300


def test_gradient_norms() -> None:
    norms = [1.0, 2.0, float("inf"), 50.0, float("nan"), 1.0]
    curve = grad_norm_curve(
        norms, [3.0] * 6, [n > 3 for n in norms], np.geomspace(1, 64, 7), [1, 1, 0, 0, 0, 1], "norms"
    )
    (histogram,) = curve.child_axes
    assert list(curve.lines[2].get_xdata()) == [3]
    assert curve.get_yscale() == "log"
    assert histogram.get_xscale() == "log"
    assert ink(curve.figure) > 500
    assert ink(grad_norm_curve([], [], [], [], []).figure) > 300


def test_global_state_is_left_alone() -> None:
    """A display is no figure in pyplot's list, which keeps figures alive; no backend, no setting is changed."""
    from matplotlib import pyplot, rcParams

    before = pyplot.get_fignums(), matplotlib.get_backend(), dict(rcParams)
    assert png(lambda ax: range_test(picture(), ax))
    range_test(picture(), private_figure().add_subplot()).figure.savefig(io.BytesIO(), format="svg")
    assert (pyplot.get_fignums(), matplotlib.get_backend(), dict(rcParams)) == before


@pytest.mark.parametrize(
    "draw",
    [
        lambda: range_test(picture()),
        lambda: schedule_curve([1.0]),
        lambda: lr_history([1], {"lr": [0.1]}),
        lambda: grad_norm_curve([1.0], [1.0], [False], [0, 1], [1]),
    ],
)
def test_without_matplotlib_it_says_what_to_install(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        draw()
