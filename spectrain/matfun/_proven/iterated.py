"""msign within a tolerance by iteration: look at the spectrum, design for it, iterate, prove what came out.

The proof is from X and Y alone, for X of full rank: orthogonality, the polar part, definiteness.
"""

import functools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain._arrays.products import bmm
from spectrain.approx import Schedule, sign_schedule
from spectrain.matfun._entry.input import Real
from spectrain.matfun._iteration.gram import coefficients, gram_cuts, gram_iteration, gram_products, plain_products
from spectrain.matfun._iteration.largest import chirps
from spectrain.matfun._iteration.plain import Start, plain_iteration, start_for
from spectrain.matfun._norms import enclosed_norms
from spectrain.matfun._proven.algorithm import Algorithm, Asked, Costs, Sign
from spectrain.matfun._proven.cut import Cut

_SHARE = 0.8  # of the guess, for the lower bound on sigma_min that is to be proven
_SAMPLES, _SAFETY = 32, 2.0
_LEAST_TOL = 2e-5
_OVERHEAD = 6.5e-4  # seconds that do not depend on the size
LEAST = 0.003  # relative sigma_min below which the rounding of float32 leaves no proof
_GRID = 4  # designs an octave
_VECTORS, _ROUNDS = 8, 4
_SUMS = 1.02  # norms of large matrices in float32 are off by up to 0.6 %, and the cut is to be bounded from above


class Verified(NamedTuple):
    """A bound on ||Y - msign(X)||_F, and one from below on the smallest singular value of X."""

    error: Float[Tensor, " b"]
    least: Float[Tensor, " b"]


def verify(X: Float[Tensor, "b k l"], Y: Float[Tensor, "b k l"], guess: Float[Tensor, " b"]) -> Verified:
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
    e = _double_norm(torch.bmm(torch.bmm(rows, Y), Y.mT) - rows)
    r = _double_norm(torch.bmm(columns, X.mT) - torch.bmm(torch.bmm(columns, Y.mT), S))
    mu = _SHARE * guess
    size = torch.linalg.matrix_norm(S)
    S.diagonal(dim1=-2, dim2=-1).sub_(mu[:, None])
    definite = torch.linalg.cholesky_ex(S)[1] == 0
    mu = (mu - torch.finfo(S.dtype).eps * S.shape[-1] ** 0.5 * size).double()
    least = mu * (1 - e).clamp_min(0).sqrt() - r
    error = e / (1 - e) + r / least.clamp_min(1e-300)
    return Verified(torch.where(definite & (e < 1) & (least > 0), error, torch.inf), least)


def _double_norm(rows: Float[Tensor, "b s n"]) -> Float[Tensor, " b"]:
    """Return twice the estimate of ||A||_F from normal rows times A."""
    return _SAFETY / math.sqrt(_SAMPLES) * torch.linalg.vector_norm(rows, dim=(-2, -1)).double()


@functools.lru_cache(maxsize=64)
def _samples(n: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "1 s n"]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(1, _SAMPLES, n, dtype=torch.float64, generator=generator).to(device, dtype)


def by_iteration(X: Float[Tensor, "b k l"], cut: Cut, tol: Real) -> Sign:
    """Return msign of wide float32 X of full rank by odd polynomials, with a proven bound, or inf.

    The interval comes from the Gram matrix: a bound on sigma_max (:func:`norm_bound`) and, by inverse iteration with
    its Cholesky factor, an estimate of sigma_min. The least number of quintics whose result can be proven on it is
    applied, in Gram or plain form, and :func:`verify` looks at what came out. No bound is claimed where the
    Gram matrix has no Cholesky factor, where sigma_min is so small that rounding leaves nothing to prove, or where it
    does not exceed the size that counts as zero.
    """
    start = start_for([X])
    guess, top = _smallest(start), start.top
    norm = _SUMS * torch.linalg.matrix_norm(X)
    floor = cut.floor(norm if cut.rtol is None else enclosed_norms(X)[1], norm, X.shape)
    error = torch.full((len(X),), torch.inf, dtype=torch.float64, device=X.device)
    least, Y = torch.zeros_like(error), torch.zeros_like(X)
    items = ((guess > LEAST * top) & (guess > 2 * floor)).nonzero().flatten()
    if len(items):
        schedule = schedule_for(float((guess / top)[items].min()), tol)
        if len(items) < len(X):
            start = Start(*(piece[items] for piece in start))
        part = X if len(items) == len(X) else X[items]
        signs = _iterate(part, start, schedule)
        found = verify(part, signs, guess[items])
        proven = torch.where(found.least > floor[items], found.error / X.shape[-2] ** 0.5, torch.inf)
        if len(items) == len(X):
            Y, error, least = signs, proven, found.least
        else:
            Y[items], error[items], least[items] = signs, proven, found.least
    return Sign(Y, error, torch.full_like(error, X.shape[-2]), least / top, torch.zeros_like(error))


