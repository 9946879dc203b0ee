"""Does a range test leave its trace in what other packages make? Each is really installed and trained with.

python benchmarks/no_trace.py optimizers   every optimizer of timm and pytorch_optimizer that trains on a CPU
python benchmarks/no_trace.py data         torchdata's StatefulDataLoader, albumentations, MONAI's trainer
python benchmarks/no_trace.py cost         time and memory of a snapshot; --against another checkout of this package
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import os
import random
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ignite_lr import LRFinder

BEFORE, SWEPT, AFTER = 4, 12, 8


def seed() -> None:
    """Every generator that a training may draw from."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # albumentations' and MONAI's users have this one
    torch.manual_seed(0)


def sweep(trainer: Engine, to_save: dict[str, Any], data: Any, **options: Any) -> list[str]:
    """A range test as a user would run it, with these options of ``attach``; what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finder = LRFinder()
        bounds = {"start_lr": 1e-6, "end_lr": 1e-2, "diverge_th": 1e6}
        with finder.attach(trainer, to_save, num_iter=SWEPT, **bounds, **options) as block:
            block.run(data)
    return [str(one.message) for one in caught if "could not" in str(one.message) or "restore" in str(one.message)]


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors and values of a state, with where each lies."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from flat(inner, f"{path}.{index}")
    elif isinstance(value, torch.Tensor):
        yield path, value.detach().clone()
    elif isinstance(value, bool | int | float | str | None):
        yield path, value


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Where two flat states are not the same, bit for bit (a NaN is itself)."""

    def same(x: Any, y: Any) -> bool:
        if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
            return x.shape == y.shape and x.dtype == y.dtype and bool(torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)))
        return bool(x == y) or (x != x and y != y)

    return [key for key in a.keys() | b.keys() if key not in a or key not in b or not same(a[key], b[key])]


# -- optimizers


def network() -> nn.Module:
    """Matrices, a convolution, vectors, a buffer and a generator: what an optimizer may treat in ways of its own."""
    return nn.Sequential(
        nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(32, 3)
    )


def trained(make: Callable[[nn.Module], Any], graph: bool, swept: bool) -> tuple[dict[str, Any], list[str]]:
    """The state after a training, with or without a sweep in it, and what the sweep warned of."""
    seed()
    model = network()
    optimizer = make(model)
    rows = torch.randn(32, 8, 1, 8, generator=torch.Generator().manual_seed(1))
    data = [(x, x.flatten(1)[:, :3].sin()) for x in rows]

    def step(engine: Engine, batch: Any) -> float:
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        loss.backward(create_graph=graph)
        optimizer.step()
        return loss.item()

    Engine(step).run(data[:BEFORE])
    trainer = Engine(step)
    said = sweep(trainer, {"model": model, "optimizer": optimizer}, data[BEFORE : BEFORE + SWEPT]) if swept else []
    trainer.run(data[BEFORE : BEFORE + AFTER])
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    return dict(flat(state)), said


