from __future__ import annotations

import copy
import gc
import itertools
import math
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import (
    TensorboardLogger,
    global_step_from_engine,
)
from ignite.handlers.base_logger import BaseLogger
from torch import nn

from ignite_lr.core.subscription import Phase
from ignite_lr.core.updates import Updates, suspended
from ignite_lr.logger import JSONLinesLogger, LRLogger

Batch = tuple[torch.Tensor, torch.Tensor]
DATA: list[Batch] = [(torch.ones(2, 3), torch.ones(2, 1)) for _ in range(6)]


class ListLogger(JSONLinesLogger):
    """An experiment logger that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("unused")
        self.records: list[tuple[int, dict[str, float]]] = []

    def write(self, values: Mapping[str, float], step: int) -> None:
        self.records.append((step, dict(values)))

    def curve(self, tag: str) -> list[tuple[int, float]]:
        return [(step, values[tag]) for step, values in self.records if tag in values]


class Decay:
    """The rate of the next update, set when the iteration is over, as Ignite's users do."""

    def __init__(self, optimizer: torch.optim.Optimizer, factor: float = 0.5) -> None:
        self.optimizer = optimizer
        self.factor = factor

    def __call__(self, engine: Engine) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].mul_(self.factor)
            else:
                group["lr"] *= self.factor


