"""Many matrices as few batches: equal shapes are gathered, scaled to unit size, and given back in order."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._scale import far_from_one, power_of_two, to_unit

_MAX_ENTRIES = 2**26  # of one batch: 256 MiB in float32; larger groups run in several batches


def flat(X: Float[Tensor, "*batch m n"]) -> Float[Tensor, "b m n"]:
    """Return X with its batch dimensions made one."""
    return X.reshape(X.shape[:-2].numel(), *X.shape[-2:])


def gathered(matrices: Sequence[Tensor], dtype: torch.dtype, name: str) -> Float[Tensor, "b m n"]:
    """Return all matrices, of one shape m x n, as one new batch in dtype, each scaled to norm in [1/2, 1)."""
    blocks = [flat(X) for X in matrices]
    batch = blocks[0].new_empty(sum(map(len, blocks)), *blocks[0].shape[-2:], dtype=dtype)
    norms = torch.cat([torch.linalg.vector_norm(X.float() if X.itemsize < 4 else X, dim=(-2, -1)) for X in blocks])
    if far_from_one(norms):
        return batch.copy_(torch.cat([to_unit(X, name)[0] for X in blocks]))
    factors = power_of_two(-torch.frexp(norms)[1], norms.dtype)[:, None, None]
    start = 0
    for X in blocks:
        stop = start + len(X)
        torch.mul(X, factors[start:stop], out=batch[start:stop])
        start = stop
    return batch


def in_batches(
    matrices: Sequence[Tensor], run: Callable[[list[Tensor]], Tensor], out_dtype: torch.dtype | None
) -> list[Tensor]:
    """Apply ``run`` to groups of equal shape, dtype and device; return the results in the order and shapes given."""
    results: list[Tensor | None] = [None] * len(matrices)
    for indices in _groups(matrices):
        batch = run([matrices[i] for i in indices])
        parts = batch.split([matrices[i].shape[:-2].numel() for i in indices])
        for i, part in zip(indices, parts, strict=True):
            part = part.to(out_dtype or matrices[i].dtype, copy=len(indices) > 1)
            results[i] = part.reshape(matrices[i].shape)
    return [Y for Y in results if Y is not None]


def _groups(matrices: Sequence[Tensor]) -> Iterator[list[int]]:
    groups: dict[tuple, list[int]] = {}
    for i, X in enumerate(matrices):
        groups.setdefault((X.shape[-2:], X.dtype, X.device), []).append(i)
    for indices in groups.values():
        chunk: list[int] = []
        entries = 0
        for i in indices:
            if chunk and entries + matrices[i].numel() > _MAX_ENTRIES:
                yield chunk
                chunk, entries = [], 0
            chunk.append(i)
            entries += matrices[i].numel()
        yield chunk