def outcome(make: Callable[[nn.Module], Any]) -> tuple[str, str]:
    """What became of one optimizer, in a word, and the detail."""
    error = ""
    for graph in (False, True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                once, again = trained(make, graph, False)[0], trained(make, graph, False)[0]
        except Exception as raised:  # of another package: whatever it is, it does not train like this
            error = f"{type(raised).__name__}: {raised}"
            continue
        if differences(once, again):
            return "not repeatable without a sweep", ""
        try:
            with_sweep, said = trained(make, graph, True)
        except Exception as raised:
            return "refused", f"{type(raised).__name__}: {raised}"
        changed = differences(once, with_sweep)
        kind = "restored" if not changed else "changed"
        return f"{kind}, with a warning" if said else kind, "; ".join(changed[:3] + said)
    return "does not train so without a sweep", error


def constructors(package: str) -> dict[str, Callable[[nn.Module], Any]]:
    """Name and how to make it, as the package's own factory does."""
    if package == "timm":
        from timm.optim import create_optimizer_v2, list_optimizers

        return {n: lambda model, n=n: create_optimizer_v2(model, opt=n, lr=0.01) for n in list_optimizers()}  # type: ignore[misc]  # mypy cannot infer a lambda's default
    from pytorch_optimizer import create_optimizer, get_supported_optimizers

    return {n: lambda model, n=n: create_optimizer(model, n, lr=0.01) for n in get_supported_optimizers()}  # type: ignore[misc]  # likewise


def lookahead(package: str) -> Callable[[nn.Module], Any]:
    """The package's Lookahead around Adam, which syncs in the middle of a sweep."""
    if package == "timm":
        from timm.optim import Lookahead
    else:
        from pytorch_optimizer import Lookahead
    return lambda model: Lookahead(torch.optim.Adam(model.parameters(), lr=0.01), k=5)


def optimizers(verbose: bool) -> None:
    """A table: how many of each package's optimizers were restored."""
    print("| | tried | restored | restored, with a warning | changed | refused | do not train so |")
    print("|---|---|---|---|---|---|---|")
    for package in ("timm", "pytorch_optimizer"):
        made = {**constructors(package), "lookahead around Adam": lookahead(package)}
        counts: collections.Counter[str] = collections.Counter()
        details = []
        for name, make in made.items():
            kind, detail = outcome(make)
            counts[kind] += 1
            if kind != "restored":
                details.append(f"  {package} {name}: {kind}: {detail[:200]}")
        left = counts["does not train so without a sweep"] + counts["not repeatable without a sweep"]
        changed = counts["changed"] + counts["changed, with a warning"]
        row = (len(made), counts["restored"], counts["restored, with a warning"], changed, counts["refused"], left)
        print(f"| {package} | " + " | ".join(map(str, row)) + " |")
        if verbose:
            print("\n".join(details), file=sys.stderr)


# -- data and trainers


class Rows(Dataset[Any]):
    """Images under a random transform."""

    def __init__(self, transform: Callable[..., Any] | None = None) -> None:
        self.images = np.random.default_rng(0).random((64, 16, 16, 3)).astype(np.float32)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image = self.images[index]
        if self.transform is not None:
            image = self.transform(image=image)["image"]
        return torch.as_tensor(np.ascontiguousarray(image)).flatten()


def by_ignite(loader: Any, swept: bool) -> tuple[dict[str, Any], list[str]]:
    """Weights and what was drawn, training on ``loader``, with a sweep after the first epoch or without."""
    model = nn.Linear(768, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seen: list[float] = []

    def step(engine: Engine, batch: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        seen.append(batch.double().sum().item())
        return loss.item()

    trainer = Engine(step)
    trainer.run(loader, max_epochs=1)
    to_save = {"model": model, "optimizer": optimizer}
    if hasattr(loader, "state_dict"):
        to_save["loader"] = loader
    kept = len(seen)
    said = sweep(trainer, to_save, loader) if swept else []
    del seen[kept:]
    trainer.run(loader, max_epochs=3)
    return dict(flat({"model": model.state_dict(), "seen": seen})), said


def stateful(swept: bool) -> tuple[dict[str, Any], list[str]]:
    """The loader of torchdata, whose own state says where it stands."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    seed()
    return by_ignite(StatefulDataLoader(Rows(), batch_size=8, shuffle=True), swept)


def albumentations(workers: int) -> Callable[[bool], tuple[dict[str, Any], list[str]]]:
    """albumentations, whose transforms keep generators of their own."""

    def run(swept: bool) -> tuple[dict[str, Any], list[str]]:
        import albumentations

        seed()
        transform = albumentations.Compose(
            [albumentations.HorizontalFlip(), albumentations.RandomBrightnessContrast(p=0.8)], seed=3
        )
        generator = torch.Generator().manual_seed(2)
        loader = DataLoader(Rows(transform), batch_size=8, shuffle=True, num_workers=workers, generator=generator)
        return by_ignite(loader, swept)

    return run


def monai(swept: bool) -> tuple[dict[str, Any], list[str]]:
    """MONAI's trainer, whose steps fire events of their own, on its own data set with random transforms."""
    from monai.data import Dataset as MonaiDataset
    from monai.engines import SupervisedTrainer
    from monai.handlers import from_engine
    from monai.transforms import Compose, RandGaussianNoised, RandScaleIntensityd

    seed()
    transform = Compose([RandGaussianNoised(keys="image", prob=0.5), RandScaleIntensityd(keys="image", factors=0.3)])
    transform.set_random_state(5)
    rows = [{"image": torch.randn(1, 8, 8), "label": torch.randn(1)} for _ in range(64)]
    loader = DataLoader(MonaiDataset(rows, transform), batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=loader,
        network=model,
        optimizer=optimizer,
        loss_function=nn.functional.mse_loss,
    )
    trainer.logger.disabled = True
    trainer.run()
    to_save = {"model": model, "optimizer": optimizer}
    said = sweep(trainer, to_save, loader, output_transform=from_engine("loss", first=True)) if swept else []
    trainer.state.max_epochs = 3
    trainer.run()
    return dict(flat({"model": model.state_dict(), "optimizer": optimizer.state_dict()})), said


def data() -> None:
    """A table: one line for each package."""
    print("| what | after a sweep | warnings |")
    print("|---|---|---|")
    cases = {
        "torchdata's `StatefulDataLoader`": stateful,
        "albumentations in the data set": albumentations(0),
        "albumentations in two workers": albumentations(2),
        "MONAI's `SupervisedTrainer`": monai,
    }
    for name, run in cases.items():
        expected = run(False)[0]
        if differences(expected, run(False)[0]):
            print(f"| {name} | not repeatable without a sweep | |")
            continue
        got, said = run(True)
        print(f"| {name} | {'changed' if differences(expected, got) else 'restored'} | {len(said)} |")


# -- cost


def one_snapshot(millions: int) -> None:
    """Processor seconds of taking and putting back, around a few cheap updates, and the peak of the memory, as JSON."""
    layers = [nn.Linear(1000, 1000, bias=False) for _ in range(millions)]
    model = nn.Sequential(nn.Linear(4, 1), *layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batch = torch.randn(8, 4)

    def step(engine: Engine, batch: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = model[0](batch).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer, to_save = Engine(step), {"model": model, "optimizer": optimizer}
    times = []
    for _ in range(15 if millions < 100 else 3):
        start = time.process_time()
        with LRFinder().attach(trainer, to_save, num_iter=20, start_lr=1e-6, end_lr=1e-5) as block:
            taken = time.process_time()
            block.run([batch] * 20)
            over = time.process_time()
        times.append(taken - start + time.process_time() - over)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": statistics.median(times), "peak": peak}))


def cost(against: str | None, pairs: int) -> None:
    """Both checkouts in turn, each in a process of its own."""
    here = str(Path(__file__).parents[1])
    for millions in (10, 1000):
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(pairs):
            for checkout in (here, against) if against else (here,):
                command = [sys.executable, "-W", "ignore", __file__, "one", "--millions", str(millions)]
                environment = {**os.environ, "PYTHONPATH": checkout}
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                found.setdefault(checkout, []).append(json.loads(done.stdout))
        for checkout, runs in found.items():
            seconds, peak = (statistics.median(run[what] for run in runs) for what in ("seconds", "peak"))
            print(f"{millions}M parameters, {checkout}: {seconds:.3f} s, peak {peak:.0f} MB")
        if against:
            for what in ("seconds", "peak"):
                ratios = sorted(a[what] / b[what] for a, b in zip(found[here], found[against], strict=True))
                middle = statistics.median(ratios)
                print(f"{millions}M parameters, {what}: {middle:.3f}x [{ratios[0]:.3f}, {ratios[-1]:.3f}]")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("optimizers", "data", "cost", "one"))
    parser.add_argument("--against", help="another checkout of this package, for cost")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--millions", type=int, default=10, help="of parameters, for one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)  # engines tell of each optimizer that does not train
    if arguments.what == "optimizers":
        optimizers(verbose=True)
    elif arguments.what == "data":
        data()
    elif arguments.what == "cost":
        cost(arguments.against, arguments.pairs)
    else:
        one_snapshot(arguments.millions)


if __name__ == "__main__":
    main()