class Clipper:
    """What a logger sees of a gradient clipper."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.name = ""
        self.metrics: dict[str, torch.Tensor] = {}
        self.updates = 0

    def attach(self, trainer: Engine) -> Any:
        return Updates.of(trainer, self.optimizer).subscribe(self, Phase.PROTECT, counted=self.count)

    def count(self) -> None:
        self.updates += 1
        self.metrics = {"grad_norm": torch.tensor(float(self.updates)), "clip_threshold": torch.tensor(0.5)}

    def histogram(self) -> tuple[list[float], list[int]]:
        return [0.0, 0.5, 1.0, math.inf], [0, self.updates, 1]


def supervised(
    accumulation: int = 1, lr: Any = 0.1, kind: Any = torch.optim.SGD, **options: Any
) -> tuple[Engine, torch.optim.Optimizer]:
    model = nn.Linear(3, 1)
    optimizer = kind(model.parameters(), lr=lr, **options)
    return (
        create_supervised_trainer(model, optimizer, nn.MSELoss(), gradient_accumulation_steps=accumulation),
        optimizer,
    )


def spy(trainer: Engine, optimizer: torch.optim.Optimizer, group: int = 0) -> list[tuple[int, float]]:
    """What an independent hook sees each update use."""
    seen: list[tuple[int, float]] = []

    def look(*_: Any) -> None:
        if len(optimizer.param_groups) > group:
            seen.append((trainer.state.iteration, float(optimizer.param_groups[group]["lr"])))

    optimizer.register_step_pre_hook(look)
    return seen


# --- the rates are those that the updates used


@pytest.mark.parametrize("attach", ["ours", "ignite"])
@pytest.mark.parametrize("order", ["scheduler first", "logger first"])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("lr", [pytest.param(0.1, id="float"), pytest.param(torch.tensor(0.1), id="tensor")])
def test_the_rate_is_that_of_the_update(attach: str, order: str, accumulation: int, lr: Any) -> None:
    trainer, optimizer = supervised(accumulation, lr.clone() if isinstance(lr, torch.Tensor) else lr)
    seen = spy(trainer, optimizer)
    logger = ListLogger()

    def attach_logger() -> None:
        if attach == "ours":
            LRLogger(optimizer).attach(trainer, logger)
        else:
            logger.attach(trainer, log_handler=LRLogger(optimizer), event_name=Events.ITERATION_COMPLETED)

    steps: list[Callable[[], Any]] = [
        lambda: trainer.add_event_handler(Events.ITERATION_COMPLETED, Decay(optimizer)),
        attach_logger,
    ]
    for step in steps if order == "scheduler first" else reversed(steps):
        step()
    gc.collect()
    trainer.run(DATA, max_epochs=2)
    assert len(seen) == 12 // accumulation
    assert logger.curve("lr/SGD") == seen


class TwoOptimizers:
    """A training with all that may come between an iteration and an update."""

    def __init__(self, accumulation: int, amp: bool) -> None:
        self.nets = {"G": nn.Linear(3, 1), "D": nn.Linear(3, 1)}
        self.optimizers = {
            name: torch.optim.SGD(net.parameters(), lr=0.1 if name == "G" else 0.2) for name, net in self.nets.items()
        }
        self.scalers = {name: torch.amp.GradScaler("cpu", enabled=amp, init_scale=8.0) for name in self.nets}
        self.accumulation = accumulation
        self.amp = amp
        self.trainer = Engine(self.step)

    def step(self, engine: Engine, batch: Batch) -> None:
        for name, net in self.nets.items():
            loss = nn.functional.mse_loss(net(batch[0]), batch[1])
            if self.amp and engine.state.iteration % 7 == 3:
                loss = loss * math.inf  # the scaler skips this update
            self.scalers[name].scale(loss).backward()
            if engine.state.iteration % self.accumulation == 0:
                self.scalers[name].step(self.optimizers[name])
                self.scalers[name].update()
                self.optimizers[name].zero_grad()


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("amp", [False, True], ids=["float", "amp"])
@pytest.mark.parametrize("order", ["scheduler first", "logger first"])
@pytest.mark.parametrize("grow", [False, True], ids=["same groups", "group added"])
@pytest.mark.parametrize("attach", ["ours", "ignite"])
def test_every_value_and_every_step_is_what_a_hook_saw(
    accumulation: int, amp: bool, order: str, grow: bool, attach: str
) -> None:
    training = TwoOptimizers(accumulation, amp)
    seen = {name: spy(training.trainer, optimizer) for name, optimizer in training.optimizers.items()}
    added = spy(training.trainer, training.optimizers["G"], group=1)
    logger = ListLogger()

    def attach_logger() -> None:
        lr_logger = LRLogger(training.optimizers)
        if attach == "ours":
            lr_logger.attach(training.trainer, logger)
        else:
            logger.attach(training.trainer, lr_logger, Events.ITERATION_COMPLETED)

    def attach_schedulers() -> None:
        for optimizer in training.optimizers.values():
            training.trainer.add_event_handler(Events.ITERATION_COMPLETED, Decay(optimizer, 0.9))

    for step in (
        (attach_schedulers, attach_logger) if order == "scheduler first" else (attach_logger, attach_schedulers)
    ):
        step()
    if grow:

        @training.trainer.on(Events.ITERATION_COMPLETED(once=20 * accumulation))
        def add_group() -> None:
            training.optimizers["G"].add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.01})

    training.trainer.run(DATA, max_epochs=30, epoch_length=2 * accumulation)
    assert logger.curve("lr/G") == seen["G"]
    assert logger.curve("lr/D") == seen["D"]
    assert logger.curve("lr/G/group_1") == added
    assert bool(added) == grow
    assert not amp or len(seen["G"]) < 60


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_that_the_scaler_skipped_is_none(fused: bool) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def step(engine: Engine, batch: Batch) -> None:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        scaler.scale(loss * math.inf if engine.state.iteration == 2 else loss).backward()
        scaler.step(optimizer)
        scaler.update()

    trainer = Engine(step)
    logger = ListLogger()
    logger.attach(trainer, LRLogger(optimizer), Events.ITERATION_COMPLETED)
    trainer.run(DATA[:4])
    assert [step for step, _ in logger.records] == [1, 3, 4]


@pytest.mark.parametrize("attach", ["ours", "ignite"])
def test_a_flag_that_lies_on_a_device_is_read_when_a_record_is_due(
    attach: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, where a fused optimizer's flag is otherwise read one update later."""
    from ignite_lr.core import host

    monkeypatch.setattr(host.Readback, "is_remote", property(lambda self: True))
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def step(engine: Engine, batch: Batch) -> None:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        scaler.scale(loss * math.inf if engine.state.iteration == 2 else loss).backward()
        scaler.step(optimizer)
        scaler.update()

    trainer = Engine(step)
    seen = spy(trainer, optimizer)
    logger = ListLogger()
    lr_logger = LRLogger(optimizer)
    if attach == "ours":
        lr_logger.attach(trainer, logger, every=2)
    else:
        logger.attach(trainer, lr_logger, Events.ITERATION_COMPLETED)
    known: list[int] = []  # updates that are settled when the user's handlers run
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: known.append(lr_logger._sources[0].updates))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, Decay(optimizer))
    trainer.run(DATA[:4])
    assert logger.curve("lr/SGD") == [seen[index] for index in ([2] if attach == "ours" else [0, 2, 3])]
    # update 3 is not due: its flag waits for the next update
    assert known == ([0, 1, 2, 2] if attach == "ours" else [1, 1, 2, 3])


