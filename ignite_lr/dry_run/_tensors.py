"""Copies of tensors, in memory or in a file, and the way back into the tensors they were taken from.

In flow the tensors that the walk over the training meets; out come :class:`Slot` objects, which stand for a tensor in
whatever container it was in. A tensor is written to in place, so that everybody who holds it sees the old values; one
that nobody holds any more comes back as its copy. What must never happen: that a training is changed whose copies
cannot be read again, or that the only copy is thrown away.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.weak import TensorWeakRef

from ignite_lr.core.arguments import check_path
from ignite_lr.dry_run._snapshot_file import SnapshotFile

__all__ = ["Restore", "Slot", "TensorCopies", "place"]

# Puts one value back as it was and returns it.
Restore = Callable[[], Any]

_UNREAD = "its copy could not be read"


class TensorCopies:
    """Copies of tensors, and the way back into the tensors they were taken from.

    Args:
        to: where they lie, see :func:`place`.
    """

    def __init__(self, to: torch.device | str | os.PathLike[str] | None) -> None:
        self.owner = ""
        self.round = 0  # of restoring
        self.failed = False  # whether the last round left a tensor as it was
        self._device, directory = place(to)
        self._file = None if directory is None else SnapshotFile(directory)
        self._copies: list[torch.Tensor | None] = []
        self._owners: list[str] = []
        self._slots: dict[int, Slot] = {}
        self._failures: list[tuple[str, BaseException]] = []
        self._last = False
        self._loaded: list[torch.Tensor] | None = None

    @property
    def file(self) -> Path | None:
        """Where the copies lie, if that is a file."""
        return None if self._file is None else self._file.path

    def add(self, tensor: torch.Tensor) -> Slot:
        """Capture a tensor with its gradient; once is enough for each."""
        known = self.known(tensor)
        if known is None:
            known = self._slots[id(tensor)] = Slot(self, tensor)
        return known

    def known(self, tensor: torch.Tensor) -> Slot | None:
        """The slot of a tensor, if it was captured."""
        slot = self._slots.get(id(tensor))
        return slot if slot is not None and slot.live() is tensor else None

    def seal(self) -> None:
        """Write the copies to their file, if that is where they belong, and see that they can be read from there.

        Raises:
            RuntimeError: if they cannot, with the name of the object that is the reason.
        """
        if self._file is None:
            return
        self._file.write([copy for _, copy in self._named()])
        try:
            self._file.complete()
        except Exception as error:
            whose = next((name for name, copy in self._named() if not _can_be_read(copy)), "snapshot")
            raise RuntimeError(
                f"{whose}: a tensor of it cannot be read back from a file: leave snapshot_to out, or give a device"
            ) from error
        self._copies = [None] * len(self._copies)

    def begin(self, failures: list[tuple[str, BaseException]], last: bool) -> None:
        """Start another round of restoring; what fails is added to ``failures``."""
        self.round += 1
        self.failed = False
        self._failures = failures
        self._last = last
        self._loaded = None
        if self._file is not None and self._file.path is not None:
            try:
                self._loaded = self._file.read()
            except Exception as error:
                self._fail(f"snapshot file {self.file}", error)

    def write_all(self, but: Collection[int] = ()) -> None:
        """Put back the values of all tensors that somebody still holds, but for the slots with these ids."""
        for slot in list(self._slots.values()):
            if id(slot) not in but:
                slot.write()

    def close(self) -> None:
        """Let go of the copies and remove the file, unless it is the only copy of what was not put back. Idempotent."""
        for slot in self._slots.values():
            slot.forget()
        self._slots = {}
        self._copies = []
        self._owners = []
        self._loaded = None
        self._failures = []
        if self._file is not None:
            if self.failed:
                self._file.keep()
            else:
                self._file.remove()

    # -- for the slots

    def _copy(self, tensor: torch.Tensor) -> int:
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            local = plain(tensor)
            device = torch.device("cpu") if self._file is not None else self._device or local.device
            try:
                # the same device: clone keeps strides, and asks for no second copy
                copied = local.clone() if device == local.device else local.to(device, copy=True)
            except Exception as first:
                try:
                    copied = local.to(device, copy=True)  # some quantised tensors can be copied in no other way
                except Exception:
                    raise RuntimeError(f"{self.owner}: a {type(tensor).__name__} cannot be copied: {first}") from first
        self._copies.append(copied)
        self._owners.append(self.owner)
        return len(self._copies) - 1

    def _stored(self, index: int) -> torch.Tensor:
        stored = self._copies[index]
        if stored is not None:
            return stored
        if self._loaded is None:
            raise RuntimeError(_UNREAD)
        return self._loaded[index]

    def _write(self, live: torch.Tensor, index: int) -> None:
        stored = self._stored(index)
        inference = torch.inference_mode() if live.is_inference() else nullcontext()
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass(), inference:
            target = plain(live)
            if target.shape == stored.shape and target.dtype == stored.dtype and target.layout == stored.layout:
                target.copy_(stored)
            else:
                live.data = stored.to(target.device, copy=not self._last)

    def _give(self, index: int, device: torch.device) -> torch.Tensor:
        return self._stored(index).to(device, copy=not self._last)

    def _fail(self, owner: str, error: BaseException) -> None:
        self.failed = True
        self._failures.append((owner, error))

    def _named(self) -> list[tuple[str, torch.Tensor]]:
        return [(owner, copy) for owner, copy in zip(self._owners, self._copies, strict=True) if copy is not None]


class Slot:
    """Stands for one tensor: called in a round of restoring, it gives the tensor with the values it had."""

    __slots__ = (
        "_attributes",
        "_copies",
        "_given",
        "_gradient",
        "_index",
        "_kind",
        "_needs",
        "_owner",
        "_round",
        "live",
    )

    def __init__(self, copies: TensorCopies, tensor: torch.Tensor) -> None:
        self._copies = copies
        self._owner = copies.owner
        # Weak for all but parameters: a state that the training replaces must not be kept alive beside its copy.
        self.live: Callable[[], torch.Tensor | None]
        self.live = _strong(tensor) if isinstance(tensor, nn.Parameter) else TensorWeakRef(tensor)
        self._kind = type(tensor)
        self._index: int | None = None
        self._attributes: dict[str, Slot] = {}
        if _is_made_of_tensors(tensor):
            names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]  # it has one, says the question above
            self._attributes = {name: copies.add(getattr(tensor, name)) for name in names}
        elif not _overlaps_itself(tensor):
            self._index = copies._copy(tensor)
        self._gradient = _gradient(copies, tensor) if tensor.is_leaf else None
        self._needs = (tensor.requires_grad, tensor.device)
        self._given: torch.Tensor | None = None
        self._round = 0

    def __call__(self) -> torch.Tensor:
        live = self.live()
        if live is not None:
            self.write()
            return live
        return self._replacement()

    def write(self) -> None:
        """Put the values back into the tensor, if somebody holds it; once a round."""
        live = self.live()
        copies = self._copies
        if live is None or self._round == copies.round:
            return
        self._round = copies.round
        try:
            for name, inner in self._attributes.items():
                if inner() is not getattr(live, name):
                    setattr(live, name, inner())
            if self._index is not None:
                copies._write(live, self._index)
            if live.is_leaf and live.requires_grad != self._needs[0]:
                live.requires_grad_(self._needs[0])
            if self._gradient is not None:
                self._gradient(live)
        except Exception as error:
            copies._fail(self._owner, error)

    def forget(self) -> None:
        """Let go of everything."""
        self._given = None
        self._gradient = None
        self._attributes = {}

    def _replacement(self) -> torch.Tensor:
        """Nobody holds it any more: its copy becomes the tensor, the same one for all who held it."""
        if self._index is None:
            raise RuntimeError(f"a {self._kind.__name__} that nobody holds any more cannot be made again")
        given = self._copies._give(self._index, self._needs[1])
        if self._kind is not torch.Tensor and type(given) is torch.Tensor:
            given = given.as_subclass(self._kind)
        self._given = given
        self._round = self._copies.round
        self.live = TensorWeakRef(given)
        return given


def _gradient(copies: TensorCopies, tensor: torch.Tensor) -> Callable[[torch.Tensor], None]:
    gradient = tensor.grad
    if gradient is None:
        return _clear_gradient
    reference = TensorWeakRef(gradient)
    index, device = copies._copy(gradient), gradient.device
    sharded = _local(gradient) is not gradient

    def restore(live: torch.Tensor) -> None:
        before = reference()
        if before is None and sharded:
            # a DTensor needs its mesh and placements, which the present gradient or the parameter has
            before = live.grad if live.grad is not None else torch.zeros_like(live)
        if before is None:
            live.grad = copies._give(index, device)
            return
        if before.layout == torch.strided:
            copies._write(before, index)
        else:
            before = copies._give(index, device)
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


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor without its graph, and without a class that only marks it."""
    local = _local(tensor.detach())
    if type(local) is torch.Tensor or has_dispatch(local):
        return local
    return local.as_subclass(torch.Tensor)


