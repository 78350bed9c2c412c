"""Eigenvalues of semidefinite matrices: which of them count, for which that is certain, and the error of a power."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spectrain._arrays.embedding import adjoint, as_real
from spectrain.matfun._entry.input import Real
from spectrain.matfun._norms import enclosed_norms
from spectrain.matfun._proven.cut import Band, Cut, beside, decomposition_noise, exact_zeros

_norm = torch.linalg.matrix_norm


class Spectrum(NamedTuple):
    """Eigenvalues and vectors of a batch in float64, with what is known about their side of a cut and of zero."""

    L: Float[Tensor, "b n"]
    V: Tensor
    keep: Bool[Tensor, "b n"]
    defect: Tensor  # V^H V - I
    delta: Float[Tensor, " b"]  # bound on ||P - Q L Q^H||_F, Q the unitary matrix next to V
    most: Float[Tensor, " b"]  # bound on the eigenvalues that do not count, of P as of Q L Q^H
    high: Float[Tensor, " b"]  # the cut is no higher
    undecided: Float[Tensor, " b"]  # how many eigenvalues are within their errors of the cut
    negative: Bool[Tensor, " b"]  # P has an eigenvalue below minus the rounding noise
    unsigned: Bool[Tensor, " b"]  # whether it has one is uncertain


def relative_noise(n: int, dtype: torch.dtype) -> float:
    """Return the relative size of eigenvalues that rounding P to its dtype, or decomposing it, can make."""
    return max(decomposition_noise(n), torch.finfo(dtype).eps * n**0.5)


def cut_factor(n: int, dtype: torch.dtype, rtol: Real | None) -> float:
    """Return the size of eigenvalues, relative to the largest, at or below which they count as zero."""
    return relative_noise(n, dtype) if rtol is None else float(rtol)


def which_count(L: Float[Tensor, "b n"], dtype: torch.dtype, rtol: Real | None) -> Bool[Tensor, "b n"]:
    """Return which of the eigenvalues that were computed are above the cut."""
    if L.shape[-1] == 0:
        return L > 0
    return cut_factor(L.shape[-1], dtype, rtol) * L.abs().amax(-1, keepdim=True) < L


def spectrum(P: Tensor, dtype: torch.dtype, rtol: Real | None) -> Spectrum:
    """Return the eigenvalues of symmetric P, which was rounded to ``dtype`` once, and which of them count.

    Those of P are within delta of L (Weyl), and the ones that do not count are at most ||P - V_r L_r V_r^H||, as the
    least one is at least minus that; rows of zeros are as many zero eigenvalues, whatever LAPACK makes of them. Nothing
    is decided by L itself: another LAPACK finds another L.
    """
    L, V = torch.linalg.eigh(P)
    n, zeros = L.shape[-1], exact_zeros(P.abs())
    keep = which_count(L, dtype, rtol) & (torch.arange(n, device=L.device) >= zeros[:, None])
    if n == 0:
        none = L.new_zeros(len(L))
        return Spectrum(L, V, keep, V, none, none, none, none, none > 0, none > 0)
    defect = torch.bmm(adjoint(V), V)
    defect.diagonal(dim1=-2, dim2=-1).sub_(1)
    rounding = torch.finfo(P.dtype).eps * math.sqrt(n) * _norm(P)
    delta = _norm(P - torch.bmm(V * L[:, None, :], adjoint(V))) + _norm(defect * L[:, None, :]) + rounding
    cut, zero = (Cut(L.dtype, cut_factor(n, dtype, limit)).band(L.abs(), P.shape, delta) for limit in (rtol, None))
    dropped = torch.where(keep, 0.0, L).amax(-1).clamp_min(0)
    most = dropped + delta
    undecided, negative, unsigned = _sides(L, keep, delta, cut, zero, torch.full_like(delta, torch.inf))
    if bool(((undecided > 0) | unsigned).any()):
        rest = torch.where(n - keep.sum(-1) <= zeros, 0.0, _rest(P, L, V, keep))
        most = torch.maximum(dropped, torch.minimum(most, rest))
        undecided, negative, unsigned = _sides(L, keep, delta, cut, zero, rest)
    return Spectrum(L, V, keep, defect, delta, most, cut.high, undecided, negative, unsigned)


def _sides(
    L: Float[Tensor, "b n"],
    keep: Bool[Tensor, "b n"],
    delta: Float[Tensor, " b"],
    cut: Band,
    zero: Band,
    rest: Float[Tensor, " b"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return how many eigenvalues are in doubt about the cut, whether one is negative, and whether that is in doubt."""
    least = L.amin(-1)
    negative = least + delta < -zero.high
    positive = (least - delta >= -zero.low) | (rest <= zero.low)
    return beside(cut, L, keep, delta, rest), negative, ~(negative | positive)


def _rest(P: Tensor, L: Float[Tensor, "b n"], V: Tensor, keep: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return a bound on the spectral norm of P less what counts.

    The roundings of the product are of random signs, in entries that are sums of as many terms as count.
    """
    n = L.shape[-1]
    remains = P - torch.bmm(V * torch.where(keep, L, 0.0)[:, None, :], adjoint(V))
    rounding = torch.finfo(L.dtype).eps * ((keep.sum(-1) + 1) / n).sqrt() * _norm(P)
    return enclosed_norms(as_real(remains) if P.is_complex() else remains)[1] + rounding


def error_of_power(found: Spectrum, image: Float[Tensor, "b n"], power: float) -> Float[Tensor, " b"]:
    """Return a bound on the relative error of V f(L) V^H, f(x) = x^power on what counts, else zero.

    The entries of f(P) - f(Q L Q^H) between their eigenbases are those of P - Q L Q^H times divided differences of f
    (Daleckii and Krein): among what counts the slope of the power at an end, to what does not f(x) / (x - y), largest
    at an end too. Where a value may be on either side of the cut it depends on the power: a positive one is compared
    with the continuous function that is linear below the cut, and the jump there counts twice; any other is unbounded.
    """
    if image.shape[-1] == 0:
        return found.delta
    error = torch.where(found.undecided > 0, _beside(found, power), _apart(found, power) * found.delta)
    size = torch.linalg.vector_norm(image, dim=-1)
    relative = torch.where(size > 0, (error + _norm(found.defect * image[:, None, :])) / size, 0.0)
    relative = torch.where(relative < 1, relative / (1 - relative), torch.inf)
    zero = ~found.keep.any(-1) & (found.undecided == 0)
    return torch.where(((size > 0) & size.isfinite()) | zero, relative, torch.inf)


def _apart(found: Spectrum, power: float) -> Float[Tensor, " b"]:
    """Return the largest divided difference where all eigenvalues are on known sides."""
    least = torch.where(found.keep, found.L, torch.inf).amin(-1) - found.delta
    ends = torch.stack([least, found.L.amax(-1) + found.delta])
    among = abs(power) * (ends ** (power - 1)).amax(0)
    across = (ends**power / (ends - found.most)).amax(0)
    return torch.where(found.keep.all(-1), among, torch.maximum(among, across))


def _beside(found: Spectrum, power: float) -> Float[Tensor, " b"]:
    """Return the error where the cut may lie on either side of some eigenvalues."""
    if power <= 0:
        return torch.full_like(found.delta, torch.inf)
    end = found.high + found.delta
    steepest = torch.stack([end, found.L.amax(-1) + found.delta]).pow(power - 1).amax(0) * max(power, 1.0)
    low = ((end + found.delta)[:, None] >= found.L).sum(-1).sqrt()
    return steepest * found.delta + 2 * low * end**power
