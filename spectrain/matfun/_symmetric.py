"""Products that are symmetric: five eighths of them are computed, block column by block column, the rest is copied."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._entry.input import Real
from spectrain.matfun._entry.scale import recording
from spectrain.matfun._iteration.products import baddbmm, bmm

_LEAST = 640  # from this side on it takes 0.75 of a product's time in bfloat16, and 1.0 at 400
_BLOCKS = 4


def _in_blocks(A: Tensor) -> bool:
    return A.dtype == torch.bfloat16 and A.device.type == "cpu" and A.shape[-2] >= _LEAST and not recording()


def symmetric_bmm(A: Float[Tensor, "b k l"], B: Float[Tensor, "b l k"]) -> Float[Tensor, "b k k"]:
    """Return A B, which is symmetric: A A^T, or a product of commuting symmetric matrices."""
    if not _in_blocks(A):
        return bmm(A, B)
    result = A.new_empty(*A.shape[:-1], A.shape[-2])
    for a, b, out in zip(A, B, result, strict=True):
        for low, high in _columns(len(a)):
            torch.mm(a[low:], b[:, low:high], out=out[low:, low:high])
            out[low:high, high:] = out[high:, low:high].mT
    return result


def symmetric_baddbmm(
    C: Float[Tensor, "b k k"],
    A: Float[Tensor, "b k k"],
    B: Float[Tensor, "b k k"],
    *,
    beta: Real = 1.0,
    alpha: Real = 1.0,
) -> Float[Tensor, "b k k"]:
    """Return beta C + alpha A B for symmetric matrices that commute but for rounding."""
    if not _in_blocks(A):
        return baddbmm(C, A, B, beta=beta, alpha=alpha)
    result = torch.empty_like(C)
    for c, a, b, out in zip(C, A, B, result, strict=True):
        for low, high in _columns(len(a)):
            block = out[low:, low:high]
            torch.addmm(c[low:, low:high], a[low:], b[:, low:high], beta=beta, alpha=alpha, out=block)
            out[low:high, high:] = out[high:, low:high].mT
    return result


def _columns(k: int) -> list[tuple[int, int]]:
    """Return the ends of the block columns, multiples of 32."""
    ends = [round(i * k / _BLOCKS / 32) * 32 for i in range(_BLOCKS)] + [k]
    return list(itertools.pairwise(ends))