def _iterate(X: Tensor, start: Start, schedule: Schedule) -> Tensor:
    cuts, upper = gram_cuts(schedule, X.dtype, X.shape), schedule.interval[1]
    if cuts is None:
        return plain_iteration(X.clone(), schedule.polynomials, start=start, upper=upper)
    return gram_iteration([X], schedule.polynomials, start=start, upper=upper, cuts=cuts)[0]


def _smallest(start: Start) -> Float[Tensor, " b"]:
    """Return about sigma_min, from above, by inverse iteration; 0 where the Gram matrix is not definite."""
    L, failed = torch.linalg.cholesky_ex(start.G)
    V = chirps(L.shape[-1], _VECTORS, L).expand(len(L), -1, -1)
    for _ in range(_ROUNDS):
        V = V / torch.linalg.vector_norm(V, dim=-2, keepdim=True)
        V = torch.cholesky_solve(V, L)
    growth = torch.linalg.vector_norm(V, dim=-2).amax(-1)
    return torch.where((failed == 0) & growth.isfinite(), growth.rsqrt(), 0.0)


def schedule_for(relative: float, tol: Real) -> Schedule:
    """Return as few quintics as let :func:`verify` prove tol, from 0.9 of the relative sigma_min on, rounded down.

    With singular values p of Y and s of X, the residual s (1 - p^2) over sigma_min costs most in the proof: a schedule
    of error E is proven to 2 to 5 E up to a condition of 20, more above. So E is a tenth of tol, less from there.
    """
    share = min(0.1, 2 * relative)
    return _design(math.floor(_GRID * math.log2(min(0.9 * relative, 0.9))), max(float(tol) * share, 1e-7))


@functools.lru_cache(maxsize=256)
def _design(exponent: int, tol: float) -> Schedule:
    """Return a schedule of error tol with its safety margin included, which sign_schedule's ``tol`` does not count."""
    low = 2.0 ** (exponent / _GRID)
    schedule = sign_schedule(low, tol=tol, margin=1.02)
    if schedule.error > tol:
        schedule = sign_schedule(low, steps=len(schedule.polynomials) + 1, margin=1.02)
    return schedule


def _price(asked: Asked, costs: Costs) -> float | None:
    """Seconds for the schedule that a random matrix of the shape needs, and for the proof of what came out."""
    if asked.tol < _LEAST_TOL or asked.expected <= 4 * LEAST:
        return None
    k, aspect = asked.k, asked.aspect
    schedule = schedule_for(asked.expected, asked.tol)
    cuts = gram_cuts(schedule, torch.float32, (k, round(aspect * k)))
    odd = coefficients(schedule)
    products = plain_products(odd, aspect) if cuts is None else gram_products(odd, cuts, aspect)
    checks = 2 * costs.decomposition("cholesky", "float32", k) + costs.product("float32", k, 1.5 * aspect + 1)
    return _OVERHEAD + costs.product("float32", k, products) + checks


ITERATION = Algorithm(
    "iterate float32", "iterate", "odd polynomials for the interval measured, error about 6e-8 condition",
    run=lambda X, cut, tol: by_iteration(X.float(), cut, tol), price=_price,
    fits=lambda dtype, threshold: dtype != torch.float64 and not threshold, full_rank=True,
)  # fmt: skip
