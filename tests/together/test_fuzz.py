"""All public arguments, with all that people and config files put there: it works, or the error names the argument.

500 cases in ``make test``, the same each time; 20,000 new ones in ``make test-long``.
"""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, get_origin

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from ignite.engine import Engine

from ignite_lr import schedules, suggestion
from ignite_lr.clipper import GradNormClipper
from ignite_lr.logger import JSONLinesLogger, LRLogger
from ignite_lr.lr_finder import LRFinder
from ignite_lr.range_test import RangeTestResult
from ignite_lr.scheduler import LRSchedulerHandler, ScheduleLR
from ignite_lr.schedules import Schedule

MODEL = torch.nn.Linear(2, 1)
FOLDER = Path(tempfile.mkdtemp(prefix="ignite_lr_fuzz_"))


def optimizer(groups: int = 1) -> torch.optim.SGD:
    return torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(groups)], lr=0.1, momentum=0.9
    )


def trainer() -> Engine:
    return Engine(lambda engine, batch: 0.0)


# What finds its way into arguments. Nothing here that an argument could really want is wrong for it.
numbers = st.one_of(
    st.integers(-3, 12),
    st.integers(),
    st.sampled_from([10**30, 10**400, -(10**400), 2**63]),
    st.floats(),
    st.floats(0, 1),
    st.floats(0, 100),
    st.sampled_from([math.nan, math.inf, -math.inf, 5e-324, 1.7e308, -0.0]),
)
strange = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.complex_numbers(max_magnitude=10),
    st.lists(numbers, max_size=3),
    st.tuples(numbers, numbers),
    st.dictionaries(st.text(max_size=3), numbers, max_size=2),
    st.lists(st.tuples(numbers, numbers), max_size=3),
    numbers.filter(lambda n: abs(n) < 2**60 if n == n else True).map(np.float64),
    st.integers(-5, 50).map(np.int64),
    st.booleans().map(np.bool_),
    st.floats(-2, 50).map(torch.tensor),
    st.just(torch.ones(2)),
    st.just(np.ones(2)),
    st.just(np.array(3.0)),
    st.just(Decimal("0.5")),
    st.just(Fraction(1, 2)),
    st.builds(object),
    st.just(int),
    st.just(lambda *args: 0.5),
)
anything = st.one_of(numbers, numbers, strange)

Target = tuple[Callable[..., Any], Callable[[], dict[str, Any]], dict[str, st.SearchStrategy[Any]]]


def use_schedule(**arguments: Any) -> None:
    kind = arguments.pop("kind")
    schedule = kind(**arguments)
    for step in (0, 1, 2, 7, 10, 1000, 10**9):
        factor = schedule(step)
        assert type(factor) is float, (schedule, step, factor)
        assert math.isfinite(factor), (schedule, step, factor)
        assert factor >= 0, (schedule, step, factor)
    assert kind(**arguments) == schedule
    text = repr(schedule)
    assert kind.__name__ in text
    if not any(callable(getattr(schedule, field.name)) for field in fields(schedule)):
        try:
            described = schedule.to_dict()
        except TypeError:  # a plain function somewhere in it
            return
        assert schedules.from_dict(json.loads(json.dumps(described))) == schedule


BASES: dict[str, dict[str, Any]] = {
    "Linear": {"total_steps": 10},
    "Cosine": {"total_steps": 10},
    "CosineRestarts": {"total_steps": 10},
    "Polynomial": {"total_steps": 10},
    "InverseSqrt": {"warmup_steps": 4},
    "Noam": {"warmup_steps": 4},
    "WarmupStableDecay": {"warmup_steps": 2, "stable_steps": 3, "decay_steps": 4},
    "TriStage": {"warmup_steps": 2, "hold_steps": 3, "decay_steps": 4},
    "OneCycle": {"total_steps": 10},
    "OneCycleMomentum": {"total_steps": 10},
    "Exponential": {"gamma": 0.9},
    "Step": {"step_size": 3},
    "MultiStep": {"milestones": [3, 6]},
    "Tanh": {"total_steps": 10},
    "PiecewiseLinear": {"points": [(0, 1.0), (10, 0.0)]},
    "Join": {"schedules": [schedules.Constant(), schedules.Linear(5)], "boundaries": [3]},
    "Scale": {"schedule": schedules.Constant(), "factor": 0.5},
    "Shift": {"schedule": schedules.Linear(5), "steps": 2},
    "Clamp": {"schedule": schedules.Linear(5)},
    "Constant": {},
}


def schedule_targets() -> dict[str, Target]:
    found: dict[str, Target] = {}
    for name in schedules.__all__:
        kind = getattr(schedules, name)
        if isinstance(kind, type) and not get_origin(kind) and issubclass(kind, Schedule) and kind is not Schedule:
            found[f"schedules.{name}"] = (
                use_schedule,
                lambda kind=kind, name=name: {"kind": kind, **BASES[name]},
                {field.name: anything for field in fields(kind)},
            )
    return found


