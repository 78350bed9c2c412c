"""Logical matrices: how one stored tensor is cut into the matrices that its layer multiplies by."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Size, Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The logical ``out x in`` matrices inside one parameter; by default one, as nn.Linear stores it.

    - ``batch``: that many leading dimensions count independent matrices (stacked experts: 1).
    - ``flatten``: all dimensions after the first are one (convolution: out x in*kernel).
    - ``groups``: the first dimension is cut into this many independent matrices (grouped convolution).
    - ``transposed``: stored as in x out, used as ``x @ W``.
    - ``split``: sizes of fused matrices along ``out``; grouped-query attention: ``(q, k, v)`` rows.
    - ``heads``: number of heads in each piece of ``split``; each head is a matrix of its own.
    - ``along``: heads lie along ``"out"`` (query, key, value) or ``"in"`` (output projection).

    ``views`` raises ValueError when a shape does not fit. Views cost nothing: no data is moved.

    >>> import torch
    >>> fused = Matrix(split=(64, 16, 16))  # 4 query heads and 1 key-value head of 16
    >>> [tuple(view.shape) for view in fused.views(torch.zeros(96, 64))]
    [(64, 64), (16, 64), (16, 64)]
    >>> per_head = Matrix(split=(64, 16, 16), heads=(4, 1, 1))
    >>> [tuple(view.shape) for view in per_head.views(torch.zeros(96, 64))] == [(16, 64)] * 6
    True
    """

    batch: int = 0
    flatten: bool = False
    groups: int = 1
    transposed: bool = False
    split: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    along: Literal["out", "in"] = "out"

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", tuple(self.split))
        object.__setattr__(self, "heads", tuple(self.heads))
        if self.along not in ("out", "in"):
            raise ValueError(f"Matrix: along must be 'out' or 'in', got {self.along!r}.")
        if any(size < 1 for size in (self.groups, *self.split, *self.heads)) or self.batch < 0:
            raise ValueError(f"Matrix: groups, split and heads must be positive and batch >= 0, got {self}.")
        if self.heads and len(self.heads) != max(1, len(self.split)):
            raise ValueError(f"Matrix: one number of heads for each piece: split={self.split}, heads={self.heads}.")

    @property
    def whole(self) -> bool:
        """Whether the parameter is one plain matrix, stored out x in."""
        return self == Matrix()

    @property
    def in_order(self) -> bool:
        """Whether the matrices lie in memory one after the other where they are one batch."""
        return not self.transposed and (self.along == "out" or not self.heads)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the default, as plain data for a state dict."""
        plain = Matrix()
        return {name: value for name, value in asdict(self).items() if value != getattr(plain, name)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Matrix:
        """Return the Matrix of a dictionary; unknown keys are a ValueError."""
        known = Matrix.__slots__  # a graph can read it, and dataclasses.fields it cannot
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"Matrix has no {', '.join(unknown)}; it has: {', '.join(known)}.")
        return Matrix(**values)

    def views(self, tensor: Tensor) -> list[Tensor]:
        """Return the logical matrices of a contiguous tensor, each a 2-D ``out x in`` view of it."""
        if self.whole:
            self.check(tensor.shape)
            return [tensor]
        return [
            head
            for stored in self._as_batch(tensor).unbind()
            for piece, count in self._pieces(stored.mT if self.transposed else stored)
            for head in _cut(piece, count, self.along)
        ]

    def batches(self, tensor: Tensor) -> list[Tensor]:
        """Return the same matrices as few views as there are: a batch ``... x out x in`` for each piece of ``split``.

        >>> import torch
        >>> [tuple(batch.shape) for batch in Matrix(batch=1, split=(2, 4), heads=(1, 2)).batches(torch.zeros(8, 6, 5))]
        [(8, 2, 5), (8, 2, 2, 5)]
        """
        if self.whole:
            return self.views(tensor)
        stored = self._as_batch(tensor)
        logical = stored.mT if self.transposed else stored
        pieces = logical.split(self.split, dim=-2) if self.split else (logical,)
        return [_together(piece, n, self.along) for piece, n in zip(pieces, self._counts, strict=True)]

    def shapes(self, shape: Size) -> list[tuple[int, int]]:
        """Return (out, in) of each logical matrix of a parameter of this shape."""
        empty = torch.empty(shape, device="meta")
        return [(view.shape[0], view.shape[1]) for view in self.views(empty)]

    def check(self, shape: Size) -> None:
        """Raise ValueError where a parameter of this shape cannot be cut as declared."""
        rest = len(shape) - self.batch
        if rest != 2 and not (self.flatten and rest > 2):
            raise ValueError(
                f"{tuple(shape)} is not one matrix after {self.batch} batch dimensions. Say how it is meant: "
                "Matrix(batch=1) for stacked experts, Matrix(flatten=True) for a convolution, or 'adamw'."
            )
        first, last = shape[self.batch], math.prod(shape[self.batch + 1 :])
        if first % self.groups:
            raise ValueError(f"{tuple(shape)}: {first} rows cannot be cut into {self.groups} groups.")
        out, in_ = (last, first // self.groups) if self.transposed else (first // self.groups, last)
        if self.split and sum(self.split) != out:
            raise ValueError(f"{tuple(shape)}: split={self.split} adds up to {sum(self.split)}, not to {out}.")
        sizes = self.split or (out,)
        for size, count in zip(sizes, self.heads or (1,) * len(sizes), strict=True):
            if (size if self.along == "out" else in_) % count:
                raise ValueError(f"{tuple(shape)}: {count} heads do not divide {size} x {in_} along {self.along}.")

    def _pieces(self, logical: Tensor) -> list[tuple[Tensor, int]]:
        """The fused matrices of one logical matrix, each with its number of heads."""
        pieces = logical.split(self.split, dim=0) if self.split else (logical,)
        return list(zip(pieces, self._counts, strict=True))

    @property
    def _counts(self) -> tuple[int, ...]:
        """The number of heads of each piece."""
        return self.heads or (1,) * max(1, len(self.split))

    def _as_batch(self, tensor: Tensor) -> Tensor:
        """The stored matrices as one batch: (count, first, rest)."""
        self.check(tensor.shape)
        first = tensor.shape[self.batch]
        return tensor.view(-1, first // self.groups, math.prod(tensor.shape[self.batch + 1 :]))


def _cut(piece: Tensor, count: int, along: str) -> tuple[Tensor, ...]:
    """Cut one ``out x in`` matrix into heads along one side."""
    if along == "out":
        return piece.unflatten(0, (count, -1)).unbind(0)
    return piece.unflatten(1, (count, -1)).unbind(1)


def _together(piece: Tensor, count: int, along: str) -> Tensor:
    """A batch of matrices, each cut into heads along one side."""
    if count == 1:
        return piece
    heads = piece.unflatten(-2 if along == "out" else -1, (count, -1))
    return heads if along == "out" else heads.movedim(-2, -3)


def check_shaped(name: str, p: Tensor) -> None:
    """Raise ValueError for a parameter of a lazy module that has seen no input."""
    if nn.parameter.is_lazy(p):
        raise ValueError(f"{name} has no shape yet. Run one batch through the model first.")
