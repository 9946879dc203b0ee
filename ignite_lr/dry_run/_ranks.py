"""What the ranks decide together."""

from __future__ import annotations

import ignite.distributed as idist
import torch

from ignite_lr.core.host import read

__all__ = ["agree", "mean_over_ranks"]


def agree(world: int, loss: float | None, updates: int, stop: bool) -> tuple[float | None, int, bool]:
    """The mean loss over the ranks that have one, and whether any of them wants to stop. One collective."""
    own = [0.0, 0.0] if loss is None else [loss, 1.0]
    total, known, *totals = _sum_over_ranks([*own, updates, updates**2, float(stop)])
    mean, squares, wishes = (one / world for one in totals)
    if squares != mean**2:
        raise RuntimeError("the ranks disagree about whether this iteration updated the swept optimizer")
    return total / known if known else None, round(mean), wishes > 0


def mean_over_ranks(value: float) -> float:
    """The mean of a number over the ranks, the same on each; every rank has to ask. One rank: the number."""
    world = idist.get_world_size()
    return value if world == 1 else _sum_over_ranks([value])[0] / world


def _sum_over_ranks(values: list[float]) -> list[float]:
    device = idist.device()
    precision = torch.float32 if device.type in ("mps", "xla") else torch.float64
    total = idist.all_reduce(torch.tensor(values, dtype=precision, device=device))
    assert isinstance(total, torch.Tensor)
    return read(list(total))
