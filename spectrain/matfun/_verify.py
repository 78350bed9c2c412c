"""A bound on ||Y - msign(X)|| from X and Y alone, for X of full rank: orthogonality, the polar part, definiteness."""

import functools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._iteration.products import bmm

_SHARE = 0.8  # of the guess, for the lower bound on sigma_min that is to be proven
_SAMPLES, _SAFETY = 32, 2.0


class Verified(NamedTuple):
    """A bound on ||Y - msign(X)||_F, and one from below on the smallest singular value of X."""

    error: Float[Tensor, " b"]
    least: Float[Tensor, " b"]


def verified(X: Float[Tensor, "b k l"], Y: Float[Tensor, "b k l"], guess: Float[Tensor, " b"]) -> Verified:
    """Return what wide X and Y, float32 or float64, prove; ``guess`` is about the smallest singular value of X.

    Let S = (X Y^T + Y X^T) / 2 with a Cholesky factor of S - mu I, mu = 0.8 guess, e = ||Y Y^T - I||_F < 1 and
    r = ||X - S Y||_F. Write Y = P Q with Q = msign(Y), so ||Y - Q|| <= e / (2 - e). Along P^t from t = 0 to 1 the
    polar factor of S P^t moves by z_ij = (h_i - h_j) / (h_i + h_j) L_ij in the eigenbasis of its Hermitian part, L
    similar to log P: by at most ||log P|| <= e / (2 - 2 e), whatever the condition; at t = 0 it is I, because S is
    positive definite. X is within r of S Y, so their polar factors are within r over the smaller of their least
    singular values, see :func:`spectrain.matfun._proven.decomposition.by_svd`. Together, in Frobenius norms,

        ||Y - msign(X)|| <= e / (1 - e) + r / (mu (1 - e)^(1/2) - r).

    No part can be left out: the Q of QR passes the first, a multiple of the truth the second, minus the truth all
    but the Cholesky factor. e and r are sampled: the norms of products with 32 normal rows of a fixed seed, doubled,
    which is too little with probability 2e-6 for a residual of rank one and never in practice for others.
    Cost: one product with the long side, one Cholesky factorization, five products with 32 rows.
    """
    M = bmm(X, Y.mT)
    S = 0.5 * (M + M.mT)
    rows, columns = (_samples(n, Y.dtype, Y.device).expand(len(Y), -1, -1) for n in Y.shape[-2:])
    e = _doubled(torch.bmm(torch.bmm(rows, Y), Y.mT) - rows)
    r = _doubled(torch.bmm(columns, X.mT) - torch.bmm(torch.bmm(columns, Y.mT), S))
    mu = _SHARE * guess
    size = torch.linalg.matrix_norm(S)
    S.diagonal(dim1=-2, dim2=-1).sub_(mu[:, None])
    definite = torch.linalg.cholesky_ex(S)[1] == 0
    mu = (mu - torch.finfo(S.dtype).eps * S.shape[-1] ** 0.5 * size).double()
    least = mu * (1 - e).clamp_min(0).sqrt() - r
    error = e / (1 - e) + r / least.clamp_min(1e-300)
    return Verified(torch.where(definite & (e < 1) & (least > 0), error, torch.inf), least)


def _doubled(rows: Float[Tensor, "b s n"]) -> Float[Tensor, " b"]:
    """Return twice the estimate of ||A||_F from normal rows times A."""
    return _SAFETY / math.sqrt(_SAMPLES) * torch.linalg.vector_norm(rows, dim=(-2, -1)).double()


@functools.lru_cache(maxsize=64)
def _samples(n: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "1 s n"]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(1, _SAMPLES, n, dtype=torch.float64, generator=generator).to(device, dtype)
