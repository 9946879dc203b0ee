"""What could not be restored, said once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

__all__ = ["raise_failures"]


def raise_failures(
    failures: Sequence[tuple[str, BaseException]], primary: BaseException | None, what: str = "range test"
) -> None:
    """Report what could not be restored after a ``what``; an earlier exception stays the one that is raised."""
    if not failures:
        return
    list_of_all = "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in dict(failures).items())
    message = f"after the {what} these could not be restored, everything else was: {list_of_all}"
    if primary is None:
        raise RuntimeError(message) from failures[0][1]
    logging.getLogger(__name__).error(message)
    if hasattr(primary, "add_note"):
        primary.add_note(message)
