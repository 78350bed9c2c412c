"""msign within a tolerance by iteration: look at the spectrum, design for it, iterate, prove what came out."""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.approx import Schedule, sign_schedule
from spectrain.matfun._entry.input import Real
from spectrain.matfun._iteration.gram import gram_iteration
from spectrain.matfun._iteration.largest import chirps
from spectrain.matfun._iteration.plain import Start, plain_iteration, started
from spectrain.matfun._norms import enclosed_norms
from spectrain.matfun._proven.cut import Cut
from spectrain.matfun._proven.decomposition import Sign
from spectrain.matfun._restarts import gram_restarts
from spectrain.matfun._verify import verified

LEAST = 0.003  # relative sigma_min below which the rounding of float32 leaves no proof
_GRID = 4  # designs an octave
_VECTORS, _ROUNDS = 8, 4
_SUMS = 1.02  # norms of large matrices in float32 are off by up to 0.6 %, and the cut is to be bounded from above


def by_iteration(X: Float[Tensor, "b k l"], cut: Cut, tol: Real) -> Sign:
    """Return msign of wide float32 X of full rank by odd polynomials, with a proven bound, or inf.

    The interval comes from the Gram matrix: a bound on sigma_max (:func:`norm_bound`) and, by inverse iteration with
    its Cholesky factor, an estimate of sigma_min. The least number of quintics whose result can be proven on it is
    applied, in Gram or plain form, and :func:`verified` looks at what came out. No bound is claimed where the
    Gram matrix has no Cholesky factor, where sigma_min is so small that rounding leaves nothing to prove, or where it
    does not exceed the size that counts as zero.
    """
    start = started([X])
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
        signs = _iterated(part, start, schedule)
        found = verified(part, signs, guess[items])
        proven = torch.where(found.least > floor[items], found.error / X.shape[-2] ** 0.5, torch.inf)
        if len(items) == len(X):
            Y, error, least = signs, proven, found.least
        else:
            Y[items], error[items], least[items] = signs, proven, found.least
    return Sign(Y, error, torch.full_like(error, X.shape[-2]), least / top, torch.zeros_like(error))


def _iterated(X: Tensor, start: Start, schedule: Schedule) -> Tensor:
    cuts, upper = gram_restarts(schedule, X.dtype, X.shape), schedule.interval[1]
    if cuts is None:
        return plain_iteration(X.clone(), schedule.polynomials, start=start, upper=upper)
    return gram_iteration([X], schedule.polynomials, start=start, upper=upper, restarts=cuts)[0]


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
    """Return as few quintics as let :func:`verified` prove tol, from 0.9 of the relative sigma_min on, rounded down.

    With singular values p of Y and s of X, the residual s (1 - p^2) over sigma_min costs most in the proof: a schedule
    of error E is proven to 2 to 5 E up to a condition of 20, more above. So E is a tenth of tol, less from there.
    """
    share = min(0.1, 2 * relative)
    return _designed(math.floor(_GRID * math.log2(min(0.9 * relative, 0.9))), max(float(tol) * share, 1e-7))


@functools.lru_cache(maxsize=256)
def _designed(exponent: int, tol: float) -> Schedule:
    """Return a schedule of error tol with its safety margin included, which sign_schedule's ``tol`` does not count."""
    low = 2.0 ** (exponent / _GRID)
    schedule = sign_schedule(low, tol=tol, margin=1.02)
    if schedule.error > tol:
        schedule = sign_schedule(low, steps=len(schedule.polynomials) + 1, margin=1.02)
    return schedule