def test_a_scheduler_registered_after_the_logger_found_its_trainer_still_comes_first() -> None:
    trainer, optimizer = supervised()

    class Scheduler:
        def step(self) -> None:
            optimizer.param_groups[0]["lr"] *= 0.5

    scheduler = Scheduler()
    logger = ListLogger()
    logger.attach(trainer, LRLogger(optimizer), Events.ITERATION_COMPLETED)
    Updates.of(trainer, optimizer).subscribe(scheduler, Phase.SCHEDULE, before=scheduler.step)
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    trainer.run(DATA)
    assert [value for _, value in logger.curve("lr/SGD")] == seen


def test_a_tensor_rate_is_not_the_one_that_is_filled_later() -> None:
    trainer, optimizer = supervised(lr=torch.tensor(0.1))
    lr_logger = LRLogger(optimizer, history=10)
    lr_logger.attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, Decay(optimizer))
    trainer.run(DATA)
    np.testing.assert_allclose(lr_logger.history()["lr/SGD"], 0.1 * 0.5 ** np.arange(6), rtol=1e-6)


# --- one record per update


def test_an_event_writes_the_last_update_once() -> None:
    trainer, optimizer = supervised(accumulation=3)
    logger = ListLogger()
    logger.attach(
        trainer, LRLogger(optimizer), Events.ITERATION_STARTED | Events.ITERATION_COMPLETED | Events.COMPLETED
    )
    trainer.run(DATA)
    assert [step for step, _ in logger.records] == [3, 6]


def test_filters_and_lists_of_events() -> None:
    trainer, optimizer = supervised()
    logger = ListLogger()
    events = Events.ITERATION_COMPLETED(every=4) | Events.EPOCH_COMPLETED
    logger.attach(trainer, LRLogger(optimizer), events)
    trainer.run(DATA, max_epochs=2)
    assert [step for step, _ in logger.records] == [4, 6, 8, 12]


def test_each_logger_has_a_memory_of_its_own() -> None:
    trainer, optimizer = supervised()
    lr_logger = LRLogger(optimizer)
    first, second = ListLogger(), ListLogger()
    first.attach(trainer, lr_logger, Events.ITERATION_COMPLETED)
    second.attach(trainer, lr_logger, Events.ITERATION_COMPLETED(every=2))
    trainer.run(DATA)
    assert [step for step, _ in first.records] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in second.records] == [2, 4, 6]


def test_two_trainers_share_a_logger() -> None:
    trainer, optimizer = supervised()
    other = create_supervised_trainer(nn.Linear(3, 1), optimizer, nn.MSELoss())
    logger = ListLogger()
    lr_logger = LRLogger(optimizer, step="update")
    for one in (trainer, other):
        logger.attach(one, lr_logger, Events.ITERATION_COMPLETED)
        one.add_event_handler(Events.ITERATION_COMPLETED, Decay(optimizer))
    seen = spy(trainer, optimizer)
    trainer.run(DATA[:2])
    other.run(DATA[:2])
    trainer.run(DATA[:2], max_epochs=2)
    assert logger.curve("lr/SGD") == [(i + 1, value) for i, (_, value) in enumerate(seen)]


def test_attach_counts_updates() -> None:
    trainer, optimizer = supervised(accumulation=2)
    logger = ListLogger()
    with LRLogger(optimizer).attach(trainer, logger, every=3):
        trainer.run(DATA, max_epochs=2)
    assert [step for step, _ in logger.records] == [6, 12]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, [3, 6], id="iteration"),
        pytest.param({"step": "update"}, [1, 2], id="update"),
        pytest.param({"global_step_transform": lambda engine, event: engine.state.iteration * 10}, [30, 60], id="own"),
    ],
)
@pytest.mark.parametrize("attach", ["ours", "ignite"])
def test_the_x_axis(options: dict[str, Any], expected: list[int], attach: str) -> None:
    trainer, optimizer = supervised(accumulation=3)
    logger = ListLogger()
    lr_logger = LRLogger(optimizer, **options)
    if attach == "ours":
        lr_logger.attach(trainer, logger)
    else:
        logger.attach(trainer, lr_logger, Events.ITERATION_COMPLETED)
    trainer.run(DATA)
    assert [step for step, _ in logger.records] == expected


def test_ignites_own_step_transform() -> None:
    trainer, optimizer = supervised()
    logger = ListLogger()
    lr_logger = LRLogger(optimizer, global_step_transform=global_step_from_engine(trainer, Events.EPOCH_COMPLETED))
    logger.attach(trainer, lr_logger, Events.EPOCH_COMPLETED)
    trainer.run(DATA, max_epochs=3)
    assert [step for step, _ in logger.records] == [1, 2, 3]


