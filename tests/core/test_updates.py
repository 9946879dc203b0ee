from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Engine, EventEnum, Events, create_supervised_trainer
from torch import nn

from ignite_lr.core.engine import running_trainers
from ignite_lr.core.subscription import Phase
from ignite_lr.core.updates import Updates, suspended

Batch = tuple[torch.Tensor, torch.Tensor]
DATA: list[Batch] = [(torch.ones(2, 3), torch.ones(2, 1)) for _ in range(6)]


class Owner:
    """Whatever subscribes."""


class Probe:
    """Counts what a subscriber is told."""

    def __init__(self, trainer: Engine, optimizer: torch.optim.Optimizer) -> None:
        self.updates = Updates.of(trainer, optimizer)
        self.calls: list[str] = []
        self.subscription = self.updates.subscribe(
            self,
            Phase.RECORD,
            before=lambda: self.calls.append("before"),
            launched=lambda: self.calls.append("launched"),
            counted=lambda: self.calls.append("counted"),
            completed=lambda: self.calls.append("completed"),
        )


def model_and_optimizer(fused: bool | None = None) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.01, fused=fused)


def supervised() -> tuple[Engine, torch.optim.Optimizer]:
    model, optimizer = model_and_optimizer()
    return create_supervised_trainer(model, optimizer, nn.MSELoss()), optimizer


def custom(step: Callable[[Engine, Batch, nn.Module, torch.optim.Optimizer], Any]) -> tuple[Engine, Any]:
    model, optimizer = model_and_optimizer()
    return Engine(lambda engine, batch: step(engine, batch, model, optimizer)), optimizer


def backward(model: nn.Module, batch: Batch) -> torch.Tensor:
    loss = nn.functional.mse_loss(model(batch[0]), batch[1])
    loss.backward()
    return loss


def test_an_update_is_told_in_order() -> None:
    trainer, optimizer = supervised()
    probe = Probe(trainer, optimizer)
    trainer.run(DATA[:2])
    assert probe.calls == ["before", "launched", "counted", "completed"] * 2
    assert probe.updates.count == 2


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_accumulation_counts_updates_not_iterations(accumulation: int) -> None:
    model, optimizer = model_and_optimizer()
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss(), gradient_accumulation_steps=accumulation)
    probe = Probe(trainer, optimizer)
    trainer.run(DATA)
    assert probe.updates.count == len(DATA) // accumulation


