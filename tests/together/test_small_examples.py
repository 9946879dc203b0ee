"""The short example scripts, on small settings. The digits have a test of their own: test_examples.py."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = ("char_lm", "distributed", "finetune", "gan")


def run(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def number(name: str, output: str) -> float:
    found = re.search(rf"^{name}\s+([\d.e-]+)", output, re.MULTILINE)
    assert found is not None, output
    return float(found[1])


@pytest.mark.parametrize("name", SHORT)
def test_it_is_short_enough_to_read(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.filterwarnings("ignore:Run completed without loss diverging")
def test_char_lm_learns_and_counts_updates(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--width", 16, "--blocks", 1, "--context", 16, "--batch-size", 128, "--warmup", 10]
    run("char_lm", monkeypatch, *small, "--sweep-points", 60, "--epochs", 2)
    output = capsys.readouterr().out
    first, last = map(float, re.findall(r"validation loss ([\d.]+)", output))
    assert last < first < 4.0  # a guess among 96 symbols costs 4.6
    updates, batches = map(int, re.findall(r"updates +(\d+), with (\d+) batches", output)[0])
    assert updates == batches // 2


@pytest.mark.filterwarnings("ignore:.*recent updates were clipped")  # a GAN at its start
def test_gan_counts_the_updates_of_each_optimizer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run("gan", monkeypatch, "--epochs", 2, "--output", tmp_path)
    output = capsys.readouterr().out
    assert number("generator:", output) == 2 * 28
    assert number("discriminator:", output) == 2 * 2 * 28
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    [checkpoint] = tmp_path.glob("checkpoint_*.pt")
    assert "generator_clipper" in torch.load(checkpoint, weights_only=True)


@pytest.mark.filterwarnings("ignore:Run completed without loss diverging")
def test_finetune_keeps_the_ratio_of_the_rates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("finetune", monkeypatch, "--epochs", 2, "--sweep-points", 100)
    output = capsys.readouterr().out
    assert number("rate of the head", output) == pytest.approx(10 * number("rate of the body", output), rel=0.01)
    assert number("fine-tuned", output) > 70
