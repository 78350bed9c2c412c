"""Of all ways to write N = ab + c with naturals a, b, c, which makes a + b + c smallest?

Put p = a + b and q = b - a. Then 4c = q^2 - (p^2 - 4N), so for a given p the best q is the smallest one with the
parity of p that keeps c >= 0. Below 2 sqrt(N) the sum p + c falls with p; above, c >= 0 means that no p beyond the
best sum can win. That leaves fewer than sqrt(1 + 4 sqrt(N)) + 4 values of p, and about N^(1/6) in practice.

Source: article 9775 (kexue.fm/archives/9775). Its bound is proved; the N^(1/6) is a heuristic count (square roots
with random fractional parts) that ``benchmarks/gallery/gallery_product_sum.py`` measures.

>>> solve(130)
(10, 13, 0)
>>> all_minimisers(5)
[(0, 0, 5), (2, 2, 1)]
>>> verify(certificate(10**12 + 1))
True
"""

from dataclasses import dataclass
from math import isqrt
from typing import SupportsIndex

import numpy as np

from spectrain._drawing import Line, Picture

BLOCK = 1 << 14  # values of p handled at once: four arrays of this length stay in the second-level cache
SAFE_ROOT = 1 << 55  # below this root a float64 square root is off by at most 16, and q^2 - D fits 64 bits

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Certificate:
    """What was searched for N, what was found there, and (``reasons``) why nothing outside can win."""

    N: int
    sum: int
    minimisers: tuple[Triple, ...]
    first: int
    last: int

    @property
    def reasons(self) -> tuple[str, ...]:
        """The proof in four sentences, each of which ``verify`` turns into a check."""
        return (
            f"Each of {list(self.minimisers)} has ab + c = {self.N} and a + b + c = {self.sum}.",
            (
                f"p = a + b < {self.first} has p^2 <= 4N: the sum N + p - floor(p^2/4) falls with p from p = 3 on, and "
                "before that it is at least N, the sum of (0, 0, N), which is tried by itself."
            ),
            (
                f"p from {self.first} to {self.last}: the smallest q >= 0 with q = p mod 2 and q^2 >= p^2 - 4N "
                "gives the least c for this p; all were computed in exact integers."
            ),
            f"p > {self.last}: the sum p + c is at least p, hence above {self.sum}.",
        )


def solve(N: SupportsIndex | float) -> Triple:
    """The triple (a, b, c), a <= b, with N = ab + c and the least sum; the least a + b wins a tie.

    Cost: fewer than sqrt(1 + 4 sqrt N) + 4 square roots (proved), about 2 N^(1/6) as measured, at some 10 ns each
    up to N = 10^48. Raises ValueError unless N is a natural number.

    >>> a, b, c = solve(10**20)
    >>> (a, b, c) == (10**10, 10**10, 0)
    True
    """
    return certificate(N).minimisers[0]


def all_minimisers(N: SupportsIndex | float) -> list[Triple]:
    """Every triple (a, b, c), a <= b, of least sum, in order of a + b.

    >>> all_minimisers(4)
    [(0, 0, 4), (2, 2, 0)]
    """
    return list(certificate(N).minimisers)


def certificate(N: SupportsIndex | float) -> Certificate:
    """Search, and return the answer together with the range searched and the reasons that it is enough.

    >>> c = certificate(130)
    >>> c.sum, c.first, c.last
    (23, 22, 23)
    """
    N = _natural(N)
    first = p = isqrt(4 * N)
    best, winners = N, {0: (0, 0, N)}
    while p <= best:
        stop, found = _block(N, first, p, best)
        for at, c in found:
            if at + c < best:
                best, winners = at + c, {}
            if at + c == best:
                a = (at - isqrt(at * at - 4 * N + 4 * c)) // 2
                winners[at] = (a, at - a, c)
        p = stop
    return Certificate(N, best, tuple(winners[p] for p in sorted(winners)), first, best)


