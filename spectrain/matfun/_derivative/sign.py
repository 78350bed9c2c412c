"""The change of msign: the first by one eigendecomposition or by an iteration, further ones by differentiable parts.

With X = H Y, H symmetric on the short side, and C = D Y^T the change is

    K Y + H^+ (D - C Y),    H K + K H = C - C^T

(article 11025, kexue.fm/archives/11025). In the eigenvectors V of H all of it is entries: with y = V^T Y, d = V^T D
and c = d y^T it is V ((K' - c / a) y + d / a), K'_ij = (c_ij - c_ji) / (a_i + a_j). That is one decomposition in
float64 and six products, whatever the condition, and on a CPU the cheapest way. Where decompositions are slow, on
accelerators, ``block_sign.py`` computes the same from products and inverses with a proven error, and this is what is
left for matrices whose error it cannot prove.
"""

import torch
from torch import Tensor

from spectrain._arrays.scale import recording
from spectrain.matfun._derivative.block_sign import by_block_sign
from spectrain.matfun._derivative.derivative import inverse, is_differentiated, sylvester
from spectrain.matfun._entry.input import default_tolerance


def change_of_sign(X: Tensor, Y: Tensor, D: Tensor) -> Tensor:
    """Return the change of Y = msign(X) when X changes by D; any number of derivatives.

    At a rank below full the directions that would change the rank contribute zero.
    """
    if X.shape[-2] > X.shape[-1]:
        return change_of_sign(X.mT, Y.mT, D.mT).mT.contiguous()
    wide = X.double(), Y.double(), D.double()
    if recording():
        return by_eigenvectors(*wide).to(D.dtype)
    if is_differentiated(wide):
        return in_parts(*wide).to(D.dtype)
    if X.device.type != "cpu":
        return certified(*wide, tol=default_tolerance(D.dtype)).to(D.dtype)
    return by_eigenvectors(*wide, dtype=torch.promote_types(D.dtype, torch.float32)).to(D.dtype)


def by_eigenvectors(X: Tensor, Y: Tensor, D: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the change from the eigenvectors of H; entries over eigenvalues at rounding level are zero.

    Square Y of full rank spans everything, D - C Y is zero, and K Y all there is. Nothing large cancels in its last two
    products, so that they may run in a narrower ``dtype``.
    """
    T = torch.bmm(X, Y.mT)
    twice, V = torch.linalg.eigh(T + T.mT)
    a, cut = 0.5 * twice, len(V[0]) * torch.finfo(V.dtype).eps * twice.abs().amax(-1)[:, None, None]
    y, d = torch.bmm(V.mT, Y), torch.bmm(V.mT, D)
    c = torch.bmm(d, y.mT)
    total = a[:, :, None] + a[:, None, :]
    if Y.shape[-1] == Y.shape[-2] and not recording() and bool((twice > cut[:, 0]).all()):
        K = (c - c.mT).div_(total)
        return torch.bmm(V.to(dtype), torch.bmm(K.to(dtype), y.to(dtype)))
    K, over = (c - c.mT).mul_(_over(total, cut)), _over(a[:, :, None], 0.5 * cut)
    return torch.bmm(V, torch.baddbmm(over * d, K.sub_(c.mul_(over)), y))


def _over(a: Tensor, cut: Tensor) -> Tensor:
    """Return 1 / a, and zero where a is not above the cut."""
    return torch.where(a.abs() > cut, a, torch.inf).reciprocal_()


def in_parts(X: Tensor, Y: Tensor, D: Tensor) -> Tensor:
    """Return the same, written so that it can be differentiated again and again."""
    T = X @ Y.mT
    H = 0.5 * (T + T.mT)
    C = D @ Y.mT
    return sylvester(H, H, C - C.mT) @ Y + inverse(H) @ (D - C @ Y)


def certified(X: Tensor, Y: Tensor, D: Tensor, *, tol: float) -> Tensor:
    """Return the change by the iteration, and by eigenvectors for those matrices whose bound is above tol."""
    change, bound = by_block_sign(X, Y, D, tol=tol)
    again = (~(bound <= tol)).nonzero().flatten()
    if len(again):
        change[again] = by_eigenvectors(X[again], Y[again], D[again])
    return change