def test_a_step_transform_must_give_an_int() -> None:
    trainer, optimizer = supervised()
    LRLogger(optimizer, global_step_transform=lambda *_: 0.5).attach(trainer, ListLogger())  # type: ignore[arg-type,return-value]  # the mistake
    with pytest.raises(TypeError, match="global_step_transform must return an int, got float"):
        trainer.run(DATA)


# --- names


def tags_of(*args: Any, **options: Any) -> set[str]:
    """The tags of one update of these optimizers."""
    lr_logger = LRLogger(*args, **options)
    optimizers = [source.optimizer for source in lr_logger._sources]

    def step(engine: Engine, batch: Any) -> None:
        for optimizer in optimizers:
            optimizer.step()

    logger = ListLogger()
    trainer = Engine(step)
    lr_logger.attach(trainer, logger)
    trainer.run([0])
    return set(logger.records[0][1])


def sgd(*names: str | None, **options: Any) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.ones(1))], **({"name": name} if name else {})} for name in names]
    return torch.optim.SGD(groups, lr=0.1, **options)


@pytest.mark.parametrize(
    ("optimizer", "options", "expected"),
    [
        pytest.param(lambda: sgd(None), {}, {"lr/SGD"}, id="class"),
        pytest.param(lambda: sgd("head"), {}, {"lr/SGD"}, id="one group"),
        pytest.param(lambda: sgd(None, None), {}, {"lr/SGD/group_0", "lr/SGD/group_1"}, id="groups"),
        pytest.param(lambda: sgd("body", None), {}, {"lr/SGD/body", "lr/SGD/group_1"}, id="named group"),
        pytest.param(lambda: {"G": sgd(None), "D": sgd(None)}, {}, {"lr/G", "lr/D"}, id="named"),
        pytest.param(lambda: sgd(None), {"tag": "run"}, {"run/lr/SGD"}, id="tag"),
        pytest.param(
            lambda: sgd(None, momentum=0.9),
            {"momentum": True, "weight_decay": True},
            {"lr/SGD", "momentum/SGD", "weight_decay/SGD"},
            id="all",
        ),
        pytest.param(
            lambda: {"A": sgd(None), "B": torch.optim.Adagrad([nn.Parameter(torch.ones(1))])},
            {"momentum": True},
            {"lr/A", "lr/B", "momentum/A"},
            id="some without momentum",
        ),
    ],
)
def test_tags(optimizer: Callable[[], Any], options: dict[str, Any], expected: set[str]) -> None:
    assert tags_of(optimizer(), **options) == expected


def test_momentum_of_adam_is_its_first_beta() -> None:
    trainer, optimizer = supervised(kind=torch.optim.AdamW, betas=(0.8, 0.99), weight_decay=0.3)
    logger = ListLogger()
    LRLogger(optimizer, momentum=True, weight_decay=True).attach(trainer, logger)
    trainer.run(DATA[:1])
    assert logger.records == [(1, {"lr/AdamW": 0.1, "momentum/AdamW": 0.8, "weight_decay/AdamW": 0.3})]


@pytest.mark.parametrize("attach", ["ours", "ignite"])
def test_a_group_added_in_mid_run_appears_beside_the_tag_in_use(attach: str) -> None:
    trainer, optimizer = supervised()
    logger = ListLogger()
    lr_logger = LRLogger(optimizer, history=10)
    if attach == "ours":
        lr_logger.attach(trainer, logger)
    else:
        logger.attach(trainer, lr_logger, Events.ITERATION_COMPLETED)

    @trainer.on(Events.ITERATION_COMPLETED(once=3))
    def grow() -> None:
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.01})

    trainer.run(DATA)
    assert logger.curve("lr/SGD") == [(i, 0.1) for i in range(1, 7)]
    assert logger.curve("lr/SGD/group_1") == [(i, 0.01) for i in range(4, 7)]
    assert np.isnan(lr_logger.history()["lr/SGD/group_1"]).tolist() == [True] * 3 + [False] * 3


def test_a_name_that_appears_twice_in_mid_run_gets_its_index_with_one_warning() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(
        [{"params": [model.weight], "name": "w"}, {"params": [model.bias], "name": "b"}], lr=0.1
    )
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    logger = ListLogger()
    LRLogger(optimizer, momentum=True).attach(trainer, logger)

    @trainer.on(Events.ITERATION_COMPLETED(once=3))
    def grow() -> None:
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.01, "name": "w"})

    with pytest.warns(RuntimeWarning, match="has the name 'SGD/w' already") as warned:
        trainer.run(DATA)
    assert len(warned) == 1
    assert logger.curve("lr/SGD/w_2") == [(i, 0.01) for i in range(4, 7)]


