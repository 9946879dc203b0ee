from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from ignite_lr.dry_run import endless, is_one_shot, private_loader


def test_batches_go_round() -> None:
    assert list(itertools.islice(endless([1, 2, 3]), 8)) == [1, 2, 3, 1, 2, 3, 1, 2]
    assert list(itertools.islice(endless(None), 3)) == [None] * 3


def test_data_that_runs_dry_says_so() -> None:
    batches = endless(iter([1, 2]))
    assert [next(batches), next(batches)] == [1, 2]
    with pytest.raises(RuntimeError, match="the data ran dry after 2 batches"):
        next(batches)
    with pytest.raises(RuntimeError, match="the data ran dry after 0 batches"):
        next(endless([]))


class Shuffled(SequentialSampler):
    def __init__(self, source: list[int], epoch: int | None = None) -> None:
        super().__init__(source)
        self.epochs: list[int] = []
        if epoch is not None:
            self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.epochs.append(epoch)


@pytest.mark.parametrize(("epoch", "expected"), [(None, [1, 2]), (7, [8, 9])])
def test_every_pass_is_an_epoch_of_its_own(epoch: int | None, expected: list[int]) -> None:
    data = [0, 1, 2, 3]
    plain = Shuffled(data, epoch)
    list(itertools.islice(endless(DataLoader(data, batch_size=2, sampler=plain)), 5))
    assert plain.epochs == expected
    inner = Shuffled(data, epoch)
    loader = DataLoader(data, batch_sampler=BatchSampler(inner, 2, drop_last=False))
    list(itertools.islice(endless(loader), 5))
    assert inner.epochs == expected


def test_only_persistent_workers_need_a_private_copy() -> None:
    plain = DataLoader([1, 2], num_workers=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert private_loader(plain) is plain
        data = [1, 2]
        assert private_loader(data) is data
        assert private_loader(None) is None
    persistent = DataLoader(torch.arange(4), batch_size=2, num_workers=1, persistent_workers=True)
    with pytest.warns(UserWarning, match="random state inside them can neither be captured nor restored"):
        copied = private_loader(persistent)
    assert persistent.persistent_workers
    assert not copied.persistent_workers
    assert copied.sampler is persistent.sampler
    assert [batch.tolist() for batch in copied] == [[0, 1], [2, 3]]
    assert persistent._iterator is None


def test_which_iterators_are_read_once() -> None:
    """One with a length is a loader that begins again; that of a DataLoader has a length and does not."""

    class Restarting:
        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Restarting:
            return self

        def __next__(self) -> int:
            return 1

    loader = DataLoader([1, 2])
    assert is_one_shot(iter([1]))
    assert is_one_shot(x for x in "a")
    assert is_one_shot(iter(loader))
    assert not is_one_shot(Restarting())
    assert not is_one_shot(loader)
