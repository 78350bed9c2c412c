"""Clipped singular values with a proven error, in float64: by eigenvectors of the Gram matrix, or by SVD."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._beyond import beyond, float64_gram
from spectrain.matfun._clip_change import Interval
from spectrain.matfun._exact import absolute
from spectrain.matfun._scale import far_from_one, times_power_of_two, to_unit

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
    """Return the clipped matrices: by the Gram matrix, and by SVD those whose bound is above tol.

    In float64, or in float32 where X is of half precision and the eigenvectors are those of large matrices.
    """
    if X.numel() == 0:
        return Clipped(X.double(), X.new_zeros(len(X), dtype=torch.float64))
    wide, k = _sized(X)
    bounds = _Bounds(absolute(max(interval.lower, 0), k)[:, None], absolute(interval.upper, k)[:, None], interval.rtol)
    if method == "svd":
        found = _by_svd(wide, bounds)
    else:
        narrow = X.float() if X.itemsize == 2 and not bool(k.any()) else None
        found = _by_gram(wide, bounds, narrow)
    again = (~(found.error <= tol)).nonzero().flatten()
    if len(again) and method is None:
        exact = _by_svd(wide[again], bounds.of(again))
        pairs = zip(found, exact, strict=True)
        found = Clipped(*(a.double().index_copy(0, again, b) for a, b in pairs))
    return Clipped(times_power_of_two(found.Y, k) if bool(k.any()) else found.Y, found.error)


def _sized(X: Float[Tensor, "b m n"]) -> tuple[Float[Tensor, "b m n"], Tensor]:
    """Return X in float64, scaled by 2**-k where squares could leave the range of float64; k is 0 where none could."""
    if X.itemsize < 8 and not far_from_one(torch.linalg.matrix_norm(X.float())):
        return X.double(), torch.zeros(len(X), dtype=torch.int32, device=X.device)
    return to_unit(X.double(), "mclip")


def _by_gram(X: Float[Tensor, "b m n"], bounds: _Bounds, narrow: Tensor | None) -> Clipped:
    """Return X + V (f(S) / S - 1) V^T X, V the eigenvectors of G = X X^T that change, and a bound.

    With R = G V - V S^2, X is within ||R / S||_F, and what V lacks in orthonormality times ||X||, of a matrix for
    which the update is exact, if the rest of X has its singular values within the bounds; ``beyond`` says by how much
    they may be out. Tall matrices are the same from the right. ``narrow`` is X in float32, for an answer in it.
    """
    G = float64_gram(X)
    size, noise = _norm(X), torch.finfo(X.dtype).eps * sum(X.shape[-2:]) ** 0.5
    V, largest, excess = beyond(G, bounds.lower, bounds.upper, bounds.rtol, noise * size.square())
    if V.shape[-1] == 0:
        return Clipped(X.clone(), excess / _size(X))
    source = X if narrow is None else narrow
    tall, Vs = X.shape[-2] > X.shape[-1], V.to(source.dtype)
    Z = torch.bmm(source, Vs) if tall else torch.bmm(Vs.mT, source)
    S = torch.linalg.vector_norm(Z, dim=-2 if tall else -1).double()
    image = bounds.image(S, largest)
    active = (image != S) & (S > 0)
    inverse = torch.where(active, 1 / torch.where(active, S, 1.0), 0.0)
    ratio = torch.where(active, image * inverse, 1.0)
    change = Vs * (ratio - 1).to(source.dtype)[:, None, :]
    Y = torch.baddbmm(source, Z, change.mT) if tall else torch.baddbmm(source, change, Z)
    R = torch.bmm(G, V) - V * S.square()[:, None, :]
    lost = _norm(torch.bmm(V.mT, V) - torch.eye(V.shape[-1], dtype=V.dtype, device=V.device))
    delta = _norm(R * inverse[:, None, :]) + noise * size.square() * inverse.amax(-1)
    steep = bounds.steepness(S, image) + ratio.amax(-1)
    update = torch.finfo(source.dtype).eps * sum(X.shape[-2:]) ** 0.5 * (1 + ratio.amax(-1)) * size
    return Clipped(Y, (steep * (delta + (lost + noise) * size) + excess + update) / _size(Y))


def _by_svd(X: Float[Tensor, "b m n"], bounds: _Bounds) -> Clipped:
    """Return the clipped matrices from their SVD; the bound is the residual times the steepness of the function."""
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    image = bounds.image(S, S[:, :1])
    noise = torch.finfo(X.dtype).eps * sum(X.shape[-2:]) ** 0.5 * _norm(X)
    delta = _norm(X - torch.bmm(U * S[:, None, :], Vh)) + noise
    Y = torch.bmm(U * image[:, None, :], Vh)
    return Clipped(Y, (bounds.steepness(S, image) + 1) * delta / _size(Y))


def _size(Y: Float[Tensor, "b m n"]) -> Float[Tensor, " b"]:
    norm = _norm(Y).double()
    return torch.where(norm > 0, norm, 1.0)