class Counter:
    """A clipper that is none."""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param(lambda: {"optimizer": 3}, TypeError, "optimizer must be a torch.optim.Optimizer", id="kind"),
        pytest.param(lambda: {"optimizer": {}}, TypeError, "non-empty dict", id="empty"),
        pytest.param(lambda: {"optimizer": {"": sgd(None)}}, TypeError, "non-empty str", id="name"),
        pytest.param(lambda: {"optimizer": {"a": 1}}, TypeError, r"optimizer\['a'\] must be", id="value"),
        pytest.param(lambda: {"optimizer": sgd("a", "a")}, ValueError, "got twice", id="duplicate groups"),
        pytest.param(lambda: {"optimizer": sgd("group_1", None)}, ValueError, "got twice", id="duplicate index"),
        pytest.param(
            lambda: {"optimizer": {"a": sgd("x", "y"), "a/x": sgd(None)}}, ValueError, "got twice", id="duplicate paths"
        ),
        pytest.param(
            lambda: {"optimizer": sgd(None), "momentum": 1}, TypeError, "momentum must be True or False", id="flag"
        ),
        pytest.param(
            lambda: {"optimizer": torch.optim.Adagrad([nn.Parameter(torch.ones(1))]), "momentum": True},
            ValueError,
            "momentum must be False",
            id="no momentum",
        ),
        pytest.param(lambda: {"optimizer": sgd(None), "tag": ""}, ValueError, "tag must be", id="tag"),
        pytest.param(lambda: {"optimizer": sgd(None), "history": -1}, ValueError, "history must be at", id="history"),
        pytest.param(lambda: {"optimizer": sgd(None), "history": 1.5}, TypeError, "history must be an", id="floats"),
        pytest.param(lambda: {"optimizer": sgd(None), "step": "epoch"}, ValueError, "step must be", id="step"),
        pytest.param(lambda: {"optimizer": sgd(None), "on_error": "skip"}, ValueError, "on_error must be", id="error"),
        pytest.param(lambda: {"optimizer": sgd(None), "clipper": Counter()}, TypeError, "clipper must be", id="clip"),
        pytest.param(
            lambda: {"optimizer": sgd(None), "global_step_transform": 3}, TypeError, "must be callable", id="transform"
        ),
    ],
)
def test_wrong_arguments_are_refused_where_they_are_given(
    arguments: Callable[[], dict[str, Any]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LRLogger(**arguments())


def test_one_optimizer_under_two_names_is_an_error() -> None:
    optimizer = sgd(None)
    with pytest.raises(ValueError, match="one of \\['a', 'b'\\] twice"):
        LRLogger({"a": optimizer, "b": optimizer})


def test_wrong_arguments_of_attach() -> None:
    trainer, optimizer = supervised()
    lr_logger = LRLogger(optimizer)
    with pytest.raises(TypeError, match=r"trainer must be an ignite\.engine\.Engine"):
        lr_logger.attach(optimizer)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        lr_logger.attach(trainer, ListLogger(), every=0)
    with pytest.raises(TypeError, match="every must be an integer"):
        lr_logger.attach(trainer, ListLogger(), every=1.5)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="cannot write to a logger of type dict"):
        lr_logger.attach(trainer, {})


# --- the life of hooks


def hooks(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def handlers(trainer: Engine) -> int:
    return sum(map(len, trainer._event_handlers.values()))


def test_an_unattached_logger_does_nothing_and_leaves_nothing() -> None:
    trainer, optimizer = supervised()
    lr_logger = LRLogger(optimizer, history=5)
    trainer.run(DATA)
    assert len(lr_logger.history()["step"]) == 0
    gc.disable()
    try:
        del lr_logger
        assert hooks(optimizer) == 0
        assert handlers(trainer) == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("event", [Events.ITERATION_COMPLETED, Events.ITERATION_COMPLETED(every=2)], ids=["all", "2nd"])
def test_a_loggers_hooks_die_with_it(ran: bool, event: Any) -> None:
    trainer, optimizer = supervised()
    clipper = Clipper(optimizer)
    gc.disable()
    try:
        handle = ListLogger().attach(trainer, LRLogger(optimizer, clipper=clipper), event)
        if ran:
            trainer.run(DATA)
        handle.remove()
        assert hooks(optimizer) == 0
        assert handlers(trainer) == 0
    finally:
        gc.enable()


def test_a_logger_taken_off_its_trainer_stops_watching_it() -> None:
    trainer, optimizer = supervised()
    lr_logger = LRLogger(optimizer, history=20)
    logger = ListLogger()
    handle = logger.attach(trainer, lr_logger, Events.ITERATION_COMPLETED)
    trainer.run(DATA)
    handle.remove()
    trainer.run(DATA, max_epochs=2)
    assert len(lr_logger.history()["step"]) <= 7
    assert handlers(trainer) == 0
    logger.attach(trainer, lr_logger, Events.ITERATION_COMPLETED)
    trainer.run(DATA, max_epochs=3)
    assert [step for step, _ in logger.records] == [*range(1, 7), *range(13, 19)]


def test_attached_without_a_variable_it_stays() -> None:
    trainer, optimizer = supervised()
    logger = ListLogger()
    LRLogger(optimizer).attach(trainer, logger)
    gc.collect()
    trainer.run(DATA)
    assert len(logger.records) == 6


def test_a_dropped_training_is_freed() -> None:
    trainer, optimizer = supervised()
    ListLogger().attach(trainer, LRLogger(optimizer), Events.ITERATION_COMPLETED)
    trainer.run(DATA)
    gone = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert gone() is None


def test_steps_outside_the_trainer_are_not_recorded() -> None:
    trainer, optimizer = supervised()
    lr_logger = LRLogger(optimizer, history=20)
    ListLogger().attach(trainer, lr_logger, Events.ITERATION_COMPLETED)
    optimizer.step()
    trainer.run(DATA)
    optimizer.step()
    other = create_supervised_trainer(nn.Linear(3, 1), optimizer, nn.MSELoss())
    other.run(DATA)
    assert lr_logger.history()["update"].tolist() == [1, 2, 3, 4, 5, 6]


def test_suspended_it_neither_records_nor_writes() -> None:
    trainer, optimizer = supervised()
    lr_logger = LRLogger(optimizer, history=20)
    logger = ListLogger()
    logger.attach(trainer, lr_logger, Events.ITERATION_COMPLETED)
    trainer.run(DATA)
    with suspended(optimizer):
        trainer.run(DATA, max_epochs=2)
    assert len(logger.records) == 6
    assert lr_logger.state_dict()["SGD"]["updates"] == 6


def test_a_nested_trainer_is_watched_where_it_steps() -> None:
    inner, optimizer = supervised()
    outer = Engine(lambda engine, batch: inner.run(DATA[:2], max_epochs=1) and None)
    logger = ListLogger()
    logger.attach(inner, LRLogger(optimizer), Events.ITERATION_COMPLETED)
    outer.run([0])
    assert [step for step, _ in logger.records] == [1, 2]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_attached_nowhere(copied: Callable[[LRLogger], LRLogger]) -> None:
    trainer, optimizer = supervised()
    lr_logger = LRLogger(optimizer, history=20)
    with lr_logger.attach(trainer):
        trainer.run(DATA)
        twin = copied(lr_logger)
        trainer.run(DATA, max_epochs=2)
    assert len(lr_logger.history()["step"]) == 12
    assert len(twin.history()["step"]) == 6
    own = twin._sources[0].optimizer
    assert (own is optimizer) == (copied is copy.copy)


# --- clipping


def test_the_metrics_of_the_clipper_go_with_its_update() -> None:
    trainer, optimizer = supervised()
    clipper = Clipper(optimizer)
    logger = ListLogger()
    logger.attach(trainer, LRLogger(optimizer, clipper=clipper, tag="a"), Events.ITERATION_COMPLETED(every=2))
    clipper.attach(trainer)
    trainer.run(DATA)
    assert logger.curve("a/clip/grad_norm") == [(2, 2.0), (4, 4.0), (6, 6.0)]
    assert logger.curve("a/clip/clip_threshold") == [(2, 0.5), (4, 0.5), (6, 0.5)]


def test_clippers_with_names_keep_their_metrics_apart() -> None:
    training = TwoOptimizers(accumulation=1, amp=False)
    clippers = [Clipper(optimizer) for optimizer in training.optimizers.values()]
    with pytest.raises(ValueError, match="clipper must have a name of its own where there are several"):
        LRLogger(training.optimizers, clipper=clippers)
    for clipper, name in zip(clippers, training.optimizers, strict=True):
        clipper.name = name
        clipper.attach(training.trainer)
    logger = ListLogger()
    LRLogger(training.optimizers, clipper=clippers).attach(training.trainer, logger)
    training.trainer.run(DATA[:2])
    assert logger.curve("clip/G_grad_norm") == logger.curve("clip/D_grad_norm") == [(1, 1.0), (2, 2.0)]


def test_the_histogram_of_norms_is_written_at_the_end_of_each_epoch(tmp_path: Path) -> None:
    trainer, optimizer = supervised()
    clipper = Clipper(optimizer)
    clipper.attach(trainer)
    with TensorboardLogger(tmp_path) as logger:
        logger.attach(trainer, LRLogger(optimizer, clipper=clipper), Events.ITERATION_COMPLETED)
        trainer.run(DATA, max_epochs=2)
    found = read_events(tmp_path).Histograms("clip/grad_norm_histogram")
    assert [(event.step, event.histogram_value.num) for event in found] == [(6, 7.0), (12, 13.0)]
    assert found[-1].histogram_value.bucket_limit == [1.0, 10.0]
    assert found[-1].histogram_value.bucket == [12.0, 1.0]


# --- history and state


def test_the_history_is_bounded_and_lies_in_arrays_of_one_length() -> None:
    trainer, optimizer = supervised()
    lr_logger = LRLogger(optimizer, history=4)
    lr_logger.attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, Decay(optimizer))
    trainer.run(DATA)
    history = lr_logger.history()
    assert list(history) == ["step", "update", "lr/SGD"]
    assert history["step"].tolist() == history["update"].tolist() == [3, 4, 5, 6]
    assert history["step"].dtype == np.int64
    np.testing.assert_array_equal(history["lr/SGD"], [0.1 * 0.5**i for i in range(2, 6)])


def test_optimizers_updated_in_one_iteration_share_a_row() -> None:
    training = TwoOptimizers(accumulation=2, amp=False)
    lr_logger = LRLogger(training.optimizers, history=10)
    lr_logger.attach(training.trainer)
    training.trainer.run(DATA)
    history = lr_logger.history()
    assert history["step"].tolist() == [2, 4, 6]
    assert history["update"].tolist() == [1, 2, 3]
    assert history["lr/G"].tolist() == [0.1] * 3
    assert history["lr/D"].tolist() == [0.2] * 3


def test_without_history_there_is_nothing_to_draw() -> None:
    trainer, optimizer = supervised()
    lr_logger = LRLogger(optimizer)
    lr_logger.attach(trainer, ListLogger())
    trainer.run(DATA)
    assert len(lr_logger.history()["step"]) == 0
    with pytest.raises(RuntimeError, match="history=0"):
        lr_logger.plot()


def test_curves_go_on_after_a_resume(tmp_path: Path) -> None:
    trainer, optimizer = supervised(lr=torch.tensor(0.1))
    lr_logger = LRLogger(optimizer, history=8, step="update")
    logger = ListLogger()
    lr_logger.attach(trainer, logger)
    trainer.run(DATA)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.01})
    torch.save({"logger": lr_logger.state_dict()}, tmp_path / "c.pt")

    resumed, later = supervised()
    later.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.01})
    second = LRLogger(later, history=8, step="update")
    second.attach(resumed, logger)
    second.load_state_dict(torch.load(tmp_path / "c.pt", weights_only=True)["logger"])
    resumed.run(DATA[:3])
    assert [step for step, _ in logger.records] == list(range(1, 10))
    assert set(logger.records[-1][1]) == {"lr/SGD", "lr/SGD/group_1"}
    assert second.history()["update"].tolist() == list(range(2, 10))
    assert second.history()["lr/SGD"][0] == pytest.approx(0.1)


