"""A plateau on a validation metric on two ranks, resumed after every epoch, and states in distributed checkpoints."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from ignite.metrics import Loss
from torch import nn
from torch.distributed import checkpoint
from torch.optim import lr_scheduler
from worked_out import keeps_tensors_apart

from ignite_lr import LRSchedulerHandler, ScheduleLR, ScheduleParam, schedules

EPOCHS, RANKS = 8, 2

# -- the plateau


def data(rank: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The rank's batches: each rank has a loss of its own, and alone would lower its rate after other epochs."""
    generator = torch.Generator().manual_seed(10 * seed + rank)
    return [(torch.randn(4, 3, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(3)]


class Program:
    """What a script makes on one rank."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.plain = nn.Linear(3, 1)
        self.model = nn.parallel.DistributedDataParallel(self.plain)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
        self.scheduler = lr_scheduler.ReduceLROnPlateau(self.optimizer, factor=0.7, patience=0)


def by_hand(rank: int) -> list[float]:
    """The rate of every epoch of a plain loop."""
    program, rates = Program(), []
    for _ in range(EPOCHS):
        rates.append(program.optimizer.param_groups[0]["lr"])
        for x, y in data(rank, 1):
            program.optimizer.zero_grad()
            nn.functional.mse_loss(program.model(x), y).backward()
            program.optimizer.step()
        with torch.no_grad():
            losses = torch.stack([nn.functional.mse_loss(program.plain(x), y) for x, y in data(rank, 2)])
        dist.all_reduce(losses)
        program.scheduler.step(losses.mean().item() / RANKS)
    return rates


def by_ignite(rank: int, folder: Path, until: int, resumed: bool) -> dict[int, float]:
    """The rates of the epochs from the last checkpoint on, the last of them cut off in its second iteration."""
    program = Program()
    optimizer = program.optimizer
    trainer = create_supervised_trainer(program.model, optimizer, nn.MSELoss())
    evaluator = create_supervised_evaluator(program.plain, {"loss": Loss(nn.MSELoss())})
    handler = LRSchedulerHandler(program.scheduler, interval="epoch", metric=(evaluator, "loss"))
    to_save = {
        "trainer": trainer,
        "model": program.plain,
        "optimizer": optimizer,
        "scheduler": program.scheduler,
        "schedule_handler": handler,
    }
    saver = Checkpoint(to_save, DiskSaver(folder, require_empty=False), filename_pattern="last.pt")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, saver)  # before everything
    handler.attach(trainer)
    # at the start too: what was due when the checkpoint was made waits for it
    trainer.add_event_handler(Events.STARTED | Events.EPOCH_COMPLETED, lambda: evaluator.run(data(rank, 2)))
    rates: dict[int, float] = {}

    def note() -> None:
        rates[trainer.state.epoch] = optimizer.param_groups[0]["lr"]

    def die() -> None:
        if trainer.state.iteration == 3 * until + 2:
            trainer.terminate()

    trainer.add_event_handler(Events.EPOCH_STARTED, note)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, die)
    if resumed:
        Checkpoint.load_objects(to_save, torch.load(folder / "last.pt", weights_only=True))
    dist.barrier()
    trainer.run(data(rank, 1), max_epochs=EPOCHS)
    dist.barrier()
    return rates


def plateau(rank: int, store: str, folder: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    idist.initialize("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    rates: dict[int, float] = {}
    for until in range(1, EPOCHS + 1):
        rates.update(by_ignite(rank, Path(folder), until, resumed=until > 1))
    torch.save(([rates[epoch + 1] for epoch in range(EPOCHS)], by_hand(rank)), Path(folder) / f"{rank}.pt")
    idist.barrier()
    # now and then a spawned process with a gloo group aborts while its interpreter shuts down, when all is done
    os._exit(0)


def test_a_plateau_on_two_ranks_resumed_after_every_epoch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(plateau, args=(str(tmp_path / "store"), str(tmp_path)), nprocs=RANKS)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS)]
    assert found[0] == found[1]
    rates, wanted = found[0]
    assert rates == wanted
    assert len(set(wanted)) > 3, wanted  # several plateaus, and not every epoch is one
    assert len(set(wanted)) < EPOCHS, wanted


# -- distributed checkpoints

Maker = Callable[[torch.optim.Optimizer], Any]

MAKERS: dict[str, Maker] = {
    "schedule": lambda o: ScheduleLR(o, schedules.Linear(total_steps=50, warmup_steps=4)),
    "function": lambda o: ScheduleLR(o, lambda update: 1 / (update + 1)),
    "one a group": lambda o: ScheduleLR(o, [schedules.Linear(total_steps=50), lambda update: 1 / (update + 1)]),
    "absolute": lambda o: ScheduleLR(o, lambda update: 0.01 / (update + 1), absolute=True),
    "warmup": lambda o: schedules.with_warmup(ScheduleLR(o, schedules.Linear(total_steps=50)), 4),
    "warmup of PyTorch's": lambda o: schedules.with_warmup(lr_scheduler.ExponentialLR(o, 0.9), 4),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [ScheduleLR(o, schedules.Linear(total_steps=50)), lr_scheduler.ExponentialLR(o, 0.9)], [5]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [ScheduleLR(o, schedules.Linear(total_steps=50)), lr_scheduler.ConstantLR(o, 0.9, 3)], o
    ),
    "momentum": lambda o: ScheduleParam(o, "momentum", schedules.Linear(total_steps=50)),
}


class Training:
    """Updates at a scheduler's rates, which are noted."""

    def __init__(self, make: Maker, tensors: bool) -> None:
        form = (lambda rate: torch.tensor(rate, dtype=torch.float64)) if tensors else float
        groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": form(rate)} for rate in (0.5, 0.125)]
        self.optimizer = torch.optim.SGD(groups, lr=form(0.5), momentum=0.9)
        self.rates: list[list[float]] = []
        self.trainer = Engine(self.step)
        self.scheduler = make(self.optimizer)
        self.handler = LRSchedulerHandler(self.scheduler)
        self.handler.attach(self.trainer)

    def step(self, engine: Engine, batch: int) -> None:
        self.rates.append([float(group[name]) for group in self.optimizer.param_groups for name in ("lr", "momentum")])
        for group in self.optimizer.param_groups:
            group["params"][0].grad = torch.ones(1)
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        return {"scheduler": self.scheduler.state_dict(), "handler": self.handler.state_dict()}

    def load(self, folder: Path, **options: Any) -> None:
        state = self.state()
        checkpoint.load(state, checkpoint_id=folder, **options)
        self.scheduler.load_state_dict(state["scheduler"])
        self.handler.load_state_dict(state["handler"])


@pytest.fixture(scope="module")
def process_group() -> Iterator[None]:
    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings(
    "ignore::UserWarning:torch.distributed", "ignore::FutureWarning", "ignore:The epoch parameter in:UserWarning"
)
@pytest.mark.parametrize("tensors", [False, True], ids=["floats", "tensors"])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_distributed_checkpoint_brings_back_a_scheduler(
    kind: str, tensors: bool, process_group: None, tmp_path: Path
) -> None:
    if kind == "sequential" and tensors and not keeps_tensors_apart():
        pytest.skip("this PyTorch's SequentialLR makes a rate and its base rate one tensor")
    whole = Training(MAKERS[kind], tensors)
    whole.trainer.run(range(10))
    for stop in (2, 6):  # in a warmup, or before a milestone, and after it
        first, second = Training(MAKERS[kind], tensors), Training(MAKERS[kind], tensors)
        first.trainer.run(range(stop))
        checkpoint.save(first.state(), checkpoint_id=tmp_path / f"{stop}")
        second.optimizer.load_state_dict(first.optimizer.state_dict())
        second.load(tmp_path / f"{stop}")
        second.trainer.run(range(10 - stop))
        assert first.rates + second.rates == whole.rates


@pytest.mark.filterwarnings("ignore::UserWarning:torch.distributed", "ignore::FutureWarning")
def test_another_schedule_after_a_distributed_checkpoint(process_group: None, tmp_path: Path) -> None:
    """Its arguments are not in the checkpoint, which PyTorch is told to bear."""
    first = Training(MAKERS["function"], False)
    first.trainer.run(range(5))
    checkpoint.save(first.state(), checkpoint_id=tmp_path / "saved")
    schedule = schedules.InverseSqrt(warmup_steps=3)
    second = Training(lambda o: ScheduleLR(o, schedule), False)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the saved schedule is")
        second.load(tmp_path / "saved", planner=checkpoint.DefaultLoadPlanner(allow_partial_load=True))
    second.trainer.run(range(3))
    assert [rates[0] for rates in second.rates] == pytest.approx([0.5 * schedule(i) for i in (5, 6, 7)])
