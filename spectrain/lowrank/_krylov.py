"""Block Krylov: a subspace for the largest singular values with few products, and all of them used."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain.lowrank._matrix.error import frobenius
from spectrain.lowrank._matrix.matrix import Matrix
from spectrain.lowrank._matrix.skinny import adjoint_times, times
from spectrain.lowrank._random import gaussian

_CLEAR = 0.01  # of the largest column: where so much is left of every direction, none is rounding


class Subspace(NamedTuple):
    """Q^H A = T P^H, Q and P with orthonormal columns (or zero ones, where the space is exhausted).

    ``lost`` is the squared norm of Q^H A - T P^H, measured where A is known by products alone: directions at the level
    of rounding are left out of P, and nobody could look at the residual of the factors.
    """

    Q: Tensor
    T: Tensor
    P: Tensor
    lost: Tensor

    def svd(self, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the first U, S, Vh of Q Q^H A, the Ritz approximation of A, and all its singular values."""
        U, S, Vh = torch.linalg.svd(self.T, full_matrices=False)
        return times(self.Q, U[..., :width]), S[..., :width], (self.P @ Vh[..., :width, :].mH).mH, S


def subspaces(A: Matrix, *, block: int, generator: torch.Generator) -> Iterator[Subspace]:
    """Yield growing subspaces: the span of A G, (A A^H) A G, (A A^H)^2 A G, ...; G Gaussian with ``block`` columns.

    Block Golub-Kahan bidiagonalization (Golub, Luk and Overton, 1981) with full orthogonalization, done twice. Step t
    has cost 2 products with ``block`` columns, the products of one more power of subspace iteration, but the
    space keeps everything earlier products found: error 1 + eps after about log(n) / sqrt(eps) steps where subspace
    iteration needs log(n) / eps (Musco and Musco 2015), at any block size (Chen, Epperly, Meyer, Musco and Rao
    2025). T is measured, P^H A^H Q, and not assembled from the recurrence, so that Q^H A = T P^H holds to rounding.
    """
    lead, n = A.shape[:-2], A.shape[-1]
    G = gaussian(*lead, n, block, dtype=A.dtype, device=A.device, generator=generator)
    P = torch.linalg.qr(G)[0]
    newest, Q, T = P, P.new_zeros(*lead, A.shape[-2], 0), P.new_zeros(*lead, 0, block)
    lost = torch.zeros(lead, dtype=torch.float64, device=A.device)
    while Q.shape[-1] + block <= A.shape[-2] and P.shape[-1] + block <= n:
        fresh = appended(Q, A @ newest)
        image = A.adjoint_times(fresh)
        newest = _revived(P, appended(P, image), generator)
        Q, P = torch.cat([Q, fresh], -1), torch.cat([P, newest], -1)
        rows = image.mH @ P
        T = torch.cat([torch.nn.functional.pad(T, (0, newest.shape[-1])), rows], -2)
        if A.entries is None:
            lost = lost + frobenius(image - P @ rows.mH).square()
        yield Subspace(Q, T, P, lost)


def _revived(P: Tensor, newest: Tensor, generator: torch.Generator) -> Tensor:
    """Return the columns with zero ones, where the Krylov space has closed, replaced by new random directions.

    Without them a singular value that appears more often than ``block`` would be found ``block`` times only.
    """
    dead = torch.linalg.vector_norm(newest.detach(), dim=-2, keepdim=True) < 0.5
    if not bool(dead.any()):
        return newest
    G = gaussian(*newest.shape, dtype=newest.dtype, device=newest.device, generator=generator)
    taken = torch.cat([P, newest], -1)
    return torch.where(dead, appended(taken, G), newest)


def appended(Q: Tensor, W: Tensor) -> Tensor:
    """Return orthonormal columns for what W adds to the span of Q; zero columns where it adds nothing.

    Directions of W below rounding, relative to its largest column, are noise and become zero columns. What is left is
    always orthogonalized a second time, and twice is enough (Giraud, Langou and Rozloznik 2005): once would multiply
    what Q itself lacks in orthogonality, at every step, by the size of W over the size of what is left.
    """
    largest = torch.linalg.vector_norm(W.detach(), dim=-2).amax(-1, keepdim=True)
    fresh, triangle = torch.linalg.qr(W - times(Q, adjoint_times(Q, W)))
    if not bool((_least(triangle.detach()) > _CLEAR * largest).all()):
        turn, sizes, _ = torch.linalg.svd(triangle)
        fresh = fresh @ (turn * (sizes.detach() > 16 * torch.finfo(W.dtype).eps * largest)[..., None, :])
    again, triangle = torch.linalg.qr(fresh - times(Q, adjoint_times(Q, fresh)))
    size = triangle.diagonal(dim1=-2, dim2=-1)
    return again * torch.where(size.detach().abs() > 0.5, torch.sgn(size), 0)[..., None, :]


def _least(R: Tensor) -> Tensor:
    """Return a lower bound on the smallest singular value of triangular R: 1 / ||R^-1||_F; 0 where there is none."""
    eye = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
    inverse = torch.linalg.solve_triangular(R, eye, upper=True)
    return torch.nan_to_num(1 / torch.linalg.matrix_norm(inverse), nan=0.0)[..., None]
