"""The global norm of gradients, and scaling them by a factor, for every kind of gradient that PyTorch makes.

The norm of all gradients is the norm of their norms. For dense gradients of one precision the arithmetic is that of
``torch.nn.utils.clip_grad_norm_``, to the bit; beyond it, half precision is summed in float32, sparse gradients count
each index once, and the shards of a ``DTensor`` are combined with one all-reduce for each way of sharding.
Nothing here reads a value on the host.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import torch

__all__ = ["global_norm", "is_distributed", "norm_of_norms", "plain", "scale_"]

_HALF = (torch.float16, torch.bfloat16)
# powers that gradients of a sensible size do not take out of float32; with others it may happen to 1e-5
_SAFE = (1.0, 2.0, math.inf)
_LEAST_POWER, _LARGEST_POWER = 1e-30, 1e30
_DTYPE, _LAYOUT, _PLACE = attrgetter("dtype"), attrgetter("layout"), torch.Tensor.get_device
_PLAIN, _STRIDED = {torch.Tensor}, {torch.strided}


def global_norm(gradients: Sequence[torch.Tensor], norm_type: float = 2.0) -> torch.Tensor:
    """The norm of all gradients taken as one vector.

    Args:
        gradients: at least one gradient, of any mix of layouts, precisions, devices and meshes.
        norm_type: the p of the norm, positive, may be ``inf``.

    Returns:
        a fresh 0-d tensor on the device of the first gradient, the same on every rank: float64 if a gradient is in
        double precision, else float32.

    Example:
        >>> global_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        tensor(5.)
    """
    # nearly always: many small tensors cost more in calls than in sums, so these are none
    if norm_type == 2.0 and set(map(type, gradients)) == _PLAIN and set(map(_LAYOUT, gradients)) == _STRIDED:
        dtypes = set(map(_DTYPE, gradients))
        if len(dtypes) == 1 and dtypes.isdisjoint(_HALF) and len(set(map(_PLACE, gradients))) == 1:
            whole: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients), 2.0)))
            return whole
    local, sharded = _split(gradients)
    first = gradients[0].device
    norms = []
    if local:
        norms.append(_local_norm(local, norm_type, first))
    for (mesh, dimensions), shards in sharded.items():
        norm = _local_norm(shards, norm_type, first)
        norms.append(_reduce(norm, mesh, dimensions, norm_type) if dimensions else norm)
    return norms[0] if len(norms) == 1 else norm_of_norms(norms, norm_type)


def norm_of_norms(norms: Sequence[torch.Tensor], norm_type: float = 2.0) -> torch.Tensor:
    """The norm of the whole from the norms of its parts: 0-d tensors, brought to the device of the first.

    Example:
        >>> norm_of_norms([torch.tensor(3.0), torch.tensor(4.0)])
        tensor(5.)
    """
    device = norms[0].device
    return _norm(torch.stack([_moved(norm, device) for norm in norms]), norm_type)


def scale_(gradients: Sequence[torch.Tensor], factor: torch.Tensor) -> None:
    """Multiply gradients in place by a factor.

    Args:
        gradients: as for :func:`global_norm`; a sparse one keeps its indices as they are.
        factor: 0-d tensor, on any device.
    """
    if not _all_plain(gradients):
        gradients = [_values(_shard(gradient)) for gradient in gradients]
    for device, _, group in _alike(gradients):
        # a 0-d tensor, because a Python number would have to be read from the device first
        torch._foreach_mul_(group, _moved(factor, device))


def is_distributed(gradients: Iterable[torch.Tensor]) -> bool:
    """Whether one of the gradients is a ``DTensor``."""
    distributed = _dtensor()
    return distributed is not None and any(issubclass(kind, distributed) for kind in set(map(type, gradients)))


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or the whole of a ``DTensor``."""
    if is_distributed([tensor]):
        whole: torch.Tensor = tensor.full_tensor()  # type: ignore[attr-defined] # of a DTensor
        return whole
    return tensor


def _split(
    gradients: Sequence[torch.Tensor],
) -> tuple[Sequence[torch.Tensor], dict[tuple[Any, tuple[int, ...]], list[torch.Tensor]]]:
    """Plain tensors, and the local shards of DTensors by mesh and by the mesh dimensions that they are sharded over."""
    if _all_plain(gradients):
        return gradients, {}
    distributed = _dtensor() or ()
    local: list[torch.Tensor] = []
    sharded: dict[tuple[Any, tuple[int, ...]], list[torch.Tensor]] = {}
    for gradient in gradients:
        if not isinstance(gradient, distributed):
            local.append(_coalesced_values(gradient))
            continue
        placements = gradient.placements
        if any(placement.is_partial() for placement in placements):
            # summands of a gradient: their norms say nothing about the norm of the sum
            replicate = sys.modules["torch.distributed.tensor"].Replicate()
            gradient = gradient.redistribute(placements=[replicate if p.is_partial() else p for p in placements])
            placements = gradient.placements
        dimensions = tuple(i for i, placement in enumerate(placements) if not placement.is_replicate())
        sharded.setdefault((gradient.device_mesh, dimensions), []).append(_coalesced_values(gradient.to_local()))
    return local, sharded


