"""The batches of a sweep: as many as it needs, from whatever the user has."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from ignite_lr.core.notice import notice

__all__ = ["endless", "is_one_shot", "private_loader", "samplers_of"]


def is_one_shot(data: Any) -> bool:
    """Whether the data can be read only once; an iterator with a length begins again, unless it is PyTorch's."""
    return isinstance(data, Iterator) and (isinstance(data, _BaseDataLoaderIter) or not hasattr(data, "__len__"))


def private_loader(data: Any, inside: Iterable[DataLoader[Any]] = ()) -> Any:
    """The data as the sweep reads it, with a warning where reading it cannot be undone.

    Args:
        data: what the user gave.
        inside: the loaders that are somewhere in it, and get their attributes back in the end.
    """
    if is_one_shot(data):
        notice(
            "the data of this range test is a one-shot iterator: the batches that the sweep takes from it are gone "
            "for the training; pass a data loader, or make a new iterator afterwards"
        )
    elif isinstance(data, DataLoader) and _keeps_workers(data):
        _warn_of_workers()
        loader = copy.copy(data)
        _let_workers_go(loader)
        return loader
    else:
        lasting = [loader for loader in inside if _keeps_workers(loader)]
        for loader in lasting:  # in a wrapper no copy can take its place
            _let_workers_go(loader)
        if lasting:
            _warn_of_workers()
    return data


def _keeps_workers(loader: DataLoader[Any]) -> bool:
    return loader.persistent_workers and loader.num_workers > 0


def _let_workers_go(loader: DataLoader[Any]) -> None:
    # the loader refuses to have this changed, but one that does not know of its iterator does not mind
    loader.__dict__.update(persistent_workers=False, _iterator=None)


def _warn_of_workers() -> None:
    notice(
        "the data loader has persistent workers, and the random state inside them can neither be captured nor "
        "restored: the sweep reads the same data through a private copy without persistent workers"
    )


def endless(data: Any) -> Iterator[Any]:
    """Batches of the data, over and over, each pass a new epoch for samplers that know of epochs."""
    taken = 0
    epoch = 0
    while True:
        before = taken
        if data is None:
            yield None
            continue
        for batch in data:
            taken += 1
            yield batch
        if taken == before:
            raise RuntimeError(
                f"the data ran dry after {taken} batches, before the sweep had its points: give it data that can be "
                "read again, such as a DataLoader or a list, or a smaller num_iter"
            )
        epoch += 1
        for sampler in samplers_of(data):
            if hasattr(sampler, "set_epoch"):
                present = getattr(sampler, "epoch", epoch - 1)
                sampler.set_epoch((present if isinstance(present, int) else epoch - 1) + 1)


def samplers_of(data: Any) -> list[Any]:
    """The samplers of a loader, each once: its own, its batch sampler, and the sampler of that."""
    batches = getattr(data, "batch_sampler", None)
    samplers: list[Any] = []
    for sampler in (getattr(data, "sampler", None), batches, getattr(batches, "sampler", None)):
        if sampler is not None and not any(sampler is other for other in samplers):
            samplers.append(sampler)
    return samplers