def test_several_updates_in_one_iteration_all_count() -> None:
    def step(_: Engine, batch: Batch, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _i in range(3):
            backward(model, batch)
            optimizer.step()

    trainer, optimizer = custom(step)
    probe = Probe(trainer, optimizer)
    trainer.run(DATA)
    assert probe.updates.count == 3 * len(DATA)


class Lookahead(torch.optim.SGD):
    """A subclass whose own step is hooked too, so that each update fires the hooks twice."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def test_a_nested_step_counts_once() -> None:
    model = nn.Linear(3, 1)
    optimizer = Lookahead(model.parameters(), lr=0.01)
    fired = []
    optimizer.register_step_post_hook(lambda *_: fired.append(1))
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    probe = Probe(trainer, optimizer)
    trainer.run(DATA)
    assert len(fired) == 2 * len(DATA), "the optimizer was meant to fire twice an update"
    assert probe.updates.count == len(DATA)
    assert probe.calls.count("before") == len(DATA)


def test_a_step_that_raised_and_was_tried_again_counts_once() -> None:
    failures = iter([True, False] * len(DATA))

    def flaky(*_: Any) -> None:
        if next(failures):
            raise MemoryError("no room")

    def step(_: Engine, batch: Batch, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        backward(model, batch)
        try:
            optimizer.step()
        except MemoryError:
            optimizer.step()

    trainer, optimizer = custom(step)
    probe = Probe(trainer, optimizer)
    optimizer.register_step_pre_hook(flaky)
    trainer.run(DATA)
    assert probe.updates.count == len(DATA)


@pytest.mark.parametrize(
    "event",
    [
        Events.STARTED,
        Events.EPOCH_STARTED,
        Events.GET_BATCH_STARTED,
        Events.GET_BATCH_COMPLETED,
        Events.ITERATION_COMPLETED,
        Events.EPOCH_COMPLETED,
        Events.COMPLETED,
    ],
)
def test_steps_outside_an_iteration_are_not_seen(event: Events) -> None:
    trainer, optimizer = supervised()
    probe = Probe(trainer, optimizer)
    trainer.add_event_handler(event, lambda: optimizer.step())
    optimizer.step()
    trainer.run(DATA, max_epochs=2)
    optimizer.step()
    assert probe.updates.count == 2 * len(DATA)


def test_steps_after_a_crash_are_not_seen_and_the_next_run_is() -> None:
    crash = True

    def step(_: Engine, batch: Batch, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        backward(model, batch)
        if crash:
            raise ValueError("the step broke")
        optimizer.step()

    trainer, optimizer = custom(step)
    probe = Probe(trainer, optimizer)
    with pytest.raises(ValueError, match="the step broke"):
        trainer.run(DATA)
    optimizer.step()
    assert probe.updates.count == 0
    crash = False
    trainer.run(DATA)  # Ignite only puts its dead generator away here
    trainer.run(DATA, max_epochs=2)
    assert probe.updates.count > 0


class Custom(EventEnum):
    STEPPED = "stepped"


def test_a_custom_event_fired_by_the_step_does_not_end_the_iteration() -> None:
    def step(engine: Engine, batch: Batch, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        engine.fire_event(Custom.STEPPED)
        backward(model, batch)
        optimizer.step()

    trainer, optimizer = custom(step)
    trainer.register_events(*Custom)
    probe = Probe(trainer, optimizer)
    trainer.run(DATA)
    assert probe.updates.count == len(DATA)


def test_another_trainer_on_the_same_optimizer_is_not_counted() -> None:
    model, optimizer = model_and_optimizer()
    mine = create_supervised_trainer(model, optimizer, nn.MSELoss())
    other = create_supervised_trainer(model, optimizer, nn.MSELoss())
    probe = Probe(mine, optimizer)
    other.run(DATA)
    assert probe.updates.count == 0
    mine.add_event_handler(Events.EPOCH_COMPLETED, lambda: other.run(DATA, max_epochs=1))
    mine.run(DATA)
    assert probe.updates.count == len(DATA)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_skipped_by_the_scaler_is_no_update(fused: bool) -> None:
    model, optimizer = model_and_optimizer(fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)

    def step(engine: Engine, batch: Batch) -> None:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        scaler.scale(loss).backward()
        if engine.state.iteration % 3 == 0:
            next(model.parameters()).grad.fill_(float("inf"))  # type: ignore[union-attr]  # backward() has just set it
        scaler.step(optimizer)
        scaler.update()

    trainer = Engine(step)
    probe = Probe(trainer, optimizer)
    trainer.run(DATA)
    assert probe.updates.count == len(DATA) - 2
    assert probe.calls.count("counted") == len(DATA) - 2


def test_a_declared_skip_is_no_update() -> None:
    trainer, optimizer = supervised()
    updates = Updates.of(trainer, optimizer)
    owner = Owner()
    updates.subscribe(owner, Phase.PROTECT, before=lambda: updates.skip() if trainer.state.iteration == 2 else None)
    trainer.run(DATA)
    assert updates.count == len(DATA) - 1


def test_phases_order_the_callbacks_whoever_came_first() -> None:
    trainer, optimizer = supervised()
    updates = Updates.of(trainer, optimizer)
    order: list[Phase] = []
    owners = [Owner() for _ in Phase]
    for owner, phase in zip(owners, reversed(Phase), strict=True):
        updates.subscribe(owner, phase, before=lambda phase=phase: order.append(phase))
    trainer.run(DATA[:1])
    assert order == list(Phase)


def test_completed_comes_before_handlers_attached_earlier() -> None:
    trainer, optimizer = supervised()
    order: list[str] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: order.append("user"))
    owner = Owner()
    Updates.of(trainer, optimizer).subscribe(owner, Phase.SCHEDULE, completed=lambda: order.append("ours"))
    trainer.run(DATA[:1])
    assert order == ["ours", "user"]


def test_attaching_from_a_handler_in_mid_run_does_not_disturb_the_others() -> None:
    trainer, optimizer = supervised()
    calls: list[str] = []
    probes: list[Probe] = []

    @trainer.on(Events.ITERATION_COMPLETED(once=2))
    def attach() -> None:
        probes.append(Probe(trainer, optimizer))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: calls.append("user"))
    trainer.run(DATA)
    assert len(calls) == len(DATA)
    assert probes[0].updates.count == len(DATA) - 2


def test_one_instance_for_a_pair() -> None:
    trainer, optimizer = supervised()
    first = Probe(trainer, optimizer)
    second = Probe(trainer, optimizer)
    assert first.updates is second.updates


def test_subscribing_twice_is_an_error() -> None:
    trainer, optimizer = supervised()
    owner = Owner()
    updates = Updates.of(trainer, optimizer)
    updates.subscribe(owner, Phase.RECORD)
    with pytest.raises(RuntimeError, match="already attached to this trainer"):
        updates.subscribe(owner, Phase.RECORD)


def test_remove_leaves_no_hook_and_no_handler() -> None:
    trainer, optimizer = supervised()
    first, second = Probe(trainer, optimizer), Probe(trainer, optimizer)
    first.subscription.remove()
    first.subscription.remove()
    trainer.run(DATA)
    assert second.updates.count == len(DATA)
    assert first.calls == []
    with second.subscription:
        pass
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not trainer._event_handlers[Events.ITERATION_COMPLETED]


def test_suspended_handlers_see_nothing_and_newcomers_do() -> None:
    trainer, optimizer = supervised()
    other = create_supervised_trainer(nn.Linear(3, 1), optimizer, nn.MSELoss())
    probe = Probe(trainer, optimizer)
    with suspended(optimizer):
        newcomer = Probe(other, optimizer)
        trainer.run(DATA)
        other.run(DATA)
    assert probe.updates.count == 0
    assert newcomer.updates.count == len(DATA)
    trainer.run(DATA, max_epochs=2)
    assert probe.updates.count == len(DATA)


def test_a_dropped_training_is_freed_and_the_optimizer_keeps_no_trainer_alive() -> None:
    trainer, optimizer = supervised()
    probe = Probe(trainer, optimizer)
    gone = weakref.ref(trainer)
    del trainer
    probe.subscription.remove()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copied_trainer_never_trains_past_its_handlers(copied: Callable[[Any], Any]) -> None:
    trainer, optimizer = supervised()
    probe = Probe(trainer, optimizer)
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copied(probe.updates)
    if copied is copy.deepcopy:
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            copied(trainer)
    probe.subscription.remove()
    if copied is copy.deepcopy:
        copied(trainer)


def test_running_trainers_names_the_engine_of_the_step() -> None:
    seen: list[list[Engine]] = []
    inner = Engine(lambda engine, batch: seen.append(list(running_trainers())))
    outer = Engine(lambda engine, batch: inner.run([0], max_epochs=1))
    outer.run([0])
    assert seen == [[inner, outer]]
    assert list(running_trainers()) == []


def test_a_compiled_step_counts_and_compiles_once() -> None:
    from torch._dynamo.testing import CompileCounter

    model, optimizer = model_and_optimizer()
    counter = CompileCounter()
    compiled = torch.compile(optimizer.step, backend=counter)

    def step(_: Engine, batch: Batch) -> None:
        optimizer.zero_grad()
        backward(model, batch)
        compiled()

    trainer = Engine(step)
    probe = Probe(trainer, optimizer)
    trainer.run(DATA)
    assert probe.updates.count == len(DATA)
    assert counter.frame_count == 1
