"""``ScheduleLR`` in other people's loops, and other people's schedulers and optimizers under our handlers.

Run it with ``python benchmarks/interop_schedulers.py`` where Lightning, Transformers, Accelerate, timm and
pytorch_optimizer are installed; what is not is left out, and said. It prints one line a check: whether the rate of
every update is that of a plain PyTorch loop, or of timm's own. It ends with an error if one is not.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from torch import nn

from ignite_lr import GradNormClipper, LRLogger, LRSchedulerHandler, ScheduleLR, schedules

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


EPOCHS, LENGTH = 5, 6
TIMM: dict[str, dict[str, Any]] = {
    "CosineLRScheduler": {"t_initial": 24, "warmup_t": 4, "warmup_lr_init": 1e-4, "lr_min": 1e-3, "cycle_limit": 2},
    "TanhLRScheduler": {"t_initial": 24, "warmup_t": 4, "warmup_lr_init": 1e-4},
    "StepLRScheduler": {"decay_t": 3, "decay_rate": 0.5, "warmup_t": 2, "warmup_lr_init": 1e-4},
    "MultiStepLRScheduler": {"decay_t": [3, 9], "decay_rate": 0.5},
    "PolyLRScheduler": {"t_initial": 24, "lr_min": 1e-3, "warmup_t": 3, "warmup_lr_init": 1e-4},
    "PlateauLRScheduler": {"decay_rate": 0.5, "patience_t": 0, "warmup_t": 1, "warmup_lr_init": 1e-4},
}


def epoch_metric(epoch: int) -> float:
    """A metric that stands still now and then; ``epoch`` counts from 1."""
    return (1.0, 0.5, 0.6, 0.3, 0.4)[epoch - 1]


def timm_by_hand(make: Callable[[Any], Any]) -> list[float]:
    """The loop of timm's own training script."""
    optimizer = Spied(Model().parameters(), lr=0.1)
    scheduler = make(optimizer)
    updates = 0
    for epoch in range(EPOCHS):
        for _ in range(LENGTH):
            optimizer.step()
            updates += 1
            scheduler.step_update(num_updates=updates)
        scheduler.step(epoch + 1, epoch_metric(epoch + 1))
    return optimizer.rates


def timm_by_handler(make: Callable[[Any], Any], interval: str) -> list[float]:
    """The same under Ignite."""
    optimizer = Spied(Model().parameters(), lr=0.1)
    trainer = Engine(lambda engine, batch: optimizer.step())
    metric = (lambda engine: epoch_metric(engine.state.epoch)) if interval == "epoch" else None
    LRSchedulerHandler(make(optimizer), interval=interval, metric=metric).attach(trainer)
    trainer.run(range(LENGTH), max_epochs=EPOCHS)
    return optimizer.rates


def with_timm() -> Iterator[tuple[str, str, bool]]:
    """Every scheduler of timm's, told of epochs and of updates, and its Lookahead."""
    import timm.optim
    import timm.scheduler
    from timm.scheduler.plateau_lr import PlateauLRScheduler
    from timm.scheduler.poly_lr import PolyLRScheduler

    kinds = {
        "PlateauLRScheduler": PlateauLRScheduler,
        "PolyLRScheduler": PolyLRScheduler,
    }
    for name, arguments in TIMM.items():
        kind = kinds.get(name) or getattr(timm.scheduler, name)
        for interval in ("epoch", "step"):
            if name == "PlateauLRScheduler":
                if interval == "step":
                    continue  # it knows epochs only

                def make(optimizer: Any, kind: Any = kind, arguments: Any = arguments) -> Any:
                    return kind(optimizer, mode="min", **arguments)

            else:

                def make(optimizer: Any, kind: Any = kind, arguments: Any = arguments, by: str = interval) -> Any:
                    return kind(optimizer, t_in_epochs=by == "epoch", **arguments)

            rates = timm_by_handler(make, interval)
            varied = f"{len(set(rates))} rates in {len(rates)} updates"
            yield f"{name}, {interval}", varied, rates == timm_by_hand(make) and len(set(rates)) > 1
    yield hooked(lambda model: timm.optim.Lookahead(torch.optim.SGD(model.parameters(), lr=0.01)))


