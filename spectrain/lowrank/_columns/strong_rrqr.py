"""Strong rank-revealing QR: exchange columns while that multiplies the volume by more than f."""

import torch
from jaxtyping import Int, Num
from torch import Tensor

from spectrain.lowrank._columns.exchanges import fit
from spectrain.lowrank._columns.pivoted_qr import pivoted_qr


def strong_rrqr(A: Num[Tensor, "m n"], k: int, *, bound: float = 2.0) -> Int[Tensor, " k"]:
    """Return k columns J with max|Z| <= f and ||A - A_J Z||_2 <= sqrt(1 + f^2 k (n - k)) sigma_(k+1), f = ``bound``.

    Also sigma_i(A_J) >= sigma_i / sqrt(1 + f^2 k (n - k)) for i <= k. Gu and Eisenstat (1996): exchanging J[i] for
    column j multiplies the volume |det R_11| by

        rho_ij = sqrt(|Z_ij|^2 + (|e_j| |row i of pinv(A_J)|)^2),

    e_j what is left of column j. From pivoted QR on, the largest rho_ij is exchanged until none exceeds f. For f > 1
    that takes at most k log_f(sqrt(n)) exchanges, usually none or a few; each costs a QR of A_J and O(m n k).
    """
    start = pivoted_qr(A, k)
    r = int(start.rank)
    J = start.columns.clone()
    J[:r] = _raise_volume(A, J[:r], bound, residual=True)
    return J


def bound_coefficients(A: Num[Tensor, "m n"], J: Int[Tensor, " k"], *, bound: float) -> Int[Tensor, " k"]:
    """Exchange columns until max|Z| <= bound for the least-squares Z, as in a maximal volume search.

    Only |Z_ij| is looked at: the volume still rises by more than ``bound`` at each exchange, so it ends (Goreinov,
    Tyrtyshnikov and others 2010). The error may rise; that is the price of a bound on Z.
    """
    return _raise_volume(A, J, bound, residual=False)


def _raise_volume(A: Tensor, J: Tensor, bound: float, *, residual: bool) -> Tensor:
    slack = 1 + 64 * torch.finfo(A.dtype).eps * len(A) ** 0.5
    while len(J) and (now := fit(A, J)) is not None:
        rho = now.Z.abs().square()
        if residual:
            rho = rho + torch.outer(now.inverse.abs().square().sum(1), now.E.abs().square().sum(0))
        rho[:, J] = 0.0
        i, j = divmod(int(rho.argmax()), A.shape[-1])
        if rho[i, j] <= (bound * slack) ** 2:
            break
        J = J.clone()
        J[i] = j
    return J
