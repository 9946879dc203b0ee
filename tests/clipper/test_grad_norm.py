from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ignite_lr.clipper._norm import global_norm, is_distributed, norm_of_norms, plain, scale_

SHAPES = [(3,), (4, 5), (), (2, 1, 7)]


def gradients(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=dtype) for shape in SHAPES]


@pytest.mark.parametrize("norm_type", [0.5, 1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_equals_torch_to_the_bit(norm_type: float, dtype: torch.dtype) -> None:
    mine = gradients(dtype)
    norm = global_norm(mine, norm_type)
    assert torch.equal(norm, get_total_norm(mine, norm_type))
    assert norm.dtype == torch.empty(0, dtype=dtype).abs().dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    mine = [300.0 * gradient for gradient in gradients()]
    half = [gradient.to(dtype) for gradient in mine]
    assert torch.equal(global_norm(half), get_total_norm([gradient.float() for gradient in half]))
    # the largest half is 65,504, its square is none
    assert global_norm([torch.full((4,), 6e4, dtype=torch.float16)]).item() == pytest.approx(1.2e5, rel=1e-3)


def test_mixed_precision() -> None:
    mine = [torch.randn(5), torch.randn(3, dtype=torch.float64), torch.randn(4, dtype=torch.bfloat16)]
    whole = torch.cat([gradient.double() for gradient in mine])
    assert global_norm(mine).item() == pytest.approx(whole.norm().item(), rel=1e-6)
    assert global_norm(mine).dtype == torch.float64


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_a_sparse_gradient_counts_each_index_once(norm_type: float) -> None:
    sparse = torch.sparse_coo_tensor([[0, 2, 0]], torch.randn(3, 4), (5, 4), check_invariants=True)
    mine = [sparse, torch.randn(3)]
    whole = torch.cat([sparse.to_dense().reshape(-1), mine[1]])
    assert global_norm(mine, norm_type).item() == pytest.approx(whole.norm(norm_type).item(), rel=1e-6)
    expected = 0.5 * sparse.to_dense()
    scale_([sparse], torch.tensor(0.5))
    torch.testing.assert_close(sparse.to_dense(), expected)


def test_empty_gradients_add_nothing() -> None:
    mine = [torch.zeros(0, 3), torch.tensor([3.0, -4.0])]
    assert global_norm(mine, math.inf).item() == 4.0
    assert global_norm(mine[:1]).item() == 0.0


def test_non_finite_gradients_show() -> None:
    assert global_norm([torch.tensor([1.0, math.inf])]).item() == math.inf
    assert global_norm([torch.tensor([1.0, math.nan])]).isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_scaling_equals_torch_to_the_bit(dtype: torch.dtype) -> None:
    parameters = [nn.Parameter(gradient) for gradient in gradients(dtype)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    mine = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    norm = global_norm(mine)
    clip_grads_with_norm_(parameters, 0.7, norm)
    scale_(mine, (0.7 / (norm + 1e-6)).clamp(max=1.0))
    for gradient, parameter in zip(mine, parameters, strict=True):
        assert parameter.grad is not None
        assert torch.equal(gradient, parameter.grad)


def test_norm_of_norms() -> None:
    assert norm_of_norms([torch.tensor(2.0), torch.tensor(5.0)], math.inf).item() == 5.0


# ---- shards, on two processes


def count_collectives() -> tuple[object, list[str]]:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: list[str] = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if "c10d" in func.namespace and any(word in str(func) for word in ("reduce", "gather", "all_to")):
                seen.append(str(func))
            return func(*args, **(kwargs or {}))

    return Count(), seen


def check_fsdp(rank: int) -> None:
    torch.manual_seed(0)
    plain_model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 1))  # three rows, one row: uneven and empty shards
    twin = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 1))
    twin.load_state_dict(plain_model.state_dict())
    fully_shard(twin, mesh=init_device_mesh("cpu", (2,)))
    batch = torch.randn(4, 5)
    plain_model(batch).square().sum().backward()
    twin(batch).square().sum().backward()
    expected = [parameter.grad for parameter in plain_model.parameters() if parameter.grad is not None]
    shards = [parameter.grad for parameter in twin.parameters() if parameter.grad is not None]
    assert is_distributed(shards)
    assert any(shard.to_local().numel() == 0 for shard in shards) == (rank == 1)
    for norm_type in (1.0, 2.0, math.inf):
        mode, seen = count_collectives()
        with mode:  # type: ignore[attr-defined]
            norm = global_norm(shards, norm_type)
        assert not isinstance(norm, DTensor)
        torch.testing.assert_close(norm, global_norm(expected, norm_type))
        assert len(seen) == 1, seen
    # plain gradients beside them are whole on every rank
    extra = torch.tensor([3.0])
    torch.testing.assert_close(global_norm([extra, *shards]), global_norm([extra, *expected]))
    scale_(shards, torch.tensor(0.5))
    for shard, gradient in zip(shards, expected, strict=True):
        torch.testing.assert_close(plain(shard), 0.5 * gradient)


def check_meshes(rank: int) -> None:
    line = init_device_mesh("cpu", (2,))
    grid = init_device_mesh("cpu", (1, 2))
    torch.manual_seed(1)
    whole = [torch.randn(3, 4) for _ in range(4)]
    shards = [
        distribute_tensor(whole[0], line, [Shard(0)]),
        distribute_tensor(whole[1], grid, [Replicate(), Shard(1)]),
        distribute_tensor(whole[2], line, [Replicate()]),
        DTensor.from_local(0.5 * whole[3], line, [Partial()]),
    ]
    for norm_type in (2.0, 3.0, math.inf):
        norm = global_norm(shards, norm_type)
        torch.testing.assert_close(norm, global_norm(whole, norm_type))
    # a norm whose square no float32 holds
    big = distribute_tensor(torch.full((2,), 1e25), line, [Shard(0)])
    torch.testing.assert_close(global_norm([big], 2.0), torch.tensor(2.0**0.5 * 1e25), rtol=1e-6, atol=0.0)


def _process(rank: int, store: str, checks: list[Callable[[int], None]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        for check in checks:
            check(rank)
    finally:
        dist.destroy_process_group()
    # now and then a spawned process with a gloo group aborts while its interpreter shuts down, when all is done
    os._exit(0)


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="FSDP2 on CPUs needs PyTorch 2.7")
def test_shards_on_two_processes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        torch.multiprocessing.spawn(_process, args=(store, [check_fsdp, check_meshes]), nprocs=2)
