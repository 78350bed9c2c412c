"""Columns by the error that is left in all of the matrix: step by step, or over all subsets."""

import itertools
import math

import torch
from jaxtyping import Int, Num
from torch import Tensor

SUBSETS = 2_000_000
_CHUNK = 1024


def greedy(A: Num[Tensor, "m n"], k: int) -> Int[Tensor, " k"]:
    """Take at each step the column whose projection leaves the least total error (article 10501).

    Column j explains ||E^H e_j||^2 / ||e_j||^2 of what is left, E; pivoted QR looks at ||e_j|| alone. Farahat, Ghodsi
    and Kamel (2011). Guarantee (Altschuler and others 2016): O(k / (s eps)) steps explain (1 - eps) of what the best k
    columns explain, s the smallest squared singular value of the best columns, normalised. O(k m n min(m, n)).
    """
    E = A
    chosen: list[int] = []
    floor = (torch.finfo(A.dtype).eps * max(A.shape)) ** 2 * A.abs().square().sum(0).max()
    for _ in range(k):
        size = E.abs().square().sum(0)
        gain = _explained(E, size, floor)
        gain[chosen] = -1.0
        j = int(gain.argmax())
        if not size[j] > floor:
            break
        chosen.append(j)
        q = E[:, j] / size[j].sqrt()
        for _ in range(2):
            E = E - torch.outer(q, q.conj() @ E)
    return torch.tensor(chosen, dtype=torch.long, device=A.device)


def _explained(E: Tensor, size: Tensor, floor: Tensor) -> Tensor:
    """Return how much of ||E||_F^2 each column of E explains; batched over leading dimensions."""
    overlap = (E.conj() * ((E @ E.mH) @ E)).real.sum(-2)
    return torch.where(size > floor, overlap / torch.where(size > floor, size, 1.0), 0.0)


def exhaustive(A: Num[Tensor, "m n"], k: int) -> Int[Tensor, " k"]:
    """Return the best k columns, by looking at all subsets: the optimum, for small n.

    The first k - 1 columns run through all subsets, in blocks; the last is then the best by the formula of
    :func:`greedy`. So C(n, k - 1) projections instead of C(n, k). ValueError above two million of them.
    """
    n = A.shape[-1]
    prefixes = math.comb(n, k - 1)
    if prefixes > SUBSETS:
        raise ValueError(
            f"select_columns: method='exhaustive' would look at C({n}, {k - 1}) = {prefixes:,} subsets, the limit is "
            f"{SUBSETS:,}; use the default method, which exchanges columns until none improves"
        )
    floor = (torch.finfo(A.dtype).eps * max(A.shape)) ** 2 * A.abs().square().sum(0).max()
    best, chosen = math.inf, tuple(range(k))
    subsets = itertools.combinations(range(n), k - 1)
    while block := list(itertools.islice(subsets, _CHUNK)):
        J = torch.tensor(block, dtype=torch.long, device=A.device).reshape(len(block), k - 1)
        E = _without(A, J, floor)
        left = E.abs().square().sum(-2)
        error = left.sum(-1, keepdim=True) - _explained(E, left, floor)
        error.scatter_(1, J, torch.inf)
        value, where = error.flatten().min(0)
        if float(value) < best:
            item, j = divmod(int(where), n)
            best, chosen = float(value), (*block[item], j)
    return torch.tensor(chosen, device=A.device)


def _without(A: Tensor, J: Tensor, floor: Tensor) -> Tensor:
    """Return what each row of J, a set of columns, leaves of A; columns that depend on those before add nothing.

    (A batched QR would complete dependent columns by directions that are in no column.)
    """
    every = torch.arange(len(J), device=A.device)
    E = A.expand(len(J), *A.shape)
    for t in range(J.shape[1]):
        q = E[every, :, J[:, t]]
        size = q.abs().square().sum(-1, keepdim=True)
        q = torch.where(size > floor, q / torch.where(size > floor, size, 1.0).sqrt(), 0.0)
        E = E - q[:, :, None] * torch.bmm(q[:, None].conj(), E)
    return E
