"""Signals that come while a training is captured or put back.

A handler may raise: Ctrl-C does, and the SIGTERM handlers that clusters want. Half a restored training is worse than a
second of patience, so every signal with a Python handler waits, and is delivered once when all is done. The handlers
are exchanged for the whole block and not for its end alone, because a signal may come before the first line of
``__exit__`` could do anything about it; whether one has to wait is seen from what is under way when it comes.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["Signals"]


class Signals:
    """Holds signals back while one of some functions is under way; passes them on at all other times.

    Args:
        functions: while they run in the main thread, signals wait.
    """

    def __init__(self, *functions: Callable[..., Any]) -> None:
        self._codes = {function.__code__ for function in functions}
        self._handlers: dict[int, Any] = {}  # of the user, by signal
        self._waiting: dict[int, None] = {}

    def install(self) -> None:
        """Step in front of all handlers, also of those that came since the last call."""
        if threading.current_thread() is not threading.main_thread():
            return  # handlers run in the main thread, and cannot interrupt this one
        try:
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if callable(handler) and handler != self._come:
                    self._handlers[number] = handler
                    signal.signal(number, self._come)
        except BaseException:
            self.remove()
            raise

    def deliver(self) -> None:
        """Call the handlers of the signals that came, each once, also if some of them raise."""
        if self._waiting:
            number = next(iter(self._waiting))
            del self._waiting[number]
            try:
                self._handlers[number](number, sys._getframe())
            finally:
                self.deliver()

    def remove(self) -> None:
        """Step aside, then deliver. Idempotent."""
        if threading.current_thread() is threading.main_thread():
            self._give_back(list(self._handlers))
        self.deliver()

    def _give_back(self, numbers: list[int]) -> None:
        if numbers:
            try:
                if signal.getsignal(numbers[0]) == self._come:
                    signal.signal(numbers[0], self._handlers[numbers[0]])
            finally:  # a handler that is back may be called already, and raise
                self._give_back(numbers[1:])

    def _come(self, number: int, frame: FrameType | None) -> None:
        above = frame
        while above is not None:
            if above.f_code in self._codes:
                self._waiting[number] = None
                return
            above = above.f_back
        self._handlers[number](number, frame)
