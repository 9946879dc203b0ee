"""A signal whose handler raises, at every line of entering and leaving the block: nothing is wrong afterwards."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from trainings import check_same, training_of
from trainings import net as small_net

from ignite_lr import LRFinder
from ignite_lr.dry_run import Block


class ComesError(BaseException):
    """What the handler raises."""


@contextmanager
def handler(number: int, calls: list[int]) -> Iterator[None]:
    def come(signal_number: int, frame: Any) -> None:
        calls.append(signal_number)
        raise ComesError

    before = signal.signal(number, come)
    try:
        yield
        assert signal.getsignal(number) is come
    finally:
        signal.signal(number, before)


class At:
    """Sends a signal at the n-th line that runs inside of entering or leaving the block."""

    def __init__(self, number: int, line: int) -> None:
        self.number = number
        self.left = line
        self.inside = 0

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code in (Block.__enter__.__code__, Block.__exit__.__code__):
            self.inside += 1
            return self.edge
        if self.inside and "ignite_lr/dry_run" in code.co_filename.replace("\\", "/"):
            return self.line
        return None

    def edge(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "return":
            self.inside -= 1
        self.line(frame, event, argument)
        return self.edge

    def line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(self.number)
        return self.line


def sweep_with(number: int, line: int) -> bool:
    """A sweep with a signal at this line, looked at afterwards; whether there was such a line."""
    training = training_of(small_net())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        training.trainer.run(training.data, max_epochs=1, epoch_length=2)
    before, calls = training.picture(), list[int]()
    tracer = At(number, line)
    raised = False
    with handler(number, calls), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = LRFinder().attach(training.trainer, training.to_save, num_iter=2, start_lr=1e-3, end_lr=1.0)
        old = sys.gettrace()
        sys.settrace(tracer)
        try:
            with block as engine:
                sys.settrace(old)
                engine.run(training.data)
                sys.settrace(tracer)
        except ComesError:
            raised = True
        finally:
            sys.settrace(old)
    came = tracer.left <= 0
    assert len(calls) == raised == came
    check_same(before, training.picture())
    assert not Block._active
    return came


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("line", [1, 2, 5, 20, 100, 300])
def test_a_signal_at_some_line(number: int, line: int) -> None:
    sweep_with(number, line)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_at_every_line(number: int) -> None:
    line = 1
    while sweep_with(number, line):
        line += 1
    assert line > 500
