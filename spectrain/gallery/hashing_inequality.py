"""Is 1 + p + ... + p^j at most 1 + L + L^2/2! + ... + L^j/j!, where L = log(1/(1-p)) and 0 <= p < 1?

Yes, and "obviously": the right side carried on to infinity is exp(L) = 1/(1-p) = 1 + p + p^2 + ..., and what was
added begins with p^(j+1). So its first j+1 coefficients are exactly 1; the others are sums of products of positive
numbers. ``prove`` runs that argument in exact rationals; ``enclose`` bounds the gap by ball arithmetic, which
knows nothing of the argument; an inequality that is not true is met with a point where it fails.

Source: article 10902 (kexue.fm/archives/10902). L^i/i! = sum over n of c(n, i) p^n/n! with the unsigned Stirling
numbers of the first kind: Graham, Knuth, Patashnik, Concrete Mathematics, (7.50). Balls: Johansson, Arb.

>>> low, high = enclose(3, 0.5)
>>> 0 < low <= high
True
>>> prove(3).holds
True
>>> planted = prove(2, left=(1, 1, 1.01))
>>> planted.holds, planted.counterexample is not None
(False, True)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import inf, nextafter

import numpy as np
from flint import arb, ctx, fmpq

from spectrain._drawing import Line, Picture

Rational = int | float | Fraction
START_BITS, MOST_BITS = 128, 1 << 17
GRID = (1e-12, 1e-6, 1e-3, *(i / 40 for i in range(1, 40)), *(1 - 10.0**-k for k in range(2, 13)))


@dataclass(frozen=True)
class Step:
    """One sentence of an argument and whether it was checked to be true."""

    claim: str
    checked: bool


@dataclass(frozen=True)
class Verdict:
    """An argument as checked steps, or a point at which the claimed inequality is false (or neither)."""

    steps: tuple[Step, ...]
    counterexample: float | None = None

    @property
    def holds(self) -> bool:
        """Whether every step was checked: then the inequality is proved for all 0 <= p < 1."""
        return all(step.checked for step in self.steps)


def coefficients(j: int, order: int) -> list[Fraction]:
    """Power series of the right side up to p^order, exactly: sum_{i<=j} c(n, i)/n! for n = 0, ..., order.

    Cost: order * j exact operations. Raises ValueError for a negative j or order.

    >>> [str(c) for c in coefficients(2, 5)]
    ['1', '1', '1', '5/6', '17/24', '37/60']
    """
    _degree(j)
    if order < 0:
        raise ValueError(f"hashing_inequality: order must be 0, 1, 2, ..., got {order}.")
    return [Fraction(int(row.p), int(row.q)) for row in (sum(r, fmpq(0)) for r in _scaled_stirling(j, order))]


def prove(j: int, *, order: int | None = None, left: Sequence[Rational] | None = None) -> Verdict:
    """Check the argument for ``sum_i left[i] p^i <= sum_{i<=j} L^i/i!`` on 0 <= p < 1; ``left`` is all ones to p^j.

    The steps compare the series of both sides, coefficient by coefficient, up to ``order`` (8 beyond the degree
    unless told); beyond it the left side is zero and the right side is not negative by the first step. Where a
    comparison fails the inequality may still be true: then a point where it is false is searched for and returned.
    Raises ValueError for a negative j and for an ``order`` that does not reach the end of the left side.

    >>> for step in prove(2).steps:
    ...     print(step.checked, step.claim)
    True log(1/(1-p)) = p + p^2/2 + ... has no negative coefficient, hence none of its powers has one.
    True Carried on to infinity, the right side is exp(L) = 1/(1-p): its coefficients up to p^10 are 1.
    True What was added begins with p^3: the coefficients of L^3/3!, L^4/4!, ... up to p^2 are 0.
    True The right side has coefficients 1 up to p^2 and at least 0 up to p^10.
    True No coefficient of the left side is above the one of the right side, up to p^10 and beyond.
    """
    _degree(j)
    claimed = [Fraction(c) for c in ([1] * (j + 1) if left is None else left)]
    degree = max(j, len(claimed) - 1)
    top = degree + 8 if order is None else order
    if top < degree:
        raise ValueError(f"hashing_inequality: order must reach the degree {degree}, got {top}.")
    rows = [[Fraction(int(c.p), int(c.q)) for c in row] for row in _scaled_stirling(top, top)]
    right = [sum(row[: j + 1], Fraction(0)) for row in rows]
    padded = claimed + [Fraction(0)] * (top + 1 - len(claimed))
    steps = (
        Step(
            "log(1/(1-p)) = p + p^2/2 + ... has no negative coefficient, hence none of its powers has one.",
            all(c >= 0 for row in rows for c in row) and all(rows[n][1] == Fraction(1, n) for n in range(1, top + 1)),
        ),
        Step(
            f"Carried on to infinity, the right side is exp(L) = 1/(1-p): its coefficients up to p^{top} are 1.",
            all(sum(row) == 1 for row in rows),
        ),
        Step(
            f"What was added begins with p^{j + 1}: the coefficients of L^{j + 1}/{j + 1}!, L^{j + 2}/{j + 2}!, ... "
            f"up to p^{j} are 0.",
            not any(c for row in rows[: j + 1] for c in row[j + 1 :]),
        ),
        Step(
            f"The right side has coefficients 1 up to p^{j} and at least 0 up to p^{top}.",
            right[: j + 1] == [1] * (j + 1) and min(right) >= 0,
        ),
        Step(
            f"No coefficient of the left side is above the one of the right side, up to p^{top} and beyond.",
            all(a <= b for a, b in zip(padded, right, strict=True)),
        ),
    )
    broken = not all(step.checked for step in steps)
    return Verdict(steps, _counterexample(j, claimed) if broken else None)


def enclose(j: int, p: Rational, *, left: Sequence[Rational] | None = None) -> tuple[float, float]:
    """Floats low <= right side - left side <= high, rigorously; p is taken exactly as given.

    The working precision doubles until the ball is narrower than 1e-15 of its centre, so that low and high are
    neighbours or nearly so, also where both sides agree to thousands of digits. A gap below the smallest float
    gives (0.0, 5e-324). Raises ValueError unless 0 <= p < 1 and j >= 0.

    >>> enclose(5, 0), enclose(0, 0.9)
    ((0.0, 0.0), (0.0, 0.0))
    >>> low, high = enclose(200, 1 - 1e-12)
    >>> low == high or high - low < 1e-14 * high
    True
    """
    _degree(j)
    if not 0 <= p < 1:
        raise ValueError(f"hashing_inequality: p must lie in [0, 1), where log(1/(1-p)) is finite, got {p}.")
    exact = Fraction(p)
    claimed = [Fraction(c) for c in ([1] * (j + 1) if left is None else left)]
    if exact == 0 or (j == 0 and len(claimed) <= 1):
        gap = 1 - (claimed[0] if claimed else Fraction(0))
        return _outward(arb(_fmpq(gap)))
    bits = START_BITS
    while True:
        ball = _gap(j, _fmpq(exact), claimed, bits)
        if ball.rel_accuracy_bits() >= 50 or bits >= MOST_BITS:
            return _outward(ball)
        bits *= 2


def enclose_between(j: int, low: Rational, high: Rational) -> tuple[float, float]:
    """Floats that bound the gap for every p of [low, high] at once: its ends, since the gap rises with p.

    The gap has no negative coefficient (``prove``), so it cannot fall.

    >>> low, high = enclose_between(4, 0.25, 0.5)
    >>> low <= enclose(4, 1/3)[0] and enclose(4, 1/3)[1] <= high
    True
    """
    if not low <= high:
        raise ValueError(f"hashing_inequality: an interval needs low <= high, got {low} and {high}.")
    return enclose(j, low)[0], enclose(j, high)[1]


def _degree(j: int) -> None:
    if j < 0:
        raise ValueError(f"hashing_inequality: j, the last power, must be 0, 1, 2, ..., got {j}.")


def _fmpq(value: Fraction) -> fmpq:
    return fmpq(value.numerator, value.denominator)


def _scaled_stirling(j: int, order: int) -> list[list[fmpq]]:
    """Rows n = 0..order of c(n, i)/n! for i = 0..j, by c(n, i) = (n-1) c(n-1, i) + c(n-1, i-1)."""
    rows = [[fmpq(1)] + [fmpq(0)] * j]
    for n in range(1, order + 1):
        old = rows[-1]
        rows.append([(n - 1) * old[0] / n] + [((n - 1) * b + a) / n for a, b in pairwise(old)])
    return rows


def _gap(j: int, p: fmpq, left: Sequence[Fraction], bits: int) -> arb:
    """Right minus left side as a ball, with ``bits`` bits: both sums by Horner's rule."""
    with ctx.workprec(bits):
        x = arb(p)
        L = -((1 - x).log())
        right, claimed = arb(1), arb(0)
        for i in range(j, 0, -1):
            right = 1 + right * L / i
        for c in reversed(left):
            claimed = claimed * x + arb(_fmpq(c))
        return right - claimed


