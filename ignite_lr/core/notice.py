"""Warnings that point at the user's own line, from however deep inside a run they come."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import FrameType

import ignite
import torch

__all__ = ["notice"]

# where a warning must not point: this package, Ignite and PyTorch
_INSIDE = tuple(str(Path(file).parent) + "/" for file in (str(Path(__file__).parent), ignite.__file__, torch.__file__))


def notice(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first line of the stack outside this package, Ignite and PyTorch.

    Where there is none, as in a thread of PyTorch's, it points at the caller.

    Args:
        message: what to say.
        category: of the warning.
    """
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        level += 1
        if not frame.f_code.co_filename.startswith(_INSIDE):
            break
        frame = frame.f_back
    warnings.warn(message, category, stacklevel=level if frame is not None else 2)
