"""The engine of passes, for itself: what a plan may ask, and what it is told."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr.dry_run import Block, DryRun, Pass, Passes, Record, Setting


class Trained:
    """Least squares with dropout over a shuffled loader; remembers what its steps saw."""

    def __init__(self, every: int = 1) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5, momentum=0.9)
        x = torch.randn(40, 4)
        self.data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 8, shuffle=True)
        self.seen: list[tuple[int, int, int]] = []
        self.trainer = Engine(lambda engine, batch: self.step(engine, batch))  # what a closure holds stays as it is
        self.every = every

    def step(self, engine: Engine, batch: Any) -> float:
        self.seen.append((engine.state.iteration, engine.state.epoch, engine.state.max_epochs))
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        loss.backward()
        if engine.state.iteration % self.every == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.item()

    def block(self, plan: Callable[[DryRun], Passes], **options: Any) -> Block:
        given = {
            "optimizer_key": "optimizer",
            "output_transform": lambda output: output,
            "validation": None,
            "snapshot_to": None,
            "progress_bar": None,
            **options,
        }
        setting = Setting.checked(self.trainer, {"model": self.model, "optimizer": self.optimizer}, **given)
        return Block("trial", setting, plan)

    def records(self, *passes: Pass, **options: Any) -> list[Record]:
        records: list[Record] = []

        def plan(engine: DryRun) -> Passes:
            for one in passes:
                records[len(records) :] = [(yield one)]

        with self.block(plan, **options) as engine:
            engine.run(self.data)
        return records


def in_a_plain_loop(rates: list[float]) -> list[float]:
    training = Trained()
    losses: list[float] = []
    batches = itertools.chain.from_iterable(iter(training.data) for _ in itertools.count())
    for rate in rates:
        training.optimizer.param_groups[0]["lr"] = rate
        losses += [training.step(Engine(lambda *_: None), next(batches))]
    return losses


RATES = [0.01 * (i + 1) for i in range(12)]
ROWS = [(rate,) for rate in RATES]


def test_each_pass_is_a_plain_training_at_its_rates() -> None:
    training = Trained()
    slow = [(0.001,)] * 7
    first, second, third = training.records(Pass(ROWS), Pass(slow), Pass(ROWS))
    assert first.losses == third.losses == in_a_plain_loop(RATES)
    assert second.losses == in_a_plain_loop([0.001] * 7)
    assert [record.reason for record in (first, second, third)] == ["completed"] * 3
    assert list(first.rates) == ROWS
    assert training.optimizer.param_groups[0]["lr"] == 0.5


def test_each_pass_sees_the_same_iterations_and_epochs() -> None:
    training = Trained()
    training.records(Pass(ROWS), Pass(ROWS[:3]), Pass(ROWS))
    one = [(i, 1 + (i - 1) // 5, 3) for i in range(1, 13)]
    assert training.seen == one + [(i, 1, 1) for i in (1, 2, 3)] + one


def test_a_pass_that_reads_on_begins_with_the_same_weights_and_other_batches() -> None:
    training = Trained()
    first, second = training.records(Pass(ROWS[:5]), Pass(ROWS[:5], rewind=False))
    assert first.losses != second.losses
    assert [iteration for iteration, _, _ in training.seen] == list(range(1, 11))


def test_batches_can_be_skipped() -> None:
    training = Trained()
    taken: list[Any] = []
    training.trainer._process_function = lambda engine, batch: taken.append(batch) or training.optimizer.step() or 0.0
    training.data = list(range(5))
    training.records(Pass(ROWS[:3]), Pass(ROWS[:4], skip=2))
    assert taken == [0, 1, 2, 2, 3, 4, 0]


def test_a_plan_decides_by_what_came_before() -> None:
    training = Trained()
    tried: list[float] = []

    def halving(engine: DryRun) -> Passes:
        rate = 0.4
        while True:
            record = yield Pass([(rate,)] * 4, stop=lambda loss, rate=rate: "high" if rate > 0.1 else None)
            tried.append(rate)
            if record.reason == "completed":
                return
            assert len(record.losses) == 1
            rate /= 2

    with training.block(halving) as engine:
        engine.run(training.data)
    assert tried == [0.4, 0.2, 0.1]
    assert engine.iterations == 6


def test_a_plan_finds_the_training_as_the_pass_left_it() -> None:
    training = Trained()
    before = training.model[0].weight.detach().clone()

    def plan(engine: DryRun) -> Passes:
        yield Pass(ROWS)
        assert not torch.equal(training.model[0].weight, before)
        yield Pass(ROWS, prepare=lambda: torch.testing.assert_close(training.model[0].weight.detach(), before))

    with training.block(plan) as engine:
        engine.run(training.data)
    assert torch.equal(training.model[0].weight, before)


def test_what_else_a_pass_calls() -> None:
    training = Trained(every=2)
    counts: list[int] = []
    (record,) = training.records(Pass(ROWS[:3], measure=lambda: 7.0, updated=counts.append))
    assert record.losses == [7.0] * 3
    assert counts == [1, 2, 3]
    assert len(training.seen) == 6


def test_what_the_step_leaves_in_the_state_is_gone_for_the_next_pass() -> None:
    training = Trained()
    training.trainer.state.count = 3
    seen: list[Any] = []
    step = training.trainer._process_function

    def counting(engine: Engine, batch: Any) -> Any:
        seen.append((engine.state.count, hasattr(engine.state, "more")))
        engine.state.count += 1
        engine.state.more = True
        return step(engine, batch)

    training.trainer._process_function = counting
    training.records(Pass(ROWS[:2]), Pass(ROWS[:2]), Pass(ROWS[:2], rewind=False))
    assert seen == [(3, False), (4, True)] * 3
    assert training.trainer.state.count == 3


@pytest.mark.parametrize("end", ["terminated", "exception:ValueError", "exception:KeyboardInterrupt"])
def test_the_pass_under_way_is_the_last(end: str) -> None:
    training = Trained()
    records: list[Record] = []
    step = training.trainer._process_function

    def ending(engine: Engine, batch: Any) -> Any:
        if len(training.seen) == 15:
            if end == "terminated":
                engine.terminate()
            else:
                raise {"ValueError": ValueError, "KeyboardInterrupt": KeyboardInterrupt}[end.split(":")[1]]("enough")
        return step(engine, batch)

    def plan(engine: DryRun) -> Passes:
        for _ in range(3):
            records[len(records) :] = [(yield Pass(ROWS))]

    training.trainer._process_function = ending
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    block = training.block(plan)
    if end == "terminated":
        with block as engine:
            engine.run(training.data)
    else:
        with pytest.raises((ValueError, KeyboardInterrupt), match="enough"), block as engine:
            engine.run(training.data)
    assert [record.reason for record in records] == ["completed", end]
    assert len(records[1].losses) == 4 if end == "terminated" else 3
    assert all(torch.equal(a, b) for a, b in zip(before, training.model.parameters(), strict=True))


def test_a_plan_without_passes_runs_nothing() -> None:
    training = Trained()
    assert training.records() == []
    assert training.seen == []


def test_a_second_run_begins_where_the_first_did() -> None:
    training = Trained()
    losses: list[list[float]] = []

    def plan(engine: DryRun) -> Passes:
        for _ in range(2):
            losses[len(losses) :] = [(yield Pass(ROWS)).losses]

    with training.block(plan) as engine:
        engine.run(training.data)
        engine.run(training.data)
        assert engine.iterations == 24
    assert losses == [in_a_plain_loop(RATES)] * 4


def test_events_of_the_engine_fire_once_a_run() -> None:
    training = Trained()
    events: list[Any] = []

    def plan(engine: DryRun) -> Passes:
        yield Pass(ROWS)
        yield Pass(ROWS)

    with training.block(plan) as engine:
        for event in (Events.STARTED, Events.COMPLETED):
            engine.add_event_handler(event, lambda _, event=event: events.append(event))
        engine.run(training.data)
    assert events == [Events.STARTED, Events.COMPLETED]


def test_losses_whose_sum_is_beyond_all_floats() -> None:
    training = Trained(every=2)
    step = training.trainer._process_function
    training.trainer._process_function = lambda engine, batch: (step(engine, batch), 1.5e308)[1]
    (record,) = training.records(Pass(ROWS[:2]))
    assert record.losses == [1.5e308] * 2


def test_a_block_that_was_not_entered_says_with() -> None:
    block = Trained().block(lambda engine: iter(()))
    for name in ("run", "state", "terminate", "add_event_handler"):
        with pytest.raises(AttributeError, match=f"'{name}' belongs to the engine of the trial.*in a with block"):
            getattr(block, name)


def test_one_block_at_a_time() -> None:
    training, other = Trained(), Trained()
    said: list[str] = []

    def attempt() -> None:
        with pytest.raises(RuntimeError, match="a trial is running already") as caught, other.block(iter):
            pass
        said.append(str(caught.value))

    with training.block(lambda engine: iter(())):
        attempt()
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert "one block inside another" in said[0]
    assert "another thread" in said[1]
    with other.block(lambda engine: iter(())):
        pass


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [([], {}, "data has zero size"), ([1], {"epoch_length": 0}, "epoch_length must be at least 1, got 0")],
)
def test_no_batches_at_all(data: Any, options: Any, message: str) -> None:
    with Trained().block(lambda engine: iter(())) as engine, pytest.raises(ValueError, match=message):
        engine.run(data, **options)
