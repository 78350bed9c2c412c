"""Many matrices as few batches: equal shapes are gathered, scaled to unit size, and given back in order."""

from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from spectrain._arrays.runs import runs
from spectrain._arrays.scale import far_from_one, power_of_two, recording, to_unit

_MAX_ENTRIES = 2**23  # of one batch: 16 MiB in bfloat16, 64 MiB in float64
_FEW = 2**16  # entries up to which a copy costs less than the calls for one more matrix
_IN_CACHE = 2**21  # bytes of one batch on a processor, whose memory is slower to get than its products are to make


def flat(X: Inexact[Tensor, "*batch m n"]) -> Inexact[Tensor, "b m n"]:
    """Return X with its batch dimensions made one."""
    return X.reshape(X.shape[:-2].numel(), *X.shape[-2:])


def joined(pieces: Sequence[Inexact[Tensor, "_ m n"]]) -> Inexact[Tensor, "b m n"]:
    """Return batches as one."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))


def gather(matrices: Sequence[Tensor], dtype: torch.dtype, name: str) -> Float[Tensor, "b m n"]:
    """Return all matrices, of one shape m x n, as one new batch in dtype, each scaled to norm in [1/2, 1)."""
    blocks = [flat(X) for X in matrices]
    if len(blocks) > 1 and blocks[0].numel() <= _FEW:
        blocks = [torch.cat(blocks)]
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
    matrices: Sequence[Tensor],
    run: Callable[[list[Tensor]], list[Tensor]],
    *,
    key: Callable[[Tensor], Hashable],
    out_dtype: torch.dtype | None,
    itemsize: int = 4,
) -> list[Tensor]:
    """Apply ``run`` to groups of equal key, dtype and device; return the results in the order and shapes given.

    ``run`` takes matrices and returns as many batches, each of the entries of its matrix. A group of more than 2**23
    entries, on a processor 2 MiB of entries of ``itemsize``, runs in several parts: the cap on memory, and what stays
    in a cache meanwhile.
    """
    results: list[Tensor | None] = [None] * len(matrices)
    for indices in _groups(matrices, key, itemsize):
        for i, part in zip(indices, run([matrices[i] for i in indices]), strict=True):
            results[i] = _alone(part, out_dtype or matrices[i].dtype).reshape(matrices[i].shape)
    return [Y for Y in results if Y is not None]


def in_cache(X: Float[Tensor, "*batch m n"], itemsize: int) -> list[Float[Tensor, "_ m n"]]:
    """Return a batch cut into parts that are batches by themselves, one where it is small enough."""
    whole, most = flat(X), max(1, _most(X, itemsize) // max(1, X.shape[-2] * X.shape[-1]))
    return [whole] if len(whole) <= most else list(whole.split(most))


def by_shape(group: list[Tensor], run: Callable[[list[list[Tensor]]], list[Tensor]]) -> list[Float[Tensor, "_ _ _"]]:
    """Return run of the lists of equal shape, one batch for each list, taken apart into the order of the group."""
    shapes: dict[torch.Size, list[int]] = {}
    for i, X in enumerate(group):
        shapes.setdefault(X.shape[-2:], []).append(i)
    results = list(group)
    for indices, batch in zip(shapes.values(), run([[group[i] for i in ids] for ids in shapes.values()]), strict=True):
        sizes = [group[i].shape[:-2].numel() for i in indices]
        for i, part in zip(indices, batch.split(sizes), strict=True):
            results[i] = part
    return results


def _alone(part: Float[Tensor, "b m n"], dtype: torch.dtype) -> Float[Tensor, "b m n"]:
    """Return the part in dtype and in order, without the rest of the batch that it is a view of."""
    shared = part.dtype == dtype and part._base is not None
    return part.to(dtype, copy=shared, memory_format=torch.contiguous_format)


def _most(X: Tensor, itemsize: int) -> int:
    small = X.device.type == "cpu" and not recording()  # a graph is the shorter for large parts
    return min(_IN_CACHE // itemsize, _MAX_ENTRIES) if small else _MAX_ENTRIES


def _groups(matrices: Sequence[Tensor], key: Callable[[Tensor], Hashable], itemsize: int) -> Iterator[list[int]]:
    groups: dict[tuple, list[int]] = {}
    for i, X in enumerate(matrices):
        groups.setdefault((key(X), X.dtype, X.device), []).append(i)
    for indices in groups.values():
        sizes = [matrices[i].numel() for i in indices]
        yield from (indices[some] for some in runs(sizes, _most(matrices[indices[0]], itemsize)))
