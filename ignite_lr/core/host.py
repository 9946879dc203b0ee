"""The only way from device to host.

A read of a device value makes the host wait for the device, so every one of them is made here, where it can be seen:
:func:`read` brings any number of values over in one copy, :func:`arrays` whole tensors, :class:`Readback` sends one
value ahead and picks it up later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Readback", "arrays", "listed", "numbers", "read"]


def read(values: Sequence[torch.Tensor]) -> list[float]:
    """Read scalars from wherever they are, with one copy per device.

    Args:
        values: tensors of one element each, of any real dtype, on any devices.

    Returns:
        their values as Python floats, in the order given.

    Example:
        >>> read([torch.tensor(1.5), torch.tensor(2)])
        [1.5, 2.0]
    """
    if len(values) == 1:
        return [float(values[0].item())]
    places: dict[torch.device, list[int]] = {}
    for index, value in enumerate(values):
        places.setdefault(value.device, []).append(index)
    numbers = [0.0] * len(values)
    for indices in places.values():
        # float64 holds every float32 and every integer below 2**53 exactly
        together = torch.stack([values[i].detach().reshape(()).to(torch.float64) for i in indices])
        if together.is_cuda and torch.cuda.is_available():
            # straight into pinned memory, without the driver's own staging buffer in between
            together = torch.empty(together.shape, dtype=together.dtype, pin_memory=True).copy_(together)
        for i, number in zip(indices, together.tolist(), strict=True):
            numbers[i] = number
    return numbers


def numbers(values: Sequence[Any]) -> list[float]:
    """Plain numbers, of values of which some may be tensors; those on a device come over together.

    Args:
        values: numbers and tensors of one element each.

    Returns:
        their values as Python floats, in the order given.

    Example:
        >>> numbers([1, torch.tensor(2.5)])
        [1.0, 2.5]
    """
    arrived = iter(read([value for value in values if isinstance(value, torch.Tensor)]))
    return [next(arrived) if isinstance(value, torch.Tensor) else float(value) for value in values]


def arrays(tensors: Sequence[torch.Tensor]) -> list[npt.NDArray[Any]]:
    """Copy tensors of any shapes and dtypes to the host, all of them in one copy.

    Args:
        tensors: dense tensors on one device.

    Returns:
        arrays of the same shapes and dtypes, in the order given, that share no memory with the tensors.

    Example:
        >>> arrays([torch.tensor([1, 2]), torch.tensor(0.5)])
        [array([1, 2]), array(0.5, dtype=float32)]
    """
    if not tensors:
        return []
    together = torch.cat([_bytes_of(tensor) for tensor in tensors]).cpu().numpy().tobytes()
    copies: list[npt.NDArray[Any]] = []
    start = 0
    for tensor in tensors:
        kind = np.dtype(str(tensor.dtype).removeprefix("torch."))
        flat = np.frombuffer(together, kind, tensor.numel(), start).copy()
        copies.append(flat.reshape(tensor.shape))
        start += flat.nbytes
    return copies


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.numel():  # one made of an array has a stride of 0, and no bytes to be seen as
        return torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return tensor.detach().reshape(-1).view(torch.uint8)


def listed(array: npt.NDArray[Any]) -> list[Any]:
    """An array, which is on the host already, as a list of Python's own numbers.

    Example:
        >>> listed(np.array([1.5, 2.0]))
        [1.5, 2.0]
    """
    numbers: list[Any] = array.tolist()
    return numbers


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """A fingerprint of tensors: the same for the same shapes, dtypes and bits, on whatever device they are.

    Args:
        tensors: dense ones; of a sharded tensor, the shard that lies here.

    Example:
        >>> digest([torch.zeros(2)]) == digest([torch.zeros(2)]), digest([torch.zeros(2)]) == digest([torch.ones(2)])
        (True, False)
    """
    found = hashlib.sha256()
    for tensor in tensors:
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        found.update(f"{local.dtype} {tuple(local.shape)}".encode())
        found.update(_bytes_of(local.contiguous()).cpu().numpy().tobytes())
    return found.hexdigest()


class Readback:
    """A scalar on its way to the host, started without waiting for the device.

    On CUDA the value is copied to pinned memory behind an event, so that :meth:`value` waits for that copy alone and
    not for what was queued after it. Elsewhere there is nothing to wait for.

    Args:
        scalar: a tensor of one element.

    Example:
        >>> Readback(torch.tensor(3.0)).value()
        3.0
    """

    def __init__(self, scalar: torch.Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        # a copy, because the owner of the scalar may write to it again before it is read
        self._copy = scalar.detach().clone()
        if scalar.is_cuda:
            pinned = torch.empty(scalar.shape, dtype=scalar.dtype, pin_memory=True)
            pinned.copy_(self._copy, non_blocking=True)
            self._copy = pinned
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._arrived.record(torch.cuda.current_stream(scalar.device))

    @property
    def is_remote(self) -> bool:
        """Whether :meth:`value` may have to wait for a device."""
        return self._arrived is not None

    def value(self) -> float:
        """The value, once it has arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._copy)
