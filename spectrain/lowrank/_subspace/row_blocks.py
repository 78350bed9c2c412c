"""A matrix by blocks of its rows: on disk, from an iterator, or one shard on each process."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from spectrain._arrays.kinds import check_readable, from_numpy
from spectrain._arrays.scale import refusal
from spectrain.lowrank._derivatives import refuse_derivative
from spectrain.lowrank._matrix.accepted import WORKING
from spectrain.lowrank._matrix.scale import exponent_of, scale_by

_BYTES = 2**25  # of one block in double precision: 32 MiB
_LEAST = 2**20  # minus the exponent of a block of zeros

Source: TypeAlias = Any  # an array with slices, a callable that returns an iterator of blocks, or an iterator


class RowBlocks:
    """A tall matrix whose rows are read in blocks, for :func:`svd`; it is never in memory as a whole.

    ``source`` is an array that can be sliced (numpy.memmap and other arrays on disk; it is cut into blocks of
    ``rows`` rows, about 32 MiB unless told), or a callable that returns a new iterator over blocks each time, or an
    iterator: that one can be read once only. Blocks are tensors or NumPy arrays, (any number of rows, n).

    >>> source = RowBlocks(np.arange(12.0).reshape(6, 2), rows=4)
    >>> [tuple(block.shape) for block in source]
    [(4, 2), (2, 2)]
    """

    def __init__(self, source: Source, *, rows: int | None = None) -> None:
        if isinstance(source, Tensor):
            check_readable(source, "RowBlocks")
        self.once = isinstance(source, Iterator)
        if not (self.once or callable(source) or (hasattr(source, "shape") and hasattr(source, "__getitem__"))):
            raise TypeError(
                "RowBlocks: needs an array, an iterator over blocks of rows, or a callable that returns one; "
                f"got {type(source).__name__}"
            )
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
            raise ValueError(f"RowBlocks: rows must be an int of at least 1, got {rows!r}")
        if hasattr(source, "shape"):
            _check_source(source)
        self.source, self.rows = source, rows
        self.numpy, self.dtype = False, torch.float64
        self.length, self.columns = 0, 0
        self.exponent: int | None = None

    ndim = 2

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the blocks in double precision, checked; length, columns and dtype are known at the end."""
        self.length = 0
        for raw in self._raw():
            block = self._check(raw)
            self.length += len(block)
            yield block.to(torch.complex128 if block.is_complex() else torch.float64)
        if not self.length:
            raise ValueError("svd: there are no rows; an iterator that was read before is empty")

    def unit(self) -> Iterator[tuple[Tensor, int]]:
        """Yield each block / 2**exponent, and by how many powers of two what came before has to be divided.

        ``exponent`` is that of the largest block so far, 0 near 1: no square of an entry over- or underflows.
        """
        for block in self:
            k = self.agree(exponent_of(block) if bool(block.any()) else -_LEAST)
            before = k if self.exponent is None else self.exponent
            if k > -_LEAST:
                self.exponent = max(before, k)
            now = self.exponent or 0
            yield scale_by(block, -now), now - before if k > -_LEAST else 0

    def agree(self, k: int) -> int:
        """Return the largest k of all processes: here there is one."""
        return k

    def _raw(self) -> Iterable[Any]:
        if self.once:
            return self.source
        if callable(self.source):
            return self.source()
        step = self.rows or max(1, _BYTES // (8 * self.source.shape[-1]))
        return (self.source[i : i + step] for i in range(0, self.source.shape[0], step))

    def _check(self, raw: Any) -> Tensor:
        """Return a block as a tensor; blocks of one matrix have one number of columns and finite entries."""
        self.numpy = not isinstance(raw, Tensor)
        block = from_numpy(raw if isinstance(raw, np.ma.MaskedArray) else np.array(raw), "svd") if self.numpy else raw
        check_readable(block, "svd")
        refuse_derivative(block, "svd", "pass blocks that are .detach()ed, or the whole matrix as a tensor")
        if block.ndim != 2 or block.dtype not in WORKING:
            raise TypeError(f"svd: a block of rows must be a floating matrix, got {block.dtype} {tuple(block.shape)}")
        if self.length and block.shape[1] != self.columns:
            raise ValueError(f"svd: blocks have {self.columns} and {block.shape[1]} columns")
        self.columns, self.dtype = block.shape[1], block.dtype
        if not bool(torch.isfinite(block).all()):
            raise ValueError(f"from row {self.length} on: {refusal(block, 'svd')}")
        return block

    def sum(self, X: Tensor) -> Tensor:
        """Return the sum of X over all processes: here there is one."""
        return X

    def stack(self, R: Tensor) -> Tensor:
        """Return R of all processes, one below the other."""
        return R


def _check_source(source: Source) -> None:
    """Raise TypeError or ValueError for an array that cannot be cut into blocks of rows."""
    if hasattr(source, "tocoo") or (isinstance(source, Tensor) and source.layout != torch.strided):
        raise TypeError("RowBlocks: needs a dense array; lowrank.svd takes a sparse matrix as it is")
    if len(source.shape) != 2:
        raise ValueError(f"RowBlocks: needs a matrix, got an array of shape {tuple(source.shape)}")
    if 0 in source.shape:
        raise ValueError(f"RowBlocks: needs at least one row and one column, got shape {tuple(source.shape)}")


class Shards(RowBlocks):
    """The rows of a DTensor that this process holds, in one block, and the sums over the others."""

    def __init__(self, A: Any) -> None:
        shards = [p for p in A.placements if p.is_shard()]
        if len(A.placements) != 1 or not shards or shards[0].dim != 0 or A.ndim != 2:
            raise ValueError(
                f"svd: a DTensor must be a matrix sharded along its rows over one mesh dimension, got {A.placements} "
                f"of a tensor of shape {tuple(A.shape)}; redistribute it to [Shard(0)]"
            )
        local = A.to_local()
        super().__init__(lambda: iter([local]))
        self.source_device = local.device
        self.global_shape, self.mesh, self.group = tuple(A.shape), A.device_mesh, A.device_mesh.get_group()

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the local rows, perhaps none."""
        (local,) = self.source()
        block = self._check(local)
        self.length = len(block)
        yield block.to(torch.complex128 if block.is_complex() else torch.float64)

    def agree(self, k: int) -> int:
        """Return the largest k of all processes."""
        largest = torch.tensor(k, device=self.source_device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=self.group)
        return int(largest)

    def sum(self, X: Tensor) -> Tensor:
        """Return the sum over the processes of the mesh."""
        X = X.contiguous()
        dist.all_reduce(torch.view_as_real(X) if X.is_complex() else X, group=self.group)
        return X

    def stack(self, R: Tensor) -> Tensor:
        """Return R of all processes, one below the other."""
        parts = [torch.empty_like(R) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(parts, R.contiguous(), group=self.group)
        return torch.cat(parts)

    def whole(self, U: Tensor) -> Any:
        """Return the local rows of a result as a DTensor."""
        from torch.distributed.tensor import DTensor, Shard

        shape = (self.global_shape[0], U.shape[1])
        return DTensor.from_local(U, self.mesh, [Shard(0)], shape=torch.Size(shape), stride=(shape[1], 1))


def triangular(source: RowBlocks, each: Callable[[Tensor, int], None] | None = None) -> Tensor:
    """Return R, A / 2**exponent = Q R, by QR of each block below what is known (TSQR; Demmel and others 2012)."""
    R: Tensor | None = None
    for block, fall in source.unit():
        R = torch.linalg.qr(block if R is None else torch.cat([scale_by(R, -fall), block]), mode="r")[1]
        if each is not None:
            each(block, fall)
    assert R is not None
    R = torch.cat([R, R.new_zeros(max(0, R.shape[1] - R.shape[0]), R.shape[1])])
    return torch.linalg.qr(source.stack(R), mode="r")[1]


def gram(source: RowBlocks) -> Tensor:
    """Return A^H A of A / 2**exponent in double precision."""
    G: Tensor | None = None
    for block, fall in source.unit():
        part = block.mH @ block
        G = part if G is None else scale_by(scale_by(G, -fall), -fall) + part
    assert G is not None
    return source.sum(G)
