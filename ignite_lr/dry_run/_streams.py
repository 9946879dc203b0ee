"""Several streams of batches from one start: what repeats of a training differ by.

A stream depends on the start and on its number alone, so that trials which are repeated over the same streams can be
compared pair by pair. Stream 0 is what the training itself would read.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import RandomSampler, Sampler, SubsetRandomSampler, WeightedRandomSampler

from ignite_lr.dry_run._batches import samplers_of
from ignite_lr.dry_run._snapshot import Snapshot

__all__ = ["batches_ahead", "enter_stream"]

_EPOCHS_APART = 10_000  # further than any dry run reads


def enter_stream(number: int, snapshot: Snapshot, data: Any) -> None:
    """Turn from the start, where everything has to be, into a stream; to be called before the first batch is taken.

    Generators, the global ones and those that were captured, get a seed made of their own state and the number;
    samplers that know of epochs read epochs that no other stream reads.

    Args:
        number: which stream; 0 changes nothing.
        snapshot: what was captured.
        data: what the batches are made from.
    """
    if number == 0:
        return
    random.seed(_seed(repr(random.getstate()).encode(), number))
    np.random.seed(_seed(repr(_numpy_state()).encode(), number) % 2**32)  # noqa: NPY002 - theirs
    _reseed(torch.default_generator, number)
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
        for generator in torch.cuda.default_generators:
            _reseed(generator, number)
    for generator in snapshot.generators:
        _reseed(generator, number)
    for sampler in samplers_of(data):
        if hasattr(sampler, "set_epoch"):
            epoch = getattr(sampler, "epoch", 0)
            sampler.set_epoch((epoch if isinstance(epoch, int) else 0) + number * _EPOCHS_APART)


def batches_ahead(number: int, of: int, data: Any, length: int | None) -> int:
    """How many batches later a stream begins.

    Data that is shuffled differs from stream to stream by itself. Where that is not known, stream k of r begins k / r
    of a pass later; without a length, k batches later.

    Args:
        number: which stream.
        of: how many there are.
        data: what the batches are made from.
        length: how many batches a pass has, if that is known.
    """
    if any(_shuffles(sampler) for sampler in samplers_of(data)):
        return 0
    return number if length is None else number * length // of


def _shuffles(sampler: Sampler[Any]) -> bool:
    if hasattr(sampler, "set_epoch"):
        return bool(getattr(sampler, "shuffle", True))
    return isinstance(sampler, RandomSampler | SubsetRandomSampler | WeightedRandomSampler)


def _reseed(generator: Any, number: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(_seed(generator.get_state().numpy().tobytes(), number))
    elif isinstance(generator, random.Random):
        generator.seed(_seed(repr(generator.getstate()).encode(), number))
    elif isinstance(generator, np.random.RandomState):
        generator.seed(_seed(repr(generator.get_state()).encode(), number) % 2**32)
    else:
        bits = generator if isinstance(generator, np.random.BitGenerator) else generator.bit_generator
        bits.state = type(bits)(_seed(repr(bits.state).encode(), number)).state


def _numpy_state() -> Any:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - theirs
    return kind, np.asarray(keys).tobytes(), rest


def _seed(state: bytes, number: int) -> int:
    return int.from_bytes(hashlib.sha256(state + number.to_bytes(8, "big")).digest()[:7], "big")