def attach_finder(**arguments: Any) -> None:
    LRFinder().attach(**arguments)


def attach_logger(**arguments: Any) -> None:
    LRLogger(optimizer(), history=5).attach(**arguments).remove()


def attach_clipper(**arguments: Any) -> None:
    GradNormClipper(optimizer()).attach(**arguments).remove()


def attach_scheduler(**arguments: Any) -> None:
    LRSchedulerHandler(ScheduleLR(optimizer(), schedules.Constant())).attach(**arguments).remove()


def use_scheduler(**arguments: Any) -> None:
    scheduler = ScheduleLR(**arguments)
    for _ in range(3):
        scheduler.step()
    for rate in scheduler.get_last_lr():
        assert 0 <= float(rate) < math.inf


def make_finder_arguments() -> dict[str, Any]:
    one = optimizer()
    return {"trainer": trainer(), "to_save": {"model": MODEL, "optimizer": one}, "num_iter": 10, "start_lr": 1e-5}


def use_clipper(**arguments: Any) -> None:
    clipper = GradNormClipper(**arguments)
    one = arguments["optimizer"]

    def step(engine: Engine, batch: Any) -> None:
        for group in one.param_groups:
            group["params"][0].grad = torch.full((1,), 0.5)
        one.step()

    training = Engine(step)
    clipper.attach(training)
    training.run([0, 0])
    assert clipper.report().updates == 2
    clipper.load_state_dict(clipper.state_dict())


RESULT = RangeTestResult(
    tuple(10 ** (i / 10 - 5) for i in range(60)),
    tuple(3 - i / 30 for i in range(60)),
    tuple(range(60)),
    "num_iter",
    1.0,
)


def use_rule(**arguments: Any) -> None:
    rule = suggestion.RULES[arguments.pop("rule")]
    lrs, losses = arguments["lrs"], arguments["losses"]
    try:
        rate = rule(lrs, losses)
    except suggestion.NoSuggestionError:
        return
    assert min(lrs) / 100 <= rate <= max(lrs) * 100


def load_result(**arguments: Any) -> None:
    path = FOLDER / "result.json"
    path.write_text(arguments["path"], encoding="utf-8")
    repr(RangeTestResult.load(path))


def saved_result() -> str:
    return RESULT.save(FOLDER / "saved.json").read_text(encoding="utf-8")


@st.composite
def broken_json(draw: st.DrawFn) -> str:
    content = json.loads(saved_result())
    key = draw(st.sampled_from(sorted(content)))
    plain = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-9, 9), st.text(max_size=4))
    content[key] = draw(st.recursive(plain, lambda inner: st.lists(inner, max_size=4), max_leaves=6))
    text = json.dumps(content)
    return text[: draw(st.sampled_from([len(text), len(text) - 5, 0]))]


curves = st.lists(st.one_of(st.floats(), st.floats(1e-6, 10)), max_size=60)
rising = st.lists(st.floats(1e-8, 10), max_size=60, unique=True).map(sorted)


def state_target(make: Callable[[], Any]) -> Target:
    state = make().state_dict()

    def load(**arguments: Any) -> None:
        item = make()
        item.load_state_dict(arguments["state_dict"])
        # what it took in, it can give back
        item.state_dict()

    @st.composite
    def broken(draw: st.DrawFn) -> Any:
        if draw(st.booleans()):
            return draw(strange)
        broken = dict(state)
        key = draw(st.sampled_from(sorted(broken)))
        if draw(st.booleans()):
            del broken[key]
        else:
            broken[key] = draw(anything)
        return broken

    return load, lambda: {"state_dict": dict(state)}, {"state_dict": broken()}


