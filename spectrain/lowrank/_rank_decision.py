"""Which singular values count: three decompositions, one decision, and how near it was."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spectrain._arrays.kinds import Real
from spectrain.lowrank._matrix.error import frobenius


class Decision(NamedTuple):
    """A = U diag(S) Vh in full, which values are kept, and bounds on what rounding did."""

    U: Tensor
    S: Tensor
    Vh: Tensor
    keep: Bool[Tensor, "*batch k"]
    cutoff: Float[Tensor, "*batch"]
    residual: Float[Tensor, "*batch"]  # bound on ||A - U diag(S) Vh||_F with U, Vh made orthonormal
    defect: Float[Tensor, "*batch"]  # of U and Vh from orthonormality

    def inverse(self) -> Tensor:
        """Return V diag(1/S over the kept) U^H."""
        return (self.Vh.mH * self.weights()[..., None, :].to(self.U.dtype)) @ self.U.mH

    def weights(self) -> Float[Tensor, "*batch k"]:
        """Return 1/S where it is kept, else 0."""
        return torch.where(self.keep, 1 / torch.where(self.keep, self.S, 1.0), 0.0)

    def smallest_kept(self) -> Float[Tensor, "*batch"]:
        """Return the smallest value that counts; inf where none does."""
        return torch.where(self.keep, self.S, torch.inf).amin(-1)

    def largest_dropped(self) -> Float[Tensor, "*batch"]:
        """Return the largest value that does not count; 0 where all do."""
        return torch.where(self.keep, 0.0, self.S).amax(-1)

    def error(self, unit: float) -> Float[Tensor, "*batch"]:
        """Return a bound on ||V diag(1/S) U^H - (A without its dropped part)^+||_F, inf where no rank is certain.

        For B = U diag(S) V^H with orthonormal factors, ||A - B||_F <= d, and h(s) = 1/s above the cutoff, 0 below, odd:
        ||h(A) - h(B)||_F is at most d times the largest divided difference of h between the spectra, which is
        1 / (s min(s, gap)), s the smallest kept value less d, gap = s - largest dropped. ``unit`` is the relative
        rounding of the factors as they are returned.
        """
        size = torch.linalg.vector_norm(self.weights().double(), dim=-1)
        s = self.smallest_kept().double() - self.residual
        gap = s - self.largest_dropped().double()
        reach = self.residual / (s * torch.minimum(s, gap)).clamp_min(torch.finfo(torch.float64).tiny)
        bound = torch.where((gap > 0) & (s > 0), reach, torch.inf) + (self.defect + unit) * size
        return torch.where(self.keep.any(-1), bound, 0.0)

    def clear(self) -> Bool[Tensor, "*batch"]:
        """Whether no singular value is so near the cutoff that rounding could have moved it across.

        A dropped one may also be rounding itself, whatever the cutoff is.
        """
        dropped = self.largest_dropped()
        below = (dropped + self.residual <= self.cutoff) | (dropped <= self.residual)
        return below & (self.smallest_kept() - self.residual > self.cutoff)


def decide(A: Tensor, *, rtol: Real, atol: Tensor, gram: bool) -> Decision:
    """Decompose A and keep the singular values above max(rtol sigma_max, atol)."""
    with torch.no_grad():
        U, S, Vh = _by_gram(A) if gram else torch.linalg.svd(A, full_matrices=False)
        cutoff = torch.maximum(rtol * S[..., 0], atol.to(S.dtype))
        keep = cutoff[..., None] < S
        unit = torch.finfo(S.dtype).eps / 2 * sum(A.shape[-2:]) ** 0.5
        difference = A.to(U.dtype) - (U * S[..., None, :].to(U.dtype)) @ Vh
        defect = _defect(U.mH, keep) + _defect(Vh, keep)
        coupling = (U * keep[..., None, :]).mH @ (U * torch.where(keep, 0.0, S)[..., None, :].to(U.dtype))
        residual = frobenius(difference) + frobenius(coupling) + (defect + unit) * frobenius(A)
        return Decision(U, S, Vh, keep, cutoff, residual, defect + unit)


def _by_gram(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose by the eigenvectors of the smaller Gram matrix, in double precision.

    Singular values are the lengths of A V, not square roots of eigenvalues; those below sqrt(eps) sigma_max, 1e-8, are
    not told apart.
    """
    X = A.to(torch.complex128 if A.is_complex() else torch.float64)
    if X.shape[-2] < X.shape[-1]:
        U, S, Vh = _by_gram(X.mH)
        return Vh.mH, S, U.mH
    V = torch.linalg.eigh(X.mH @ X)[1].flip(-1)
    Z = X @ V
    S, order = torch.linalg.vector_norm(Z, dim=-2).sort(dim=-1, descending=True)
    V, Z = (M.take_along_dim(order[..., None, :], -1) for M in (V, Z))
    return Z / torch.where(S > 0, S, 1.0)[..., None, :], S, V.mH


def _defect(Q: Tensor, keep: Tensor) -> Float[Tensor, "*batch"]:
    """Return how far the kept rows of Q are from orthonormal ones."""
    rows = Q * keep[..., :, None]
    E = rows @ rows.mH - torch.diag_embed(keep.to(Q.dtype))
    return torch.linalg.matrix_norm(E).double()