def test_the_state_of_other_optimizers_is_refused() -> None:
    state = LRLogger({"G": sgd(None)}).state_dict()
    with pytest.raises(ValueError, match=r"optimizers \['SGD'\], got \['G'\]"):
        LRLogger(sgd(None)).load_state_dict(state)


# --- no host synchronisation


def test_nothing_reaches_the_host_between_events() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        weight = nn.Parameter(torch.empty(3, 1, device="cuda"))
        optimizer = torch.optim.Adam([weight], lr=0.1, capturable=True)
        optimizer.param_groups[0]["lr"] = torch.full((), 0.1, device="cuda")
        clipper = Clipper(optimizer)

        def step(engine: Engine, batch: Any) -> None:
            weight.grad = torch.ones_like(weight)  # autograd itself wants a real device
            optimizer.step()
            clipper.metrics = {"grad_norm": torch.ones((), device="cuda")}

        trainer = Engine(step)
        lr_logger = LRLogger(optimizer, clipper=clipper, history=4, momentum=True)
        logger = ListLogger()
        logger.attach(trainer, lr_logger, Events.ITERATION_COMPLETED(every=100))
        trainer.run(range(20))
        assert lr_logger._sources[0].updates == 20
        with pytest.raises(Exception, match="_local_scalar_dense"):
            lr_logger.history()


