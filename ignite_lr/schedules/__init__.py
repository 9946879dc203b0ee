"""Learning-rate schedules: pure functions from the update index to a factor of the base rate.

Every schedule is a frozen dataclass that is called with the index of an update, counted from 0, and returns the factor
which multiplies the base rate for that update; called with an array of indices, it returns an array. It holds no state,
so that a resumed training needs the index only. Only the first argument may be positional, so that no length is taken
for a factor. What flows in are indices, what flows out are factors; no optimizer is ever touched here, but by
``with_warmup`` of a PyTorch scheduler.

* Where there is a ``warmup_steps``, the factor first rises linearly from ``warmup_start`` at update 0 to the peak at
  update ``warmup_steps``, where the rest begins. ``total_steps`` includes the warmup; ``step_size`` and ``milestones``
  count from its end. A phase of length zero is skipped.
* A ``warmup_start`` of 0 makes the first update of the training one that changes nothing; 1e-3, say, does not.
* From its end on, a schedule holds its final value.
* Factors are finite and never negative. Arguments are checked when the schedule is made.

Example:
    >>> schedule = Cosine(total_steps=100, final_factor=0.1, warmup_steps=10)
    >>> [round(factor, 3) for factor in (schedule(0), schedule(10), schedule(55), schedule(100), schedule(1000))]
    [0.0, 1.0, 0.55, 0.1, 0.1]
    >>> from_dict(schedule.to_dict()) == schedule
    True
"""

from ignite_lr.schedules._compose import Clamp, Join, PiecewiseLinear, Scale, Shift
from ignite_lr.schedules._compose import Function as Function
from ignite_lr.schedules._curves import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    Noam,
    Polynomial,
    Step,
    Tanh,
)
from ignite_lr.schedules._phases import OneCycle, OneCycleMomentum, TriStage, WarmupStableDecay
from ignite_lr.schedules._schedule import Schedule, ScheduleFunction, from_dict, get
from ignite_lr.schedules._simulate import simulate
from ignite_lr.schedules._warmup import with_warmup

__all__ = [
    "Clamp",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Exponential",
    "InverseSqrt",
    "Join",
    "Linear",
    "MultiStep",
    "Noam",
    "OneCycle",
    "OneCycleMomentum",
    "PiecewiseLinear",
    "Polynomial",
    "Scale",
    "Schedule",
    "ScheduleFunction",
    "Shift",
    "Step",
    "Tanh",
    "TriStage",
    "WarmupStableDecay",
    "from_dict",
    "get",
    "simulate",
    "with_warmup",
]
