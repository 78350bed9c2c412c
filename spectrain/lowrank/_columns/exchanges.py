"""Columns by the error that is left in all of the matrix: step by step, by exchanges, or over all subsets."""

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
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
        left = error_with(E, size, floor)
        left[chosen] = torch.inf
        left[size <= floor] = torch.inf
        j = int(left.argmin())
        if not size[j] > floor:
            break
        chosen.append(j)
        q = E[:, j] / size[j].sqrt()
        for _ in range(2):
            E = E - torch.outer(q, q.conj() @ E)
    return torch.tensor(chosen, dtype=torch.long, device=A.device)


def error_with(E: Num[Tensor, "*b m n"], size: Float[Tensor, "*b n"], floor: Tensor) -> Float[Tensor, "*b n"]:
    """Return the squared error after each column of what is left, E, is taken as well; ``size`` is |e_j|^2.

    Column j explains g_j = ||E^H e_j||^2 / |e_j|^2, and what is left is the difference ||E||_F^2 - g_j. It has lost its
    digits where little is left: below sqrt(eps) ||E||_F it is noise. There a column p that is near the best is taken
    first, and then exchanged for each: with e_j what p leaves, L = q_p^H E, and g the same sums as before,

        error_j^2 = error_p^2 + (|e_j|^2 ||L||^2 - 2 Re(conj(L_j) (L E^H E)_j) - ||E^H e_j||^2) / (|e_j|^2 + |L_j|^2),

    in which no term is larger than what is left. So errors are told apart down to eps ||E||_F.
    """
    total = size.sum(-1, keepdim=True)
    rough = total - _gain(E, size, floor)
    least, p = rough.min(-1)
    blurred = least <= torch.finfo(size.dtype).eps ** 0.25 * total[..., 0]
    if not bool(blurred.any()):
        return rough
    column = E.take_along_dim(p[..., None, None], -1)
    norm = torch.linalg.vector_norm(column, dim=-2, keepdim=True)
    q = torch.where(norm.square() > floor, column / torch.where(norm > 0, norm, 1.0), 0.0)
    L = q.mH @ E
    E = E - q @ L
    E = E - q @ (q.mH @ E)
    exact = exchanged_error(E, L)[..., 0, :]
    return torch.where(blurred[..., None], exact, rough)


def exchanged_error(E: Num[Tensor, "*b m n"], L: Num[Tensor, "*b k n"]) -> Float[Tensor, "*b k n"]:
    """Return the squared error after direction i, whose part L_i of the matrix is in no row of E, goes for column j.

    Dropping direction i puts ||L_i||^2 back into the error ||E||_F^2; column j, of which e_j + q_i L_ij is then left,
    takes ||E^H e_j + L_i^H L_ij||^2 / (|e_j|^2 + |L_ij|^2). What the two have in common, ||L_i||^2 |L_ij|^2, is taken
    out beforehand, so that nothing larger than the error is subtracted. Where nothing is left of column j, it takes
    nothing. O(m^2 n + k m n) by products with E E^H and L E^H.
    """
    size, weight = E.abs().square().sum(-2)[..., None, :], L.abs().square()
    overlap = (E.conj() * ((E @ E.mH) @ E)).real.sum(-2)[..., None, :]
    cross = (L @ E.mH) @ E
    lost = weight.sum(-1, keepdim=True)
    there = size + weight
    usable = there > torch.finfo(there.dtype).tiny
    change = (size * lost - 2 * (cross.conj() * L).real - overlap) / torch.where(usable, there, 1.0)
    error = size.sum(-1, keepdim=True)
    return (error + torch.where(usable, change, lost)).clamp_min(0.0)


def _gain(E: Tensor, size: Tensor, floor: Tensor) -> Tensor:
    """Return how much of ||E||_F^2 each column of E explains; batched over leading dimensions."""
    overlap = (E.conj() * ((E @ E.mH) @ E)).real.sum(-2)
    return torch.where(size > floor, overlap / torch.where(size > floor, size, 1.0), 0.0)


def exhaustive(A: Num[Tensor, "m n"], k: int) -> Int[Tensor, " k"]:
    """Return the best k columns, by looking at all subsets: the optimum, for small n.

    The first k - 1 columns run through all subsets, in blocks; the last is then the best by :func:`error_with`. So
    C(n, k - 1) projections instead of C(n, k), all in double precision. ValueError above two million of them.
    """
    n = A.shape[-1]
    prefixes = math.comb(n, k - 1)
    if prefixes > SUBSETS:
        raise ValueError(
            f"select_columns: method='exhaustive' would look at C({n}, {k - 1}) = {prefixes:,} subsets, the limit is "
            f"{SUBSETS:,}; use the default method, which exchanges columns until none improves"
        )
    A = _square(A)
    floor = (torch.finfo(A.dtype).eps * max(A.shape)) ** 2 * A.abs().square().sum(0).max()
    best, chosen = math.inf, tuple(range(k))
    subsets = itertools.combinations(range(n), k - 1)
    while block := list(itertools.islice(subsets, _CHUNK)):
        J = torch.tensor(block, dtype=torch.long, device=A.device).reshape(len(block), k - 1)
        E = _without(A, J, floor)
        error = error_with(E, E.abs().square().sum(-2), floor)
        error.scatter_(1, J, torch.inf)
        value, where = error.flatten().min(0)
        if float(value) < best:
            item, j = divmod(int(where), n)
            best, chosen = float(value), (*block[item], j)
    return torch.tensor(chosen, device=A.device)


def _square(A: Tensor) -> Tensor:
    """Return a matrix with the columns of A up to rotation, in double precision, of at most as many rows as columns."""
    A = A.to(torch.complex128 if A.is_complex() else torch.float64)
    return torch.linalg.qr(A, mode="r").R if A.shape[0] > A.shape[1] else A


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