TARGETS: dict[str, Target] = {
    **schedule_targets(),
    "schedules.with_warmup": (
        lambda **arguments: schedules.with_warmup(**arguments)(5),
        lambda: {"schedule": schedules.Linear(9), "warmup_steps": 3},
        dict.fromkeys(("schedule", "warmup_steps", "warmup_start"), anything),
    ),
    "schedules.from_dict": (
        schedules.from_dict,
        lambda: {"d": schedules.Linear(9).to_dict()},
        {
            "d": st.one_of(
                strange,
                st.builds(
                    lambda key, value: {**schedules.Linear(9).to_dict(), key: value},
                    st.sampled_from(["name", "total_steps", "other"]),
                    anything,
                ),
            )
        },
    ),
    "ScheduleLR": (
        use_scheduler,
        lambda: {"optimizer": optimizer(), "schedule": schedules.Linear(9)},
        dict.fromkeys(("optimizer", "schedule", "absolute", "last_epoch"), anything),
    ),
    "LRSchedulerHandler": (
        LRSchedulerHandler,
        lambda: {"scheduler": ScheduleLR(optimizer(), schedules.Linear(9))},
        dict.fromkeys(("scheduler", "interval", "every", "metric"), anything),
    ),
    "GradNormClipper": (
        use_clipper,
        lambda: {"optimizer": optimizer()},
        dict.fromkeys(
            (
                "optimizer",
                "percentile",
                "window",
                "warmup_updates",
                "max_norm",
                "norm_type",
                "on_nonfinite",
                "per_group",
                "enabled",
                "name",
            ),
            anything,
        ),
    ),
    "LRLogger": (
        LRLogger,
        lambda: {"optimizer": optimizer()},
        dict.fromkeys(
            (
                "optimizer",
                "clipper",
                "momentum",
                "weight_decay",
                "tag",
                "history",
                "step",
                "global_step_transform",
                "on_error",
            ),
            anything,
        ),
    ),
    "LRFinder.attach": (
        attach_finder,
        make_finder_arguments,
        dict.fromkeys(
            (
                "trainer",
                "to_save",
                "output_transform",
                "num_iter",
                "start_lr",
                "end_lr",
                "step_mode",
                "smooth_f",
                "diverge_th",
                "optimizer_key",
                "ratios",
                "validation",
                "repeats",
                "snapshot_to",
                "progress_bar",
                "logger",
            ),
            anything,
        ),
    ),
    "LRLogger.attach": (
        attach_logger,
        lambda: {"trainer": trainer()},
        dict.fromkeys(("trainer", "logger", "every"), anything),
    ),
    "GradNormClipper.attach": (attach_clipper, lambda: {"trainer": trainer()}, {"trainer": anything}),
    "LRSchedulerHandler.attach": (attach_scheduler, lambda: {"trainer": trainer()}, {"trainer": anything}),
    "RangeTestResult.suggestion": (RESULT.suggestion, lambda: {"method": "valley"}, {"method": anything}),
    "RangeTestResult.apply": (
        RESULT.apply,
        lambda: {"optimizer": optimizer(), "method": "valley"},
        {"optimizer": anything, "method": anything},
    ),
    "RangeTestResult.load": (load_result, lambda: {"path": saved_result()}, {"path": broken_json()}),
    "suggestion rules": (
        use_rule,
        lambda: {"rule": suggestion.DEFAULT, "lrs": list(RESULT.lrs), "losses": list(RESULT.losses)},
        {"rule": st.sampled_from(sorted(suggestion.RULES)), "lrs": st.one_of(rising, curves), "losses": curves},
    ),
    "JSONLinesLogger": (JSONLinesLogger, lambda: {"path": FOLDER / "lines.jsonl"}, {"path": strange}),
    "ScheduleLR.load_state_dict": state_target(lambda: ScheduleLR(optimizer(), schedules.Linear(9))),
    "LRSchedulerHandler.load_state_dict": state_target(
        lambda: LRSchedulerHandler(ScheduleLR(optimizer(), schedules.Linear(9)))
    ),
    "GradNormClipper.load_state_dict": state_target(lambda: GradNormClipper(optimizer())),
    "LRLogger.load_state_dict": state_target(lambda: LRLogger(optimizer(), history=5)),
}

# what an error may name instead of the argument that was given
ALSO: dict[str, set[str]] = {
    "RangeTestResult.load": {"range test", "version"},
    "suggestion rules": {"lrs", "losses", "points"},
    "schedules.from_dict": {"name", "total_steps"},
    "LRSchedulerHandler.load_state_dict": {"interval"},
}


def check(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TARGETS)))
    call, base, strategies = TARGETS[name]
    chosen = data.draw(st.lists(st.sampled_from(sorted(strategies)), min_size=1, max_size=3, unique=True))
    changed = {argument: data.draw(strategies[argument], argument) for argument in chosen}
    note(f"{name}: {changed!r}")
    with warnings.catch_warnings():
        # to be warned is to have been told; what is tested here is what is refused
        warnings.simplefilter("ignore", UserWarning)
        try:
            call(**{**base(), **changed})
        except suggestion.NoSuggestionError:
            assert name.startswith("RangeTestResult")
        except (ValueError, TypeError) as error:
            if not any(word in str(error) for word in {*chosen, *ALSO.get(name, ())}):
                raise AssertionError(f"{name}({changed!r}) was refused without naming any of {chosen}") from error


@settings(max_examples=500, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_arguments_work_or_are_refused_by_name(data: st.DataObject) -> None:
    check(data)


@pytest.mark.long
@pytest.mark.timeout(3000)
@settings(max_examples=20_000, derandomize=False, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_20000_arguments_work_or_are_refused_by_name(data: st.DataObject) -> None:
    check(data)


def test_the_unchanged_calls_work() -> None:
    """Otherwise the others would find nothing but refusals."""
    for call, base, _ in TARGETS.values():
        call(**base())


def test_every_schedule_is_among_them() -> None:
    assert {name.removeprefix("schedules.") for name in schedule_targets()} == set(BASES)
