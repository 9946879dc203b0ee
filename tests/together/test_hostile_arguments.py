"""Every public callable, every argument, some forty values: it works as its signature says, or the error is clear.

Callables are found by walking ``ignite_lr.__all__``, and one without a valid call to start from fails here. A try may
end in success, where the annotation takes such a value, or in an error of the kinds below that names the argument in
less than 500 characters. A sample of the tries is part of ``make test``, all of them of ``make test-long``.
"""

from __future__ import annotations

import inspect
import math
import random
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, create_supervised_trainer

import ignite_lr
from ignite_lr import schedules

FOLDER = Path(tempfile.mkdtemp(prefix="ignite_lr_hostile_"))
SECONDS = 20


class Raising:
    """An object of which nothing can be asked."""

    def _fail(self, *args: object) -> Any:
        raise RuntimeError("asked")

    __repr__ = __eq__ = __bool__ = __len__ = __iter__ = __index__ = __float__ = __getitem__ = _fail  # type: ignore[assignment]  # that is the point
    __hash__ = None  # type: ignore[assignment]  # likewise


class RaisingRepr:
    def __repr__(self) -> str:
        raise RuntimeError("shown")


class LongRepr:
    def __repr__(self) -> str:
        return "x" * 100_000


# made anew for every try: a generator is used up, a list may be kept
HOSTILE: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "False": lambda: False,
    "0": lambda: 0,
    "-1": lambda: -1,
    "1": lambda: 1,
    "10**12": lambda: 10**12,
    "10**30": lambda: 10**30,
    "-10**30": lambda: -(10**30),
    "10**5000": lambda: 10**5000,
    "0.5": lambda: 0.5,
    "-0.5": lambda: -0.5,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "1e308": lambda: 1e308,
    "5e-324": lambda: 5e-324,
    "complex": lambda: 1j,
    "Decimal": lambda: Decimal("NaN"),
    "empty string": lambda: "",
    "string": lambda: "a",
    "NUL string": lambda: "\0",
    "surrogate": lambda: "\ud800",
    "long string": lambda: "a" * 100_000,
    "bytes": lambda: b"a",
    "empty list": list,
    "list": lambda: ["a"],
    "nested list": lambda: [[[]]],
    "empty dict": dict,
    "dict": lambda: {"a": 1},
    "dict of int keys": lambda: {1: None},
    "set": lambda: {1},
    "generator": lambda: (i for i in range(3)),
    "NumPy float": lambda: np.float64(0.5),
    "NumPy nan": lambda: np.float32(math.nan),
    "NumPy int": lambda: np.int64(2),
    "NumPy bool": lambda: np.bool_(True),
    "NumPy array": lambda: np.ones(2),
    "NumPy datetime": lambda: np.datetime64("NaT"),
    "0-d tensor": lambda: torch.tensor(0.5),
    "0-d nan tensor": lambda: torch.tensor(math.nan),
    "meta tensor": lambda: torch.empty((), device="meta"),
    "tensor": lambda: torch.ones(2),
    "object": object,
    "class": lambda: int,
    "raising function": lambda: _raise,
    "raising object": Raising,
    "raising repr": RaisingRepr,
    "long repr": LongRepr,
}


def _raise(*args: object, **kwargs: object) -> Any:
    raise ValueError("argument: a function of the user's own raised")


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1, momentum=0.9)


def batches() -> list[Any]:
    return [(torch.ones(2, 2), torch.ones(2, 1))] * 4


class Bases:
    """Valid arguments by name, all of one training made anew."""

    def __init__(self) -> None:
        model = torch.nn.Linear(2, 1)
        one = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        self.trainer = self.engine = create_supervised_trainer(model, one, torch.nn.functional.mse_loss)
        self.optimizer = one
        self.to_save = {"model": model, "optimizer": one}
        self.data = batches()
        self.path = FOLDER / "written"
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

# Called as event handlers these two say what to do instead; sweeps come from a finder, which has checked them.
NOT_CALLED = {"GradNormClipper.__call__", "LRSchedulerHandler.__call__", "RangeTestResult.from_sweeps"}


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


RESULT = ignite_lr.find_lr(
    **{**Bases().of(ignite_lr.find_lr, {}), "num_iter": 60, "start_lr": 1e-4, "progress_bar": False}
)
STUDY = ignite_lr.run_study(
    **Bases().of(ignite_lr.run_study, {"trials": [ignite_lr.Trial(0.01), ignite_lr.Trial(0.1)]}), progress_bar=False
)

LRS, LOSSES = list(RESULT.lrs), list(RESULT.losses)

