"""msign by decomposition, with a proof of its error that is computed from the input.

Everything runs in the dtype of the argument, float64 or, where a loose tolerance allows, float32.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spectrain.matfun._input import Real
from spectrain.matfun._norms import enclosed_norms
from spectrain.matfun._scale import times_power_of_two

_norm = torch.linalg.matrix_norm


class Sign(NamedTuple):
    """msign of a batch in the working dtype, with what is known about it."""

    Y: Float[Tensor, "b k l"]
    error: Float[Tensor, " b"]  # bound on ||Y - msign(X)||_F / ||msign(X)||_F at the rank stated
    rank: Float[Tensor, " b"]
    smallest: Float[Tensor, " b"]  # of the singular values that count as nonzero, relative to the largest


@dataclass(frozen=True, slots=True)
class Cut:
    """Which singular values count: those above a threshold, above rtol * max(S), or above rounding noise."""

    dtype: torch.dtype
    rtol: Real | None = None
    threshold: Tensor | None = None

    def of(self, items: Tensor) -> "Cut":
        """Return the cut for some matrices of the batch."""
        return self if self.threshold is None else Cut(self.dtype, None, self.threshold[items])

    def floor(self, S: Float[Tensor, "b k"], X: Float[Tensor, "b k l"]) -> Float[Tensor, " b"]:
        """Return the size at or below which the singular values S of X count as zero.

        By default the larger of u rms(X) (sqrt(m) + sqrt(n)), u the unit roundoff of ``dtype``, which is what rounding
        the entries of X to that dtype creates by itself (the norm of a random matrix, Davidson and Szarek 2001), and
        eps max(S) max(m, n), eps of S: the noise of the decomposition, which counts where it is done in the input
        dtype (Golub and Van Loan, Matrix Computations, 5.4.1).
        """
        if self.threshold is not None:
            return self.threshold.to(S.dtype)
        if self.rtol is not None:
            return self.rtol * S.amax(-1)
        m, n = X.shape[-2:]
        rms = torch.linalg.vector_norm(S, dim=-1) / (m * n) ** 0.5
        noise = torch.finfo(self.dtype).eps / 2 * rms * (m**0.5 + n**0.5)
        return torch.maximum(noise, torch.finfo(S.dtype).eps * S.amax(-1) * max(m, n))


def absolute(value: Real, k: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return value * 2**-k: a size in the units of matrices that were scaled by 2**-k."""
    filled = torch.full((len(k), 1, 1), float(value), dtype=torch.float64, device=k.device)
    return times_power_of_two(filled, -k)[:, 0, 0]


def by_svd(X: Float[Tensor, "b k l"], cut: Cut) -> Sign:
    """Return msign of wide X by LAPACK's SVD. The bound is about eps times the condition of the kept part.

    With Q_U and Q_V the orthonormal matrices next to U and V, B = Q_U S Q_V^T has msign_r(B) = Q_U Q_V^T over the
    kept values exactly, and X - B is the residual X - U S V^T plus what U and V lack in orthonormality.
    """
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    keep = cut.floor(S, X)[:, None] < S
    Y = torch.bmm(U * keep[..., None, :], Vh)
    defects = _defect(U.mT, S) + _defect(Vh, S)
    delta = _norm(X - torch.bmm(U * S[..., None, :], Vh)) + defects + _noise(X) * _norm(X)
    largest_dropped = torch.where(keep, 0.0, S).amax(-1)
    return _sign(Y, X, S, keep, delta, largest_dropped, _defect(U.mT, keep) + _defect(Vh, keep))


