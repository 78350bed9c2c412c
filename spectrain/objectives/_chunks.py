"""Cutting a batch into chunks that fit into memory, whatever the batch is made of."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

Length = Callable[[Any], int]


def batch_size(inputs: Any) -> int:
    """Examples in a tower's inputs: a list of them, or arrays (also nested) that share their first dimension.

    Raises ``ValueError`` for none, and for arrays that do not agree.
    """
    if isinstance(inputs, list):
        sizes = {len(inputs)}
    else:
        sizes = {len(leaf) for leaf in leaves(inputs) if _counts(leaf)}
    if len(sizes) != 1:
        raise ValueError(
            "a tower's inputs must be a list of examples or tensors with one common first dimension, "
            f"got first dimensions {sorted(sizes)}."
        )
    (size,) = sizes
    if size == 0:
        raise ValueError("a tower's inputs hold no example; leave the tower out, or skip this batch.")
    return size


def take(inputs: Any, index: Tensor) -> Any:
    """The examples at ``index``: of a list, a list; of tensors and NumPy's arrays, the same, in what holds them."""
    if isinstance(inputs, list):
        return [inputs[i] for i in index.tolist()]
    return tree_map(lambda leaf: _taken(leaf, index), inputs)


def leaves(inputs: Any) -> list[Any]:
    """All that is held, looked for in mappings that torch does not know, such as a tokenizer's ``BatchEncoding``."""
    found = tree_flatten(inputs)[0]
    return [leaf for item in found for leaf in (leaves(dict(item)) if isinstance(item, Mapping) else [item])]


def _taken(leaf: Any, index: Tensor) -> Any:
    if isinstance(leaf, Mapping):
        return type(leaf)(take(dict(leaf), index))  # type: ignore[call-arg]
    if not _counts(leaf):
        return leaf
    return leaf[index.to(leaf.device)] if isinstance(leaf, Tensor) else leaf[index.numpy()]


def _counts(leaf: Any) -> bool:
    """Whether its first dimension counts examples."""
    return isinstance(leaf, (Tensor, np.ndarray)) and leaf.ndim > 0


def by_count(examples: int, *, chunk: int) -> list[Tensor]:
    """Chunks of ``chunk`` examples in their order; the last may be smaller.

    >>> [part.tolist() for part in by_count(5, chunk=2)]
    [[0, 1], [2, 3], [4]]
    """
    return list(torch.arange(examples).split(chunk))


def by_tokens(lengths: Sequence[int], *, budget: int) -> list[Tensor]:
    """Chunks whose *padded* size, examples times longest, is at most ``budget``; sorted by length to pad little.

    Raises ``ValueError`` for an example that is longer than the budget, naming it.

    >>> [part.tolist() for part in by_tokens([5, 1, 2, 5], budget=10)]
    [[1, 2], [0, 3]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    if lengths[order[-1]] > budget:
        raise ValueError(
            f"example {order[-1]} has {lengths[order[-1]]} tokens, more than the budget of {budget} for a chunk; "
            "raise tokens=, or cut the example."
        )
    chunks: list[list[int]] = [[]]
    for i in order:
        if chunks[-1] and (len(chunks[-1]) + 1) * lengths[i] > budget:
            chunks.append([])
        chunks[-1].append(i)
    return [torch.tensor(chunk) for chunk in chunks]