def _outward(ball: arb) -> tuple[float, float]:
    """The ends of a ball as floats, rounded away from it."""
    with ctx.workprec(2 * START_BITS):
        low, high = ball.lower(), ball.upper()
    down, up = float(low), float(high)
    if not arb(down) <= low:
        down = nextafter(down, -inf)
    if not arb(up) >= high:
        up = nextafter(up, inf)
    return down, up


def _counterexample(j: int, left: Sequence[Fraction]) -> float | None:
    """A grid point at which the gap is negative for certain, if there is one."""
    for p in GRID:
        if enclose(j, p, left=left)[1] < 0:
            return p
    return None


@dataclass(frozen=True)
class Show:
    """The gap between the two sides for several j, on a logarithmic scale."""

    j: tuple[int, ...] = (1, 2, 4, 8, 16)
    """the last powers to draw"""

    def __call__(self) -> tuple[str, Picture]:
        """The argument for the first j, and the enclosed gaps."""
        if not self.j or min(self.j) < 1:  # at j = 0 both sides are 1, and there is no gap to draw
            raise ValueError(f"hashing_inequality: --j needs one power or more, each 1, 2, 3, ..., got {self.j}.")
        grid = np.linspace(0.01, 0.99, 99)
        lines = tuple(Line(grid, [np.mean(enclose(j, p)) for p in grid.tolist()], name=f"j = {j}") for j in self.j)
        proof = prove(self.j[0])
        text = "\n".join([f"j = {self.j[0]}: proved" if proof.holds else "not proved", *(s.claim for s in proof.steps)])
        title = "Right side minus left side: never negative"
        return text, Picture(title, "p", "gap (ball arithmetic)", lines, log="y")
