"""Exchange one chosen column for another as long as the total error falls."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from spectrain.lowrank._total_error import exchanged_error


class Fit(NamedTuple):
    """Least squares on the columns S: A ~ A[:, S] Z with residual E; ``inverse`` is T^-1 of A[:, S] = Q T."""

    Z: Num[Tensor, "k n"]
    E: Num[Tensor, "m n"]
    inverse: Num[Tensor, "k k"]
    error: Float[Tensor, ""]


def fit(A: Num[Tensor, "m n"], S: Int[Tensor, " k"]) -> Fit | None:
    """Fit A by its columns S through QR; None when these columns are dependent to rounding."""
    Q, T = torch.linalg.qr(A[:, S])
    d = T.diagonal().abs()
    if not bool(d.min() > torch.finfo(d.dtype).eps * len(A) * d.max()):
        return None
    inverse = torch.linalg.solve_triangular(T, torch.eye(len(S), dtype=A.dtype, device=A.device), upper=True)
    B = Q.mH @ A
    E = A - Q @ B
    Z = inverse @ B
    return Fit(Z, E, inverse, torch.linalg.vector_norm(E))


def all_swaps(A: Num[Tensor, "m n"], S: Int[Tensor, " k"], now: Fit) -> Float[Tensor, "k n"]:
    """Return the squared error after exchanging S[i] for column j, for all i and j at once.

    Removing S[i] gives back the direction q_i of A[:, S] that no other chosen column has: row i of L = D Z with
    D_i = 1 / ||row i of pinv(A[:, S])|| is q_i^H A. See :func:`exchanged_error`.
    """
    L = now.Z / torch.linalg.vector_norm(now.inverse, dim=1)[:, None]
    squared = exchanged_error(now.E, L)
    eps = torch.finfo(now.error.dtype).eps
    size = now.E.abs().square().sum(0) + L.abs().square()
    squared[size <= (len(A) * eps) ** 2 * A.abs().square().sum(0).max()] = torch.inf
    squared[:, S] = torch.inf
    return squared


def swap(A: Num[Tensor, "m n"], S: Int[Tensor, " k"], *, limit: int | None = None) -> Int[Tensor, " k"]:
    """Make the best single exchange until none lowers ||A - A[:, S] pinv(A[:, S]) A||_F; it never rises.

    Each exchange is accepted only after the error was computed again from A and is lower by more than rounding, so
    the loop ends. What it ends in is a set that no single exchange improves.
    """
    now = fit(A, S)
    if now is None or A.shape[-1] <= len(S):
        return S
    slack = 1 - 64 * torch.finfo(now.error.dtype).eps
    done = 0
    while (limit is None or done < limit) and now.error > 0:
        squared = all_swaps(A, S, now)
        i, j = divmod(int(squared.argmin()), A.shape[-1])
        if not squared[i, j] < slack * now.error.square():
            break
        trial = S.clone()
        trial[i] = j
        new = fit(A, trial)
        if new is None or not new.error < slack * now.error:
            break
        S, now, done = trial, new, done + 1
    return S
