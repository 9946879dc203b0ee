"""The file that copies of tensors lie in: complete or not there, and locked as long as its owner lives.

In flow the copies; out they come again, as often as asked for. The lock is the kernel's, which takes it away from a
process that is killed: a file that nobody locks is one that a run left behind. What must never happen: that the file of
a run that is still going is taken for such a one, or that half a file is read.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch

from ignite_lr.core.notice import notice

if sys.platform != "win32":
    import fcntl

__all__ = ["SnapshotFile"]

_PREFIX = "range_test_snapshot_"


class SnapshotFile:
    """One file in a directory, which is made if it does not exist.

    Args:
        directory: where it lies. What runs before left there is named in a warning when the file is written.

    Attributes:
        path: of the file while it is there.
    """

    def __init__(self, directory: Path) -> None:
        self.path: Path | None = None
        self._directory = directory
        self._made_directory = False
        self._open: BinaryIO | None = None

    def write(self, copies: list[torch.Tensor]) -> None:
        """Write the copies, to be read once :meth:`complete` has seen that they can be.

        Raises:
            OSError: if they cannot be written; a RuntimeError of PyTorch where it meets the reason first.
        """
        self._made_directory = not self._directory.exists()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._name_what_was_left()
        handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=".tmp", dir=self._directory)
        self.path = Path(name)
        self._open = file = os.fdopen(handle, "wb")
        locked = _lock(file)
        torch.save(copies, file)
        file.flush()
        os.fsync(file.fileno())
        if not locked:  # then there is no reason to keep it open, and Windows renames no open file
            file.close()

    def complete(self) -> None:
        """Read the file once as a proof, and give it its name; the errors are those of :func:`torch.load`."""
        assert self.path is not None  # written before
        torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        complete = self.path.with_suffix(".pt")
        os.replace(self.path, complete)
        self.path = complete

    def read(self) -> list[torch.Tensor]:
        """The copies; the errors are those of :func:`torch.load`."""
        assert self.path is not None  # written before
        copies: list[torch.Tensor] = torch.load(self.path, map_location="cpu", weights_only=True)
        return copies

    def keep(self) -> None:
        """Let go of the file and leave it where it is. Idempotent."""
        if self._open is not None:
            with suppress(OSError):  # on a full disk what could not be written is tried once more
                self._open.close()
        self.path = self._open = None

    def remove(self) -> None:
        """Remove the file, and the directory if it was made for it. Idempotent."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            if self._open is not None and not self._open.closed:
                with suppress(OSError):
                    os.ftruncate(self._open.fileno(), 0)  # a process forked meanwhile has it open too
        # not before it is gone: unlocked, it would be one that was left behind
        self.keep()
        if self._made_directory:
            with suppress(OSError):  # somebody else may keep files there by now
                self._directory.rmdir()
            self._made_directory = False

    def _name_what_was_left(self) -> None:
        left = [path.name for path in sorted(self._directory.glob(f"{_PREFIX}*")) if _was_left(path)]
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            notice(
                f"snapshot_to: {self._directory} holds what earlier runs left when they were killed, or could not "
                f"restore: {', '.join(left[:3])}{more}. Go on from the last checkpoint, and delete them"
            )


def _was_left(path: Path) -> bool:
    try:
        # an empty one was made a moment ago, and its owner is about to lock it
        if path.suffix not in {".tmp", ".pt"} or not path.stat().st_size:
            return False
        with path.open("rb") as file:
            # one that is gone was just removed
            return _lock(file, shared=True) and path.exists()
    except OSError:
        return False


def _lock(file: BinaryIO, *, shared: bool = False) -> bool:
    """Lock a file for as long as it is open; False where somebody else has it, or where there are no locks."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