def by_eigh(X: Float[Tensor, "b k l"], cut: Cut) -> Sign:
    """Return msign of wide X by eigenvectors V of X X^T. The bound is about eps times the condition squared.

    X = V Z with Z = V^T X, whose rows should be orthogonal with the singular values as lengths. Rows above the
    floor, at unit length, are W, and Y = V W after one Newton-Schulz step on W. With Q_W the orthonormal rows
    next to W, B = V S Q_W + (dropped rows) has msign_r(B) = V Q_W; X - B is S (W - Q_W), the products of kept
    and dropped rows, and what V lacks in orthonormality. No bound is claimed (it is inf) where a singular value is so
    near the floor that its side is uncertain. Cost: 4 k^2 l + 3 k^3 multiplications beside eigh.
    """
    V = torch.linalg.eigh(torch.bmm(X, X.mT))[1]
    Z = torch.bmm(V.mT, X)
    S = torch.linalg.vector_norm(Z, dim=-1)
    floor = cut.floor(S, X)
    keep = floor[:, None] < S
    W = Z * torch.where(keep, 1 / S, 0.0)[..., None]
    P = torch.bmm(Z, W.mT)
    M = P * torch.where(keep, 1 / S, 0.0)[..., None]
    E = M - torch.diag_embed(keep.to(X.dtype))
    Y = torch.bmm(torch.bmm(V, torch.diag_embed(keep.to(X.dtype)) - 0.5 * E), W)
    lost = _defect(V.mT, torch.ones_like(S))
    coupling = _norm(torch.where(keep[..., None], 0.0, P))
    delta = _norm(S[..., None] * E) + coupling + (lost + _noise(X)) * _norm(X)
    dropped = _dropped(Z, keep)
    found = _sign(Y, X, S, keep, delta, dropped, lost + _norm(E).square())
    clear = (torch.where(keep, S, torch.inf).amin(-1) - delta > floor) | (floor == 0)
    clear &= (dropped + delta <= floor) | keep.all(-1)
    return found._replace(error=torch.where(clear, found.error, torch.inf))


def _sign(
    Y: Float[Tensor, "b k l"],
    X: Float[Tensor, "b k l"],
    S: Float[Tensor, "b k"],
    keep: Bool[Tensor, "b k"],
    delta: Float[Tensor, " b"],
    dropped: Float[Tensor, " b"],
    defect: Float[Tensor, " b"],
) -> Sign:
    """Return Y with the bound that follows from ||X - B||_F <= delta, msign_r(B) = Q and ||Y - Q||_F <= defect.

    For Hermitian D and D' and any function h, ||h(D) - h(D')||_F is at most the largest divided difference of h
    between their spectra times ||D - D'||_F. With h one above the gap, zero below and odd, on the Hermitian
    dilations of X and B, this reads ||msign_r(X) - Q||_F <= ||X - B||_F / gap, gap the smallest kept singular value
    less the largest dropped one less delta (Weyl).
    """
    rank = keep.sum(-1).to(X.dtype)
    smallest = torch.where(keep, S, torch.inf).amin(-1)
    gap = smallest - dropped - delta
    bound = defect + _noise(X) * rank.sqrt() + delta / gap.clamp_min(torch.finfo(X.dtype).tiny)
    error = torch.where(gap > 0, bound / rank.clamp_min(1).sqrt(), torch.inf)
    some = rank > 0
    return Sign(Y, torch.where(some, error, 0.0), rank, torch.where(some, smallest / S.amax(-1), 1.0))


def _noise(X: Tensor) -> float:
    """Return the relative rounding error of a product of this size: probabilistic, Higham and Mary, SISC 41, 2019."""
    return torch.finfo(X.dtype).eps / 2 * sum(X.shape[-2:]) ** 0.5


def _defect(Q: Float[Tensor, "b k l"], weight: Tensor) -> Float[Tensor, " b"]:
    """Return ||diag(weight) (Q Q^T - I)||_F: how far the weighted rows of Q are from orthonormal ones, or more."""
    E = torch.bmm(Q, Q.mT)
    E.diagonal(dim1=-2, dim2=-1).sub_(1)
    return _norm(weight[..., None] * E)


def _dropped(Z: Float[Tensor, "b k l"], keep: Bool[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """Return an upper bound on the spectral norm of the rows of Z that are not kept."""
    if bool(keep.all()):
        return Z.new_zeros(len(Z))
    return enclosed_norms(torch.where(keep[..., None], 0.0, Z))[1]
