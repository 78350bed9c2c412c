"""Several streams in fixed proportions: which one the next row comes from is arithmetic too."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from spectrain.data._generator import generator
from spectrain.data._streams.rows import AbstractRows


class Mixture(AbstractRows):
    """Rows of several streams in the proportions of ``weights``, as a function of (seed, step).

    The weights are taken as the decimal numbers they are written as and brought to whole numbers w_k without common
    factor, W in sum; weights (3, 1) and (0.75, 0.25) are the same. Then

    - any W rows that follow each other have exactly w_k of source k, wherever they begin;
    - among the first n rows, source k has between n w_k / W - c and n w_k / W + c, where c = 1 + ceil(log2(sources)),
      whatever n: for two sources it is off by less than one row.

    Nothing is drawn, so there is no luck in the proportions. The sources stand at the leaves of a balanced tree; at a
    node with weights u and v, the j-th row goes left when floor((j + 1) u / (u + v) + phase) is more than
    floor(j u / (u + v) + phase), which also counts the rows before it: a Sturmian word, in O(log sources) whole-number
    operations a row, nothing stored. The phases come from ``generator(seed, "mixture", node)``.

    Each stream goes through its own text in its own order and begins again when it is through: :meth:`epochs` says
    how often. ``batch``, ``block``, ``rank`` and ``world`` are those of the streams.

    Raises ValueError for weights that are not as many as the streams or not positive and finite, and for streams of
    different sizes or kinds.

    >>> from spectrain import data
    >>> words, code = np.arange(1000), np.arange(1000, 4000)
    >>> streams = [data.TokenStream(tokens, block=5, batch=8, seed=0) for tokens in (words, code)]
    >>> inputs, targets = data.Mixture(streams, weights=(3, 1), seed=0).batch(77)
    >>> int((inputs[:, 0] < 1000).sum())
    6
    """

    def __init__(self, streams: Sequence[AbstractRows], *, weights: Sequence[float | int], seed: int) -> None:
        self.weights = whole_weights(weights, sources=len(streams))
        first = streams[0]
        super().__init__(batch=first.batch_size, seed=seed, rank=first.rank, world=first.world)
        for stream in streams:
            ours, theirs = (_sizes(one) for one in (first, stream))
            if ours != theirs:
                raise ValueError(
                    f"Mixture: streams must have the same kind, block, batch and share; {ours} and {theirs}."
                )
        self.streams, self.block = tuple(streams), first.block
        self._tree = _tree(self.weights, 0, len(streams), seed)

    @property
    def blocks_per_epoch(self) -> int:
        """Rows of one pass over all sources together."""
        return sum(stream.blocks_per_epoch for stream in self.streams)

    def epochs(self, t: int) -> list[float]:
        """How many passes over each source are done when batch t begins."""
        counts = self.counts(t * self.batch_size)
        return [count / stream.blocks_per_epoch for count, stream in zip(counts, self.streams, strict=True)]

    def counts(self, n: int) -> list[int]:
        """How many of the first ``n`` rows come from each source."""
        found = [0] * len(self.streams)
        _count(self._tree, n, found)
        return found

    def rows(self, numbers: Int64[np.ndarray, " rows"]) -> tuple[Tensor, ...]:
        """The rows with these numbers, each from its source."""
        places = np.array([_place(self._tree, int(number)) for number in numbers], dtype=np.int64)
        parts: list[Tensor] = []
        for k, stream in enumerate(self.streams):
            here = torch.from_numpy(places[:, 0] == k)
            taken = stream.rows(places[places[:, 0] == k, 1])
            parts = parts or [part.new_empty(len(numbers), *part.shape[1:]) for part in taken]
            for part, rows in zip(parts, taken, strict=True):
                part[here] = rows
        return type(taken)(*parts) if hasattr(taken, "_fields") else tuple(parts)


def whole_weights(weights: Sequence[float | int], *, sources: int) -> tuple[int, ...]:
    """The weights as whole numbers without common factor, or a ValueError.

    >>> whole_weights((0.1, 0.25), sources=2)
    (2, 5)
    """
    if not sources or len(weights) != sources:
        raise ValueError(f"weights: one for each of the {sources} sources is needed, got {len(weights)}: {weights}.")
    for weight in weights:
        if not (0 < weight < math.inf):
            raise ValueError(
                f"weights must be positive and finite, got {weight}; leave a source out to have none of it."
            )
    exact = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    divisor = math.gcd(*whole)
    return tuple(weight // divisor for weight in whole)


class _Node:
    """A fork: row j of those that come here goes left when floor((j u + phase) / total) grows, with phase < total."""

    def __init__(self, left: "_Node | int", right: "_Node | int", u: int, total: int, phase: int) -> None:
        self.left, self.right, self.u, self.total, self.phase = left, right, u, total, phase

    def lefts(self, j: int) -> int:
        """How many of the first j rows went left."""
        return (j * self.u + self.phase) // self.total


def _tree(weights: Sequence[int], start: int, stop: int, seed: int) -> _Node | int:
    if stop - start == 1:
        return start
    middle = (start + stop) // 2
    u, total = sum(weights[start:middle]), sum(weights[start:stop])
    phase = generator(seed, "mixture", start, stop).initial_seed() % total
    return _Node(_tree(weights, start, middle, seed), _tree(weights, middle, stop, seed), u, total, phase)


def _place(node: _Node | int, j: int) -> tuple[int, int]:
    """The source of row j, and its number there."""
    while isinstance(node, _Node):
        before = node.lefts(j)
        node, j = (node.left, before) if node.lefts(j + 1) > before else (node.right, j - before)
    return node, j


def _count(node: _Node | int, n: int, found: list[int]) -> None:
    if isinstance(node, _Node):
        left = node.lefts(n)
        _count(node.left, left, found)
        _count(node.right, n - left, found)
    else:
        found[node] = n


def _sizes(stream: AbstractRows) -> tuple[object, ...]:
    return type(stream).__name__, stream.block, stream.batch_size, stream.rank, stream.world