def test_all_values_of_an_event_come_over_in_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from ignite_lr.core import host

    reads: list[int] = []
    read = host.read
    monkeypatch.setattr(host, "read", lambda values: reads.append(len(values)) or read(values))  # type: ignore[func-returns-value]  # None is falsy
    training = TwoOptimizers(accumulation=1, amp=False)
    clipper = Clipper(training.optimizers["D"])
    clipper.attach(training.trainer)
    for optimizer in training.optimizers.values():
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    logger = ListLogger()
    LRLogger(training.optimizers, clipper=clipper).attach(training.trainer, logger)
    training.trainer.run(DATA)
    assert reads == [4] * 6


# --- errors and ranks


class Broken(ListLogger):
    """A logger whose server goes away."""

    def write(self, values: Mapping[str, float], step: int) -> None:
        if step > 2:
            raise OSError("no space left")
        super().write(values, step)


def test_a_logger_that_fails_is_warned_about_once_and_the_others_go_on() -> None:
    trainer, optimizer = supervised()
    lr_logger = LRLogger(optimizer)
    broken, sound = Broken(), ListLogger()
    for logger in (broken, sound):
        logger.attach(trainer, lr_logger, Events.ITERATION_COMPLETED)
    with pytest.warns(RuntimeWarning, match="Broken failed, and LRLogger writes no more to it: OSError: no space") as w:
        trainer.run(DATA)
    assert len(w) == 1
    assert len(broken.records) == 2
    assert len(sound.records) == 6


