"""What could not be restored, said once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

__all__ = ["raise_failures"]


def raise_failures(failures: Sequence[tuple[str, BaseException]], primary: BaseException | None) -> None:
    """Report what could not be restored; an earlier exception stays the one that is raised."""
    if not failures:
        return
    what = "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in dict(failures).items())
    message = f"after the range test these could not be restored, everything else was: {what}"
    if primary is None:
        raise RuntimeError(message) from failures[0][1]
    logging.getLogger(__name__).error(message)
    if hasattr(primary, "add_note"):
        primary.add_note(message)
