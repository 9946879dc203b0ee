"""A result by itself: its file, its pictures, its way into Optuna."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ignite_lr import Finding, NoSuggestionError, ScheduleLR, StudyResult, Trial, TrialResult, schedules, trials
from ignite_lr.study import Run, Settings
from ignite_lr.study._runs import trial_results


def curve(floor: float, n: int = 40) -> tuple[float, ...]:
    return tuple((floor + (2.5 - floor) * np.exp(-np.arange(n) / 8)).tolist())


def example(settings: Settings | None = None, *, repeats: int = 2) -> StudyResult:
    settings = settings or Settings("min", True, 0.05)
    listed = [
        Trial(0.2, name="two <tenths> $x$"),
        Trial(0.05),
        Trial(0.1, schedules.Cosine(40, warmup_steps=4)),
        Trial(0.8),
        Trial(0.4, lambda step: 1 / (1 + step), num_updates=40),
    ]
    runs = [[Run("completed", curve(0.5 + i / 10), ((20, 0.9), (40, 0.5 + i / 10 + k / 50))) for k in range(repeats)]
            for i in range(3)]  # fmt: skip
    runs.append([Run("non_finite", (2.5, math.nan))] * repeats)
    runs.append([Run("diverged", (2.5, 4.0, math.inf))] * repeats)
    return StudyResult(trial_results(listed, [40] * 5, runs, settings), settings)


# -- the value


def test_a_result_names_its_best_and_what_it_shows() -> None:
    result = example()
    assert isinstance(result.best, TrialResult)
    assert result.best.trial.lr == 0.2
    assert all(isinstance(found, Finding) for found in result.findings)
    text = repr(result)
    assert "5 trials, best two <tenths> $x$" in text
    for found in result.findings:
        assert f"{found.kind}: {found.text}" in text
    assert "no suggestion (no trial was finished)" in repr(StudyResult((), Settings()))


def test_suggestion_for_several_groups() -> None:
    result = example(Settings("min", True, 0.05, (0.25, 1.0)))
    assert result.suggestion() == [0.05, 0.2]
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": [p]} for p in parameters[:2]], lr=1.0)
    assert result.apply(optimizer) == [0.05, 0.2]
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.2]
    other = torch.optim.SGD(parameters, lr=1.0)
    with pytest.raises(ValueError, match="optimizer must have the 2 parameter groups of the study, got 1"):
        result.apply(other)
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer"):
        result.apply(3)  # type: ignore[arg-type]


def test_apply_sets_base_rates_and_schedulers_follow() -> None:
    result = example()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = ScheduleLR(optimizer, schedules.Constant(0.5))
    assert result.apply(optimizer) == 0.2
    assert optimizer.param_groups[0]["initial_lr"] == 0.2
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert scheduler.base_lrs == [0.2]
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.StepLR(other, 5)
    result.apply(other, scheduler=theirs)
    assert theirs.base_lrs == [0.2]


def test_apply_without_a_suggestion_leaves_the_optimizer_alone() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(NoSuggestionError, match="no trial was finished"):
        StudyResult((), Settings()).apply(optimizer)
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_columns_make_a_table() -> None:
    columns = example().columns()
    assert columns["lr"] == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert columns["warmup_steps"] == [0, 4, 0, 0, 0]


# -- the file


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    result = example()
    path = result.save(tmp_path / "study.json")
    loaded = StudyResult.load(path)
    assert loaded == result
    assert repr(loaded) == repr(result)
    assert loaded != example(repeats=1)
    assert len({*loaded.trials, *result.trials}) == 5
    again = loaded.save(tmp_path / "again.json")
    assert again.read_text() == path.read_text()
    assert {entry.name for entry in tmp_path.iterdir()} == {"study.json", "again.json"}


def test_the_file_is_strict_json(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = example().save(tmp_path / "study.json").read_text()
    content = json.loads(text, parse_constant=refuse)
    assert content["trials"][3]["runs"][0]["losses"] == [2.5, "nan"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "is no study: not JSON", id="no-json"),
        pytest.param("[]", "is no study: it has no format", id="list"),
        pytest.param('{"format": "ignite_lr.RangeTestResult"}', "is no study: it has no format", id="range-test"),
        pytest.param('{"format": "ignite_lr.StudyResult", "version": 9}', "of version 9", id="version"),
        pytest.param('{"format": "ignite_lr.StudyResult", "version": 1}', "damaged study: KeyError", id="nothing"),
        pytest.param("\udcff", "is no study: not JSON", id="no-text"),
    ],
)
def test_a_foreign_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message):
        StudyResult.load(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content["trials"][0]["runs"][0].update(outcome="fine"),
        lambda content: content["trials"][0]["runs"][0]["losses"].append("much"),
        lambda content: content["trials"][0]["runs"].clear(),
        lambda content: content["trials"][0]["trial"].update(lr=-1.0),
        lambda content: content["trials"][2]["trial"]["schedule"]["values"].clear(),
        lambda content: content["trials"][0]["trial"].update(planned=True),
        lambda content: content["settings"].update(mode="up"),
        lambda content: content.update(trials=3),
    ],
)
def test_a_damaged_file_is_refused(damage: Any, tmp_path: Path) -> None:
    path = example().save(tmp_path / "study.json")
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is a damaged study"):
        StudyResult.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = example().save(tmp_path / "study.json")
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        example(repeats=1).save(path)
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["study.json"]


# -- pictures


def test_the_axis_plot_shows_every_trial() -> None:
    ax = example().plot(title="$5 study")
    able, failed, best = ax.lines
    assert able.get_xdata().tolist() == [0.05, 0.1, 0.2]
    assert able.get_ydata().tolist() == pytest.approx([0.61, 0.71, 0.51])
    assert failed.get_marker() == "x"
    assert failed.get_xdata().tolist() == [0.4, 0.8]
    assert best.get_xdata().tolist() == [0.2]
    assert len(ax.collections) == 3  # the span of the repeats of each feasible trial
    assert ax.get_xscale() == "log"
    assert ax.get_title() == r"\$5 study"
    assert min(failed.get_ydata()) > max(able.get_ydata())  # at the bad end


def test_where_more_is_better_failures_are_at_the_bottom() -> None:
    ax = example(Settings("max", True)).plot()
    assert max(ax.lines[1].get_ydata()) < min(ax.lines[0].get_ydata())


def test_a_study_of_warmups_is_drawn_over_their_length() -> None:
    settings = Settings("min", True)
    runs = [[Run("diverged", (2.5, 9.0))], *([Run("completed", curve(0.5), ((40, value),))] for value in (0.6, 0.5))]
    result = StudyResult(trial_results(trials.warmups(0.1), [40] * 3, runs, settings), settings)
    ax = result.plot()
    assert ax.get_xlabel() == "Warmup, updates"
    assert ax.lines[0].get_xdata().tolist() == [10, 100]


def test_curves_of_all_trials_with_the_best_on_top() -> None:
    ax = example().plot_curves()
    assert len(ax.lines) == 5
    assert ax.lines[-1].get_label() == r"best: two <tenths> \$x\$"
    assert ax.get_ylim()[1] < 4.0  # what exploded does not flatten the rest


@pytest.mark.parametrize("result", [StudyResult((), Settings()), example(), example(repeats=1)])
def test_pictures_never_raise(result: StudyResult, tmp_path: Path) -> None:
    result.plot()
    result.plot_curves()
    result.to_html(tmp_path / "study.html")
    page = result._repr_html_()
    assert "<tenths>" not in page


def test_a_notebook_shows_picture_table_and_findings() -> None:
    page = example()._repr_html_()
    assert "data:image/png;base64," in page
    assert page.count("<tr>") == 6
    assert "<b>edge</b>" in page


# -- Optuna


def test_to_optuna() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = Settings("min", True)
    listed = [Trial(0.1), Trial(0.2), Trial(0.4), Trial(0.3)]
    runs = [[Run("completed", curve(0.5), ((40, 0.6),))], [Run("completed", curve(0.4), ((40, 0.5),))],
            [Run("diverged", (2.5, 20.0))], [Run("terminated", (2.5,))]]  # fmt: skip
    result = StudyResult(trial_results(listed, [40] * 4, runs, settings), settings)
    study = result.to_optuna()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert [trial.params for trial in study.trials] == [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.4}]
    assert study.best_params == {"lr": result.suggestion()}
    assert study.best_value == 0.5
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=2, seed=0)
    study.optimize(lambda trial: trial.suggest_float("lr", 0.05, 0.8, log=True), n_trials=3)
    assert len(study.trials) == 6
    # into a study that is there already
    mine = optuna.create_study(direction="minimize")
    assert result.to_optuna(mine) is mine
    assert len(mine.trials) == 3
    with pytest.raises(ValueError, match=r"direction MINIMIZE .* got MAXIMIZE"):
        result.to_optuna(optuna.create_study(direction="maximize"))
    with pytest.raises(TypeError, match=r"study must be an optuna\.Study or None, got int"):
        result.to_optuna(3)
    assert example(Settings("max", True)).to_optuna().direction.name == "MAXIMIZE"
    assert StudyResult((), settings).to_optuna().trials == []


def test_without_optuna_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match="pip install optuna"):
        example().to_optuna()
