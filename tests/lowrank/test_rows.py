"""Matrices read by rows: on disk, from iterators, and one shard on each process."""

import numpy as np
import pytest
import torch

from spectrain import lowrank
from spectrain.testing import with_singular_values

INDEX = torch.arange(40, dtype=torch.float64)
SPECTRA = {
    "fast": 2.0 ** (-INDEX / 2),
    "slow": 1 / (1 + INDEX),
    "low rank": torch.where(INDEX < 6, 1.0, 0.0).double(),
    "ten decades": 10.0 ** (-INDEX / 4),
    "zero": 0 * INDEX,
}


def matrix(name, dtype=torch.float64):
    A = with_singular_values(SPECTRA[name], 500, 40, generator=0)
    return (A * (0.6 + 0.8j)).to(dtype) if dtype.is_complex else A.to(dtype)


def sources(A):
    array = A.numpy()
    yield "array", lowrank.RowBlocks(array, rows=64)
    yield "callable", lowrank.RowBlocks(lambda: iter(A.split([100, 1, 250, 149])))
    yield "list of arrays", lowrank.RowBlocks(lambda: (array[i : i + 90] for i in range(0, 500, 90)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_two_passes_are_exact(name, dtype, check):
    A = matrix(name, torch.float32 if dtype == torch.bfloat16 else dtype)
    unit = torch.finfo(A.dtype).eps
    size = float(check["wide"](A).norm())
    for kind, source in sources(A):
        for method in (None, "gram", "tsqr"):
            found = lowrank.svd(source, rank=8, method=method)
            best = float(check["best_error"](A, 8))
            measured = float(check["distance"](found, A))
            assert measured <= float(found.error) * (1 + 1e-6), kind
            assert float(found.error) <= best + 20 * unit * size
            assert abs(float(found.best) - best) <= (1e-7 if method == "gram" else 1e-12) * size + 2 * unit * size
            wanted = np.ndarray if kind != "callable" else torch.Tensor
            assert all(isinstance(letter, wanted) for letter in found)


def test_the_condition_guard_takes_tsqr(check):
    """At ten decades the Gram matrix cannot tell the small values; the guard sees that."""
    A = matrix("ten decades")
    source = lowrank.RowBlocks(A.numpy(), rows=64)
    guarded, by_gram = lowrank.svd(source, rank=39), lowrank.svd(source, rank=39, method="gram")
    truth = SPECTRA["ten decades"][:39]
    relative = lambda found: float((torch.as_tensor(found.S) / truth - 1).abs().max())  # noqa: E731
    assert relative(guarded) < 1e-5 < relative(by_gram)
    assert abs(guarded.U.T @ guarded.U - np.eye(39)).max() < 1e-5


@pytest.mark.parametrize("rtol", [0.3, 1e-2, 1e-9])
def test_a_tolerance_is_kept(rtol, check):
    for name in SPECTRA:
        A = matrix(name)
        found = lowrank.svd(lowrank.RowBlocks(A.numpy(), rows=70), rtol=rtol)
        size = float(A.norm())
        assert check["distance"](found, A) <= rtol * size * (1 + 1e-9) + 1e-14 * size
        tails = SPECTRA[name].square().flip(0).cumsum(0).flip(0).sqrt()
        assert int(found.rank) <= int((tails > rtol * size).sum()) + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
def test_one_pass_is_near_the_best(dtype, check):
    for name in ("fast", "slow", "low rank", "zero"):
        A = matrix(name, dtype)
        found = lowrank.svd(lowrank.RowBlocks(iter(A.split(77))), rank=5, generator=1)
        measured, best, size = check["distance"](found, A), check["best_error"](A, 5), float(check["wide"](A).norm())
        assert measured <= found.error * (1 + 1e-6), name
        assert measured <= 1.15 * best + 1e-4 * size, name
        assert found.error <= measured + 1e-4 * size, name
        assert abs(float(found.best - best)) <= 1e-6 * size
    with pytest.raises(ValueError, match="rank="):
        lowrank.svd(lowrank.RowBlocks(iter(A.split(77))), rtol=0.1)


def test_an_iterator_is_read_once_only():
    source = lowrank.RowBlocks(iter(matrix("slow").split(77)))
    lowrank.svd(source, rank=3)
    with pytest.raises(ValueError, match="read before"):
        lowrank.svd(source, rank=3)


def test_a_memmap_is_read_in_blocks_and_u_goes_to_disk(tmp_path, check):
    A = matrix("slow", torch.float32)
    on_disk = np.memmap(tmp_path / "A", dtype=np.float32, mode="w+", shape=A.shape)
    on_disk[:] = A.numpy()
    on_disk.flush()
    reading = np.memmap(tmp_path / "A", dtype=np.float32, mode="r", shape=A.shape)
    out = np.memmap(tmp_path / "U", dtype=np.float32, mode="w+", shape=(500, 8))
    found = lowrank.svd(reading, rank=8, out=out)
    assert found.U is out
    assert check["distance"](found, A) <= found.error * (1 + 1e-6)
    np.testing.assert_allclose(np.abs(found.U), np.abs(lowrank.svd(A, rank=8).U.numpy()), rtol=0, atol=1e-5)


PROGRAM = """
import os, sys, torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from spectrain import lowrank
from spectrain.testing import with_singular_values

rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
mesh = init_device_mesh("cpu", (world,))
for dtype in (torch.float32, torch.complex64):
    for decades in (2, 10):
        s = torch.logspace(0, -decades, 12, dtype=torch.float64)
        A = with_singular_values(s, 101, 12, generator=0)
        A = (A * (0.6 + 0.8j)).to(dtype) if dtype.is_complex else A.to(dtype)
        for method in (None, "tsqr"):
            found = lowrank.svd(distribute_tensor(A, mesh, [Shard(0)]), rank=5, method=method)
            assert found.U.placements == (Shard(0),) and found.U.shape == (101, 5)
            U = found.U.full_tensor()
            wide = torch.complex128 if dtype.is_complex else torch.float64
            rest = A.to(wide) - (U.to(wide) * found.S.to(wide)) @ found.Vh.to(wide)
            assert torch.linalg.matrix_norm(rest) <= found.error * (1 + 1e-6)
            assert abs(float(found.error / s[5:].norm()) - 1) < 1e-3
            alone = lowrank.svd(lowrank.RowBlocks(lambda: iter([A])), rank=5, method=method)
            assert (U - alone.U).abs().max() < 1e-5 + (1e-2 if decades == 10 else 0)
try:
    lowrank.svd(distribute_tensor(A, mesh, [Replicate()]), rank=5)
except ValueError as error:
    assert "Shard(0)" in str(error)
else:
    raise AssertionError("a replicated DTensor was taken")
print("good")
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
# As multiprocessing ends its children. One rank in five ended in std::terminate otherwise, after all was done and while
# the interpreter went down: probably a gloo thread that asked for the GIL.
os._exit(0)
"""


def test_a_sharded_matrix_gives_a_sharded_u(printed_by_ranks):
    assert all("good" in out for out in printed_by_ranks(PROGRAM, 2))


BAD = {
    "no source": (lambda: lowrank.RowBlocks(3), TypeError, "iterator"),
    "a vector": (lambda: lowrank.svd(lowrank.RowBlocks(iter([np.ones(3)])), rank=1), TypeError, "matrix"),
    "integers": (lambda: lowrank.svd(lowrank.RowBlocks(iter([np.ones((3, 2), int)])), rank=1), TypeError, "int64"),
    "other columns": (
        lambda: lowrank.svd(lowrank.RowBlocks(iter([np.ones((3, 2)), np.ones((3, 3))])), rank=1),
        ValueError,
        "2 and 3 columns",
    ),
    "NaN": (
        lambda: lowrank.svd(lowrank.RowBlocks(lambda: iter([np.ones((3, 2)), np.full((3, 2), np.nan)])), rank=1),
        ValueError,
        "from row 3",
    ),
    "empty": (lambda: lowrank.svd(lowrank.RowBlocks(iter([])), rank=1), ValueError, "no rows"),
    "rank": (lambda: lowrank.svd(lowrank.RowBlocks(np.ones((5, 3))), rank=4), ValueError, "between 1 and 3"),
    "norm": (lambda: lowrank.svd(lowrank.RowBlocks(np.ones((5, 3))), rank=2, norm=2), ValueError, "fro"),
    "method": (lambda: lowrank.svd(lowrank.RowBlocks(np.ones((5, 3))), rank=2, method="krylov"), ValueError, "tsqr"),
    "method in memory": (lambda: lowrank.svd(np.ones((5, 3)), rank=2, method="tsqr"), ValueError, "in memory"),
    "out in memory": (lambda: lowrank.svd(np.ones((5, 3)), rank=2, out=np.ones((5, 2))), ValueError, "out="),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(case):
    call, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        call()
