"""One set of checks over every handler: what the design promises of all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from torch import nn

from ignite_lr import (
    GradNormClipper,
    LRFinder,
    LRLogger,
    LRSchedulerHandler,
    LRStudy,
    ScheduleLR,
    ScheduleParam,
    schedules,
)

DATA = [(torch.randn(4, 3, generator=torch.Generator().manual_seed(i)), torch.ones(4, 1)) for i in range(8)]


class Training:
    """A trainer with every handler made, none attached."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.trainer = create_supervised_trainer(self.model, self.optimizer, nn.MSELoss())
        self.scheduler = ScheduleLR(self.optimizer, schedules.InverseSqrt(warmup_steps=5))
        self.schedule_handler = LRSchedulerHandler(self.scheduler)
        self.clipper = GradNormClipper(self.optimizer, percentile=50.0, window=6)
        self.logger = LRLogger(self.optimizer, clipper=self.clipper, history=100)
        self.handlers: dict[str, Any] = {
            "schedule_handler": self.schedule_handler,
            "clipper": self.clipper,
            "logger": self.logger,
        }

    def to_save(self) -> dict[str, Any]:
        return {
            "trainer": self.trainer,
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            **self.handlers,
        }

    def attach(self, names: tuple[str, ...] = ("schedule_handler", "clipper", "logger")) -> None:
        for name in names:
            self.handlers[name].attach(self.trainer)

    def weights(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.model.parameters()]


def traces(trainer: Engine, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """How much hangs on a trainer and its optimizer."""
    return {
        **{str(event): len(handlers) for event, handlers in trainer._event_handlers.items() if handlers},
        "pre hooks": len(optimizer._optimizer_step_pre_hooks),
        "post hooks": len(optimizer._optimizer_step_post_hooks),
        "state hooks": len(optimizer._optimizer_state_dict_pre_hooks) + len(optimizer._optimizer_state_dict_post_hooks),
        # a note that PyTorch's own schedulers make with the first step
        "attributes": len(vars(optimizer).keys() - {"_opt_called"}),
    }


def spy_on_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The rates that each update really used, recorded by a hook of the test's own."""
    rates: list[float] = []
    # the last to register, so after whatever the handlers do before an update
    optimizer.register_step_pre_hook(lambda *_: rates.append(float(optimizer.param_groups[0]["lr"])))
    return rates


every_handler = pytest.mark.parametrize("name", ["schedule_handler", "clipper", "logger"])


@every_handler
def test_attaching_twice_is_an_error_that_says_so(name: str) -> None:
    training = Training()
    training.handlers[name].attach(training.trainer)
    with pytest.raises(RuntimeError, match="already attached"):
        training.handlers[name].attach(training.trainer)
    training.trainer.run(DATA)


@every_handler
def test_remove_leaves_nothing_behind(name: str) -> None:
    bystander = Training()
    del bystander.logger, bystander.handlers["logger"]  # its way through BaseLogger.attach has a hook from the start
    before = traces(bystander.trainer, bystander.optimizer)
    handler = bystander.handlers.get(name) or LRLogger(bystander.optimizer, history=10)
    handle = handler.attach(bystander.trainer)
    bystander.trainer.run(DATA)
    handle.remove()
    handle.remove()
    del handler, handle
    assert traces(bystander.trainer, bystander.optimizer) == before


@every_handler
def test_what_attach_returns_is_a_context_manager(name: str) -> None:
    training = Training()
    with training.handlers[name].attach(training.trainer):
        training.trainer.run(DATA)
    training.handlers[name].attach(training.trainer)


@every_handler
def test_without_attach_a_handler_says_what_it_needs(name: str) -> None:
    training = Training()
    if name == "logger":
        training.trainer.add_event_handler(Events.ITERATION_COMPLETED, training.logger)
    else:
        training.trainer.add_event_handler(Events.ITERATION_COMPLETED, training.handlers[name])
    with pytest.raises((RuntimeError, TypeError), match="attach"):
        training.trainer.run(DATA)


def go_on(training: Training, done: int) -> None:
    """Run on with the batches that were not seen yet, as a resumed data loader would."""
    batches = (DATA * 2)[done:]
    training.trainer.run(iter(batches), max_epochs=2, epoch_length=len(DATA))


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_checkpoint_resumes_exactly(tmp_path: Path, stop: int) -> None:
    whole = Training()
    whole.attach()
    whole.trainer.run(DATA, max_epochs=2)

    first = Training()
    first.attach()
    checkpoint = Checkpoint(first.to_save(), DiskSaver(tmp_path, require_empty=False), filename_pattern="c.pt")
    first.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop), checkpoint)
    first.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=stop + 1), first.trainer.terminate)
    first.trainer.run(DATA, max_epochs=2)

    second = Training()
    second.attach()
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    Checkpoint.load_objects(to_load=second.to_save(), checkpoint=saved)
    rates = spy_on_rates(second.optimizer)
    go_on(second, stop)

    assert len(rates) == 16 - stop
    for mine, theirs in zip(second.weights(), whole.weights(), strict=True):
        assert torch.equal(mine, theirs)
    assert second.clipper.report() == whole.clipper.report()
    assert second.scheduler.get_last_lr() == whole.scheduler.get_last_lr()


