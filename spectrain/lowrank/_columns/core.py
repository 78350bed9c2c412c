"""The core between columns and rows: the best one, and the one that needs their intersection alone."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Int, Num
from torch import Tensor

from spectrain._arrays.kinds import Real
from spectrain.lowrank._columns.pivoted_qr import pivoted_qr
from spectrain.lowrank._columns.strong_rrqr import strong_rrqr
from spectrain.lowrank._matrix.matrix import Matrix

CoreOf: TypeAlias = Callable[[Real], tuple[Tensor, int]]  # floor -> the core and its rank
_FLOORS = 5


def floors(work: torch.dtype, out: torch.dtype, size: int) -> list[float]:
    """Return levels below which singular values may count as zero: from eps ``size`` to sqrt(eps), evenly in digits.

    A core is as large as 1 / s, s its smallest singular value, and in C U R its rounding costs eps ||C|| ||U|| ||R||;
    leaving s out costs about s. The sum is least near sqrt(eps), and no core that is multiplied out does better.
    """
    first, last = torch.finfo(work).eps * size, max(torch.finfo(work).eps * size, torch.finfo(out).eps ** 0.5)
    return [min(first * (last / first) ** (step / (_FLOORS - 1)), 0.5) for step in range(_FLOORS)]


def optimal_core(A: Num[Tensor, "m n"] | Matrix, C: Num[Tensor, "m q"], R: Num[Tensor, "p n"]) -> CoreOf:
    """Return the core pinv(C) A pinv(R) for any floor, by C = Q T and R^H = Q' T': pinv(T) (Q^H A Q') pinv(T')^H.

    O(m n min(p, q)), once for all floors.
    """
    Qc, Tc = _orthonormal(C)
    Qr, Tr = _orthonormal(R.mH)
    middle = Qc.mH @ (A @ Qr)
    sizes = [torch.linalg.svdvals(T.detach()) for T in (Tc, Tr)]

    def core(floor: Real) -> tuple[Tensor, int]:
        rank = min(int((s > floor * s[0]).sum()) if len(s) else 0 for s in sizes)
        return _pinv(Tc, floor) @ middle @ _pinv(Tr, floor).mH, rank

    return core


def _orthonormal(C: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q, T with C = Q T; by pivoted QR where LAPACK's breaks down (equal columns in complex64 give NaN)."""
    Q, T = torch.linalg.qr(C)
    if bool(torch.isfinite(T).all()):
        return Q, T
    found = pivoted_qr(C.detach(), min(C.shape))
    return found.Q, found.R


def cross_core(crossing: Num[Tensor, "p q"], floor: Real) -> tuple[Num[Tensor, "q p"], int]:
    """Return the pseudo-inverse of the intersection without singular values below floor times the largest, its rank."""
    if not crossing.numel():
        return crossing.mH, 0
    s = torch.linalg.svdvals(crossing.detach())
    return _pinv(crossing, floor), int((s > floor * s[0]).sum())


def _pinv(X: Tensor, floor: Real) -> Tensor:
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
