"""Hostile values, and every public callable with a valid call to spoil."""

from __future__ import annotations

import functools
import inspect
import math
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from ignite.engine import create_supervised_trainer

import ignite_lr
from ignite_lr import schedules

FOLDER = tempfile.TemporaryDirectory(prefix="ignite_lr_hostile_")


class Raising:
    """An object of which nothing can be asked."""

    def _fail(self, *args: object) -> Any:
        raise RuntimeError("asked")

    __repr__ = __eq__ = __bool__ = __len__ = __iter__ = __index__ = __float__ = __getitem__ = _fail  # type: ignore[assignment]  # on purpose
    __hash__ = None  # type: ignore[assignment]  # likewise


class RaisingRepr:
    def __repr__(self) -> str:
        raise RuntimeError("shown")


class LongRepr:
    def __repr__(self) -> str:
        return "x" * 100_000


# made anew for every try: a generator is used up, a list may be kept
HOSTILE: dict[str, Callable[[], Any]] = {
    "None": lambda: None, "True": lambda: True, "False": lambda: False, "0": lambda: 0, "-1": lambda: -1,
    "1": lambda: 1, "10**12": lambda: 10**12, "10**30": lambda: 10**30, "-10**30": lambda: -(10**30),
    "10**5000": lambda: 10**5000, "0.5": lambda: 0.5, "-0.5": lambda: -0.5, "nan": lambda: math.nan,
    "inf": lambda: math.inf, "-inf": lambda: -math.inf, "1e308": lambda: 1e308, "5e-324": lambda: 5e-324,
    "complex": lambda: 1j, "Decimal": lambda: Decimal("NaN"), "empty string": lambda: "", "string": lambda: "a",
    "NUL string": lambda: "\0", "surrogate": lambda: "\ud800", "long string": lambda: "a" * 100_000,
    "bytes": lambda: b"a", "empty list": list, "list": lambda: ["a"], "nested list": lambda: [[[]]],
    "empty dict": dict, "dict": lambda: {"a": 1}, "dict of int keys": lambda: {1: None}, "set": lambda: {1},
    "generator": lambda: (i for i in range(3)), "NumPy float": lambda: np.float64(0.5),
    "NumPy nan": lambda: np.float32(math.nan), "NumPy int": lambda: np.int64(2), "NumPy bool": lambda: np.bool_(True),
    "NumPy array": lambda: np.ones(2), "NumPy datetime": lambda: np.datetime64("NaT"),
    "0-d tensor": lambda: torch.tensor(0.5), "0-d nan tensor": lambda: torch.tensor(math.nan),
    "meta tensor": lambda: torch.empty((), device="meta"), "tensor": lambda: torch.ones(2), "object": object,
    "class": lambda: int, "raising function": lambda: _raise, "raising object": Raising, "raising repr": RaisingRepr,
    "long repr": LongRepr,
}  # fmt: skip


def _raise(*args: object, **kwargs: object) -> Any:
    raise ValueError("argument: a function of the user's own raised")