def test_on_error_raise() -> None:
    trainer, optimizer = supervised()
    LRLogger(optimizer, on_error="raise").attach(trainer, Broken())
    with pytest.raises(OSError, match="no space left"):
        trainer.run(DATA)


def test_an_unknown_logger_is_refused_at_the_first_event() -> None:
    class Other(BaseLogger):
        def _create_output_handler(self, *args: Any, **kwargs: Any) -> Any: ...

        def _create_opt_params_handler(self, *args: Any, **kwargs: Any) -> Any: ...

    trainer, optimizer = supervised()
    Other().attach(trainer, LRLogger(optimizer), Events.STARTED)
    with pytest.raises(TypeError, match="cannot write to a logger of type Other: it knows TensorboardLogger, MLflow"):
        trainer.run(DATA)


def test_without_a_logger_the_call_says_how_to_attach() -> None:
    trainer, optimizer = supervised()
    trainer.add_event_handler(Events.ITERATION_COMPLETED, LRLogger(optimizer))
    with pytest.raises(RuntimeError, match=r"without a logger: use logger\.attach"):
        trainer.run(DATA)


@pytest.mark.parametrize("rank", [0, 1])
def test_only_rank_0_writes(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: rank)
    trainer, optimizer = supervised()
    logger = ListLogger()
    lr_logger = LRLogger(optimizer, history=10)
    logger.attach(trainer, lr_logger, Events.ITERATION_COMPLETED)
    trainer.run(DATA)
    assert len(logger.records) == (6 if rank == 0 else 0)
    assert len(lr_logger.history()["step"]) == 6


def read_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"histograms": 0})
    events.Reload()
    return events


def test_orders_are_all_the_same() -> None:
    """Scheduler, clipper and logger, attached in every order."""
    curves = []
    for order in itertools.permutations(range(3)):
        torch.manual_seed(0)
        trainer, optimizer = supervised()
        clipper = Clipper(optimizer)
        logger = ListLogger()
        lr_logger = LRLogger(optimizer, clipper=clipper)
        steps: list[Callable[[], Any]] = [
            lambda trainer=trainer, optimizer=optimizer: trainer.add_event_handler(
                Events.ITERATION_COMPLETED, Decay(optimizer)
            ),
            lambda trainer=trainer, clipper=clipper: clipper.attach(trainer),
            lambda trainer=trainer, logger=logger, lr_logger=lr_logger: logger.attach(
                trainer, lr_logger, Events.ITERATION_COMPLETED
            ),
        ]
        held = [steps[index]() for index in order]
        trainer.run(DATA)
        curves.append(logger.records)
        del held
    assert all(records == curves[0] for records in curves)
    assert curves[0][1] == (2, {"lr/SGD": 0.05, "clip/grad_norm": 2.0, "clip/clip_threshold": 0.5})
