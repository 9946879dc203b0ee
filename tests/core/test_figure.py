"""Whose figure a picture is, and how it shows itself."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from typing import Any

import pytest

from ignite_lr.core.figure import axes, legend, png, private_figure

pytest.importorskip("matplotlib")

PNG = b"\x89PNG"


@pytest.fixture
def pyplot() -> Any:
    from matplotlib import pyplot

    return pyplot


def test_new_axes_are_pyplots_current_ones_where_it_is_in_use(pyplot: Any) -> None:
    ax = axes(None)
    assert pyplot.get_fignums() == [ax.figure.number]  # type: ignore[union-attr]  # pyplot's figures have one
    assert pyplot.gca() is ax
    assert not hasattr(ax, "_repr_png_")  # the notebook shows it already, and would twice


def test_a_display_leaves_pyplot_alone(pyplot: Any) -> None:
    drawn = png(lambda ax: ax.plot([1, 2]))
    assert drawn is not None
    assert drawn.startswith(PNG)
    private_figure().savefig(io.BytesIO(), format="svg")
    assert pyplot.get_fignums() == []


def test_given_axes_are_those(pyplot: Any) -> None:
    ax = private_figure().add_subplot()
    assert axes(ax) is ax
    assert pyplot.get_fignums() == []


def test_without_pyplot_axes_show_themselves() -> None:
    code = (
        "import sys, pickle; from ignite_lr.core.figure import axes; ax = axes(None, figsize=(3, 2))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert ax._repr_png_().startswith(b'\\x89PNG')\n"
        "assert pickle.loads(pickle.dumps(ax))._repr_png_() == ax._repr_png_()\n"
        "assert 'matplotlib.pyplot' not in sys.modules or 'pickle' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stderr == b""
    assert pickle.dumps(private_figure())


@pytest.mark.parametrize("wrong", [3, "ax", [1], object])
def test_what_is_no_axes_is_named(wrong: Any, pyplot: Any) -> None:
    with pytest.raises(TypeError, match=r"ax must be a matplotlib\.axes\.Axes or None, got .* of type"):
        axes(wrong)
    with pytest.raises(TypeError, match="title must be a string or None, got"):
        axes(None, wrong if wrong != "ax" else 3)
    assert pyplot.get_fignums() == []


def test_a_legend_hides_nothing_where_the_figure_makes_room() -> None:
    ax = axes(private_figure().add_subplot())
    ax.plot([1, 2], label="line")
    legend(ax)
    ax.figure.savefig(io.BytesIO())  # type: ignore[union-attr]  # a figure has it
    shown = ax.get_legend().get_window_extent()  # type: ignore[union-attr]  # there is one
    assert shown.y1 < ax.get_window_extent().y0
    assert shown.y0 >= 0


def test_without_matplotlib_a_display_is_left_to_the_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert png(lambda ax: ax.plot([1, 2])) is None
