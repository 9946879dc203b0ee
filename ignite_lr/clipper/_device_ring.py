"""The last values of a series, kept on a device.

How many of them there are is known to the device alone: whether a value counts may depend on what only the device
knows, as the flag with which a ``GradScaler`` skips a fused step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["DeviceRing", "sent"]

_FIRST_CAPACITY = 1024
# up to here a ring has its full size from the start, so that nothing needs to grow while a CUDA graph is captured
_FIXED_CAPACITY = 65536


def sent(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy of an array on a device, made without waiting for it."""
    if not array.any():
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        return torch.zeros(array.shape, dtype=dtype, device=device)
    tensor = torch.tensor(array)
    if device.type == "cuda" and torch.cuda.is_available():
        tensor = tensor.pin_memory()  # from pageable memory the copy would be waited for
    return tensor.to(device, non_blocking=True)


class DeviceRing:
    """The last ``size`` values, or all of them.

    Every tensor is written in place, so that a CUDA graph can be captured over :meth:`add`; only where all values are
    kept, or more than 65,536, the buffer doubles now and then. The host never waits.

    Args:
        size: how many values are kept, at least 1; None for all.
        device: where they lie.
        values: array of shape (n, ...) of values to start with, oldest first; of too many the newest are kept.
        fill: what places not yet written hold.

    Attributes:
        buffer: tensor of shape (capacity, ...); the order is that of the ring.
        length: how many places are written, a 0-d int64 tensor.
    """

    def __init__(self, size: int | None, device: torch.device, values: npt.NDArray[Any], fill: float = 0.0) -> None:
        if size is not None:
            values = values[max(len(values) - size, 0) :]
        start = sent(values, device)
        self._size = size
        self._fill = fill
        if size is not None and size <= _FIXED_CAPACITY:
            capacity = size
        else:
            capacity = self._within_size(max(_FIRST_CAPACITY, 2 * len(values)))
        self.buffer = torch.cat((start, start.new_full((capacity - len(start), *start.shape[1:]), fill)))
        # never below the true length, and known without asking the device
        self._at_most = len(start)
        self.length = torch.full((), len(start), dtype=torch.int64, device=device)
        self._next = torch.full((), len(start) % capacity, dtype=torch.int64, device=device)

    def add(self, value: torch.Tensor, counts: torch.Tensor) -> None:
        """Add a value of shape (...) where the 0-d bool tensor ``counts`` is true."""
        capacity = len(self.buffer)
        if self._at_most == capacity and capacity != self._size:
            more = self._within_size(2 * capacity) - capacity
            self.buffer = torch.cat((self.buffer, self.buffer.new_full((more, *self.buffer.shape[1:]), self._fill)))
            self._next = self.length.clone()  # a full ring had come round to 0
            capacity += more
        self._at_most = min(self._at_most + 1, capacity)
        place = self._next.reshape(1)
        old = self.buffer.index_select(0, place)
        self.buffer.index_copy_(0, place, torch.where(counts, value.to(self.buffer.dtype), old))
        self.length.add_(counts).clamp_(max=capacity)
        self._next.add_(counts).remainder_(capacity)

    def _within_size(self, capacity: int) -> int:
        return capacity if self._size is None else min(capacity, self._size)

    def tensors(self) -> list[torch.Tensor]:
        """What :meth:`values` needs on the host, to be fetched together with other things."""
        return [self.buffer, self.length, self._next]

    @staticmethod
    def values(
        buffer: npt.NDArray[Any], length: npt.NDArray[np.int64], following: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        """The values, oldest first, from :meth:`tensors` brought to the host."""
        written, start = int(length), int(following)
        return np.concatenate((buffer[start:], buffer[:start])) if written == len(buffer) else buffer[:written]
