"""The error of a factorization, computed from the input and from the factors as they are returned."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.embedding import as_real
from spectrain.lowrank._matrix.stops import Norm
from spectrain.matfun import spectral_norm

_LONG_ROW = 8192
_LARGE, _PART = 2**20, 2**17  # entries from where a residual is taken by rows, and how many at once: they stay in cache


def frobenius(X: Tensor) -> Float[Tensor, "*batch"]:
    """Return ||X||_F in float64, one for each matrix: norms of the rows first, whose squares are summed in float64.

    One sum over all entries in float32 loses digits: 0.6 % of the norm of a 4000 x 4000 matrix (torch 2.13, CPU).
    """
    X, wide = X.detach(), torch.complex128 if X.is_complex() else torch.float64
    rows = torch.linalg.vector_norm(X, dim=-1, dtype=wide if X.shape[-1] > _LONG_ROW else None)
    return torch.linalg.vector_norm(rows.double(), dim=-1)


def matrix_norm(X: Tensor, norm: Norm) -> Float[Tensor, "*batch"]:
    """Return ||X||_F, or a proven upper bound on ||X||_2 that is at most k^(1/64) too large, k = min(m, n)."""
    if norm == "fro" or 0 in X.shape:
        return frobenius(X)
    X = X.detach()
    return spectral_norm(as_real(X) if X.is_complex() else X).upper.double()


def product_noise(A: Tensor, inner: int) -> Float[Tensor, "*batch"]:
    """Return the rounding error of a residual with ``inner`` terms in each sum, relative to a norm of A of 1.

    u (sqrt(inner) + 1): the probabilistic bound of Higham and Mary (SISC 41, 2019), which rounding errors of
    products obey in practice; u is the unit roundoff of the dtype of A.
    """
    return torch.finfo(A.dtype).eps / 2 * (inner**0.5 + 1) * frobenius(A)


def residual_error(A: Tensor, factors: Sequence[Tensor], *, norm: Norm = "fro") -> Float[Tensor, "*batch"]:
    """Return a bound on ||A - product of the factors||: the computed residual plus its own rounding error.

    A and the factors are dense; the residual is formed in the dtype of A, or in float64 for norms that need it.
    The bound knows nothing of how the factors were found. Cost: one product of their sizes; memory: of a large
    matrix, a few rows.
    """
    with torch.no_grad():
        first, *rest = (F.to(A.dtype) for F in factors)
        inner = max(F.shape[-2] for F in rest) if rest else 1
        noise = len(rest) * product_noise(A, inner)
        if norm == "fro" and A.ndim == 2 and A.numel() >= _LARGE:
            rows = max(1, _PART // A.shape[1])
            parts = zip(A.split(rows), first.split(rows), strict=True)
            return torch.linalg.vector_norm(torch.stack([frobenius(_rest(X, F, rest)) for X, F in parts])) + noise
        return matrix_norm(_rest(A, first, rest), norm) + noise


def _rest(A: Tensor, first: Tensor, rest: Sequence[Tensor]) -> Tensor:
    """Return A minus the product of the factors."""
    product = first
    for F in rest:
        product = product @ F
    return A - product
