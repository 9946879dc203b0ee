"""A user's program, as `mypy --strict` sees it. Not run: tests/house/test_typing.py checks its types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import TensorboardLogger
from matplotlib.axes import Axes
from torch import nn
from typing_extensions import assert_type

from ignite_lr import (
    ClipReport,
    GradNormClipper,
    LRFinder,
    LRLogger,
    LRSchedulerHandler,
    NoSuggestionError,
    RangeTestResult,
    ScheduleLR,
    schedules,
    suggestion,
)


def step(engine: Engine, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
    return 0.0


model = nn.Linear(2, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
trainer: Engine = create_supervised_trainer(model, optimizer, nn.functional.mse_loss)
custom = Engine(step)
data: list[tuple[torch.Tensor, torch.Tensor]] = []

finder = LRFinder()
with finder.attach(trainer, {"model": model, "optimizer": optimizer}, num_iter=300, start_lr=1e-7) as sweep:
    assert_type(sweep, Engine)
    sweep.run(data)
with finder.attach(custom, {"optimizer": optimizer}, start_lr=[1e-7, 1e-6], end_lr=[1, 10], ratios=None):
    pass

result = finder.result
assert_type(result, RangeTestResult)
assert_type(result.suggestion("valley"), float | list[float])
assert_type(result.confidence, float)
assert_type(result.unstable_lr, float | None)
assert_type(result.plot(title="A range test"), Axes)
assert_type(result.to_html("range_test.html"), Path)
assert_type(RangeTestResult.load("range_test.json"), RangeTestResult)
assert_type(suggestion.valley([0.1, 0.2], [2.0, 1.0]), float)
try:
    result.apply(optimizer)
except NoSuggestionError as reason:
    print(reason)

schedule = schedules.Cosine(total_steps=1000, final_factor=0.1, warmup_steps=100)
assert_type(schedule(5), float)
assert_type(schedule.values(10), list[float])
assert_type(schedules.from_dict(schedule.to_dict()), schedules.Schedule)
assert_type(schedules.Cosine.from_dict(schedule.to_dict()), schedules.Cosine)
assert_type(schedules.with_warmup(schedule, 10), schedules.Schedule)
joined = schedules.Join([schedule, lambda update: 0.1], boundaries=[1000])

scheduler = ScheduleLR(optimizer, schedule)
as_in_keras = ScheduleLR(optimizer, lambda update: 0.001 / (1 + update), absolute=True)
by_group = ScheduleLR(optimizer, [schedule, joined])
parent: torch.optim.lr_scheduler.LambdaLR = scheduler
handler = LRSchedulerHandler(scheduler, interval="step", every=1)
with handler.attach(trainer):
    pass
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
LRSchedulerHandler(plateau, interval="epoch", metric=lambda engine: float(engine.state.metrics["loss"])).attach(trainer)

clipper = GradNormClipper(optimizer, percentile=90.0, window=None, on_nonfinite="skip")
attachment = clipper.attach(trainer)
attachment.remove()
assert_type(clipper.report(), ClipReport)
assert_type(clipper.report().frequency, float)
assert_type(clipper.metrics, dict[str, torch.Tensor])

logger = LRLogger({"main": optimizer}, clipper=clipper, history=100)
tb_logger = TensorboardLogger("runs")
tb_logger.attach(trainer, log_handler=logger, event_name=Events.ITERATION_COMPLETED(every=10))
logger.attach(trainer, every=5).remove()
state: dict[str, Any] = clipper.state_dict()
clipper.load_state_dict(state)

# these are mistakes, and a type checker says so: an unused ignore is an error
LRFinder().attach(model, {"optimizer": optimizer})  # type: ignore[arg-type]
schedules.Cosine(total_steps="many")  # type: ignore[arg-type]
GradNormClipper(optimizer, on_nonfinite="ignore")  # type: ignore[arg-type]
