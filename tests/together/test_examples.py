"""The digits example as a user runs it: the files, the figures in them, resuming, and its errors."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
pytest.importorskip("sklearn")

SCRIPT = Path(__file__).parents[2] / "examples" / "digits.py"
EPOCHS = 3
SMALL = ["--epochs", str(EPOCHS), "--sweep-points", "120"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False
    )


def run_here(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """The same without a process of its own, which takes seconds to import PyTorch."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("digits")
    result = run(*SMALL, "--output", folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    model: dict[str, torch.Tensor] = state["model"]
    return model


def test_it_writes_what_it_promises(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    for name in ("range_test.png", "schedule.png", "grad_norm.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    for name in ("range_test.html", "run.html"):
        assert "<html" in (folder / name).read_text(encoding="utf-8")
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert (folder / f"checkpoint_{EPOCHS}.pt").exists()


def test_it_ends_with_a_summary(finished: tuple[Path, str]) -> None:
    folder, output = finished
    for words in ("suggested rate", "validation accuracy", "clipped", "nominal 10%", str(folder)):
        assert words in output
    assert output.rstrip().endswith(str(folder / "run.html"))


def test_it_learns_the_digits(finished: tuple[Path, str]) -> None:
    _, output = finished
    accuracy = float(output.split("\nvalidation accuracy")[1].split("%")[0])
    assert accuracy > 95  # in a seventh of the epochs that the demo takes


def test_tensorboard_reads_every_part_back(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    events = tensorboard.EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    scalars = set(tags["scalars"])
    assert {"lr/AdamW", "clip/grad_norm", "clip/clip_threshold", "clip/clip_frequency", "training/loss"} <= scalars
    assert any(tag.startswith("range_test/") for tag in scalars)
    assert any(tag.startswith("clip/") for tag in tags["histograms"])
    assert any(tag.startswith("range_test/") for tag in tags["images"])


def test_the_logged_rates_are_those_an_independent_hook_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rate in the event file, at its iteration, is the one that the update of that iteration used."""
    seen: list[float] = []
    spy = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"]))
    try:
        run_here(monkeypatch, *SMALL, "--output", tmp_path)
    finally:
        spy.remove()

    events = tensorboard.EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    logged = {event.step: event.value for event in events.Scalars("lr/AdamW")}
    iterations = EPOCHS * 23
    trained = dict(zip(range(1, iterations + 1), seen[-iterations:], strict=True))
    assert logged.keys() == trained.keys()
    for iteration, rate in logged.items():
        assert rate == torch.tensor(trained[iteration], dtype=torch.float32).item()  # event files hold float32


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_a_resumed_run_ends_with_the_same_weights(
    finished: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    folder, _ = finished
    run_here(monkeypatch, *SMALL, "--output", tmp_path, "--resume", folder / f"checkpoint_{epoch}.pt")
    whole, resumed = weights(folder / f"checkpoint_{EPOCHS}.pt"), weights(tmp_path / f"checkpoint_{EPOCHS}.pt")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--percentile", "140"], "--percentile: must be between 0 and 100, got 140", id="percentile"),
        pytest.param(["--output", "/proc/no/such/place"], "/proc/no", id="output that cannot be written"),
        pytest.param(["--resume", str(SCRIPT)], "is not a checkpoint", id="a checkpoint that is not one"),
        pytest.param(["--resume", "/no/such/file.pt"], "/no/such/file.pt", id="a checkpoint that is not there"),
        pytest.param(["--epochs", "0"], "--epochs: must be at least 1, got 0", id="no epochs"),
        pytest.param(["--batch-size", "-1"], "--batch-size: must be at least 1", id="batch size"),
        pytest.param(["--device", "abacus"], "abacus", id="device"),
        pytest.param(["--amp"], "--device cuda", id="amp without a GPU"),
    ],
)
def test_a_bad_option_ends_in_one_clear_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    with pytest.raises(SystemExit, match=r"^(2|digits\.py: error:)") as ended:
        run_here(monkeypatch, *SMALL, "--output", tmp_path, *arguments)
    assert ended.value.code not in (0, None)
    # what sys.exit() was given, or what argparse has printed with its usage
    line = str(ended.value.code) if isinstance(ended.value.code, str) else capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("digits.py: error:")
    assert "\n" not in line
    assert words in line


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(3)}, tmp_path / "other.pt")
    result = run(*SMALL, "--output", tmp_path, "--resume", tmp_path / "other.pt")
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "digits.py: error:" in result.stderr.strip().splitlines()[-1]
