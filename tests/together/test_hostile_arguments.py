"""Every public callable, every argument, some fifty values: it works as its signature says, or the error is clear.

Callables are found by walking ``ignite_lr.__all__``, and one without a valid call to start from fails here. A try may
end in success, where the annotation takes such a value or ``WHY_NOT`` says why it is right, or in an error that names
the argument in less than 500 characters. A sample of the tries is part of ``make test``, all of ``make test-long``.
"""

from __future__ import annotations

import inspect
import random
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hostile import HOSTILE, Bases, base_call, callables, perform, tries

import ignite_lr

SECONDS = 20

# Values that an annotation takes, by a word in it; in range or not is for the callable to say.
KINDS = {
    "None": {"None"},
    "bool": {"True", "False", "NumPy bool"},
    "Any": {"None"},
    "int": {"0", "1", "10**12", "NumPy int"},
    "float": {"0", "1", "0.5", "5e-324", "1e308", "10**12", "10**30", "NumPy float", "NumPy int", "0-d tensor"},
    "str": {"empty string", "string", "surrogate", "long string", "NUL string"},
    "Callable": {"class", "raising function"},
    "ScheduleFunction": {"raising function"},
    "Mapping": {"empty dict", "dict"},
    "Iterable": {"empty list", "generator", "NumPy array"},
    "UpdateIndices": {"empty list", "generator"},
}
KINDS["Steps"] = KINDS["int"]
KINDS["Factor"] = KINDS["Positive"] = KINDS["Length"] = KINDS["float"]
KINDS["Validation"] = KINDS["Callable"]
# What else is taken, by argument.
WHY_NOT: dict[str, tuple[set[str], str]] = {
    "max_norm": ({"inf"}, "no ceiling"),
    "norm_type": ({"inf"}, "the largest element"),
    "diverge_th": ({"inf"}, "no stop"),
    "last_epoch": ({"-1"}, "before the first update"),
    "steps": ({"-1", "-10**30"}, "a shift to later"),
    "lower": ({"-1", "-10**30", "-0.5"}, "a point on the x axis of tanh"),
    "upper": ({"-1", "-10**30", "-0.5"}, "likewise"),
    "step": (
        {"-1", "-10**30", "0", "1", "0.5", "5e-324", "10**12", "10**30", "1e308", "10**5000"}
        | {"NumPy int", "NumPy float", "NumPy array"},
        "JSON lines take any x; a schedule has a value between two updates and holds after its end",
    ),
    "scheduler": ({"empty list"}, "a list of no schedulers"),
    "clipper": ({"empty list"}, "a list of no clippers"),
}
# Errors that do not name the argument, by argument: what they name instead, and why.
OTHERWISE: dict[str, tuple[str, str]] = {
    "path": ("'a' is no", "the name of the file, which is there"),
    "file": ("'a' is no", "likewise"),
    "skip_start": ("the sweep has no points", "nothing is left of the curve"),
    "skip_end": ("the sweep has no points", "likewise"),
    "end_lr": ("float without overflow", "PyTorch's word on a rate that float32 does not hold; everything is restored"),
    "data": ("", "the batches are there, and the training step, or the data itself, raises"),
}
USERS_OWN = "a function of the user's own raised"


class Hung(BaseException):
    """No ``Exception``: nothing on the way may take it for an error of the user's."""


def hung(signum: int, frame: FrameType | None) -> None:
    raise Hung


def judged(argument: str, value: str, call: Callable[[], Any], annotation: str) -> str:
    """What is wrong with a try, if anything is."""
    try:
        call()
    except Hung:
        return f"no answer in {SECONDS} s"
    except Exception as error:
        text = str(error)
        if len(text) >= 500:
            return f"a message of {len(text)} characters"
        if USERS_OWN in text or (argument in OTHERWISE and OTHERWISE[argument][0] in text):
            return ""
        if not isinstance(error, TypeError | ValueError) or argument not in text:
            return f"{type(error).__name__} that is no TypeError or ValueError, or does not name it: {text}"
        return ""
    taken = set[str]().union(*(values for word, values in KINDS.items() if word in annotation))
    return "" if value in taken | WHY_NOT.get(argument, (set(), ""))[0] else "taken"


def outcome(name: str, argument: str, value: str) -> str:
    """What is wrong with this argument of this callable, if anything is."""
    call, arguments = base_call(name)
    annotation = str(inspect.signature(call).parameters[argument].annotation)
    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # to be warned is to have been told
            return judged(argument, value, lambda: perform(call, {**arguments, argument: HOSTILE[value]()}), annotation)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def failures(chosen: list[tuple[str, str, str]]) -> list[str]:
    found = ((*one, outcome(*one)) for one in chosen)
    return [": ".join(one) for one in found if one[-1]]


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file called "a" is one of the tries."""
    monkeypatch.chdir(tmp_path)


def test_every_callable_has_a_valid_call() -> None:
    for name in callables():
        call, arguments = base_call(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a sweep of three points does not diverge
            perform(call, arguments)


def test_a_sample_of_hostile_arguments() -> None:
    assert not failures(random.Random(20).sample(tries(), 200))


@pytest.mark.parametrize("argument", ["epoch_length", "max_epochs"])
@pytest.mark.parametrize(
    "value", ["0", "-1", "0.5", "nan", "True", "string", "10**12", "10**30", "10**5000", "long repr"]
)
def test_lengths_of_a_sweep(argument: str, value: str) -> None:
    bases = Bases()
    with ignite_lr.LRFinder().attach(bases.trainer, bases.to_save, start_lr=0.01) as sweep:
        wrong = judged(argument, value, lambda: sweep.run(bases.data, **{argument: HOSTILE[value]()}), "")
    assert not wrong


@pytest.mark.long
def test_hostile_arguments() -> None:
    chosen = tries()
    assert len(chosen) >= 17_000
    assert not failures(chosen)
