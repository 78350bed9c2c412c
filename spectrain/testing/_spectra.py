"""Matrices with singular values that are given, and singular vectors that are random."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def _generator(seed: torch.Generator | int) -> torch.Generator:
    return seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)


def random_orthonormal(m: int, n: int, *, generator: torch.Generator | int = 0) -> Float[Tensor, "{m} {n}"]:
    """Return an m x n float64 matrix with orthonormal columns, uniform in the Haar measure; needs m >= n.

    QR of a Gaussian with the signs of R's diagonal moved into Q (Mezzadri, Notices of the AMS 54, 2007):
    without the signs the distribution is not uniform. Cost O(m n^2).

    >>> Q = random_orthonormal(5, 3)
    >>> float((Q.T @ Q - torch.eye(3, dtype=Q.dtype)).abs().max()) < 1e-14
    True
    """
    if m < n:
        raise ValueError(f"orthonormal columns need m >= n, got {m} x {n}; transpose the request")
    Q, R = torch.linalg.qr(torch.randn(m, n, dtype=torch.float64, generator=_generator(generator)))
    return Q * torch.where(R.diagonal() < 0, -1.0, 1.0).to(Q.dtype)


def with_singular_values(
    s: Float[Tensor, " k"] | Sequence[float], m: int, n: int, *, generator: torch.Generator | int = 0
) -> Float[Tensor, "{m} {n}"]:
    """Return U diag(s) V^T as an m x n float64 matrix, U and V random with orthonormal columns.

    ``s`` holds at most min(m, n) nonnegative numbers; the singular values that are not given are zero (to
    rounding, 1e-16 of the largest). Cost O((m + n) k^2 + m n k).

    Raises ValueError for too many or negative singular values.

    >>> X = with_singular_values([3.0, 1.0], 4, 6)
    >>> [round(v, 12) + 0.0 for v in torch.linalg.svdvals(X).tolist()]
    [3.0, 1.0, 0.0, 0.0]
    """
    s = torch.as_tensor(s, dtype=torch.float64)
    if len(s) > min(m, n) or bool((s < 0).any()):
        raise ValueError(f"need at most {min(m, n)} singular values, none negative, for {m} x {n}; got {s.tolist()}")
    g = _generator(generator)
    U = random_orthonormal(m, len(s), generator=g)
    V = random_orthonormal(n, len(s), generator=g)
    return (U * s) @ V.T
