"""Copies of tensors, in memory or in a file, and the way back into the tensors they were taken from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.weak import TensorWeakRef

__all__ = ["Restore", "TensorCopies", "place"]

# Puts one value back as it was and returns it.
Restore = Callable[[], Any]


class TensorCopies:
    """Copies of tensors, and the way back into the tensors they were taken from."""

    def __init__(self, to: torch.device | str | os.PathLike[str] | None) -> None:
        self.owner = ""
        self._device, self._directory = place(to)
        self._made_directory = False
        self._file: Path | None = None
        self._copies: list[torch.Tensor | None] = []
        self._slots: dict[int, tuple[Any, Restore]] = {}
        self._failures: list[tuple[str, BaseException]] = []
        self._pass = 0
        self._last = False
        self._loaded: list[torch.Tensor] | None = None

    def add(self, tensor: torch.Tensor) -> Restore:
        """Capture a tensor with its gradient."""
        known = self._slots.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        # Weak for all but parameters: a state that the training replaces must not be kept alive beside its copy.
        reference = _strong(tensor) if isinstance(tensor, nn.Parameter) else TensorWeakRef(tensor)
        index = None if _overlaps_itself(tensor) else self._copy(tensor)
        owner, device = self.owner, tensor.device
        restore_gradient = self._gradient(tensor) if tensor.is_leaf else None
        requires_grad = tensor.requires_grad
        done = 0

        def restore() -> torch.Tensor:
            nonlocal done
            live = reference()
            if done == self._pass and live is not None:
                return live  # reached by another way already, such as a parameter of both model and optimizer
            done = self._pass
            if live is None:
                assert index is not None
                return self._give(index, device)
            try:
                if index is not None:
                    self._write(live, index)
                if live.is_leaf and live.requires_grad != requires_grad:
                    live.requires_grad_(requires_grad)
                if restore_gradient is not None:
                    restore_gradient(live)
            except Exception as error:
                self._failures.append((owner, error))
            return live

        self._slots[id(tensor)] = (reference, restore)
        return restore

    def seal(self) -> None:
        """Write the copies to their file, if that is where they belong."""
        if self._directory is None:
            return
        self._made_directory = not self._directory.exists()
        self._directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="range_test_", suffix=".tmp", dir=self._directory)
        self._file = Path(name)
        with os.fdopen(handle, "wb") as file:
            torch.save(self._copies, file)
            file.flush()
            os.fsync(file.fileno())
        complete = self._file.with_suffix(".pt")
        os.replace(self._file, complete)
        self._file = complete
        self._copies = [None] * len(self._copies)

    def begin(self, failures: list[tuple[str, BaseException]], last: bool) -> None:
        """Start another round of restoring; what fails is added to ``failures``."""
        self._pass += 1
        self._failures = failures
        self._last = last
        self._loaded = None
        if self._file is not None:
            try:
                self._loaded = torch.load(self._file, map_location="cpu", weights_only=True)
            except Exception as error:
                failures.append((f"snapshot file {self._file}", error))

    def close(self) -> None:
        """Let go of the copies and remove the file. Idempotent."""
        self._slots = {}
        self._copies = []
        self._loaded = None
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None
        if self._made_directory and self._directory is not None:
            with suppress(OSError):  # somebody else may keep files there by now
                self._directory.rmdir()
            self._made_directory = False

    def _copy(self, tensor: torch.Tensor) -> int:
        with torch.no_grad():
            local = _local(tensor.detach())
            device = torch.device("cpu") if self._directory is not None else self._device or local.device
            # the same device: clone keeps strides, and asks for no second copy
            copied = local.clone() if device == local.device else local.to(device, copy=True)
        self._copies.append(copied)
        return len(self._copies) - 1

    def _stored(self, index: int) -> torch.Tensor:
        stored = self._copies[index]
        if stored is not None:
            return stored
        if self._loaded is None:
            raise RuntimeError("its copy could not be read")
        return self._loaded[index]

    def _write(self, live: torch.Tensor, index: int) -> None:
        stored = self._stored(index)
        with torch.no_grad():
            target = _local(live.detach())
            if target.shape == stored.shape:
                target.copy_(stored)
            else:
                live.data = stored.to(target.device, copy=not self._last)

    def _give(self, index: int, device: torch.device) -> torch.Tensor:
        return self._stored(index).to(device, copy=not self._last)

    def _gradient(self, tensor: torch.Tensor) -> Callable[[torch.Tensor], None]:
        gradient = tensor.grad
        if gradient is None:
            return _clear_gradient
        reference = TensorWeakRef(gradient)
        index, device = self._copy(gradient), gradient.device
        sharded = _local(gradient) is not gradient

        def restore(live: torch.Tensor) -> None:
            before = reference()
            if before is None and sharded:
                # a DTensor needs its mesh and placements, which the present gradient or the parameter has
                before = live.grad if live.grad is not None else torch.zeros_like(live)
            if before is None:
                live.grad = self._give(index, device)
                return
            if before.layout == torch.strided:
                self._write(before, index)
            else:
                before = self._give(index, device)
            live.grad = before

        return restore


def _clear_gradient(tensor: torch.Tensor) -> None:
    tensor.grad = None


def _strong(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: tensor


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a sharded tensor, any other tensor as it is."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether several elements share memory (an expanded tensor): nothing can write to it, so it needs no copy."""
    if tensor.layout != torch.strided or _local(tensor) is not tensor:
        return False
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def place(to: torch.device | str | os.PathLike[str] | None) -> tuple[torch.device | None, Path | None]:
    """Where copies are to lie: on a device, in a directory, or (neither) where the originals are."""
    if to is None:
        return None, None
    if isinstance(to, torch.device):
        return to, None
    if isinstance(to, str):
        try:
            return torch.device(to), None
        except RuntimeError:
            return None, Path(to)
    if isinstance(to, os.PathLike):
        return None, Path(to)
    raise TypeError(f"snapshot_to must be None, a device or a directory, but given {type(to).__name__}")