def verify(claim: Certificate) -> bool:
    """Check a certificate by a search of its own that goes the other way: is there a square that would win?

    For each p a winning or tying q has p^2 - 4N <= q^2 <= p^2 - 4N + 4(sum - p): the largest q of the right parity
    under the upper end is compared with the lower end. Plain integers, about a microsecond for each p.

    >>> import dataclasses
    >>> verify(dataclasses.replace(certificate(130), sum=24))
    False
    """
    N, best = claim.N, claim.sum
    numbers = (N, best, claim.first, claim.last, *(x for triple in claim.minimisers for x in triple))
    if not all(isinstance(x, int) and x >= 0 for x in numbers) or any(len(triple) != 3 for triple in claim.minimisers):
        return False
    honest = all(a * b + c == N and a + b + c == best and 0 <= a <= b and c >= 0 for a, b, c in claim.minimisers)
    covers = claim.first <= isqrt(4 * N) and claim.last >= best
    if not (honest and covers and claim.minimisers and best <= N):
        return False
    ties = {0: (0, 0, N)} if best == N else {}
    for p in range(isqrt(4 * N), best + 1):
        slack = 4 * (best - p)
        D = p * p - 4 * N
        q = isqrt(D + slack) if D + slack >= 0 else -1
        q -= (q ^ p) & 1
        while q >= 0 and q * q >= D:
            if p + (q * q - D) // 4 < best:  # a better sum: the claim is refuted, however large the rest
                return False
            ties[p] = ((p - q) // 2, (p + q) // 2, (q * q - D) // 4)
            q -= 2
    return tuple(ties[p] for p in sorted(ties)) == claim.minimisers


def _natural(N: SupportsIndex | float) -> int:
    """N as a Python integer, or a ValueError that states the domain."""
    try:
        value = N.__index__()  # type: ignore[union-attr]
    except (AttributeError, TypeError):
        raise ValueError(f"product_sum: N must be an integer, got {N!r}. Write a natural number such as 130.") from None
    if value < 0:
        raise ValueError(f"product_sum: N must be 0, 1, 2, ..., got {value}: a, b and c are naturals, so is ab + c.")
    return value


def _block(N: int, first: int, p: int, best: int) -> tuple[int, list[tuple[int, int]]]:
    """Handle the next few p: where to go on, and the pairs (p, least c) that reach the block's least sum.

    One by one at first, where the best sum falls quickly and where p^2 - 4N is too small against p for the
    error estimate of ``_least_sums``; then by blocks.
    """
    if p < first + 64:
        return p + 1, [(p, _least_c(N, p))]
    stop = min(best + 1, p + BLOCK)
    if stop * stop - 4 * N < SAFE_ROOT**2:
        sums = _least_sums(N, first, p - first, stop - first)
    else:
        sums = np.array([i + _least_c(N, i) - first for i in range(p, stop)], dtype=object)
    winners = p + np.flatnonzero(sums == sums.min()).astype(object)
    return stop, [(i, int(sums.min()) + first - i) for i in winners]


def _least_c(N: int, p: int) -> int:
    """The least c >= 0 with p^2 - 4N + 4c a square of the parity of p."""
    D = p * p - 4 * N
    q = isqrt(D - 1) + 1 if D > 0 else 0
    q += (q ^ p) & 1
    return (q * q - D) // 4


def _least_sums(N: int, first: int, start: int, stop: int) -> np.ndarray:
    """p + c - first for p = first + t, start <= t < stop, exactly, in 64-bit integers.

    D = p^2 - 4N itself has more than 64 bits, but q^2 - D, with q the rounded square root, has fewer: it is
    computed modulo 2^64, where the wrap-around of unsigned integers is exact, and q is then moved by twos.
    """
    D0, slope = first * first - 4 * N, 2 * first
    t = np.arange(start, stop, dtype=np.int64)
    q = np.rint(np.sqrt(float(D0) + t * (float(slope) + t))).astype(np.int64)
    q += (q + t + (first & 1)) & 1
    u = t.view(np.uint64)
    D = u * (u + np.uint64(slope % 2**64)) + np.uint64(D0 % 2**64)
    r = (q.view(np.uint64) ** 2 - D).view(np.int64)
    while (low := r < 0).any():
        r += low * (4 * q + 4)
        q += 2 * low
    while (high := r >= 4 * q - 4).any():
        r -= high * (4 * q - 4)
        q -= 2 * high
    return t + (r >> 2)


@dataclass(frozen=True)
class Show:
    """The sum a + b + c over p = a + b, and where the search may stop."""

    N: int = 271_828_182_845
    """the number to write as ab + c"""

    def __call__(self) -> tuple[str, Picture]:
        """The answer with its proof, and the picture of the search."""
        found = certificate(self.N)
        first, shown = found.first, min(found.last, found.first + 2000)
        t = np.arange(shown - first + 1)
        over = [1 + i + _least_c(found.N, first + i) for i in t.tolist()]
        winners = [(a + b - first, 1 + found.sum - first) for a, b, _ in found.minimisers]
        lines = (
            Line(t, over, name="p + least c", style="points"),
            Line(t, 1 + t, name="p alone: beyond the crossing none can win", style="dash"),
            Line([x for x, _ in winners], [y for _, y in winners], name=f"least sum {found.sum}", style="marks"),
        )
        text = "\n".join([f"{self.N} = ab + c: (a, b, c) = {found.minimisers}, sum {found.sum}", *found.reasons])
        title = f"Least a + b + c with ab + c = {self.N}"
        return text, Picture(title, f"a + b - {first}", f"a + b + c - {first - 1}", lines, log="y")
