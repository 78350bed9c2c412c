"""The singular value decomposition, exact, truncated or randomized, with its error."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain.lowrank._error import residual_error
from spectrain.lowrank._input import Array, Matrix, Real, entered
from spectrain.lowrank._phases import canonical
from spectrain.lowrank._result import Factorization, widened
from spectrain.lowrank._scale import rescaled, unit_scaled
from spectrain.lowrank._stops import Norm, Stops, checked_stops, tail_errors


class _Letters(NamedTuple):
    U: Array
    S: Array
    Vh: Array


class SVD(Factorization, _Letters):
    """A ~ U diag(S) Vh, S falling, columns of U and rows of Vh orthonormal; unpacks into U, S, Vh."""

    def chain(self) -> Sequence[Array]:
        """Return U and diag(S) Vh."""
        U, S, Vh = map(widened, self)
        return U, S[..., :, None] * Vh


def svd(
    A: Array,
    *,
    rank: int | None = None,
    rtol: Real | None = None,
    atol: Real | None = None,
    norm: Norm = "fro",
) -> SVD:
    """Return U, S, Vh with A ~ U diag(S) Vh, by LAPACK, cut at the first stop that is reached.

    With r = ``.rank`` the result is the best approximation of that rank (Eckart, Young, Mirsky), of error ``.best``.
    Stops: ``rank``; ``rtol``, error at most rtol ||A||; ``atol``, error at most atol; whichever comes first, none: all
    min(m, n). ``norm`` is that of the errors, "fro" or 2. ``.error`` is a proven bound, the residual of the factors
    that are returned.

    Shapes: A (*batch, m, n), U (*batch, m, r), S (*batch, r), Vh (*batch, r, n); where a tolerance decides, r is the
    largest of the batch, and smaller items are padded with zeros. The largest entry of each column of U is real and
    positive. Half precision is computed in float32 and rounded. Sparse matrices and operators are made dense.
    Differentiable in the dense input where singular values differ.

    >>> A = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    >>> U, S, Vh = found = svd(A, rank=1)
    >>> S.tolist(), found.dense().tolist(), round(float(found.error), 5), float(found.best)
    ([4.0], [[0.0, 0.0], [0.0, 4.0], [0.0, 0.0]], 3.0, 3.0)
    """
    matrix = entered(A, "svd")
    stops = checked_stops(matrix.shape, rank=rank, rtol=rtol, atol=atol, norm=norm, name="svd", required=False)
    with torch.autocast(matrix.device.type, enabled=False):
        return _exact(matrix, stops)


def _exact(matrix: Matrix, stops: Stops) -> SVD:
    """Truncate LAPACK's decomposition; the error is the residual of the factors that are returned."""
    A, k = unit_scaled(matrix.dense(), "svd")
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    known = S.detach()
    size = torch.linalg.vector_norm(known, dim=-1) if stops.norm == "fro" else known[..., 0]
    rank = stops.ranks(known, stops.allowed(size, k))
    width = int(rank.max()) if stops.by_error and rank.numel() else stops.limit
    keep = torch.arange(width, device=A.device) < rank[..., None]
    U, Vh = canonical(U[..., :width] * keep[..., None, :], Vh[..., :width, :] * keep[..., :, None])
    tails = tail_errors(known, norm=stops.norm)
    best = tails.take_along_dim(rank[..., None], -1)[..., 0]
    return reported(matrix, A, k, U, S[..., :width] * keep, Vh, rank=rank, best=best, norm=stops.norm)


def reported(
    matrix: Matrix, A: Tensor, k: Tensor, U: Tensor, S: Tensor, Vh: Tensor, *, rank: Tensor, best: Tensor, norm: Norm
) -> SVD:
    """Return factors of A, which is the matrix times 2**-k, as the caller's kind of array with their error.

    The residual is that of the factors after rounding to the output dtype.
    """
    letters = [F.to(matrix.dtype_of(F)) for F in (U, rescaled(S, k), Vh)]
    U, S, Vh = (F.detach().to(wide.dtype) for F, wide in zip(letters, (U, S, Vh), strict=True))
    error = residual_error(A, (U, rescaled(S, -k)[..., :, None] * Vh), norm=norm).to(S.dtype)
    return SVD.of(
        *(matrix.value(F) for F in letters),
        rank=matrix.value(rank),
        error=matrix.value(rescaled(error, k)),
        best=matrix.value(rescaled(best, k)),
        norm=norm,
    )
