"""Which part of each logical matrix a rank of a mesh holds: interval arithmetic, without a process group."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Size, Tensor

from spectrain.optim._layout.matrix import Matrix

Interval = tuple[int, int]
NOTHING: Interval = (0, 0)


class Part(NamedTuple):
    """Rows and columns of one logical matrix, as it is stored (``in x out`` where it is transposed)."""

    rows: Interval
    columns: Interval

    @property
    def numel(self) -> int:
        """The number of entries."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    def of(self, stored: Tensor) -> Tensor:
        """The view of this part of a whole stored matrix."""
        return stored[slice(*self.rows), slice(*self.columns)]


@dataclass(frozen=True)
class Sharding:
    """How a tensor is spread over a mesh of ranks: for each mesh dimension the tensor dimension it cuts, or None.

    ``ranks`` are global ranks in row-major order of ``mesh``. A dimension is cut as ``torch.chunk`` cuts: equal
    pieces, a short one, then empty ones. ``inner`` marks mesh dimensions that cut what the plain ones have left
    (``_StridedShard``: ``fully_shard`` after tensor parallelism).

    >>> Sharding(ranks=(0, 1, 2), mesh=(3,), cuts=(0,)).boxes(Size([4, 5]))
    [((0, 2), (0, 5)), ((2, 4), (0, 5)), ((4, 4), (0, 5))]
    """

    ranks: tuple[int, ...]
    mesh: tuple[int, ...]
    cuts: tuple[int | None, ...]
    inner: tuple[int, ...] = ()

    def boxes(self, shape: Sequence[int]) -> list[tuple[Interval, ...]]:
        """Return for each rank the interval of each dimension that it holds."""
        order = [i for i in range(len(self.mesh)) if i not in self.inner] + list(reversed(self.inner))
        return [
            tuple(
                _cut_interval(size, [(self.mesh[i], where[i]) for i in order if self.cuts[i] == d])
                for d, size in enumerate(shape)
            )
            for where in itertools.product(*map(range, self.mesh))
        ]

    def copies(self) -> list[int]:
        """Return for each rank the number of its copy: ranks of one copy hold the whole tensor among them."""
        kept = [i for i, cut in enumerate(self.cuts) if cut is None]
        sizes = [self.mesh[i] for i in kept]
        return [
            sum(where[i] * math.prod(sizes[n + 1 :]) for n, i in enumerate(kept))
            for where in itertools.product(*map(range, self.mesh))
        ]

    def copy_of(self, position: int) -> tuple[int, ...]:
        """The positions of the copy that a position belongs to."""
        copies = self.copies()
        return tuple(i for i, copy in enumerate(copies) if copy == copies[position])

    def twins(self, position: int) -> tuple[int, ...]:
        """The positions that hold what this one holds, one of each copy, in the order of the copies.

        >>> Sharding(ranks=(0, 1, 2, 3), mesh=(2, 2), cuts=(None, 0)).twins(1)
        (1, 3)
        """
        at = self.copy_of(position).index(position)
        firsts = [self.copies().index(copy) for copy in range(len(self.ranks) // len(self.copy_of(position)))]
        return tuple(self.copy_of(first)[at] for first in firsts)


def _cut_interval(size: int, cuts: list[tuple[int, int]]) -> Interval:
    """The interval left of ``range(size)`` after cuts into ``count`` chunks, of which number ``index`` is kept."""
    low, high = 0, size
    for count, index in cuts:
        step = -(-(high - low) // count)
        low, high = min(high, low + index * step), min(high, low + (index + 1) * step)
    return low, high


class Block(NamedTuple):
    """Where one logical matrix lies in its stored tensor, seen as (batch, first, rest)."""

    batch: int
    rows: Interval
    columns: Interval


@functools.lru_cache(maxsize=4096)
def blocks(layout: Matrix, shape: Size) -> tuple[Block, ...]:
    """Return the place of each logical matrix, in the order of ``layout.views``."""
    rest = math.prod(shape[layout.batch + 1 :])
    found = []
    for view in layout.views(torch.empty(shape, device="meta")):
        stored = view.mT if layout.transposed else view
        batch, inside = divmod(int(stored.storage_offset()), shape[layout.batch] * rest)
        row, column = divmod(inside, rest)
        found.append(Block(batch, (row, row + stored.shape[0]), (column, column + stored.shape[1])))
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def parts(layout: Matrix, shape: Size, box: tuple[Interval, ...]) -> tuple[Part, ...]:
    """Return the part of each logical matrix inside a box of the tensor, relative to the matrix.

    Raises ValueError where the box cuts a convolution kernel, so that a part would not be a rectangle.
    """
    lead, rest = layout.batch + 1, shape[layout.batch + 1 :]
    if any(box[lead + d] != (0, size) for d, size in enumerate(rest) if d > 0):
        raise ValueError(f"{tuple(shape)} is sharded inside the convolution kernel; shard dimension 0 or 1.")
    inner = math.prod(rest[1:])
    rows, columns = box[layout.batch], (box[lead][0] * inner, box[lead][1] * inner)
    held = set(_held(shape[: layout.batch], box))
    return tuple(
        Part(_overlap(block.rows, rows), _overlap(block.columns, columns))
        if block.batch in held
        else Part(NOTHING, NOTHING)
        for block in blocks(layout, shape)
    )


def local_views(layout: Matrix, shape: Size, box: tuple[Interval, ...], local: Tensor) -> list[Tensor]:
    """Return the same parts as views of the contiguous local tensor, as stored; empty ones where there is nothing."""
    first, (row, _) = layout.batch, box[layout.batch]
    column = box[first + 1][0] * math.prod(shape[first + 2 :])
    stored = local.view(-1, local.shape[first], math.prod(local.shape[first + 1 :])) if local.numel() else None
    index = {batch: i for i, batch in enumerate(_held(shape[:first], box))}
    views = []
    for block, part in zip(blocks(layout, shape), parts(layout, shape, box), strict=True):
        if stored is None or part.numel == 0:
            views.append(local.new_empty(0, 0))
            continue
        rows = slice(block.rows[0] + part.rows[0] - row, block.rows[0] + part.rows[1] - row)
        columns = slice(block.columns[0] + part.columns[0] - column, block.columns[0] + part.columns[1] - column)
        views.append(stored[index[block.batch], rows, columns])
    return views


def _held(batch: Sequence[int], box: Sequence[Interval]) -> list[int]:
    """Flat indices of the batch dimensions inside a box, in the order of the local tensor."""
    inside = itertools.product(*(range(*interval) for interval in box[: len(batch)]))
    return [sum(i * math.prod(batch[d + 1 :]) for d, i in enumerate(where)) for where in inside]


def _overlap(block: Interval, held: Interval) -> Interval:
    low, high = max(block[0], held[0]), min(block[1], held[1])
    return (low - block[0], high - block[0]) if low < high else NOTHING
