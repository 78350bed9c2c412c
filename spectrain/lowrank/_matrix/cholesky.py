"""Randomly pivoted Cholesky, accelerated: landmarks of a kernel by rejection sampling, in blocks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrain._arrays.kinds import Real

Kernel = Callable[[Tensor, Tensor], Tensor]


@dataclass(slots=True)
class PartialCholesky:
    """K ~ F F^H with F = K[:, landmarks] L^-H, K[landmarks, landmarks] = L L^H; the diagonal of the rest is kept."""

    entries: Kernel  # (rows or None for all, columns) -> K[rows, columns]
    diagonal: Tensor
    F: Tensor
    landmarks: Tensor
    evaluations: int

    @classmethod
    def empty(cls, entries: Kernel, diagonal: Tensor, dtype: torch.dtype) -> "PartialCholesky":
        """Start with nothing but the diagonal, which costs as many evaluations as it has entries."""
        n = len(diagonal)
        F = torch.zeros(n, 0, dtype=dtype, device=diagonal.device)
        return cls(entries, diagonal.clone(), F, torch.zeros(0, dtype=torch.int64, device=diagonal.device), n)

    def residual_block(self, chosen: Tensor) -> Tensor:
        """Return (K - F F^H)[chosen, chosen]."""
        self.evaluations += len(chosen) ** 2
        return self.entries(chosen, chosen) - self.F[chosen] @ self.F[chosen].mH

    def restart(self, diagonal: Tensor, floor: Tensor) -> "PartialCholesky":
        """Return the factorization of those landmarks that are independent by more than ``floor``, in the same order.

        They are the pivots of their block of K by size, down to the floor, so that the smallest eigenvalue of the block
        that is kept is near it or above: F F^H is then off by about eps k / floor, whatever order they came in.
        """
        new = PartialCholesky.empty(self.entries, diagonal.clamp_min(0), self.F.dtype)
        chosen = self.landmarks[by_size(self.entries(self.landmarks, self.landmarks), floor)]
        new.evaluations = self.evaluations + len(self.landmarks) ** 2
        new.add(chosen, torch.zeros_like(floor))
        return new

    def add(self, chosen: Tensor, floor: Tensor) -> None:
        """Take these landmarks: their columns of K are evaluated, and the rest becomes a Schur complement.

        Landmarks whose pivot is not above ``floor``, what rounding can make of zero, are left out: they add nothing.
        """
        columns = self.entries(torch.arange(len(self.diagonal), device=chosen.device), chosen)
        self.evaluations += len(self.diagonal) * len(chosen)
        G = columns - self.F @ self.F[chosen].mH
        L, kept = _pivots(G[chosen], floor)
        self.diagonal[chosen] = 0  # also of those left out: proposed again they would be left out again, for ever
        if not len(kept):
            return
        fresh = torch.linalg.solve_triangular(L.mH, G[:, kept], upper=True, left=False)
        self.F = torch.cat([self.F, fresh], 1)
        self.landmarks = torch.cat([self.landmarks, chosen[kept]])
        self.diagonal = (self.diagonal - fresh.abs().square().sum(1).to(self.diagonal.dtype)).clamp_min(0)
        self.diagonal[chosen] = 0


def _pivots(H: Tensor, floor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Cholesky factor of H over the pivots above ``floor``, in the order given, and which these are.

    The factor is that of the elimination that chose the pivots: a second one might round a pivot below zero.
    """
    kept: list[int] = []
    columns: list[Tensor] = []
    rest = H.clone()
    for j in range(len(H)):
        pivot = rest[j, j].real
        if not bool(pivot > floor):
            continue
        column = rest[:, j] / pivot.sqrt()
        rest = rest - torch.outer(column, column.conj())
        kept.append(j)
        columns.append(column)
    index = torch.tensor(kept, dtype=torch.int64, device=H.device)
    return (torch.stack(columns, 1)[index].tril() if kept else H[index][:, index]), index


def by_size(H: Tensor, floor: Tensor) -> Tensor:
    """Return the rows, rising, that elimination takes when it takes the largest pivot each time, down to ``floor``."""
    rest, taken = H.clone(), []
    for _ in range(len(H)):
        j = int(rest.diagonal().real.argmax())
        pivot = rest[j, j].real
        if not bool(pivot > floor):
            break
        column = rest[:, j] / pivot.sqrt()
        rest = rest - torch.outer(column, column.conj())
        rest[j], rest[:, j] = 0, 0
        taken.append(j)
    return torch.tensor(sorted(taken), dtype=torch.int64, device=H.device)


def accept(H: Tensor, draw: torch.Generator, floor: Tensor) -> list[int]:
    """Return the proposals, drawn with probability p ~ diag(H), that sequential sampling would have taken.

    Proposal i is taken with probability (its diagonal after those taken before) / (its diagonal when proposed):
    then the landmarks follow the law of randomly pivoted Cholesky exactly (Epperly, Tropp and Webber 2024,
    arXiv 2410.03969, algorithm 2.1).
    """
    proposed = H.diagonal().real.clone()
    chances = torch.rand(len(H), generator=draw, dtype=torch.float64, device=draw.device).to(proposed.device)
    taken: list[int] = []
    rest = H.clone()
    for i in range(len(H)):
        pivot = rest[i, i].real
        if bool(pivot > floor) and bool(chances[i] * proposed[i] < pivot):
            column = rest[:, i] / pivot.sqrt()
            rest = rest - torch.outer(column, column.conj())
            taken.append(i)
    return taken


def randomly_pivoted(
    P: PartialCholesky, *, limit: int, allowed: Real, block: int, draw: torch.Generator, floor: Tensor
) -> None:
    """Add landmarks to P by accelerated RPCholesky until there are ``limit`` or the trace of the rest is allowed."""
    while len(P.landmarks) < limit:
        weights = P.diagonal.double().clamp_min(0)
        if float(weights.sum()) <= allowed or not bool((weights > floor).any()):
            return
        proposals = torch.multinomial(weights.cpu(), block, replacement=True, generator=draw).to(P.F.device)
        H = P.residual_block(proposals)
        now = H.diagonal().real.to(weights.dtype)
        P.diagonal[proposals] = torch.where(now > floor, now, 0.0)  # what the running diagonal lost by rounding
        taken = accept(H, draw, floor)[: limit - len(P.landmarks)]
        P.add(proposals[torch.tensor(taken, dtype=torch.int64, device=P.F.device)], floor)
