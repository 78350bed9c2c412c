"""Results of single matrices back to a batch, and exact powers of two back into factors."""

from collections.abc import Sequence

import torch
from jaxtyping import Int, Num
from torch import Tensor

from spectrain.lowrank._scale import joined, rescaled


def stacked(done: Sequence[object], key: str, batch: torch.Size) -> Tensor:
    """Return the attribute ``key`` of all results, equal in shape, as one tensor with these batch dimensions."""
    values = torch.stack([getattr(found, key) for found in done])
    return values.reshape((*batch, *values.shape[1:]))


def times_two_to(X: Num[Tensor, "*batch m n"], k: Int[Tensor, "*batch"]) -> Num[Tensor, "*batch m n"]:
    """Return X times 2**k, exactly."""
    if not bool(k.any()):
        return X
    parts = torch.view_as_real(X.resolve_conj()).flatten(-2) if X.is_complex() else X
    whole = rescaled(parts.flatten(-2), k).reshape(parts.shape)
    return joined(whole.unflatten(-1, (-1, 2))) if X.is_complex() else whole
