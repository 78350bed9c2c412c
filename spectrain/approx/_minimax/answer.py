"""What is known about a best approximation: the polynomial, both bounds, and how they were found."""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from math import log2
from typing import Any

import flint
import numpy as np
from flint import arb, arb_poly, fmpq, fmpq_poly

from spectrain.approx._balls.branches import NotFollowedError, UndecidedError
from spectrain.approx._balls.range import UndefinedError, UnprovableError, ball, float_down, float_up, precise
from spectrain.approx._minimax.certificate import ErrorModel, alternating_bound, dual_bound
from spectrain.approx._minimax.domain import is_chebyshev
from spectrain.approx._minimax.exchange import peaks_of
from spectrain.approx._minimax.level import Known
from spectrain.approx._minimax.problem import Problem
from spectrain.approx._polynomial import Polynomial

EXACT = 2.0**-900
"""An error of less than this times the target counts as none."""

EXACT_DIGITS = 960
"""A level of less than 2^-960 of the target leaves the range of doubles: the search for one ends."""

_PEAKS = 8
"""Peaks above the level that are handed back, beside as many as the reference has points."""


_SPACING = 2.0**-1072
"""Four times the least positive double."""

_WORDS = {
    "exact": "exact to all bits computed with",
    "rounding": "below the rounding of float64",
    "stopped": "stopped with a gap",
}


