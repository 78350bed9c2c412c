"""A few random combinations of rows stand for all of them, and elimination on those chooses columns."""

import torch
from jaxtyping import Int, Num
from torch import Tensor

from spectrain.lowrank._matrix.matrix import Matrix
from spectrain.lowrank._random import gaussian


def row_sketch(A: Num[Tensor, "m n"], size: int, *, power: int, draw: torch.Generator) -> Num[Tensor, "size n"]:
    """Return :func:`sketch_of` of a dense matrix."""
    Y = gaussian(size, A.shape[0], dtype=A.dtype, device=A.device, generator=draw) @ A
    return _powered(A, A.mH, Y, power)


def sketch_of(A: Matrix, size: int, power: int, draw: torch.Generator) -> Num[Tensor, "size n"]:
    """Return Omega A (A^H A)^power for Gaussian Omega, its rows made orthonormal between products.

    Columns of the sketch span what columns of A span, and its column norms and angles are those of A to within
    sqrt(rank / size). Each power costs two more products with A and damps the tail.
    """
    Omega = gaussian(A.shape[0], size, dtype=A.dtype, device=A.device, generator=draw)
    return _powered(A, A.mH, (A.mH @ Omega).mH, power)


def _powered(A: Tensor | Matrix, adjoint: Tensor | Matrix, Y: Tensor, power: int) -> Tensor:
    for _ in range(power):
        Q = torch.linalg.qr(Y.mH).Q
        Y = (adjoint @ torch.linalg.qr(A @ Q).Q).mH
    return Y


def by_elimination(Y: Num[Tensor, "size n"], k: int) -> Int[Tensor, " k"]:
    """Return the first k pivots of Gaussian elimination with partial pivoting on Y^H.

    Dong and Martinsson (2023), "Simpler is better": elimination on a sketch finds columns about as good as pivoted
    QR, at a third of its cost and with one call that every device has. In the worst case |Z| grows like 2^k.
    """
    _, pivots, _ = torch.linalg.lu_factor_ex(Y.mH)
    order = list(range(Y.shape[-1]))
    for i, p in enumerate(pivots[:k].tolist()):
        order[i], order[p - 1] = order[p - 1], order[i]
    return torch.tensor(order[:k], device=Y.device)
