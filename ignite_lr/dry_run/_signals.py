"""Signals that come while a training is put back."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["interrupts_wait"]


class interrupts_wait:  # noqa: N801 - used like a function
    """While the block runs, Ctrl-C waits: half a restored training is worse than a second of patience."""

    def __enter__(self) -> None:
        self._came: tuple[int, FrameType | None] | None = None
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            if self._before is not None:  # None: not installed from Python, so not ours to move
                signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = (number, frame)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            if self._came is not None and callable(self._before):
                self._before(*self._came)