@dataclass(frozen=True)
class Minimax:
    """A best approximation and what is known about it.

    ``polynomial`` has double coefficients; ``exact`` are those found, as fractions, and the bounds are for the exact
    polynomial: ``lower <= E* <= upper`` encloses the least possible error, ``error`` is the level at the reference.
    ``reference`` are the points where the error takes the level with ``signs``. ``status`` is one of

    - ``alternation``: the powers form a Chebyshev system and the error alternates at one point more than there are
      powers, which characterises the best approximation; the bounds meet within ``tolerance``;
    - ``duality``: they do not, so alternation proves nothing; the lower bound comes from LP duality;
    - ``exact``: the error is 0 to ``precision`` bits, all that was computed with, and proven to be next to nothing;
    - ``rounding``: the error is below the rounding of float64: under 2^-960 of the target, or as small as the rounding
      of a target that is known in doubles only; the bounds say what is known of it;
    - ``stopped``: the search ended with a gap; the bounds say how large.
    """

    polynomial: Polynomial
    exact: tuple[Fraction, ...]
    error: float
    lower: float
    reference: tuple[float, ...]
    signs: tuple[int, ...]
    iterations: int
    precision: int
    status: str
    problem: Problem = field(repr=False, compare=False)
    local: arb_poly = field(repr=False, compare=False)
    size: float = field(repr=False, compare=False)

    def __call__(self, x: Any) -> Any:
        """The polynomial by Clenshaw's recurrence in Chebyshev polynomials of the hull: stable at any degree.

        ``polynomial(x)`` evaluates the coefficients of the powers, which cancel where the degree is high or the
        interval is far from 0. Takes floats, arrays, tensors and balls.
        """
        low, high = self.interval[0][0], self.interval[-1][1]
        t = ((x + (-low)) - (high + x * (-1.0))) * (1.0 / (high - low))
        here, ahead = x * 0.0, x * 0.0
        for c in reversed(self.chebyshev[1:]):
            here, ahead = t * here * 2.0 + ahead * (-1.0) + c, here
        return t * here + ahead * (-1.0) + self.chebyshev[0]

    def with_status(self, status: str) -> "Minimax":
        """The same under another status, with the proof that was found."""
        same = replace(self, status=status)
        same.__dict__.update({k: v for k, v in self.__dict__.items() if k not in same.__dict__})
        return same

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Coefficients of the powers, lowest first."""
        return self.polynomial.coefficients

    @property
    def interval(self) -> tuple[tuple[float, float], ...]:
        """The pieces of the domain."""
        return self.problem.pieces

    @cached_property
    def chebyshev(self) -> tuple[float, ...]:
        """Coefficients in Chebyshev polynomials of the hull of the domain: the form that evaluates stably."""
        with precise(self.precision + 64):
            z = arb_poly([self.problem.centre, self.problem.half])
            inner = (z - self.problem.shift) * (1 / self.problem.scale)
            return tuple(_chebyshev_form(self.local(inner)))

    @cached_property
    def _enclosure(self) -> tuple[float, float, bool, tuple[float, ...]]:
        """Both bounds of the error, whether they are a proof, and points with large errors."""
        with precise(self.precision):
            try:
                if not self.problem.followed:
                    raise NotFollowedError("the target is known at doubles only")
                # What is below the range of doubles needs no more than to be known as that.
                nothing = self.error <= 2.0**-EXACT_DIGITS * self.size
                digits = -log2(max(self.error / self.size, 2.0**-EXACT_DIGITS))
                # A target that is a polynomial has Taylor models without a rest, once they are longer than it is.
                order = self.local.length() + 1 if self.status == "exact" else 8 + int(max(digits, 0.0) / 5)
                model = ErrorModel(replace(self.problem), self.local, order=order)
                slack = ball(self.error) * ball(2.0**-50) + ball(self.size) * ball(2.0) ** -(
                    min(self.precision - 2 * self.problem.powers[-1] - 60, 1000 if nothing else 1100)
                )
                pieces = [(ball(a), ball(b)) for a, b in self.problem.pieces]
                met: list[arb] = []
                low, high = model.bounds(pieces, slack, met)
                return float_down(low), float_up(high), True, tuple(float(x) for x in met[:-4:-1])
            except (NotFollowedError, UndecidedError, UnprovableError) as problem:
                if isinstance(problem, UndefinedError):
                    # Where doubles say the same, that is an error of the caller's.
                    self.problem.values(np.array([problem.at]))
                largest, peaks = self._sample()
                return largest, largest, False, peaks

    def _sample(self) -> tuple[float, tuple[float, ...]]:
        """The largest error on a dense grid, in double precision, and where it is above the level."""
        x = np.concatenate([a + (b - a) * (1 - np.cos(np.linspace(0, np.pi, 20_001))) / 2 for a, b in self.interval])
        x = np.unique(np.concatenate([x, self.reference]))
        f, w = self.problem.values(x)
        hull = (self.interval[0][0], self.interval[-1][1])
        p = np.polynomial.Chebyshev(np.array(self.chebyshev), domain=hull)
        e = np.abs(w * (f - p(x)))
        least = self.error * (1 + 1e-12) + 2.0**-44 * self.size
        peaks = sorted(peaks_of(e, least), key=lambda k: -e[k])[: len(self.reference) + _PEAKS]
        return float(e.max()), tuple(float(x[k]) for k in peaks)

    @property
    def upper(self) -> float:
        """Upper bound of the error of the exact polynomial: proven by balls, or sampled (see ``proven``)."""
        return self._enclosure[1]

    @property
    def proven(self) -> bool:
        """Whether ``upper`` is a proof rather than the largest error on a dense grid."""
        return self._enclosure[2]

    @property
    def peaks(self) -> tuple[float, ...]:
        """Points where the error is larger than the level: the largest that the proof, or the dense grid, met."""
        return self._enclosure[3]

    @property
    def closed(self) -> bool:
        """Whether the bounds meet: within ``tolerance`` of each other, or both at the working precision."""
        if self.status == "exact":
            return self.upper <= EXACT * self.size
        if self.status == "rounding":
            return self.upper <= 2.0**-40 * self.size
        return self.upper - self.lower <= self.tolerance * self.upper + _SPACING

    @property
    def tolerance(self) -> float:
        """The gap at which the search is over: 1e-12, or what the rounding of a sampled target leaves."""
        rounding = 2.0**-50 * self.size / self.error if self.error and not self.proven else 0.0
        return max(1e-12, min(rounding, 1.0))

    @property
    def gap(self) -> float:
        """``(upper - lower) / upper``; 0 where the error is proven to be below the range of doubles."""
        return (self.upper - self.lower) / self.upper if self.upper and not self._nothing else 0.0

    @property
    def _nothing(self) -> bool:
        return self.status == "exact" or (self.status == "rounding" and self.proven)

    def __str__(self) -> str:
        bounds = f"{self.lower:.16g} <= E <= {self.upper:.16g}"
        proof = "proven" if self.proven else "upper bound sampled on a dense grid, not proven"
        found = f"{_WORDS.get(self.status, self.status)}, {self.iterations} exchanges"
        return f"{self.polynomial}\nerror {self.error:.10g}, {bounds} ({proof}); {found}"


def finish(
    problem: Problem,
    small: Problem,
    points: list[Known],
    signs: list[int],
    c: list[arb],
    h: arb,
    *,
    size: float,
    iterations: int,
    status: str,
) -> Minimax:
    """Round the answer to doubles, keep it as fractions, and prove the lower bound."""
    local = small.polynomial(c)
    low = _lower(small, points, signs, local, h)
    exact = _powers_of_x(small, local, problem.powers)
    return Minimax(
        polynomial=Polynomial(problem.powers, tuple(map(_double, exact))),
        exact=exact,
        error=float(abs(h)),
        lower=max(0.0, float_down(low)) if low.is_finite() else 0.0,
        reference=tuple(float(x) for x, _, _ in points),
        signs=tuple(s if h >= 0 else -s for s in signs),
        iterations=iterations,
        precision=flint.ctx.prec,
        status=status,
        problem=problem,
        local=local,
        size=size,
    )


def _lower(small: Problem, points: list[Known], signs: list[int], local: arb_poly, h: arb) -> arb:
    """The larger of two lower bounds; the dear one only where the errors at the reference are not level."""
    cheap = alternating_bound(small, points, local) if is_chebyshev(small) and not small.conditions else arb(0)
    if cheap >= abs(h) * (1 - ball(2.0**-52)):
        return cheap
    low = dual_bound(small, points, signs)
    return low if low.is_finite() and low.lower() > cheap else cheap


def _double(v: Fraction) -> float:
    try:
        return float(v)
    except OverflowError:
        return float("inf") if v > 0 else float("-inf")


def _powers_of_x(problem: Problem, local: arb_poly, powers: tuple[int, ...]) -> tuple[Fraction, ...]:
    """Exact coefficients of x^n from those of the scaled variable."""
    exact = fmpq_poly([c.mid().fmpq() if not c.is_zero() else fmpq(0) for c in local.coeffs()])
    shift, scale = problem.shift.fmpq(), problem.scale.fmpq()
    dense = exact(fmpq_poly([-shift / scale, 1 / scale])).coeffs()
    dense += [fmpq(0)] * (powers[-1] + 1 - len(dense))
    return tuple(Fraction(int(dense[n].p), int(dense[n].q)) for n in powers)


def _chebyshev_form(p: arb_poly) -> list[float]:
    """Chebyshev coefficients of a polynomial on [-1, 1], through its values at the Chebyshev points."""
    n = max(p.length(), 1)
    nodes = [arb.cos_pi_fmpq(fmpq(2 * k + 1, 2 * n)) for k in range(n)]
    values = [p(x) for x in nodes]
    result = []
    for j in range(n):
        terms = (v * arb.cos_pi_fmpq(fmpq(j * (2 * k + 1), 2 * n)) for k, v in enumerate(values))
        result.append(float(sum(terms, arb(0)) * (1 if j == 0 else 2) / n))
    return result