class Bases:
    """Valid arguments by name, all of one training made anew."""

    def __init__(self) -> None:
        model = torch.nn.Linear(2, 1)
        one = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        self.trainer = self.engine = create_supervised_trainer(model, one, torch.nn.functional.mse_loss)
        self.optimizer = one
        self.to_save = {"model": model, "optimizer": one}
        self.data = [(torch.ones(2, 2), torch.ones(2, 1))] * 4
        self.path = Path(FOLDER.name) / "written"
        self.schedule = schedules.Linear(5)
        self.num_iter = self.num_updates = self.validate_every = 3
        self.verify = 0

    def of(self, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call: those that have no default, and those that keep it short."""
        wanted = inspect.signature(function).parameters.values()
        plain = [p for p in wanted if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        needed = [p.name for p in plain if p.default is p.empty or p.name in ("num_iter", "num_updates", "verify")]
        return {name: given[name] if name in given else getattr(self, name) for name in needed if name != "self"}


# Values that results are made of: the package fills them in, and what it reads from a file it checks there.
RECORDS = {"ClipReport", "Finding", "RangeTestResult", "StudyResult", "TrialResult", "Verdict", "VerifiedRate"}

# Called by Ignite, or there to say what to do instead; sweeps come from a finder, which has checked them.
NOT_CALLED = {f"{name}.__call__" for name in ("GradNormClipper", "LRSchedulerHandler", "LRLogger")}
NOT_CALLED.add("RangeTestResult.from_sweeps")


def callables() -> dict[str, tuple[str | None, Callable[..., Any]]]:
    """All that users can call: by its full name, the name of the class whose method it is, and itself."""
    found: dict[str, tuple[str | None, Callable[..., Any]]] = {}

    def visit(prefix: str, home: Any, names: list[str]) -> None:
        for name in names:
            value = getattr(home, name)
            if isinstance(value, ModuleType):
                visit(f"{name}.", value, value.__all__)
            elif inspect.isfunction(value):
                found[prefix + name] = (None, value)
            elif isinstance(value, type) and not issubclass(value, BaseException) and not inspect.isabstract(value):
                if name not in RECORDS:
                    found[prefix + name] = (None, value)
                for method in ("__call__", *(m for m in dir(value) if not m.startswith("_"))):
                    function = inspect.getattr_static(value, method, None)
                    if f"{name}.{method}" in NOT_CALLED:
                        continue
                    if isinstance(function, classmethod):
                        found[f"{prefix}{name}.{method}"] = (None, getattr(value, method))
                    elif inspect.isfunction(function) and function.__module__.startswith("ignite_lr"):
                        found[f"{prefix}{name}.{method}"] = (name, function)

    visit("", ignite_lr, ignite_lr.__all__)
    return found


@functools.cache
def found() -> tuple[ignite_lr.RangeTestResult, ignite_lr.StudyResult]:
    """The results whose methods are called."""
    arguments = Bases().of(ignite_lr.find_lr, {})
    result = ignite_lr.find_lr(**{**arguments, "num_iter": 60, "start_lr": 1e-4, "progress_bar": False})
    trials = [ignite_lr.Trial(0.01), ignite_lr.Trial(0.1)]
    return result, ignite_lr.run_study(**Bases().of(ignite_lr.run_study, {"trials": trials}), progress_bar=False)


@functools.cache
def given(name: str) -> dict[str, Any]:
    """Arguments without a default that are not part of a training, for the callable of this name."""
    result, study = found()
    lrs, losses = list(result.lrs), list(result.losses)
    special: dict[str, dict[str, Any]] = {
        "trials.warmups": {"warmup_steps": [0, 1]},
        "ScheduleParam": {"name": "weight_decay"},
        "schedules.get": {"name": "constant"},
        "RangeTestResult.load": {"path": result.save(Path(FOLDER.name) / "result.json")},
        "StudyResult.load": {"path": study.save(Path(FOLDER.name) / "study.json")},
        "run_report": {"study": study},
    }
    return {
        "step": 3, "n": 4, "d": {"name": "linear", "total_steps": 5}, "total_steps": 10, "warmup_steps": 3,
        "stable_steps": 3, "hold_steps": 3, "decay_steps": 3, "step_size": 3, "milestones": [3, 6], "gamma": 0.9,
        "points": [(0, 1.0), (9, 0.0)], "schedules": [schedules.Linear(5), schedules.Constant()], "boundaries": [3],
        "factor": 0.5, "steps": 2, "values": {"loss": 0.5}, "updates": 3, "lr": 0.1, "lrs": lrs, "losses": losses,
        "low": 1e-3, "high": 0.1, "peak_lr": 0.1, "curves": [losses, losses], "trials": [ignite_lr.Trial(0.01)],
        "name": "linear", **special.get(name, {}),
    }  # fmt: skip


def instance(kind: str, bases: Bases) -> Any:
    """An object whose methods are called."""
    if kind in ("RangeTestResult", "StudyResult"):
        return found()[kind == "StudyResult"]
    if kind == "LRFinder":
        finder = ignite_lr.LRFinder()
        with finder.attach(bases.trainer, bases.to_save, num_iter=60, start_lr=1e-4, progress_bar=False) as sweep:
            sweep.run(bases.data)
        return finder
    if kind == "LRLogger":
        logger = ignite_lr.LRLogger(bases.optimizer, history=5)
        with logger.attach(bases.trainer):
            bases.trainer.run(bases.data)
        return logger
    if kind == "LRSchedulerHandler":
        return ignite_lr.LRSchedulerHandler(ignite_lr.ScheduleLR(bases.optimizer, bases.schedule))
    make = getattr(ignite_lr, kind, None) or getattr(schedules, kind)
    return make(**bases.of(make, given(kind)))


def base_call(name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The callable, bound where it is a method, and valid arguments for it, all made anew."""
    kind, function = callables()[name]
    bases = Bases()
    bound = function if kind is None else getattr(instance(kind, bases), function.__name__)
    wanted = dict(given(name))
    if name.endswith("load_state_dict"):
        wanted["state_dict"] = bound.__self__.state_dict()
    if name.endswith(".from_dict") and name.count(".") == 2:
        wanted["d"] = instance(name.split(".")[1], bases).to_dict()
    if name in ("LRSchedulerHandler", "schedules.simulate"):
        wanted["scheduler"] = ignite_lr.ScheduleLR(bases.optimizer, bases.schedule)
    arguments = bases.of(bound, wanted)
    return bound, {**arguments, "study": wanted["study"]} if name == "run_report" else arguments


def perform(call: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Call it, and close what it opened."""
    try:
        call(**arguments)
    finally:
        close = getattr(getattr(call, "__self__", None), "close", None)
        if close is not None:
            close()


def tries() -> list[tuple[str, str, str]]:
    """Callable, argument and value, for all of them."""
    found = []
    for name in callables():
        for parameter in inspect.signature(base_call(name)[0]).parameters.values():
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found += [(name, parameter.name, value) for value in HOSTILE]
    return found
