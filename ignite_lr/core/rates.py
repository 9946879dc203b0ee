"""Rates of parameter groups, read and written in one place.

What flows in are rates, what flows out is what the optimizer's next update uses. The base rate of a group is its
``initial_lr``, nowhere else: whoever changes it says so here (:func:`set_base_rates`), or just writes it, and those who
multiply it by a factor (:class:`Follower`) look before every update whether it is still the one they used. What must
never happen: a base rate kept in a second place, a tensor rate replaced instead of filled.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch.optim import Optimizer

from ignite_lr.core.arguments import Real, shown
from ignite_lr.core.host import numbers
from ignite_lr.core.notice import notice
from ignite_lr.core.schedulers import parts_of

__all__ = [
    "Follower",
    "Rate",
    "add_follower",
    "checked_rate",
    "copied",
    "in_form_of",
    "same_rates",
    "separate_rates",
    "set_base_rates",
    "set_rates",
    "write",
    "write_bases",
]

Rate = float | torch.Tensor


class Follower(Protocol):
    """A scheduler whose rates are base rates times something."""

    absolute: bool

    def owns(self) -> bool:
        """Whether the rates of the optimizer are those that it wrote last."""

    def changed(self) -> bool:
        """Whether base rates or groups are no longer those that the present rates were made of."""

    def follow(self) -> None:
        """Write the rates that are due, of the base rates as they are now."""


_followers: weakref.WeakKeyDictionary[Optimizer, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def add_follower(optimizer: Optimizer, follower: Follower) -> None:
    """Have a scheduler told when base rates of the optimizer are set. It is held weakly."""
    with _lock:
        _followers.setdefault(optimizer, weakref.WeakSet()).add(follower)


def set_rates(optimizer: Optimizer, rates: Iterable[float]) -> None:
    """Write one rate to each parameter group; a rate held as a tensor is filled in place.

    Args:
        optimizer: whose groups.
        rates: as many rates as groups.
    """
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if type(group["lr"]) is float:
            group["lr"] = rate  # the usual case, several times an iteration of a sweep
        else:
            write(group, "lr", rate)


def separate_rates(optimizer: Optimizer) -> None:
    """Give each rate a tensor of its own where several are one, as ``SGD(groups, lr=tensor)`` makes them.

    Written in place, the rate of one group would be that of all. The ``SequentialLR`` of PyTorch 2.6 makes the rate and
    the base rate of a group one tensor; filled, the rate would be the base of the next.
    """
    seen: set[int] = set()
    for key in ("initial_lr", "lr"):
        for group in optimizer.param_groups:
            rate = group.get(key)
            if isinstance(rate, torch.Tensor):
                if id(rate) in seen:
                    group[key] = rate = rate.detach().clone()
                seen.add(id(rate))


def set_base_rates(optimizer: Optimizer, rates: Sequence[float], scheduler: Any = None) -> None:
    """Make these the base rates, and write the rates that are due with them.

    Args:
        optimizer: whose groups.
        rates: as many base rates as groups.
        scheduler: one of others on this optimizer, which keeps base rates of its own, or a list of them; they are
            written too.

    Raises:
        TypeError: if ``scheduler`` is none.
        ValueError: if it is that of another optimizer.

    Warns:
        UserWarning: if some scheduler was made before that is neither ours nor given, or whose schedule is absolute.
    """
    schedulers = list(scheduler) if isinstance(scheduler, list | tuple) else [] if scheduler is None else [scheduler]
    for one in schedulers:
        if not callable(getattr(one, "step", None)):
            raise TypeError(f"scheduler must be a scheduler or a list of them, got {shown(one)}.")
        if getattr(one, "optimizer", optimizer) is not optimizer:
            raise ValueError(f"scheduler must be one of this optimizer, got {shown(one)}, which has another.")
    groups = optimizer.param_groups
    with _lock:
        followers: list[Follower] = list(_followers.get(optimizer, ()))
    scheduled = any("initial_lr" in group for group in groups)
    owners = [follower for follower in followers if follower.owns()]
    # how far along its schedule each group is
    shares = [_share(group) if followers or schedulers else 1.0 for group in groups]
    separate_rates(optimizer)
    for group, rate in zip(groups, rates, strict=True):
        if "initial_lr" in group:
            write(group, "initial_lr", rate)
    for one in schedulers:
        for part in parts_of(one):
            if not callable(getattr(part, "follow", None)):
                write_bases(part, rates)
    if owners:
        for owner in owners:
            owner.follow()
    else:
        set_rates(optimizer, [rate * share for rate, share in zip(rates, shares, strict=True)])
    if any(follower.absolute for follower in followers):
        notice("a ScheduleLR with absolute=True is on this optimizer: its rates are its own, and stay as they are.")
    elif scheduled and not followers and not schedulers:
        notice(
            "a scheduler was made for this optimizer before, and keeps its own base rates: "
            "give it too, as in apply(optimizer, scheduler=scheduler)."
        )


def _share(group: Mapping[str, Any]) -> float:
    base, rate = numbers([group.get("initial_lr", group["lr"]), group["lr"]])
    return rate / base if base > 0.0 else 1.0


def write_bases(scheduler: Any, rates: Sequence[float]) -> None:
    """Write the base rates that a scheduler of others keeps: PyTorch's, timm's."""
    for name in ("base_lrs", "base_values"):
        kept = getattr(scheduler, name, None)
        if isinstance(kept, list) and len(kept) == len(rates):
            setattr(scheduler, name, [in_form_of(present, rate) for present, rate in zip(kept, rates, strict=True)])


def write(group: dict[str, Any], key: str, rate: Rate) -> None:
    """Write a rate; one that is a tensor is filled, because a compiled or captured step holds on to it."""
    present = group[key]
    if isinstance(present, torch.Tensor):
        present.fill_(rate)
    else:
        group[key] = numbers([rate])[0]


def checked_rate(name: str, rate: Any) -> Rate:
    """A base rate, if it may be one.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is negative or not finite.
    """
    # a tensor may lie on a device, where looking at it makes the host wait
    if isinstance(rate, torch.Tensor) and rate.numel() == 1:
        return rate
    return cast("float", Real(minimum=0.0).check(name, rate))


def copied(rate: Any) -> Any:
    """A rate that does not change with the group's."""
    return rate.detach().clone() if isinstance(rate, torch.Tensor) else rate


def in_form_of(rate: Any, base: Rate) -> Rate:
    """A base rate as a tensor where the rate is one, so that their product is the same before and after a load."""
    if not isinstance(rate, torch.Tensor):
        return numbers([base])[0]
    if isinstance(base, torch.Tensor):
        return base if (base.dtype, base.device) == (rate.dtype, rate.device) else base.detach().to(rate)
    return torch.full_like(rate, base, requires_grad=False)


def same_rates(groups: Sequence[Mapping[str, Any]], rates: Sequence[Rate]) -> bool:
    """Whether the groups, as far as there are rates, have these. Reads rates that lie on a device."""
    present = [group["lr"] for group, _ in zip(groups, rates, strict=False)]
    return numbers(present) == numbers(rates[: len(present)])
