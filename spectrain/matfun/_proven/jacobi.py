"""msign by Jacobi rotations: rows of any different sizes cost no accuracy, which no other algorithm here can say."""

import functools
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._norms import enclosed_norms
from spectrain.matfun._proven.algorithm import Algorithm, Asked, Costs, Sign
from spectrain.matfun._proven.cut import Cut

_norm = torch.linalg.vector_norm

_MOST_SWEEPS = 30  # it takes 3 to 9; what does not converge is not proven
_DONE = 1e-9  # cosines are squared by a sweep: one that meets none above this leaves nothing but rounding
_OVERHEAD, _ROUND, _SWEEPS = 7e-4, 3e-4, 6  # seconds of a call and of a round at any size, sweeps of a random matrix
_UNIT = torch.finfo(torch.float64).eps / 2


class RowProof(NamedTuple):
    """A bound on ||Y - msign(X)||_F, and one from below on the smallest singular value of X."""

    error: Float[Tensor, " b"]
    least: Float[Tensor, " b"]


def by_jacobi(X: Float[Tensor, "b k l"], cut: Cut) -> Sign:
    """Return msign of wide float64 X of full rank by one-sided Jacobi, with the bound of :func:`row_proof`, or inf.

    Rotations J of pairs of rows make the rows of Z = J X orthogonal; with W those rows at unit length,
    msign(X) = J^T W. A rotation of two rows changes each by roundings of its own size, never by roundings of the
    larger one, so the computed J^T W is the sign of a matrix whose every row is X's up to a rounding relative to that
    row. QR, the bidiagonal form of an SVD and Gram matrices mix rows first, and lose those that are smaller than the
    rounding of the largest (Demmel and Veselic, SIAM J. Matrix Anal. Appl. 13, 1992).

    Pairs are taken in rounds of k / 2 disjoint ones, as players meet in a tournament, so that a round is a handful of
    calls for the whole batch, whatever k is. Nothing is claimed for a matrix whose smallest singular value is not
    proven to be above the floor of ``cut``: all that are nonzero go to 1, noise too.

    Cost: three to nine sweeps of k - 1 rounds, a round 12 k l multiplications; many small calls to torch.
    """
    Y = _signs(X)
    top = enclosed_norms(X)[1]
    floor = cut.floor(top, torch.linalg.matrix_norm(X), X.shape)  # from above, as top is
    found = row_proof(X, Y)
    error = torch.where(found.least > floor, found.error / X.shape[-2] ** 0.5, torch.inf)
    smallest = torch.where(top > 0, found.least / top, 0.0)
    return Sign(Y, error, torch.full_like(error, X.shape[-2]), smallest, torch.zeros_like(error))


def _signs(X: Float[Tensor, "b k l"]) -> Float[Tensor, "b k l"]:
    """Return J^T W; the rows of J are rotated as those of X are, beside them."""
    b, k, length = X.shape
    Z = torch.cat([X, torch.eye(k, dtype=X.dtype, device=X.device).expand(b, -1, -1)], -1)
    for _ in range(_MOST_SWEEPS):
        largest = [_rotate(Z, length, *pair) for pair in _rounds(k, X.device)]
        if not largest or bool(torch.stack(largest).amax() <= _DONE):
            break
    return torch.bmm(Z[..., length:].mT, _unit_rows(Z[..., :length]))


def _rotate(Z: Float[Tensor, "b k n"], length: int, first: Tensor, second: Tensor) -> Tensor:
    """Make the ``first`` and the ``second`` rows orthogonal, pair by pair, in place; the largest cosine there was."""
    P, Q = Z[:, first], Z[:, second]
    p, q = P[..., :length], Q[..., :length]
    a, b = _norm(p, dim=-1), _norm(q, dim=-1)
    # The cosine of unit rows, and a ratio of norms: products of two rows would overflow or vanish with their sizes.
    cosine = (_unit_rows(p) * _unit_rows(q)).sum(-1)
    zeta = (b / a - a / b) / (2 * cosine)
    tangent = torch.where(zeta < 0, -1.0, 1.0) / (zeta.abs() + torch.hypot(zeta, torch.ones_like(zeta)))
    tangent = torch.where((cosine != 0) & tangent.isfinite(), tangent, 0.0)[..., None]
    c = (1 + tangent.square()).rsqrt()
    s = tangent * c
    Z[:, first], Z[:, second] = c * P - s * Q, s * P + c * Q
    return cosine.abs().amax()


