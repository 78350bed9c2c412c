"""Results of single matrices back to a batch, and exact powers of two back into factors."""

from collections.abc import Sequence

import torch
from jaxtyping import Int, Num
from torch import Tensor

from spectrain.lowrank._matrix.scale import joined, rescaled


def flattened(A: Num[Tensor, "*batch m n"]) -> Num[Tensor, "items m n"]:
    """Return a batch as a list of matrices; in the place of no matrices one of zeros, that tells shapes of results."""
    flat = A.reshape(A.shape[:-2].numel(), *A.shape[-2:])
    return flat if len(flat) else flat.new_zeros(1, *A.shape[-2:])


def rebatched(values: Sequence[Tensor] | Tensor, batch: torch.Size) -> Tensor:
    """Return the results of :func:`flattened` matrices, equal in shape, with the dimensions of the batch."""
    flat = values if isinstance(values, Tensor) else torch.stack(list(values))
    return flat[: batch.numel()].reshape((*batch, *flat.shape[1:]))


def stacked(done: Sequence[object], key: str, batch: torch.Size) -> Tensor:
    """Return the attribute ``key`` of all results as one tensor with these batch dimensions."""
    return rebatched([getattr(found, key) for found in done], batch)


def times_two_to(X: Num[Tensor, "*batch m n"], k: Int[Tensor, "*batch"]) -> Num[Tensor, "*batch m n"]:
    """Return X times 2**k, exactly."""
    if not bool(k.any()):
        return X
    parts = torch.view_as_real(X.resolve_conj()).flatten(-2) if X.is_complex() else X
    whole = rescaled(parts.flatten(-2), k).reshape(parts.shape)
    return joined(whole.unflatten(-1, (-1, 2))) if X.is_complex() else whole
