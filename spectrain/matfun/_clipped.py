"""Clipped singular values with a proven error, in float64: by eigenvectors of the Gram matrix, or by SVD."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._beyond import beyond
from spectrain.matfun._clip_change import Interval
from spectrain.matfun._exact import absolute
from spectrain.matfun._scale import times_power_of_two, to_unit

_norm = torch.linalg.matrix_norm


class _Bounds(NamedTuple):
    """The interval in the units of matrices that were scaled by powers of two."""

    lower: Float[Tensor, "b 1"]
    upper: Float[Tensor, "b 1"]
    rtol: float

    def of(self, items: Tensor) -> "_Bounds":
        return _Bounds(self.lower[items], self.upper[items], self.rtol)

    def image(self, S: Float[Tensor, "b k"], largest: Float[Tensor, "b 1"]) -> Float[Tensor, "b k"]:
        kept = (self.rtol * largest < S) & (S > 0)
        return torch.where(kept, S.clamp(self.lower, self.upper), 0.0)

    def steepness(self, S: Float[Tensor, "b k"], image: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
        """Return the largest divided difference of the odd continuation: 1, or lower / min(S) where that lifts.

        A cut by rtol is a jump: from the smallest singular value kept to the largest dropped.
        """
        smallest = torch.where(image > 0, S, torch.inf).amin(-1)
        steep = (self.lower[:, 0] / smallest).clamp_min(1.0)
        if self.rtol == 0:
            return steep
        dropped = torch.where((image == 0) & (S > 0), S, 0.0).amax(-1)
        jump = torch.where(image > 0, image, torch.inf).amin(-1) / (smallest - dropped)
        return torch.where(dropped > 0, torch.maximum(steep, jump), steep)


class Clipped(NamedTuple):
    """The clipped matrices and a bound on the relative Frobenius error of each."""

    Y: Float[Tensor, "b m n"]
    error: Float[Tensor, " b"]


def clipped(X: Float[Tensor, "b m n"], interval: Interval, *, tol: float, method: str | None) -> Clipped:
    """Return the clipped matrices in float64: by the Gram matrix, and by SVD those whose bound is above tol."""
    unit, k = to_unit(X, "mclip")
    if X.numel() == 0:
        return Clipped(X, X.new_zeros(len(X)))
    bounds = _Bounds(absolute(max(interval.lower, 0), k)[:, None], absolute(interval.upper, k)[:, None], interval.rtol)
    tall = X.shape[-2] > X.shape[-1]
    wide = unit.mT.contiguous() if tall else unit
    found = _by_svd(wide, bounds) if method == "svd" else _by_gram(wide, bounds)
    again = (~(found.error <= tol)).nonzero().flatten()
    if len(again) and method is None:
        exact = _by_svd(wide[again], bounds.of(again))
        found = Clipped(*(a.index_copy(0, again, b) for a, b in zip(found, exact, strict=True)))
    return Clipped(times_power_of_two(found.Y.mT if tall else found.Y, k), found.error)


def _by_gram(X: Float[Tensor, "b k l"], bounds: _Bounds) -> Clipped:
    """Return X + V (f(S) / S - 1) V^T X, V the eigenvectors of G = X X^T that change, and a bound.

    With R = G V - V S^2, X is within ||R / S||_F, and what V lacks in orthonormality times ||X||, of a matrix for
    which the update is exact, if the rest of X has its singular values within the bounds; ``beyond`` says by how much
    they may be out.
    """
    G = torch.bmm(X, X.mT)
    size, noise = _norm(X), torch.finfo(X.dtype).eps * sum(X.shape[-2:]) ** 0.5
    V, largest, excess = beyond(G, bounds.lower, bounds.upper, bounds.rtol, noise * size.square())
    if V.shape[-1] == 0:
        return Clipped(X.clone(), excess / _size(X))
    Z = torch.bmm(V.mT, X)
    S = torch.linalg.vector_norm(Z, dim=-1)
    image = bounds.image(S, largest)
    active = (image != S) & (S > 0)
    inverse = torch.where(active, 1 / torch.where(active, S, 1.0), 0.0)
    ratio = torch.where(active, image * inverse, 1.0)
    Y = X + torch.bmm(V * (ratio - 1)[:, None, :], Z)
    R = torch.bmm(G, V) - V * S.square()[:, None, :]
    lost = _norm(torch.bmm(V.mT, V) - torch.eye(V.shape[-1], dtype=V.dtype, device=V.device))
    delta = _norm(R * inverse[:, None, :]) + noise * size.square() * inverse.amax(-1)
    steep = bounds.steepness(S, image) + ratio.amax(-1)
    return Clipped(Y, (steep * (delta + (lost + noise) * size) + excess) / _size(Y))


def _by_svd(X: Float[Tensor, "b k l"], bounds: _Bounds) -> Clipped:
    """Return the clipped matrices from their SVD; the bound is the residual times the steepness of the function."""
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    image = bounds.image(S, S[:, :1])
    noise = torch.finfo(X.dtype).eps * sum(X.shape[-2:]) ** 0.5 * _norm(X)
    delta = _norm(X - torch.bmm(U * S[:, None, :], Vh)) + noise
    Y = torch.bmm(U * image[:, None, :], Vh)
    return Clipped(Y, (bounds.steepness(S, image) + 1) * delta / _size(Y))


def _size(Y: Float[Tensor, "b k l"]) -> Float[Tensor, " b"]:
    norm = _norm(Y)
    return torch.where(norm > 0, norm, 1.0)
