"""The last few singular values brought to 1 exactly, where a composition of polynomials has no steps left for them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spectrain.matfun._iteration.largest import chirps

_ROUNDS = 3
_CAUGHT = 0.7
_RESIDUAL, _RESIDUAL_HALF = 0.045, 0.1


def finish_size(short: int) -> int:
    """Return how many of the smallest singular values are finished: 1/32 of them, 16 to 64, none below a side of 160.

    That many lie below 0.025 of the largest for a square Gaussian matrix. For smaller matrices the bookkeeping costs
    more than a step.
    """
    return min(64, max(16, short // 32)) if short >= 160 else 0


def finish_smallest(Y: Float[Tensor, "b m n"], count: int, floor: Float[Tensor, " b"]) -> Float[Tensor, "b m n"]:
    """Return Y with its ``count`` smallest singular values, those above ``floor``, moved to 1 if it lacks only that.

    Y is p(X) for an odd composition p: it has the singular vectors of X, and most of its singular values are near 1.
    The others span, by three rounds of the power method with I - Y Y^T, the columns of Q; then Y <- Y + Q (msign(T) -
    T) with T = Q^T Y, ``count`` x n, whose msign comes from the eigenvectors of T T^T. Where even the largest singular
    value of T is below 0.7, more are missing than ``count``, as in a matrix of low rank, and Y stays what it is.

    Where columns of Q lie in no singular space of Y, that is no msign: directions q and w, of T, that are raised while
    r = Y w - t q is not 0 give singular values up to sqrt(1 + ||r||), 1.41 at worst. So only those with a small r are
    raised, and none where all residuals together, in the Schatten-4 norm, exceed 0.045, in half precision 0.1.
    Deflation before an expensive iteration is old (Higham, Functions of Matrices, 8.9); here it comes after it and
    costs nine products with ``count`` columns.
    """
    if Y.shape[-2] > Y.shape[-1]:
        Q, change = _missing_part(Y.mT, count, floor)
        return torch.baddbmm(Y, change.mT, Q.mT)
    return torch.baddbmm(Y, *_missing_part(Y, count, floor))


def _missing_part(Y: Float[Tensor, "b m n"], count: int, floor: Float[Tensor, " b"]) -> tuple[Tensor, Tensor]:
    """Return Q and msign(T) - T for wide Y, in its dtype."""
    rows = chirps(Y.shape[-2], count, Y).mT.expand(len(Y), -1, -1)  # few rows are faster than few columns
    for _ in range(_ROUNDS):
        rows = torch.baddbmm(rows, torch.bmm(rows, Y), Y.mT, alpha=-1)
    working = torch.promote_types(Y.dtype, torch.float32)
    Q = torch.linalg.qr(rows.mT.to(working))[0]
    T = torch.bmm(Q.mT.to(Y.dtype), Y).to(working)
    squares, V = torch.linalg.eigh(torch.bmm(T, T.mT).nan_to_num(0.0, 0.0, 0.0))  # NaN stays in Y
    t, rows = squares.clamp_min(0).sqrt(), torch.bmm(V.mT, T)
    W = rows / t.clamp_min(torch.finfo(working).tiny)[..., None]
    # T has its own singular vectors whether or not they are those of Y: only Y w - t q tells.
    residual = torch.bmm(Y, W.mT.to(Y.dtype)).to(working) - torch.bmm(Q, V * t[:, None, :])
    raised = _lift(t, floor.to(working), residual, _RESIDUAL_HALF if Y.itemsize == 2 else _RESIDUAL)
    change = torch.bmm(V * raised[:, None, :], rows)
    return Q.to(Y.dtype), change.to(Y.dtype)


def _lift(
    t: Float[Tensor, "b c"], floor: Float[Tensor, " b"], residual: Float[Tensor, "b k c"], most: float
) -> Float[Tensor, "b c"]:
    """Return 1/t - 1 for the singular values t of the block, rising, and 0 for those that stay."""
    sizes = torch.linalg.vector_norm(residual, dim=-2)
    caught: Bool[Tensor, "b 1"] = t[:, -1:] >= _CAUGHT
    moves = caught & (t > floor[:, None]) & (sizes <= most)
    left = residual * moves[:, None, :]
    together = torch.linalg.matrix_norm(torch.bmm(left.mT, left)).sqrt()
    moves = moves & (together <= most)[:, None]
    return torch.where(moves, 1 / torch.where(moves, t, 1.0) - 1, 0.0)