def _local_norm(tensors: Sequence[torch.Tensor], norm_type: float, device: torch.device) -> torch.Tensor:
    if math.isinf(norm_type):
        # an empty shard has no largest element
        tensors = [tensor for tensor in tensors if tensor.numel()]
    norms: list[torch.Tensor] = []
    for place, dtype, group in _alike(tensors):
        wide = torch.float32 if dtype in _HALF else None
        parts = torch._foreach_norm(group, norm_type, wide) if wide else torch._foreach_norm(group, norm_type)
        if norm_type not in _SAFE:
            parts = tuple(_in_range(parts, group, norm_type))
        if place == device:
            norms.extend(parts)
        else:
            # one crossing a device, not one a tensor
            norms.append(_moved(norm_of_norms(parts, norm_type), device))
    if not norms:
        return torch.zeros((), device=device)
    return _norm(torch.stack(norms), norm_type)


def _in_range(norms: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor], norm_type: float) -> list[torch.Tensor]:
    """These norms of these tensors, and those whose powers leave the range of a float from parts of the largest."""
    inside = []
    for norm, tensor in zip(norms, tensors, strict=True):
        sizes = tensor.abs().to(norm.dtype)
        largest = sizes.max() if sizes.numel() else norm
        unit = torch.where((largest > 0) & torch.isfinite(largest), largest, 1.0)
        scaled = torch.linalg.vector_norm(sizes / unit, norm_type) * unit
        power = unit**norm_type
        inside.append(torch.where((power > _LEAST_POWER) & (power < _LARGEST_POWER), norm, scaled))
    return inside


# Models have hundreds of gradients, nearly always all of one kind: what a model costs is decided by these two. Sets of
# attributes are several times as fast as a look at each gradient.


def _all_plain(gradients: Sequence[torch.Tensor]) -> bool:
    """Whether all gradients are dense tensors, and whole."""
    return not is_distributed(gradients) and set(map(_LAYOUT, gradients)) <= {torch.strided}


def _alike(tensors: Sequence[torch.Tensor]) -> Iterator[tuple[torch.device, torch.dtype, list[torch.Tensor]]]:
    """The tensors by device and dtype, in the order in which these first come."""
    dtypes = set(map(_DTYPE, tensors))
    if len(dtypes) == 1 and len(set(map(_PLACE, tensors))) == 1:
        yield tensors[0].device, dtypes.pop(), list(tensors)
        return
    groups: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    for (device, dtype), group in groups.items():
        yield device, dtype, group


def _moved(scalar: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy to a device need not be waited for; one to the host must be, or it would be read before it is there."""
    return scalar.to(device, non_blocking=device.type != "cpu")


def _norm(vector: torch.Tensor, norm_type: float) -> torch.Tensor:
    norm: torch.Tensor = torch.linalg.vector_norm(vector, norm_type)
    return norm if norm_type in _SAFE else _in_range([norm], [vector], norm_type)[0]


def _reduce(norm: torch.Tensor, mesh: Any, dimensions: tuple[int, ...], norm_type: float) -> torch.Tensor:
    """Combine the norms of the shards over the mesh dimensions they are sharded over."""
    module = sys.modules["torch.distributed.tensor"]
    largest = math.isinf(norm_type)
    partial = module.Partial("max" if largest else "sum")
    placements = [partial if i in dimensions else module.Replicate() for i in range(mesh.ndim)]
    # in double precision, so that a norm of 1e20 has a square
    term = norm if largest else norm.to(torch.float64) ** norm_type
    whole: torch.Tensor = module.DTensor.from_local(term, mesh, placements, run_check=False).full_tensor()
    return whole if largest else (whole ** (1.0 / norm_type)).to(norm.dtype)


def _dtensor() -> Any:
    """The class DTensor, or None where nobody has imported it, so that there can be none."""
    module = sys.modules.get("torch.distributed.tensor")
    return getattr(module, "DTensor", None)


def _shard(gradient: torch.Tensor) -> torch.Tensor:
    distributed = _dtensor()
    if distributed is not None and isinstance(gradient, distributed):
        shard: torch.Tensor = gradient.to_local()
        return shard
    return gradient


def _values(tensor: torch.Tensor) -> torch.Tensor:
    """The stored elements: a view, as they are."""
    if tensor.layout is torch.strided:
        return tensor
    return tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()


def _coalesced_values(tensor: torch.Tensor) -> torch.Tensor:
    """The stored elements, one for each index: in a sparse gradient an index may come several times."""
    return _values(tensor.coalesce()) if tensor.layout is torch.sparse_coo else _values(tensor)
