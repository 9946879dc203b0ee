"""What every ``attach`` returns: the one way to take a handler off again."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

__all__ = ["Attachment"]


class Attachment:
    """Takes a handler off its trainer with ``remove()``. Also a context manager.

    Args:
        what: of what and to what, for the repr.
        undo: what takes it off, called in this order, each once. It should hold what must live as long as the
            attachment, and nothing else: a dropped training is freed without the collector's help.

    Example:
        >>> with Attachment("a handler", lambda: print("gone")) as attachment:
        ...     attachment.attached
        True
        gone
        >>> attachment.remove()
        >>> attachment
        <Attachment: a handler, removed>
    """

    def __init__(self, what: str, *undo: Callable[[], object]) -> None:
        self._what = what
        self._undo = undo

    @property
    def attached(self) -> bool:
        """Whether ``remove()`` has not been called yet."""
        return bool(self._undo)

    def remove(self) -> None:
        """Take the handler off. Idempotent; all of it is taken off also where a part of that raises."""
        undo, self._undo = self._undo, ()
        _call_all(undo)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._what}, {'attached' if self.attached else 'removed'}>"


def _call_all(functions: tuple[Callable[[], object], ...]) -> None:
    if not functions:
        return
    try:
        functions[0]()
    finally:
        _call_all(functions[1:])