def with_pytorch_optimizer() -> Iterator[tuple[str, str, bool]]:
    """Its Lookahead, and some that change what a step is."""
    import pytorch_optimizer

    yield hooked(lambda model: pytorch_optimizer.Lookahead(torch.optim.AdamW(model.parameters(), lr=0.01)))
    for name in ("Lamb", "AdaBelief", "Lion", "ScheduleFreeAdamW"):
        kind = getattr(pytorch_optimizer, name)
        yield hooked(lambda model, kind=kind: kind(model.parameters(), lr=0.01))  # type: ignore[misc]  # of a lambda's default


def hooked(make: Callable[[nn.Module], Any]) -> tuple[str, str, bool]:
    """Rates, clipped updates and records of an optimizer under all three handlers."""
    schedule = SCHEDULES["Cosine"]
    model = Model()
    optimizer = make(model)
    rates: list[float] = []

    def step(engine: Engine, batch: dict[str, torch.Tensor]) -> None:
        model(**batch)["loss"].backward()
        if engine.state.iteration % ACCUMULATION == 0:
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            optimizer.zero_grad()

    trainer = Engine(step)
    clipper, logger = GradNormClipper(optimizer), LRLogger(optimizer, history=100)
    for handler in (LRSchedulerHandler(ScheduleLR(optimizer, schedule)), clipper, logger):
        handler.attach(trainer)
    if callable(getattr(optimizer, "train", None)):
        optimizer.train()
    trainer.run(torch.utils.data.DataLoader(Rows()))
    seen, logged = clipper.report().updates, len(logger.history()["update"])
    same = rates == [0.01 * schedule(i) for i in range(UPDATES)]
    detail = f"{len(rates)} updates, {seen} seen by the clipper, {logged} logged"
    return type(optimizer).__name__, detail, same and seen == logged == len(rates)


def with_accelerate() -> Iterator[tuple[str, str, bool]]:
    """Its optimizer runs no hooks of its own: the message says what to give instead, and that works."""
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True)
    outer = accelerator.prepare(torch.optim.SGD(Model().parameters(), lr=0.01))
    for what in (
        lambda: LRSchedulerHandler(ScheduleLR(outer, lambda step: 1.0)).attach(Engine(lambda engine, batch: None)),
        lambda: GradNormClipper(outer).attach(Engine(lambda engine, batch: None)),
        lambda: LRLogger(outer, history=1).attach(Engine(lambda engine, batch: None)),
    ):
        try:
            what()
        except TypeError as error:  # noqa: PERF203 - three in all
            yield type(outer).__name__, str(error), "optimizer.optimizer, of class SGD" in str(error)
        else:
            yield type(outer).__name__, "no error", False
    yield hooked(lambda model: accelerator.prepare(torch.optim.SGD(model.parameters(), lr=0.01)).optimizer)


def with_loops(loop: Callable[[Any], list[float]]) -> Iterator[tuple[str, str, bool]]:
    """``ScheduleLR`` in the loop of another package."""
    for name, schedule in SCHEDULES.items():
        rates = loop(schedule)
        yield name, f"{len(rates)} updates", rates == plain(schedule)


def with_greedy() -> Iterator[tuple[str, str, bool]]:
    """Transformers' metric-driven scheduler."""
    rates, recorded = greedy()
    worst = max(abs(mine - theirs) for mine, theirs in zip(rates, recorded, strict=True)) / max(recorded)
    yield "GreedyLR", f"{len(rates)} updates, within {worst:.1e} of the peak", worst <= 1e-9


CHECKS: list[tuple[str, Callable[[], Iterator[tuple[str, str, bool]]]]] = [
    ("Ignite", lambda: with_loops(under_ignite)),
    ("Lightning", lambda: with_loops(under_lightning)),
    ("Transformers", lambda: with_loops(under_transformers)),
    ("Transformers", with_greedy),
    ("timm", with_timm),
    ("pytorch_opt.", with_pytorch_optimizer),
    ("Accelerate", with_accelerate),
]


def main() -> int:
    """All checks; the number of those that failed."""
    failed = 0
    for package, checks in CHECKS:
        try:
            for name, detail, right in checks():
                failed += not right
                print(f"{package:13} {name:28} {'right' if right else 'WRONG'}: {detail}")
        except ImportError as error:  # noqa: PERF203 - six in all
            print(f"{package:13} left out: {error}")
    return failed


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    sys.exit(main())
