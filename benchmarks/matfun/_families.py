"""Fourteen families of matrices that are hard in different ways: graded, flat, of low rank, like momenta, of signs."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


def scales(batch: int, decades: float, g: torch.Generator) -> Tensor:
    """Random numbers 10**-d, d up to ``decades``, one a matrix."""
    return 10 ** (-decades * torch.rand(batch, 1, 1, generator=g, dtype=torch.float64))


@dataclass(slots=True)
class Bases:
    """Matrices with given singular values. Beyond 32 columns bases are kept: rows are shuffled, signs are new."""

    g: torch.Generator
    kept: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def columns(self, batch: int, rows: int, count: int) -> Tensor:
        """Orthonormal columns, count <= rows."""
        if count <= 32:
            return torch.linalg.qr(normal(batch, rows, count, self.g))[0]
        if (rows, count) not in self.kept:
            own = torch.Generator().manual_seed(4099 * rows + count)
            self.kept[rows, count] = torch.linalg.qr(normal(1, rows, count, own)[0])[0]
        Q = self.kept[rows, count]
        shuffled = [Q[torch.randperm(rows, generator=self.g)] for _ in range(batch)]
        return torch.stack(shuffled) * normal(batch, rows, 1, self.g).sign()

    def matrices(self, s: Tensor, m: int, n: int) -> Tensor:
        """U diag(s) V^T for s of shape (batch, 1, k)."""
        batch, k = len(s), min(m, n)
        return (self.columns(batch, m, k) * s) @ self.columns(batch, n, k).mT


def normal(batch: int, m: int, n: int, g: torch.Generator) -> Tensor:
    """Gaussian matrices."""
    return torch.randn(batch, m, n, generator=g, dtype=torch.float64)


def hadamard(m: int, n: int) -> Tensor:
    """A corner of the Sylvester matrix that is large enough."""
    H = torch.ones(1, 1, dtype=torch.float64)
    while len(H) < max(m, n):
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H[:m, :n]


def _gaussian(b: int, m: int, n: int, bases: Bases) -> Tensor:
    return normal(b, m, n, bases.g)


def _graded(b: int, m: int, n: int, bases: Bases) -> Tensor:
    k = min(m, n)
    return bases.matrices(scales(b, 12, bases.g) ** (torch.arange(k) / max(k - 1, 1)), m, n)


def _graded_rows(b: int, m: int, n: int, bases: Bases) -> Tensor:
    return normal(b, m, n, bases.g) * scales(b, 8, bases.g) ** (torch.arange(m)[:, None] / m)


def _low_rank(b: int, m: int, n: int, bases: Bases) -> Tensor:
    rank = int(torch.randint(1, max(min(m, n) // 2, 1) + 1, (), generator=bases.g))
    return normal(b, m, rank, bases.g) @ normal(b, rank, n, bases.g) + scales(b, 8, bases.g) * _gaussian(b, m, n, bases)


def _flat(b: int, m: int, n: int, bases: Bases) -> Tensor:
    return bases.matrices(torch.ones(b, 1, min(m, n), dtype=torch.float64), m, n)


def _two_levels(b: int, m: int, n: int, bases: Bases) -> Tensor:
    upper = torch.rand(b, 1, min(m, n), generator=bases.g) < torch.rand(b, 1, 1, generator=bases.g)
    return bases.matrices(torch.where(upper, 1.0, scales(b, 4, bases.g)), m, n)


def _one_large(b: int, m: int, n: int, bases: Bases) -> Tensor:
    return bases.matrices(torch.where(torch.arange(min(m, n)) < 1, 1.0, scales(b, 4, bases.g)), m, n)


def _momenta(b: int, m: int, n: int, bases: Bases) -> Tensor:
    power = 0.25 + 3 * torch.rand(b, 1, 1, generator=bases.g, dtype=torch.float64)
    return bases.matrices(torch.arange(1, min(m, n) + 1) ** -power, m, n)


def _experts(b: int, m: int, n: int, bases: Bases) -> Tensor:
    inputs = normal(b, 1, n, bases.g).exp() + 2 * normal(b, m, 1, bases.g) * normal(b, 1, n, bases.g)
    return (normal(b, m, n, bases.g) * inputs) * 1e6 * scales(b, 12, bases.g)


def _signs(b: int, m: int, n: int, bases: Bases) -> Tensor:
    return normal(b, m, n, bases.g).sign()


def _hadamard(b: int, m: int, n: int, bases: Bases) -> Tensor:
    return hadamard(m, n) * normal(b, m, 1, bases.g).sign() * normal(b, 1, n, bases.g).sign()


def _constant(b: int, m: int, n: int, bases: Bases) -> Tensor:
    return 1 + scales(b, 12, bases.g) * normal(b, m, n, bases.g)


def _identity(b: int, m: int, n: int, bases: Bases) -> Tensor:
    return torch.eye(m, n, dtype=torch.float64) + scales(b, 8, bases.g) * normal(b, m, n, bases.g)


def _sparse_rows(b: int, m: int, n: int, bases: Bases) -> Tensor:
    kept = torch.rand(b, m, 1, generator=bases.g) < 0.25
    kept[:, 0] = True
    return normal(b, m, n, bases.g) * kept


FAMILIES = {
    "Gaussian": _gaussian, "graded": _graded, "graded rows": _graded_rows, "low rank and noise": _low_rank,
    "flat": _flat, "two levels": _two_levels, "one large": _one_large, "momenta": _momenta, "experts": _experts,
    "signs": _signs, "Hadamard": _hadamard, "constant and noise": _constant, "identity and noise": _identity,
    "sparse rows": _sparse_rows,
}  # fmt: skip
