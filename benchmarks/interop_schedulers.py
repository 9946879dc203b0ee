"""``ScheduleLR`` in other people's loops: the rate of every update, against a plain PyTorch loop.

Run it with ``python benchmarks/interop_schedulers.py`` where ``lightning``, ``transformers`` and ``accelerate`` are
installed. It prints one line a check and ends with an error if the rates of one are not the same.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from torch import nn

from ignite_lr import LRSchedulerHandler, ScheduleLR, schedules

UPDATES = 20
ACCUMULATION = 3
SCHEDULES = {
    "InverseSqrt": schedules.InverseSqrt(warmup_steps=5),
    "Cosine": schedules.Cosine(total_steps=15, final_factor=0.1, warmup_steps=4),
    "WarmupStableDecay": schedules.WarmupStableDecay(3, stable_steps=7, decay_steps=8, decay="sqrt"),
}
GOLDEN = Path(__file__).parent.parent / "tests" / "data" / "schedules.json"


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """As many rows as it takes for ``UPDATES`` accumulated updates."""

    def __len__(self) -> int:
        return UPDATES * ACCUMULATION

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": torch.full((3,), float(index % 5)), "labels": torch.ones(1)}


class Spied(torch.optim.SGD):
    """SGD that writes down the rate of every update it makes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rates: list[float] = []
        self.register_step_pre_hook(lambda *_: self.rates.append(self.param_groups[0]["lr"]))


class Model(nn.Module):
    """A linear model with the signature that Transformers expects."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss of a batch."""
        return {"loss": nn.functional.mse_loss(self.linear(x), labels)}


def plain(schedule: Callable[[int], float]) -> list[float]:
    """A plain PyTorch loop."""
    model = Model()
    optimizer = Spied(model.parameters(), lr=0.01)
    scheduler = ScheduleLR(optimizer, schedule)
    for i in range(UPDATES):
        optimizer.zero_grad()
        model(**{key: value[None] for key, value in Rows()[i].items()})["loss"].backward()
        optimizer.step()
        scheduler.step()
    return optimizer.rates


def under_ignite(schedule: Callable[[int], float]) -> list[float]:
    """An Ignite trainer that accumulates gradients, with the handler."""
    model = Model()
    optimizer = Spied(model.parameters(), lr=0.01)

    def step(engine: Engine, batch: dict[str, torch.Tensor]) -> None:
        model(**batch)["loss"].backward()
        if engine.state.iteration % ACCUMULATION == 0:
            optimizer.step()
            optimizer.zero_grad()

    trainer = Engine(step)
    LRSchedulerHandler(ScheduleLR(optimizer, schedule)).attach(trainer)
    trainer.run(torch.utils.data.DataLoader(Rows()))
    return optimizer.rates


def under_lightning(schedule: Callable[[int], float]) -> list[float]:
    """A Lightning module with ``interval="step"`` and accumulated gradients."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()
            self.spied = Spied(self.model.parameters(), lr=0.01)

        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
            return self.model(**batch)["loss"]

        def configure_optimizers(self) -> dict[str, Any]:
            scheduler = ScheduleLR(self.spied, schedule)
            return {"optimizer": self.spied, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        accumulate_grad_batches=ACCUMULATION,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(Rows()))
    return module.spied.rates


def under_transformers(schedule: Callable[[int], float]) -> list[float]:
    """``Trainer(optimizers=...)`` with accumulated gradients."""
    import transformers

    model = Model()
    optimizer = Spied(model.parameters(), lr=0.01)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=ACCUMULATION,
            num_train_epochs=1,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            max_grad_norm=0.0,
        )
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=Rows(),
            optimizers=(optimizer, ScheduleLR(optimizer, schedule)),
        )
        trainer.train()
    return optimizer.rates


def greedy() -> tuple[list[float], list[float]]:
    """Transformers' metric-driven scheduler under the handler: its rates, and those of the recorded trajectory."""
    import transformers

    case = next(case for case in json.loads(GOLDEN.read_text(encoding="utf-8")) if case["schedule"] == "greedy")
    optimizer = Spied(Model().parameters(), lr=case["base_lr"])
    arguments = case["args"]["scheduler_specific_kwargs"]
    scheduler = transformers.get_scheduler("greedy", optimizer, scheduler_specific_kwargs=arguments)

    def step(engine: Engine, metric: float) -> None:
        optimizer.step()
        engine.state.metrics["loss"] = metric

    trainer = Engine(step)
    LRSchedulerHandler(scheduler, metric="loss").attach(trainer)
    trainer.run(case["args"]["metrics"], max_epochs=1)
    return optimizer.rates, case["lrs"]


def main() -> int:
    """All checks; the number of those that failed."""
    failed = 0
    loops = {"Ignite": under_ignite, "Lightning": under_lightning, "Transformers": under_transformers}
    for name, schedule in SCHEDULES.items():
        expected = plain(schedule)
        for package, loop in loops.items():
            rates = loop(schedule)
            same = rates == expected
            failed += not same
            print(f"{package:13} {name:18} {len(rates)} updates: {'the same rates' if same else 'other rates'}")
    rates, recorded = greedy()
    worst = max(abs(mine - theirs) for mine, theirs in zip(rates, recorded, strict=True)) / max(recorded)
    failed += worst > 1e-9
    print(f"{'Transformers':13} {'GreedyLR':18} {len(rates)} updates: within {worst:.1e} of the peak")
    return failed


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    sys.exit(main())