# Arguments without a default that are not part of a training: by their names, or by callable and name where that differs.
GIVEN: dict[str, Any] = {
    "step": 3, "n": 4, "d": {"name": "linear", "total_steps": 5}, "total_steps": 10, "warmup_steps": 3,
    "stable_steps": 3, "hold_steps": 3, "decay_steps": 3, "step_size": 3, "milestones": [3, 6], "gamma": 0.9,
    "points": [(0, 1.0), (9, 0.0)], "schedules": [schedules.Linear(5), schedules.Constant()], "boundaries": [3],
    "factor": 0.5, "steps": 2, "values": {"loss": 0.5}, "sweeps": RESULT.sweeps, "smooth_f": 0.05, "iterations": 60,
    "step_mode": "exp", "loss_name": "Loss", "updates": 3, "lr": 0.1, "lrs": LRS, "losses": LOSSES, "low": 1e-3,
    "high": 0.1, "peak_lr": 0.1, "curves": [LOSSES, LOSSES], "trials": [ignite_lr.Trial(0.01)], "name": "linear",
}  # fmt: skip
GIVEN_TO: dict[str, dict[str, Any]] = {
    "trials.warmups": {"warmup_steps": [0, 1]},
    "ScheduleParam": {"name": "weight_decay"},
    "schedules.get": {"name": "constant"},
    "RangeTestResult.load": {"path": RESULT.save(FOLDER / "result.json")},
    "StudyResult.load": {"path": STUDY.save(FOLDER / "study.json")},
}


def instance(kind: str, bases: Bases) -> Any:
    """An object whose methods are called."""
    if kind in ("RangeTestResult", "StudyResult"):
        return RESULT if kind == "RangeTestResult" else STUDY
    if kind == "LRFinder":
        finder = ignite_lr.LRFinder()
        with finder.attach(bases.trainer, bases.to_save, num_iter=60, start_lr=1e-4, progress_bar=False) as sweep:
            sweep.run(bases.data)
        return finder
    if kind == "LRLogger":
        return ignite_lr.LRLogger(bases.optimizer, history=5)
    if kind == "LRSchedulerHandler":
        return ignite_lr.LRSchedulerHandler(ignite_lr.ScheduleLR(bases.optimizer, bases.schedule))
    make = getattr(ignite_lr, kind, None) or getattr(schedules, kind)
    return make(**bases.of(make, {**GIVEN, **GIVEN_TO.get(kind, {})}))


def base_call(name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The callable, bound where it is a method, and valid arguments for it, all made anew."""
    kind, function = callables()[name]
    bases = Bases()
    bound = function if kind is None else getattr(instance(kind, bases), function.__name__)
    given = {**GIVEN, **GIVEN_TO.get(name, {})}
    if name.endswith("load_state_dict"):
        given["state_dict"] = bound.__self__.state_dict()
    if name.endswith(".from_dict") and name.count(".") == 2:
        given["d"] = instance(name.split(".")[1], bases).to_dict()
    if name in ("LRSchedulerHandler", "schedules.simulate"):
        given["scheduler"] = ignite_lr.ScheduleLR(bases.optimizer, bases.schedule)
    arguments = bases.of(bound, given)
    return bound, {"study": STUDY, **arguments} if name == "run_report" else arguments


def tries() -> list[tuple[str, str, str]]:
    """Callable, argument and value, for all of them."""
    found = []
    for name in callables():
        for parameter in inspect.signature(base_call(name)[0]).parameters.values():
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found += [(name, parameter.name, value) for value in HOSTILE]
    return found


class Hung(BaseException):
    """No ``Exception``: nothing on the way may take it for an error of the user's."""


def hung(signum: int, frame: FrameType | None) -> None:
    raise Hung


def outcome(name: str, argument: str, value: str) -> str:
    """What became of a try: "accepted", "refused", or what is wrong with it."""
    call, arguments = base_call(name)
    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            # to be warned is to have been told
            warnings.simplefilter("ignore")
            made = call(**{**arguments, argument: HOSTILE[value]()})
            if hasattr(made, "remove"):
                made.remove()
        return "accepted"
    except Hung:
        return f"no answer in {SECONDS} s"
    except (TypeError, ValueError, *ALLOWED) as error:
        text = str(error)
        if len(text) >= 500:
            return f"a message of {len(text)} characters"
        named = argument in text or any(word in text for word in ALSO.get(argument, ()))
        return "refused" if named else f"{type(error).__name__} that does not name it: {text}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# Documented errors of other kinds.
ALLOWED: tuple[type[Exception], ...] = (ignite_lr.NoSuggestionError,)
# What an error may name in place of the argument.
ALSO: dict[str, tuple[str, ...]] = {}
