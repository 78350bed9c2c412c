"""mclip: singular values clipped to an interval, by changing only those that lie outside of it."""

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._batches import flat
from spectrain.matfun._derivative import ClipFunction
from spectrain.matfun._exact import absolute
from spectrain.matfun._input import Array, Real, checked_tolerance, entered
from spectrain.matfun._scale import times_power_of_two, to_unit

_norm = torch.linalg.matrix_norm


class _Bounds(NamedTuple):
    """The interval, scaled like the matrix, and the relative size below which singular values become zero."""

    lower: Float[Tensor, "b 1"]
    upper: Float[Tensor, "b 1"]
    rtol: Real

    def image(self, S: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        kept = (self.rtol * S.amax(-1, keepdim=True) < S) & (S > 0)
        return torch.where(kept, S.clamp(self.lower, self.upper), 0.0)

    def steepness(self, S: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        """Return the largest divided difference of the odd continuation: 1, or lower / min(S) where that lifts."""
        image = self.image(S)
        smallest = torch.where(image > 0, S, torch.inf).amin(-1)
        return (self.lower[:, 0] / smallest).clamp_min(1.0)


class _Clipped(NamedTuple):
    Y: Float[Tensor, "b k l"]
    error: Float[Tensor, " b"]  # bound on the relative Frobenius error


def mclip(
    X: Array,
    lower: Real,
    upper: Real,
    *,
    tol: Real | None = None,
    rtol: Real = 0.0,
    out_dtype: torch.dtype | None = None,
) -> Array:
    """Return U clip(S) V^T for X = U diag(S) V^T, with clip(s) = min(max(s, lower), upper).

    ``lower <= 0`` leaves small singular values alone. ``lower > 0`` lifts every nonzero computed singular value to at
    least ``lower``; those at or below ``rtol`` times the largest become zero instead. ``upper`` may be infinite.
    The relative Frobenius error is at most ``tol`` (by output dtype 5e-2, 1e-4, 1e-10), rounding to the output dtype
    included. It is proven from the result: clipping from above alone is a contraction, so the bound is a residual and
    needs no condition; a lift multiplies it by lower / sigma_min. Where float64 cannot prove tol, a tol that was
    given is a ValueError and the default one a RuntimeWarning.

    X = V Z with V the eigenvectors of X X^T in float64 and Z = V^T X; only the rows of Z whose singular value
    changes are computed, scaled and put back: X + V_a (f(S_a) / S_a - 1) Z_a. No part of the result is
    a difference of large numbers, which is where the formulas by msign lose large singular values
    (article 11059, kexue.fm/archives/11059). Where the bound is above tol, LAPACK's SVD follows.

    Differentiable once, forward and backward (at a singular value on a bound, from one side).
    Shapes: X (*batch, m, n), the result the same; any real floating dtype. Errors: as :func:`msign`, ValueError for
    lower > upper, upper < 0 or bounds that are NaN. Cost: k^2 l + 12 k^3 in float64 and 2 k l for each changed value.

    >>> X = torch.tensor([[0.0, 0.1, 0.0], [-3.0, 0.0, 0.0]])
    >>> [[round(v, 4) for v in row] for row in mclip(X, 0.2, 1.0).tolist()]
    [[0.0, 0.2, 0.0], [-1.0, 0.0, 0.0]]
    """
    X, leave = entered(X, "mclip")
    if not (lower <= upper and upper >= 0):
        raise ValueError(f"mclip: needs lower <= upper and upper >= 0, got lower={lower}, upper={upper}")
    out_dtype = out_dtype or X.dtype
    limit = checked_tolerance(tol, out_dtype, "mclip") - torch.finfo(out_dtype).eps / 2

    def compute(batch: Tensor) -> Tensor:
        return _checked(batch, lower, upper, rtol, limit, asked=tol is not None).to(out_dtype)

    with torch.autocast(X.device.type, enabled=False):
        return leave(ClipFunction.apply(flat(X), compute, float(lower), float(upper)).reshape(X.shape))


def _checked(X: Float[Tensor, "b m n"], lower: Real, upper: Real, rtol: Real, tol: Real, *, asked: bool) -> Tensor:
    """Return the clipped matrices in float64, with every bound checked against tol."""
    unit, k = to_unit(X.double(), "mclip")
    bounds = _Bounds(absolute(max(lower, 0), k)[:, None], absolute(upper, k)[:, None], rtol)
    tall = X.shape[-2] > X.shape[-1]
    found = _clipped(unit.mT.contiguous() if tall else unit, bounds, tol)
    _check(found, tol, asked=asked)
    return times_power_of_two(found.Y.mT if tall else found.Y, k)


def _clipped(X: Float[Tensor, "b k l"], bounds: _Bounds, tol: Real) -> _Clipped:
    """Return the clipped matrices: by the Gram matrix, and by SVD those whose bound is above tol."""
    if X.numel() == 0:
        return _Clipped(X, X.new_zeros(len(X)))
    found = _by_gram(X, bounds)
    again = (~(found.error <= tol)).nonzero().flatten()
    if len(again) == 0:
        return found
    part = _Bounds(bounds.lower[again], bounds.upper[again], bounds.rtol)
    return _Clipped(*(a.index_copy(0, again, b) for a, b in zip(found, _by_svd(X[again], part), strict=True)))


def _by_gram(X: Float[Tensor, "b k l"], bounds: _Bounds) -> _Clipped:
    """Return the clipped matrices and a bound.

    With T = V^T X X^T V, off-diagonal in the columns a that change, X is within ||T_a / S_a||_F of a matrix for which
    the update is exact; the singular values of the rest are within ||off T||_F / lower or upper of their
    own diagonal (Hoffman and Wielandt).
    """
    G = torch.bmm(X, X.mT)
    V = torch.linalg.eigh(G)[1]
    T = torch.bmm(torch.bmm(V.mT, G), V)
    S = T.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    image = bounds.image(S)
    active = (image != S) & (S > 0)
    a = active.any(0).nonzero().flatten()
    ratio = torch.where(active, image / torch.where(active, S, 1.0), 1.0)
    Va = V[..., a]
    Y = X + torch.bmm(Va * (ratio - 1)[:, None, a], torch.bmm(Va.mT, X))
    return _Clipped(Y, _gram_bound(X, T, S, active, ratio, V, bounds) / _size(image))


def _gram_bound(
    X: Tensor, T: Tensor, S: Tensor, active: Tensor, ratio: Tensor, V: Tensor, bounds: _Bounds
) -> Float[Tensor, " b"]:
    size = _norm(X)
    noise = torch.finfo(X.dtype).eps * sum(X.shape[-2:]) ** 0.5
    off = T - torch.diag_embed(T.diagonal(dim1=-2, dim2=-1))
    smallest = torch.where(active, S, torch.inf).amin(-1)
    lost = _norm(torch.bmm(V.mT, V) - torch.eye(V.shape[-1], dtype=V.dtype, device=V.device))
    delta = _norm(off * torch.where(active, 1 / S, 0.0)[:, None, :]) + noise * size.square() / smallest
    edge = torch.minimum(bounds.upper[:, 0], torch.where(bounds.lower > 0, bounds.lower, torch.inf)[:, 0])
    rest = (_norm(off) + noise * size.square()) / edge
    return (bounds.steepness(S) + ratio.amax(-1)) * (delta + (lost + noise) * size) + rest


def _by_svd(X: Float[Tensor, "b k l"], bounds: _Bounds) -> _Clipped:
    """Return the clipped matrices from their SVD; the bound is the residual times the steepness of the function."""
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    image = bounds.image(S)
    noise = torch.finfo(X.dtype).eps * sum(X.shape[-2:]) ** 0.5 * _norm(X)
    delta = _norm(X - torch.bmm(U * S[:, None, :], Vh)) + noise
    return _Clipped(torch.bmm(U * image[:, None, :], Vh), (bounds.steepness(S) + 1) * delta / _size(image))


def _size(image: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    norm = torch.linalg.vector_norm(image, dim=-1)
    return torch.where(norm > 0, norm, 1.0)


def _check(found: _Clipped, tol: Real, *, asked: bool) -> None:
    if bool((found.error <= tol).all()):
        return
    worst = int(found.error.argmax())
    message = (
        f"mclip: cannot prove a relative error of {tol:g}; the bound is {float(found.error[worst]):.2g} for matrix "
        f"{worst}: a positive lower bound lifts singular values at the rounding noise of float64. Pass rtol= to make "
        "them zero, lower=0 to leave them alone, or a larger tol="
    )
    if asked:
        raise ValueError(message)
    warnings.warn(message, RuntimeWarning, stacklevel=3)
