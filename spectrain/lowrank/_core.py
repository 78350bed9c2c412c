"""The core between columns and rows: the best one, and the one that needs their intersection alone."""

import torch
from jaxtyping import Int, Num
from torch import Tensor

from spectrain.lowrank._input import Matrix
from spectrain.lowrank._pivoted_qr import pivoted_qr
from spectrain.lowrank._strong_rrqr import strong_rrqr


def optimal_core(
    A: Num[Tensor, "m n"] | Matrix, C: Num[Tensor, "m q"], R: Num[Tensor, "p n"], floor: float
) -> Num[Tensor, "q p"]:
    """Return pinv(C) A pinv(R) by C = Q T and R^H = Q' T': pinv(T) (Q^H A Q') pinv(T')^H; O(m n min(p, q))."""
    Qc, Tc = _orthonormal(C)
    Qr, Tr = _orthonormal(R.mH)
    middle = Qc.mH @ (A @ Qr)
    return _pinv(Tc, floor) @ middle @ _pinv(Tr, floor).mH


def _orthonormal(C: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q, T with C = Q T; by pivoted QR where LAPACK's breaks down (equal columns in complex64 give NaN)."""
    Q, T = torch.linalg.qr(C)
    if bool(torch.isfinite(T).all()):
        return Q, T
    found = pivoted_qr(C.detach(), min(C.shape))
    return found.Q, found.R


def cross_core(crossing: Num[Tensor, "p q"], floor: float) -> tuple[Num[Tensor, "q p"], int]:
    """Return the pseudo-inverse of the intersection without singular values below floor times the largest, its rank."""
    if not crossing.numel():
        return crossing.mH, 0
    s = torch.linalg.svdvals(crossing.detach())
    return _pinv(crossing, floor), int((s > floor * s[0]).sum())


def _pinv(X: Tensor, floor: float) -> Tensor:
    return torch.linalg.pinv(X, rtol=floor) if X.numel() else X.mH


def crossing_rows(C: Num[Tensor, "m q"], p: int) -> Int[Tensor, " p"]:
    """Return p rows of C whose intersection with its columns is well conditioned.

    The first q by strong rank-revealing QR of C^H, so that every row is at most 2 times in each of them. Further rows,
    one by one, each the one that multiplies the volume det(C_I^H C_I) most: with X = C pinv(C_I), by 1 + |x_i|^2
    (rectangular maximal volume, Mikhalev and Oseledets 2018).
    """
    q = min(C.shape)
    rows = strong_rrqr(C.mH, min(p, q)) if min(p, q) else torch.empty(0, dtype=torch.long, device=C.device)
    chosen = rows.tolist()
    X = C @ torch.linalg.pinv(C[rows]) if chosen else C
    while len(chosen) < p:
        size = X.abs().square().sum(1)
        size[chosen] = -1.0
        i = int(size.argmax())
        x = X[i]
        X = X - torch.outer(X @ x.conj(), x) / (1 + size[i].clamp_min(0.0))
        chosen.append(i)
    return torch.tensor(chosen, dtype=torch.long, device=C.device)
