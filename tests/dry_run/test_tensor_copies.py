from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ignite_lr.dry_run import place
from ignite_lr.dry_run._tensors import TensorCopies


def test_places() -> None:
    assert place(None) == (None, None)
    assert place("cpu") == (torch.device("cpu"), None)
    assert place("cuda:1") == (torch.device("cuda:1"), None)
    assert place(torch.device("cuda")) == (torch.device("cuda"), None)
    assert place("some/folder") == (None, Path("some/folder"))
    assert place(Path("cpu")) == (None, Path("cpu"))
    for nowhere in ("meta", torch.device("meta")):
        with pytest.raises(ValueError, match="snapshot_to must be a device that holds values, got meta"):
            place(nowhere)
    with pytest.raises(TypeError, match="snapshot_to must be None, a device or a directory, but given int"):
        place(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("directory", [False, True])
def test_a_tensor_that_nobody_holds_any_more_comes_back_as_its_copy(directory: bool, tmp_path: Path) -> None:
    copies = TensorCopies(tmp_path if directory else None)
    tensor = torch.ones(3)
    restore = copies.add(tensor)
    copies.seal()
    del tensor
    gc.collect()
    failures: list[Any] = []
    copies.begin(failures, last=False)
    first = restore()
    first.zero_()
    copies.begin(failures, last=True)
    assert torch.equal(restore(), torch.ones(3))
    assert failures == []
    copies.close()


def test_a_tensor_is_captured_once() -> None:
    copies = TensorCopies(None)
    tensor = nn.Parameter(torch.ones(3))
    assert copies.add(tensor) is copies.add(tensor)
    assert len(copies._copies) == 1


def test_a_tensor_that_changed_its_shape_gets_the_old_one_back() -> None:
    copies = TensorCopies(None)
    tensor = nn.Parameter(torch.ones(3))
    restore = copies.add(tensor)
    tensor.data = torch.zeros(5)
    copies.begin([], last=True)
    assert restore() is tensor
    assert torch.equal(tensor, torch.ones(3))


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.arange(6).reshape(2, 3).t(), id="transposed"),
        pytest.param(torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), id="channels last"),
        pytest.param(torch.tensor(True), id="bool"),
        pytest.param(torch.tensor([1 + 2j]), id="complex"),
        pytest.param(torch.ones(3, dtype=torch.bfloat16), id="bfloat16"),
        pytest.param(torch.empty(0, 3), id="empty"),
        pytest.param(torch.tensor([float("nan"), -0.0]), id="nan"),
    ],
)
@pytest.mark.parametrize("directory", [False, True])
def test_tensors_of_all_kinds(tensor: torch.Tensor, directory: bool, tmp_path: Path) -> None:
    before, strides = tensor.clone(), tensor.stride()
    copies = TensorCopies(tmp_path if directory else None)
    restore = copies.add(tensor)
    copies.seal()
    tensor.zero_()
    failures: list[Any] = []
    copies.begin(failures, last=True)
    assert restore() is tensor
    assert failures == []
    assert tensor.stride() == strides
    assert bytes(tensor.contiguous().view(-1).view(torch.uint8).numpy()) == bytes(
        before.contiguous().view(-1).view(torch.uint8).numpy()
    )
    copies.close()


def test_the_file_is_complete_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = TensorCopies(tmp_path / "new")
    copies.add(torch.ones(3))

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        copies.seal()
    copies.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_leaves_no_file_and_no_second_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fdopen = os.fdopen

    def full(handle: int, mode: str) -> Any:
        os.close(handle)
        return fdopen(os.open("/dev/full", os.O_WRONLY), mode)

    monkeypatch.setattr(os, "fdopen", full)
    copies = TensorCopies(tmp_path / "new")
    copies.add(torch.ones(3))
    with pytest.raises((OSError, RuntimeError)):
        copies.seal()
    copies.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_stays(tmp_path: Path) -> None:
    copies = TensorCopies(tmp_path / "new")
    copies.add(torch.ones(3))
    copies.seal()
    (tmp_path / "new" / "notes.txt").write_text("mine", encoding="utf-8")
    copies.close()
    copies.close()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["notes.txt"]