def test_the_order_of_attaching_changes_nothing() -> None:
    outcomes = []
    for order in itertools.permutations(("schedule_handler", "clipper", "logger")):
        training = Training()
        rates = spy_on_rates(training.optimizer)
        training.attach(order)
        late_rates = spy_on_rates(training.optimizer)
        metrics: list[float] = []
        training.trainer.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda engine, metrics=metrics: metrics.append(float(engine.state.metrics["grad_norm"])),
        )
        training.trainer.run(DATA, max_epochs=2)
        history = training.logger.history()
        logged = next(values.tolist() for tag, values in history.items() if tag.startswith("lr/"))
        assert logged == late_rates == rates
        outcomes.append((rates, metrics, training.clipper.report(), [w.tolist() for w in training.weights()]))
    assert all(outcome == outcomes[0] for outcome in outcomes)


@pytest.mark.parametrize("first", ["checkpoint", "handlers"])
def test_a_checkpoint_attached_before_or_after_saves_the_same(first: str, tmp_path: Path) -> None:
    training = Training()
    checkpoint = Checkpoint(training.to_save(), DiskSaver(tmp_path), filename_pattern="c.pt")
    attach: list[Callable[[], Any]] = [
        lambda: training.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), checkpoint),
        training.attach,
    ]
    for step in attach if first == "checkpoint" else reversed(attach):
        step()
    training.trainer.run(DATA)
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    expected = training.scheduler.base_lrs[0] * schedules.InverseSqrt(warmup_steps=5)(3)
    assert saved["optimizer"]["param_groups"][0]["lr"] == expected


def test_a_sweep_suspends_every_handler() -> None:
    training = Training()
    training.attach()
    training.trainer.run(DATA)
    before = (training.clipper.report(), training.scheduler.state_dict(), len(training.logger.history()["step"]))
    to_save = {"model": training.model, "optimizer": training.optimizer}
    with LRFinder().attach(training.trainer, to_save=to_save, num_iter=60, end_lr=1e4) as sweep:
        sweep.run(DATA)
    after = (training.clipper.report(), training.scheduler.state_dict(), len(training.logger.history()["step"]))
    assert after == before


def test_steps_outside_the_trainer_are_nobodys_business() -> None:
    training = Training()
    training.attach()
    training.trainer.run(DATA)
    before = (training.clipper.report(), training.scheduler.state_dict())
    for _ in range(3):
        training.optimizer.step()
    assert (training.clipper.report(), training.scheduler.state_dict()) == before


def test_reprs_say_what_they_are_about() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, weight_decay=0.1)
    scheduler = ScheduleLR(optimizer, schedules.Linear(10))
    decay = ScheduleParam(optimizer, "weight_decay", schedules.Linear(10))
    said = {
        "LRFinder(not run yet)": LRFinder(),
        "LRStudy(not run yet)": LRStudy(),
        "ScheduleLR(SGD, Linear(total_steps=10), last_epoch=0)": scheduler,
        "ScheduleParam(SGD, 'weight_decay', Linear(total_steps=10), last_epoch=0)": decay,
        "LRSchedulerHandler(ScheduleLR(SGD, Linear(total_steps=10), last_epoch=0), interval='step', every=1)": (
            LRSchedulerHandler(scheduler)
        ),
        "GradNormClipper(SGD, percentile=90, window=1000, name='g')": GradNormClipper(optimizer, name="g"),
        "LRLogger(SGD, history=5)": LRLogger(optimizer, history=5),
    }
    assert [repr(one) for one in said.values()] == list(said)
    handle = GradNormClipper(optimizer).attach(Engine(lambda engine, batch: None))
    assert repr(handle) == "<Attachment: GradNormClipper on SGD, attached>"
    handle.remove()
    assert repr(handle) == "<Attachment: GradNormClipper on SGD, removed>"
