"""Clipped singular values with a proven error, in float64: by eigenvectors of the Gram matrix, or by SVD.

Only those eigenvectors are needed that lie beyond the bounds; that none was missed is proven.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spectrain._arrays.scale import far_from_one, times_power_of_two, to_unit
from spectrain._extras import wanted_by
from spectrain.matfun._clipping.change import Interval, clip_basis
from spectrain.matfun._derivative.by_gram import Basis
from spectrain.matfun._iteration.syrk import float64_gram
from spectrain.matfun._proven.cut import absolute, exact_zeros

_LEAST_SIZE = 256  # below it all eigenvectors cost no more than some: LAPACK's evr against evd, measured
_norm = torch.linalg.matrix_norm


class Beyond(NamedTuple):
    """Eigenvectors whose eigenvalues have roots above ``upper``, below ``lower`` or up to ``rtol`` times the largest.

    ``largest`` is the root of the largest eigenvalue, within ``error``. ``excess`` bounds in the Frobenius norm by how
    much the roots of the eigenvalues that belong to no column of V are out of the interval.
    """

    V: Float[Tensor, "b k a"]
    largest: Float[Tensor, "b 1"]
    error: Float[Tensor, " b"]
    excess: Float[Tensor, " b"]


def beyond(
    G: Float[Tensor, "b k k"],
    lower: Float[Tensor, "b 1"],
    upper: Float[Tensor, "b 1"],
    rtol: float,
    noise: Tensor,
    basis: Basis | None = None,
) -> Beyond:
    """Return the eigenvectors of G beyond the bounds; ``noise`` (b) bounds the rounding error of G itself.

    They are those of ``basis``, the roots of eigenvalues and vectors, where it is given.

    One large matrix on CPU with a bound from above alone: LAPACK computes only those eigenvectors; the others
    are proven to be below by a Cholesky factorization (Rump, BIT 46, 2006), a thirtieth of the price of all
    eigenvectors. Else, and where LAPACK or that proof fails, all of them are computed; the eigenvalues of G are then
    those found within the residual (Hoffman and Wielandt).
    """
    some = len(G) == 1 and G.shape[-1] >= _LEAST_SIZE and G.device.type == "cpu" and not bool(lower) and rtol == 0
    if some and basis is None:
        found = _above(G, float(upper), float(noise))
        if found is not None:
            return found
    L, V = torch.linalg.eigh(G) if basis is None else (basis.S.square(), basis.U)
    S = L.clamp_min(0).sqrt()
    largest = S[:, -1:]
    cut = rtol * largest
    out = (upper < S) | (lower > S) | (cut >= S)
    edge = torch.minimum(upper, torch.where(lower > 0, lower, torch.inf))[:, 0]
    residual = _norm(torch.bmm(G, V) - V * L[:, None, :]) + noise
    excess = torch.minimum(residual / edge, residual.sqrt() * G.shape[-1] ** 0.25)
    error = residual / torch.where(largest > 0, largest, 1.0)[:, 0]
    if rtol > 0:
        clear = torch.where(out, torch.inf, S).amin(-1) - excess > cut[:, 0] + rtol * error
        excess = torch.where(clear, excess, torch.inf)
    return Beyond(V[..., out.any(0)], largest, error, excess)


def _above(G: Tensor, upper: float, noise: float) -> Beyond | None:
    """Return the eigenvectors of one matrix above upper, or None where LAPACK fails or the proof that these are all."""
    k, eps = G.shape[-1], torch.finfo(G.dtype).eps
    if upper**2 >= float(_norm(G)):
        nothing = G.new_zeros(1)
        return Beyond(G.new_zeros(1, k, 0), nothing[:, None], nothing, nothing)
    with wanted_by("clipping exactly"):
        import scipy.linalg  # here, so that the rest of matfun does without
    try:
        values, vectors = scipy.linalg.eigh(G[0].numpy(), subset_by_value=(upper**2, float("inf")), driver="evr")
    except scipy.linalg.LinAlgError:  # evr gives up on clusters of equal eigenvalues with "Internal Error."
        return None
    L, V = torch.from_numpy(values), torch.from_numpy(vectors)
    rest = (V * L) @ V.mT - G[0]
    slack = 2 * noise + k**1.5 * eps * upper**2
    rest.diagonal().add_(upper**2 + slack)
    if int(torch.linalg.cholesky_ex(rest).info) != 0:
        return None
    most = min(slack / max(upper, 1e-300), (2 * slack) ** 0.5) * (k - len(L)) ** 0.5
    largest = L.clamp_min(0).sqrt()[-1:][None]
    return Beyond(V[None], largest, G.new_zeros(1), G.new_full((1,), most))


class _Bounds(NamedTuple):
    """The interval in the units of matrices that were scaled by powers of two."""

    lower: Float[Tensor, "b 1"]
    upper: Float[Tensor, "b 1"]
    rtol: float

    def of(self, items: Tensor) -> "_Bounds":
        return _Bounds(self.lower[items], self.upper[items], self.rtol)

    @property
    def jumps(self) -> bool:
        """Whether the function is not continuous: at rtol times the largest, or at zero if what is above is lifted."""
        return self.rtol > 0 or bool((self.lower > 0).any())

    def kept(self, S: Float[Tensor, "b k"], largest: Float[Tensor, "b 1"]) -> Bool[Tensor, "b k"]:
        return (self.rtol * largest < S) & (S > 0)

    def steepness(
        self, S: Float[Tensor, "b k"], kept: Bool[Tensor, "b k"], delta: Float[Tensor, " b"], around: "_Around"
    ) -> Float[Tensor, " b"]:
        """Return the largest divided difference of the odd continuation between S and values within delta of S.

        It is 1, or lower / min(S) where that lifts, or at a jump f(min(S)) over the gap below. A singular value
        that may be on the other side of a jump leaves no bound; those that are zero exactly are on theirs.
        """
        lower, upper = self.lower[:, 0], self.upper[:, 0]
        if not self.jumps:
            return torch.ones_like(lower)
        some, known = kept.any(-1), (~kept).sum(-1) <= around.zeros
        least = torch.where(kept, S, torch.inf).amin(-1) - delta
        most = torch.where(known, 0.0, torch.where(kept, 0.0, S).amax(-1) + delta)
        spread = self.rtol * (around.error + delta)
        cut = self.rtol * around.largest[:, 0]
        sure = (~some | (least > cut + spread)) & (known | (most <= cut - spread))
        lift = torch.maximum(torch.minimum(least, upper), lower) / torch.where(some, least - most, 1.0)
        steep = torch.where(some, lift.clamp_min(1.0), 1.0)
        return torch.where(sure | ((lower == 0) & (self.rtol == 0)), steep, torch.inf)


class _Around(NamedTuple):
    """The largest singular value within ``error``, and how many are zero because rows or columns are."""

    largest: Float[Tensor, "b 1"]
    error: Float[Tensor, " b"]
    zeros: Int[Tensor, " b"]


class Clipped(NamedTuple):
    """The clipped matrices, a bound on the relative Frobenius error of each, and what a derivative needs of them."""

    Y: Float[Tensor, "b m n"]
    error: Float[Tensor, " b"]
    basis: Float[Tensor, "b k k1"]  # packed, or empty


def clip(
    X: Float[Tensor, "b m n"], interval: Interval, *, tol: float, method: str | None, keep: bool = False
) -> Clipped:
    """Return the clipped matrices: by the Gram matrix, and by SVD those whose bound is above tol.

    In float64, or in float32 where X is of half precision and the eigenvectors are those of large matrices. For
    ``keep`` all eigenvectors are computed, and kept for a derivative.
    """
    if X.numel() == 0:
        return Clipped(X.double(), X.new_zeros(len(X), dtype=torch.float64), empty_basis(X, keep))
    basis = clip_basis(X, interval) if keep else None
    wide, k = _to_size(X)
    bounds = _Bounds(absolute(max(interval.lower, 0), k)[:, None], absolute(interval.upper, k)[:, None], interval.rtol)
    if method == "svd":
        Y, error = _by_svd(wide, bounds)
    else:
        narrow = X.float() if X.itemsize == 2 and not bool(k.any()) else None
        scaled = basis and basis._replace(S=times_power_of_two(basis.S[..., None], -k)[..., 0])
        Y, error = _by_gram(wide, bounds, narrow, scaled)
    again = (~(error <= tol)).nonzero().flatten()
    if len(again) and method is None:
        exact = _by_svd(wide[again], bounds.of(again))
        Y, error = (a.double().index_copy(0, again, b) for a, b in zip((Y, error), exact, strict=True))
    return Clipped(
        times_power_of_two(Y, k) if bool(k.any()) else Y, error, basis.packed() if basis else empty_basis(X, keep)
    )


def empty_basis(X: Float[Tensor, "b m n"], keep: bool) -> Float[Tensor, "b k k1"]:
    """Return memory for a packed basis of X, and none of it if nothing is kept."""
    k = min(X.shape[-2:])
    return X.new_empty((len(X), k, k + 1) if keep else (len(X), 0, 0), dtype=torch.float64)


def _to_size(X: Float[Tensor, "b m n"]) -> tuple[Float[Tensor, "b m n"], Tensor]:
    """Return X in float64, scaled by 2**-k where squares could leave the range of float64; k is 0 where none could."""
    if X.itemsize < 8 and not far_from_one(torch.linalg.matrix_norm(X.float())):
        return X.double(), torch.zeros(len(X), dtype=torch.int32, device=X.device)
    return to_unit(X.double(), "mclip")


def _by_gram(
    X: Float[Tensor, "b m n"], bounds: _Bounds, narrow: Tensor | None, basis: Basis | None
) -> tuple[Tensor, Tensor]:
    """Return X + V (f(S) / S - 1) V^T X, V the eigenvectors of G = X X^T that change, and a bound.

    With R = G V - V S^2, X is within ||R / S||_F, and what V lacks in orthonormality times ||X||, of a matrix for
    which the update is exact, if the rest of X has its singular values within the bounds; ``beyond`` says by how much
    they may be out. Tall matrices are the same from the right. ``narrow`` is X in float32, for an answer in it.
    """
    G = float64_gram(X)
    size, noise = _norm(X), torch.finfo(X.dtype).eps * sum(X.shape[-2:]) ** 0.5
    V, largest, off, excess = beyond(G, bounds.lower, bounds.upper, bounds.rtol, noise * size.square(), basis)
    if V.shape[-1] == 0:
        return X.clone(), excess / _size(X)
    source = X if narrow is None else narrow
    tall, Vs = X.shape[-2] > X.shape[-1], V.to(source.dtype)
    Z = torch.bmm(source, Vs) if tall else torch.bmm(Vs.mT, source)
    S = torch.linalg.vector_norm(Z, dim=-2 if tall else -1).double()
    around = _Around(largest, off, exact_zeros(X))
    S, moved = _without_zeros(S, around.zeros, rising=True) if bounds.jumps else (S, 0.0)
    kept = bounds.kept(S, largest)
    image = torch.where(kept, S.clamp(bounds.lower, bounds.upper), 0.0)
    active = (image != S) & (S > 0)
    inverse = torch.where(active, 1 / torch.where(active, S, 1.0), 0.0)
    ratio = torch.where(active, image * inverse, 1.0)
    change = Vs * (ratio - 1).to(source.dtype)[:, None, :]
    Y = torch.baddbmm(source, Z, change.mT) if tall else torch.baddbmm(source, change, Z)
    R = torch.bmm(G, V) - V * S.square()[:, None, :]
    lost = _norm(torch.bmm(V.mT, V) - torch.eye(V.shape[-1], dtype=V.dtype, device=V.device))
    delta = _norm(R * inverse[:, None, :]) + noise * size.square() * inverse.amax(-1) + (lost + noise) * size + moved
    steep = bounds.steepness(S, kept, delta, around) + ratio.amax(-1)
    update = torch.finfo(source.dtype).eps * sum(X.shape[-2:]) ** 0.5 * (1 + ratio.amax(-1)) * size
    return Y, (steep * delta + excess + update) / _size(Y)


def _by_svd(X: Float[Tensor, "b m n"], bounds: _Bounds) -> tuple[Tensor, Tensor]:
    """Return the clipped matrices from their SVD; the bound is the residual times the steepness of the function."""
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    noise = torch.finfo(X.dtype).eps * sum(X.shape[-2:]) ** 0.5 * _norm(X)
    delta = _norm(X - torch.bmm(U * S[:, None, :], Vh)) + noise
    around = _Around(S[:, :1], torch.zeros_like(delta), exact_zeros(X))
    S, moved = _without_zeros(S, around.zeros, rising=False) if bounds.jumps else (S, 0.0)
    kept = bounds.kept(S, around.largest)
    image = torch.where(kept, S.clamp(bounds.lower, bounds.upper), 0.0)
    Y = torch.bmm(U * image[:, None, :], Vh)
    return Y, (bounds.steepness(S, kept, delta + moved, around) + 1) * (delta + moved) / _size(Y)


def _without_zeros(S: Float[Tensor, "b k"], zeros: Int[Tensor, " b"], *, rising: bool) -> tuple[Tensor, Tensor]:
    """Return S with its ``zeros`` smallest exactly zero, as the true ones are, and the norm of what that took away."""
    position = torch.arange(S.shape[-1], device=S.device)
    last = (position if rising else S.shape[-1] - 1 - position) < zeros[:, None]
    return torch.where(last, 0.0, S), torch.linalg.vector_norm(torch.where(last, S, 0.0), dim=-1)


def _size(Y: Float[Tensor, "b m n"]) -> Float[Tensor, " b"]:
    norm = _norm(Y).double()
    return torch.where(norm > 0, norm, 1.0)