def has_dispatch(tensor: torch.Tensor) -> bool:
    """Whether the class of a tensor computes by itself, and may have no numbers of its own."""
    return type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__


def _is_made_of_tensors(tensor: torch.Tensor) -> bool:
    return has_dispatch(tensor) and hasattr(tensor, "__tensor_flatten__") and not hasattr(tensor, "to_local")


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether several elements share memory (an expanded tensor): nothing can write to it, so it needs no copy."""
    if tensor.layout != torch.strided or _local(tensor) is not tensor:
        return False
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def _can_be_read(copy: torch.Tensor) -> bool:
    buffer = io.BytesIO()
    try:
        torch.save(copy, buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True)
    except Exception:
        return False
    return True


def place(to: torch.device | str | os.PathLike[str] | None) -> tuple[torch.device | None, Path | None]:
    """Where copies are to lie: on a device, in a directory, or (neither) where the originals are."""
    if to is None:
        return None, None
    if isinstance(to, str):
        try:
            to = torch.device(to)
        except RuntimeError:
            return None, check_path(to, "snapshot_to")
    if isinstance(to, torch.device):
        if to.type == "meta":
            raise ValueError("snapshot_to must be a device that holds values, got meta.")
        return to, None
    if isinstance(to, os.PathLike):
        return None, check_path(to, "snapshot_to")
    raise TypeError(f"snapshot_to must be None, a device or a directory, but given {type(to).__name__}")
