"""QR with column pivoting in torch: batched, left-looking, stopping as soon as enough is explained.

A single large matrix goes by blocks: pivots are guessed among a few columns, then checked against all of them.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

_ROWS = 32  # whose squares are added at once


class _State(NamedTuple):
    """Rows of Q^H and R so far, the columns taken, and the squared norms of what is left of every column."""

    QH: Tensor
    R: Tensor
    columns: list[int]
    left: list[Tensor]
    norms: Tensor
    reference: Tensor


def blocked_pivots(
    A: Tensor, limit: int, *, stop: Tensor | float = 0.0, block: int = 16, candidates: int = 128
) -> tuple[Tensor, Tensor, list[int], list[Tensor]]:
    """Return Q^H, R, the columns and what is left after each, of one matrix, with the pivots of the unblocked method.

    Only the ``candidates`` columns of which most is left are looked at for up to ``block`` pivots; then one product
    gives the new rows of R for all columns, and with them what was left of every column at each of these steps. From
    the first step where some other column had more left, the guesses are thrown away. So the pivots are exact, and A
    is read once a block instead of once a step.
    """
    n = A.shape[1]
    norms = _squares(A)
    total = norms.sum().sqrt()
    floor = torch.finfo(A.dtype).eps * max(A.shape) * total
    enough = torch.maximum(floor, torch.as_tensor(stop, dtype=total.dtype, device=A.device))
    QH, R = A.new_zeros(limit, A.shape[0]), A.new_zeros(limit, n)
    now = _State(QH, R, [], [total], norms, norms.max())
    while len(now.columns) < limit and bool(now.left[-1] > enough):
        near = now.norms.topk(min(n - len(now.columns), candidates)).indices.sort().values
        pivots = _guess(A, near, now, min(block, limit - len(now.columns), len(near)), floor / n**0.5)
        if not pivots:
            break
        now = _check(A, now, pivots, enough)
    return QH, R, now.columns, now.left


def _squares(A: Tensor) -> Tensor:
    """Return the squared norms of the columns; by rows that stay in the cache where columns are not contiguous."""
    if A.stride(0) == 1:
        return torch.linalg.vector_norm(A, dim=0).square()
    parts = (part.abs() if A.is_complex() else part for part in A.split(_ROWS))
    return torch.stack([part.square().sum(0) for part in parts]).sum(0)


def _guess(A: Tensor, near: Tensor, now: _State, steps: int, floor: Tensor) -> list[int]:
    """Pivot among the candidates alone, write the new rows of Q^H and return the columns.

    The order is that of a Cholesky decomposition with pivots of the Gram matrix of what is left of them, which is
    exact to sqrt(eps) of the largest; :func:`_check` looks at it again.
    """
    j, QH = len(now.columns), now.QH
    W = A.index_select(1, near) - QH[:j].mH @ now.R[:j, near]
    order = _order(W.mH @ W, steps)
    fresh = torch.linalg.qr(_outside(QH[:j], W[:, order]))
    sizes = fresh.R.diagonal().abs()
    kept = int((sizes > floor).cumprod(0).sum())
    again = torch.linalg.qr(_outside(QH[:j], fresh.Q[:, :kept]))  # twice is enough, and the second QR turns nothing
    phase = torch.sgn(again.R.diagonal() * fresh.R.diagonal()[:kept])
    QH[j : j + kept] = (again.Q * phase).mH
    return near[order[:kept]].tolist()


def _outside(QH: Tensor, W: Tensor) -> Tensor:
    return W - QH.mH @ (QH @ W)


def _order(G: Tensor, steps: int) -> Tensor:
    """Return pivots of the Gram matrix G, the largest of what is left first, until half of the digits are gone."""
    left, order = G.diagonal().real.clone(), list[int]()
    least = torch.finfo(left.dtype).eps ** 0.5 * left.max()
    L = G.new_zeros(steps, len(G))
    for t in range(steps):
        p = int(left.argmax())
        if t and not left[p] > least:
            break
        L[t] = (G[p] - L[:t, p].conj() @ L[:t]) / left[p].sqrt()
        left = left - L[t].abs().square()
        order.append(p)
        left[order] = -1.0
    return torch.tensor(order, device=G.device)


def _check(A: Tensor, now: _State, guesses: list[int], enough: Tensor) -> _State:
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
            norms = _remeasure_block(A, now.QH[: j + t + 1], now.R[: j + t + 1])
            norms[columns] = 0.0
            reference = norms.max()
        left = [*now.left, norms.sum().sqrt()]
        now = now._replace(columns=columns, left=left, norms=norms, reference=reference)
        if measured or bool(left[-1] <= enough):
            break
    return now


def _remeasure_block(A: Tensor, QH: Tensor, R: Tensor) -> Tensor:
    """Return the squared norms of what is left of each column, from A itself."""
    return _squares(torch.addmm(A, QH.mH, R, alpha=-1))


class PivotedQR(NamedTuple):
    """A[..., columns] = Q R[..., columns], with R[..., columns] upper triangular and its diagonal falling.

    ``left[..., j]`` is the Frobenius norm of what j columns leave unexplained, ``rank`` the number of columns that
    were needed or found independent; batch items that stopped early have zeros after their rank.
    """

    Q: Num[Tensor, "*batch m k"]
    R: Num[Tensor, "*batch k n"]
    columns: Int[Tensor, "*batch k"]
    left: Float[Tensor, "*batch k1"]
    rank: Int[Tensor, "*batch"]


def pivoted_qr(A: Num[Tensor, "*batch m n"], limit: int, *, stop: Float[Tensor, "*batch"] | float = 0.0) -> PivotedQR:
    """Choose at each step the column of which most is left; stop at ``limit`` columns or when <= ``stop`` is left.

    Left-looking (Golub 1965; Quintana-Orti, Sun and Bischof 1998 delay the update within a block, here it is never
    made): row j of R is q_j^H A, one product that reads A once and writes nothing, so k columns cost 2 m n k and the
    rest of A is never touched. New columns are orthogonalised twice, which is enough (Giraud, Langou and Rozloznik
    2005). Norms are downdated, and all recomputed as soon as the largest has lost half of its digits (Drmac and
    Bujanovic 2008), so that the pivots are right where LINPACK's formula fails.

    Guarantee: sigma_min(R_11) >= sigma_k / (sqrt(n - k + 1) 2^k), and Kahan's matrix comes close to that.
    Columns are independent to rounding: when what is left is below eps max(m, n) ||A||_F, it stops; the columns that
    fill up to ``limit`` are then the first unused ones.
    """
    if A.ndim == 2:
        return _single(A, limit, stop)
    batch, (m, n) = A.shape[:-2], A.shape[-2:]
    A = A.reshape(-1, m, n)
    items, every = A.shape[0], torch.arange(A.shape[0], device=A.device)
    eps = torch.finfo(A.dtype).eps
    QH, R = A.new_zeros(items, limit, m), A.new_zeros(items, limit, n)
    columns = torch.zeros(items, limit, dtype=torch.long, device=A.device)
    norms = torch.linalg.vector_norm(A, dim=-2).square()
    total = norms.sum(-1).sqrt()
    floor = eps * max(m, n) * total
    enough = torch.maximum(floor, torch.as_tensor(stop, dtype=total.dtype, device=A.device).expand(batch).reshape(-1))
    left, rank = total.new_zeros(items, limit + 1), columns.new_full((items,), limit)
    left[:, 0], reference = total, norms.amax(-1)
    active = total > enough
    rank[~active] = 0
    for j in range(limit):
        if not bool(active.any()):
            break
        pivot = norms.argmax(-1)
        column = A[every, :, pivot]
        q = _orthogonalise(column, QH[:, :j])
        size = torch.linalg.vector_norm(q, dim=-1)
        active = active & (size > floor / max(1, n) ** 0.5)
        rank = torch.where(active | (rank < limit), rank, j)
        q = torch.where(active[:, None], q / size.clamp_min(torch.finfo(size.dtype).tiny)[:, None], 0.0)
        QH[:, j] = q.conj()
        R[:, j] = torch.bmm(q.conj()[:, None], A)[:, 0]
        norms = (norms - R[:, j].abs().square()).clamp_min(0.0)
        norms[every, pivot] = -1.0
        columns[:, j] = pivot
        if bool(((norms.amax(-1) <= eps**0.5 * reference) & active).any()):
            norms = _remeasure(A, QH[:, : j + 1], R[:, : j + 1], norms)
            reference = norms.amax(-1)
        left[:, j + 1] = norms.clamp_min(0.0).sum(-1).sqrt()
        finished = active & (left[:, j + 1] <= enough)
        rank = torch.where(finished, j + 1, rank)
        active = active & ~finished
    columns = fill(columns, rank, n)
    return PivotedQR(
        QH.mH.reshape(*batch, m, limit),
        R.reshape(*batch, limit, n),
        columns.reshape(*batch, limit),
        left.reshape(*batch, limit + 1),
        rank.reshape(batch),
    )


def _single(A: Tensor, limit: int, stop: Tensor | float) -> PivotedQR:
    """Factor one matrix, by blocks."""
    QH, R, chosen, steps = blocked_pivots(A, limit, stop=stop)
    r = len(chosen)
    QH[r:], R[r:] = 0, 0
    columns = torch.zeros(1, limit, dtype=torch.long, device=A.device)
    columns[0, :r] = torch.tensor(chosen, dtype=torch.long, device=A.device)
    rank = columns.new_full((1,), r)
    left = torch.stack([*steps, *(steps[-1:] * (limit - r))])
    return PivotedQR(QH.mH, R, fill(columns, rank, A.shape[1])[0], left, rank[0])


def _orthogonalise(column: Tensor, QH: Tensor) -> Tensor:
    """Return the part of each column that is orthogonal to the rows of QH, to rounding."""
    for _ in range(2):
        column = column - torch.bmm(torch.bmm(QH, column[..., None]).mT, QH.conj())[:, 0]
    return column


def _remeasure(A: Tensor, QH: Tensor, R: Tensor, norms: Tensor) -> Tensor:
    """Return the squared norms of what is left of each column, from A itself; used columns stay at -1."""
    fresh = (A - torch.bmm(QH.mH, R)).abs().square().sum(-2)
    return torch.where(norms < 0, norms, fresh)


def fill(columns: Int[Tensor, "b k"], rank: Int[Tensor, " b"], n: int) -> Int[Tensor, "b k"]:
    """Replace what stands after the first ``rank`` indices of each item by the first unused indices."""
    columns = columns.clone()
    for item, r in zip(columns, rank.tolist(), strict=True):
        if r < len(item):
            unused = torch.ones(n, dtype=torch.bool, device=columns.device)
            unused[item[:r]] = False
            item[r:] = unused.nonzero()[: len(item) - r, 0]
    return columns


def fill_up(J: Int[Tensor, " r"], k: int, n: int) -> Int[Tensor, " k"]:
    """Return the indices J followed by the first unused ones of n, k in all."""
    if len(J) >= k:
        return J
    return fill(torch.cat([J, J.new_zeros(k - len(J))])[None], torch.tensor([len(J)]), n)[0]
