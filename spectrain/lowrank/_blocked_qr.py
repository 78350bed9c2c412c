"""QR with column pivoting by blocks: pivots are guessed among a few columns, then checked against all of them."""

from typing import NamedTuple

import torch
from torch import Tensor


class _State(NamedTuple):
    """Rows of Q^H and R so far, the columns taken, and the squared norms of what is left of every column."""

    QH: Tensor
    R: Tensor
    columns: list[int]
    left: list[Tensor]
    norms: Tensor
    reference: Tensor


def blocked_pivots(
    A: Tensor, limit: int, *, floor: Tensor, enough: Tensor, block: int = 16, candidates: int = 128
) -> tuple[Tensor, Tensor, list[int], list[Tensor]]:
    """Return Q^H, R, the columns and what is left after each, of one matrix, with the pivots of the unblocked method.

    Only the ``candidates`` columns of which most is left are looked at for up to ``block`` pivots; then one product
    gives the new rows of R for all columns, and with them what was left of every column at each of these steps. From
    the first step where some other column had more left, the guesses are thrown away. So the pivots are exact, and A
    is read once a block instead of once a step.
    """
    n = A.shape[1]
    norms = torch.linalg.vector_norm(A, dim=0).square()
    QH, R = A.new_zeros(limit, A.shape[0]), A.new_zeros(limit, n)
    now = _State(QH, R, [], [norms.sum().sqrt()], norms, norms.max())
    while len(now.columns) < limit and bool(now.left[-1] > enough):
        near = now.norms.topk(min(n - len(now.columns), candidates)).indices.sort().values
        pivots = _guessed(A, near, now, min(block, limit - len(now.columns), len(near)), floor)
        if not pivots:
            break
        now = _checked(A, now, [int(near[p]) for p in pivots], enough)
    return QH, R, now.columns, now.left


def _guessed(A: Tensor, near: Tensor, now: _State, steps: int, floor: Tensor) -> list[int]:
    """Pivot among the candidates alone, writing new rows of Q^H; return positions in ``near``."""
    j, QH = len(now.columns), now.QH
    W = A.index_select(1, near) - QH[:j].mH @ now.R[:j, near]
    left = torch.linalg.vector_norm(W, dim=0).square()
    pivots: list[int] = []
    for t in range(j, j + steps):
        p = int(left.argmax())
        q = W[:, p]
        for known in (QH[j:t], QH[:t]):  # W is without the columns before j; the second turn takes what rounding left
            q = q - (known @ q) @ known.conj()
        size = torch.linalg.vector_norm(q)
        if not size > floor:
            break
        QH[t] = q.conj() / size
        left = left - (QH[t] @ W).abs().square()
        left[p] = -1.0
        left[pivots] = -1.0
        pivots.append(p)
    return pivots


def _checked(A: Tensor, now: _State, guesses: list[int], enough: Tensor) -> _State:
    """Compute the rows of R and keep the guesses that were the largest of all, until enough is explained."""
    j, half = len(now.columns), torch.finfo(now.norms.dtype).eps ** 0.5
    rows = now.QH[j : j + len(guesses)] @ A
    for t, p in enumerate(guesses):
        if t and bool(now.norms[p] < (1 - 4 * half) * now.norms.max()):
            break
        now.R[j + t] = rows[t]
        columns = [*now.columns, p]
        norms, reference = (now.norms - rows[t].abs().square()).clamp_min(0.0), now.reference
        norms[columns] = 0.0
        if measured := bool(norms.max() <= half * reference):
            norms = _remeasured(A, now.QH[: j + t + 1], now.R[: j + t + 1])
            norms[columns] = 0.0
            reference = norms.max()
        left = [*now.left, norms.sum().sqrt()]
        now = now._replace(columns=columns, left=left, norms=norms, reference=reference)
        if measured or bool(left[-1] <= enough):
            break
    return now


def _remeasured(A: Tensor, QH: Tensor, R: Tensor) -> Tensor:
    """Return the squared norms of what is left of each column, from A itself."""
    return torch.linalg.vector_norm(torch.addmm(A, QH.mH, R, alpha=-1), dim=0).square()
