"""Make the pictures of the documentation from real runs.

    python docs/make_pictures.py                  # all of them, into docs/images/
    python docs/make_pictures.py range_test flat  # some of them

What the pages say about a range test is checked here: a curve that no longer shows it is an error.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ignite.engine import create_supervised_trainer
from matplotlib.figure import Figure
from sklearn import datasets
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr import GradNormClipper, LRFinder, LRLogger, LRSchedulerHandler, RangeTestResult, ScheduleLR, schedules

torch.set_num_threads(1)  # sums keep their order, so that every machine makes the same curves

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
Dataset = tuple[Tensor, Tensor]


def data(name: str, *, scaled: bool = True) -> Dataset:
    features, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = torch.tensor(features, dtype=torch.float32)
    return ((x - x.mean(0)) / (x.std(0) + 1e-6) if scaled else x), torch.tensor(targets)


def images() -> Dataset:
    x, y = data("digits", scaled=False)
    return x.view(-1, 1, 8, 8) / 16, y


def pixels() -> Dataset:
    x, y = data("digits", scaled=False)
    return x / 16, y


def convolutions() -> nn.Module:
    def block(channels_in: int, channels_out: int) -> nn.Module:
        convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(), nn.AvgPool2d(2))

    return nn.Sequential(block(1, 6), block(6, 10), nn.Flatten(), nn.Linear(40, 10))


def layers(*widths: int, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    made: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        made += [nn.Linear(width_in, width_out), act()]
    return nn.Sequential(*made[:-1])


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-2)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)


@dataclass(frozen=True)
class Curve:
    """A range test on a page of the documentation, and what the page says about it."""

    title: str
    load: Callable[[], Dataset]
    build: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    batch_size: int
    shows: Callable[[RangeTestResult], bool]
    sweep: dict[str, Any] = field(default_factory=dict)

    def run(self) -> RangeTestResult:
        torch.manual_seed(0)
        x, y = self.load()
        model = self.build()
        optimizer = self.optimizer(model)
        trainer = create_supervised_trainer(model, optimizer, nn.functional.cross_entropy)
        finder = LRFinder()
        arguments = {"num_iter": 300, "start_lr": 1e-7, "end_lr": 10.0, "progress_bar": False} | self.sweep
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Run completed without loss diverging")
            with finder.attach(trainer, {"model": model, "optimizer": optimizer}, **arguments) as sweep:
                sweep.run(DataLoader(TensorDataset(x, y), self.batch_size, shuffle=True))
        return finder.result

    def check(self, result: RangeTestResult) -> None:
        """Raise if the curve is not what the page says.

        Raises:
            AssertionError: with the curve's title and what it shows instead.
        """
        if not self.shows(result):
            raise AssertionError(f"{self.title}: the curve does not show what the page says, got {result}")


def deep_tanh() -> nn.Module:
    return layers(64, 32, 32, 32, 32, 32, 10, act=nn.Tanh)


def iris() -> nn.Module:
    return layers(4, 16, 3)


def clear(result: RangeTestResult) -> bool:
    """A suggestion that is sure of itself, and a rate from which on the training breaks."""
    return result.confidence > 0.8 and result.unstable_lr is not None


def silent(result: RangeTestResult) -> bool:
    return result.suggestions()["descent"] is None


def open_ended(result: RangeTestResult) -> bool:
    """The loss was still falling, or low, at the last rate."""
    return result.stop_reason == "num_iter" and result.unstable_lr is None and not silent(result)


def unsure(result: RangeTestResult) -> bool:
    return result.confidence < 0.75


def with_interval(result: RangeTestResult) -> bool:
    return result.confidence > 0.75 and result.interval is not None


PAIRS = {"num_iter": 60}
CURVES = {
    "range_test": Curve("A clear descent", images, convolutions, adamw, 32, clear),
    "noisy": Curve("Batches of four", pixels, lambda: layers(64, 32, 10), adamw, 4, clear),
    "two_descents": Curve(
        "Two descents", lambda: data("wine", scaled=False), lambda: layers(13, 16, 3), sgd, 16, open_ended
    ),
    "cliff": Curve("A narrow descent before a cliff", pixels, deep_tanh, momentum, 32, clear),
    "ends_early": Curve("Ends too early", pixels, deep_tanh, adamw, 32, open_ended, {"start_lr": 1e-6, "end_lr": 3e-3}),
    "starts_late": Curve(
        "Starts too late", pixels, lambda: layers(64, 64, 10), sgd, 32, silent, {"start_lr": 2.0, "end_lr": 100.0}
    ),
    "flat": Curve("Learns at no rate", pixels, lambda: layers(64, 32, 32, 10, act=nn.Sigmoid), sgd, 32, silent),
    "few_points": Curve("Few points, batches of two", lambda: data("iris"), iris, sgd, 2, unsure, PAIRS),
    "repeats": Curve(
        "The same, eight times", lambda: data("iris"), iris, sgd, 2, with_interval, PAIRS | {"repeats": 8}
    ),
}


def save(figure: Any, path: Path, size: tuple[float, float] = (8.6, 3.9)) -> None:
    figure.set_size_inches(*size)
    figure.savefig(path, dpi=90, bbox_inches="tight")


def schedule_gallery(path: Path) -> None:
    """Four schedules of the pre-training page, and four more shapes."""
    n = 1000
    shapes: list[schedules.Schedule] = [
        schedules.InverseSqrt(warmup_steps=100),
        schedules.WarmupStableDecay(warmup_steps=50, stable_steps=700, decay_steps=250, decay="sqrt"),
        schedules.Cosine(total_steps=n, final_factor=0.1, warmup_steps=50),
        schedules.Linear(total_steps=n, warmup_steps=50),
        schedules.CosineRestarts(total_steps=n, num_cycles=3, cycle_decay=0.6),
        schedules.OneCycle(total_steps=n),
        schedules.TriStage(warmup_steps=100, hold_steps=400, decay_steps=500),
        schedules.Tanh(total_steps=n, warmup_steps=50),
    ]
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for ax, shape in zip(figure.subplots(2, 4, sharex=True, sharey=True).flat, shapes, strict=True):
        shape.plot(n, ax=ax, title=type(shape).__name__)
        ax.set_xlabel("")
        ax.set_ylabel("")
    figure.supxlabel("Update")
    figure.supylabel("Factor of the base rate")
    figure.savefig(path, dpi=90)


def trained() -> tuple[GradNormClipper, LRLogger]:
    torch.manual_seed(0)
    x, y = images()
    model = convolutions()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    trainer = create_supervised_trainer(model, optimizer, nn.functional.cross_entropy)
    clipper = GradNormClipper(optimizer, percentile=90.0, window=200)
    logger = LRLogger(optimizer, history=2000)
    scheduler = ScheduleLR(optimizer, schedules.InverseSqrt(warmup_steps=60))
    for handler in (LRSchedulerHandler(scheduler), clipper, logger):
        handler.attach(trainer)
    trainer.run(DataLoader(TensorDataset(x, y), 32, shuffle=True), max_epochs=8)
    return clipper, logger


def clipping(path: Path) -> None:
    save(trained()[0].plot(title="Gradient norms on the digits").figure, path, (8.0, 3.6))


def history(path: Path) -> None:
    save(trained()[1].plot(title="The rates that the updates used").figure, path, (7.0, 2.8))


OTHERS: dict[str, Callable[[Path], None]] = {
    "schedules": schedule_gallery,
    "clipping": clipping,
    "history": history,
}


def main() -> None:
    names = [*CURVES, *OTHERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"any of {', '.join(names)}; all of them where none is given")
    parser.add_argument("--output", type=Path, default=IMAGES, help="the folder to write to")
    chosen = parser.parse_args()
    if unknown := set(chosen.name) - set(names):
        parser.error(f"there is no picture called {', '.join(sorted(unknown))}")
    chosen.output.mkdir(parents=True, exist_ok=True)
    for name in chosen.name or names:
        path = chosen.output / f"{name}.png"
        if name in CURVES:
            result = CURVES[name].run()
            CURVES[name].check(result)
            save(result.plot(title=CURVES[name].title).figure, path)
        else:
            OTHERS[name](path)
        print(path)


if __name__ == "__main__":
    main()