@functools.lru_cache(maxsize=64)
def _rounds(k: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Return every pair of k rows once, in rounds of disjoint pairs: one stays, the others move around (a tournament).

    >>> [[list(zip(p.tolist(), q.tolist())) for p, q in _rounds(4, torch.device("cpu"))][i] for i in range(3)]
    [[(0, 3), (1, 2)], [(0, 2), (3, 1)], [(0, 1), (2, 3)]]
    """
    ring, result = list(range(k)) + [k] * (k % 2), []
    for _ in range(len(ring) - 1):
        half = len(ring) // 2
        pairs = [(i, j) for i, j in zip(ring[:half], reversed(ring[half:]), strict=True) if k not in (i, j)]
        if pairs:
            first, second = torch.tensor(pairs, device=device).T
            result.append((first, second))
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return result


def _unit_rows(X: Float[Tensor, "b k l"]) -> Float[Tensor, "b k l"]:
    """Return the rows at length 1; rows of zeros stay."""
    size = _norm(X, dim=-1, keepdim=True)
    return X / torch.where(size > 0, size, 1.0)


def row_proof(X: Float[Tensor, "b k l"], Y: Float[Tensor, "b k l"]) -> RowProof:
    """Return what wide float64 X and Y prove, with the condition of X after its rows are brought to length 1.

    Let D = diag(1 / ||x_i||), B = D X with ||B^+|| <= beta, e = ||Y Y^T - I||_F < 1, and S any symmetric matrix with a
    Cholesky factor. Write Y = P Q with Q = msign(Y), so ||Y - Q|| <= e / (2 - e), and S Y = X + E. As in
    :func:`spectrain.matfun._proven.iterated.verify`, msign(S P) is within e / (2 - 2 e) of I, so msign(X + E) is that
    far from Q. And X + E = X (I + X^+ E) for X of full row rank, with ||X^+ E||_F <= rho = beta ||D E||_F: errors count
    relative to their rows. With X = H U, the singular values of U (I + X^+ E) = P' Q' are in [1 - rho, 1 + rho], so
    ||Q' - U|| <= 2 rho and msign(H P') is within ||log P'|| <= rho / (1 - rho) of I. Together, in Frobenius norms,

        ||Y - msign(X)|| <= e / (1 - e) + 2 rho + rho / (1 - rho).

    S is made of X Y^T, each entry from the smaller of the two rows: the other one has the rounding of the larger row,
    which may be more than all of the smaller. Both Cholesky factors are of matrices with ones or so on their diagonals,
    and ||L^-1||_F^2 bounds what is to be bounded up to their roundings (Higham, Accuracy and Stability, theorem 10.3).
    Rounding in evaluating e and E is added, as sums of random signs. Cost: three products with the long side.
    """
    k, length = X.shape[-2:]
    size = _norm(X, dim=-1)
    inverse = torch.where(size > 0, 1 / size, 0.0)
    M = torch.bmm(X, Y.mT)
    S = torch.where(size[:, :, None] <= size[:, None, :], M, M.mT)
    S = torch.where(size[:, :, None] == size[:, None, :], 0.5 * (M + M.mT), S)
    E = torch.baddbmm(X, S, Y, beta=-1.0)
    noise = _UNIT * (k**0.5 + 1) * inverse * (_norm(S, dim=-1) + size)
    defect = torch.bmm(Y, Y.mT)
    defect.diagonal(dim1=-2, dim2=-1).sub_(1)
    e = torch.linalg.matrix_norm(defect) + _UNIT * length**0.5 * k
    B = X * inverse[..., None]
    root = inverse.sqrt()
    beta = _least_eigenvalue(torch.bmm(B, B.mT), length).rsqrt()
    mu = _least_eigenvalue(S * root[:, :, None] * root[:, None, :], length)
    rho = beta * torch.linalg.vector_norm(_norm(E, dim=-1) * inverse + noise, dim=-1)
    error = e / (1 - e) + 2 * rho + rho / (1 - rho)
    proven = (mu > 0) & (e < 1) & (rho < 1) & (size > 0).all(-1)
    least = mu * size.amin(-1) * (1 - e).clamp_min(0).sqrt() / (1 + rho)
    return RowProof(torch.where(proven, error, torch.inf), torch.where(proven, least, 0.0))


def _least_eigenvalue(A: Float[Tensor, "b k k"], terms: int) -> Float[Tensor, " b"]:
    """Return a lower bound on the least eigenvalue of symmetric A, sums of ``terms`` products; 0 where there is none.

    A + F = L L^T with F no more than a few roundings of the trace, so it is at least 1 / ||L^-1||_F^2 less that. The
    inverse of L itself is off by k u times the condition of L, below 1e-6 wherever anything is left.
    """
    L, failed = torch.linalg.cholesky_ex(A)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand_as(A)
    inverse = torch.linalg.matrix_norm(torch.linalg.solve_triangular(L, eye, upper=False))
    trace = A.diagonal(dim1=-2, dim2=-1).sum(-1)
    bound = (1 - 1e-6) * inverse.square().reciprocal() - 8 * (A.shape[-1] + terms**0.5) * _UNIT * trace
    return torch.where((failed == 0) & bound.isfinite(), bound.clamp_min(0.0), 0.0)


def _price(asked: Asked, costs: Costs) -> float:
    """Seconds for the rounds of a random matrix; they are calls more than work."""
    rounds = _SWEEPS * (asked.k - 1 + asked.k % 2) if asked.k > 1 else 0
    return _OVERHEAD + rounds * (_ROUND + costs.product("float64", asked.k, 6 * asked.aspect / asked.k))


JACOBI = Algorithm(
    "jacobi float64", "jacobi", "rotations of rows, full rank only, error about 1e-16 condition of unit rows",
    run=lambda X, cut, _: by_jacobi(X.double(), cut), price=_price, fits=lambda dtype, threshold: not threshold,
    full_rank=True,
)  # fmt: skip
