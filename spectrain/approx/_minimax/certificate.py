"""Both bounds of a best approximation: duality below, Taylor models in balls above.

The bound above is a rigorous supremum norm of the error, whatever polynomial it is the error of.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import flint
from flint import arb, arb_mat, arb_poly, arb_series

from spectrain.approx._balls.branches import NotFollowedError, UndecidedError
from spectrain.approx._balls.jet import follow, values_over
from spectrain.approx._balls.range import UnprovableError, ball, float_down, float_up, precise, proven_range
from spectrain.approx._balls.zoom import Zoom
from spectrain.approx._minimax.domain import intervals_of
from spectrain.approx._minimax.level import Known
from spectrain.approx._minimax.problem import Problem

_ORDER = 8
"""Length of the Taylor models; any length is rigorous, this one is about the fastest."""
_PATIENCE = 12
"""Pieces on which short models may fail before longer ones are taken."""


def enclose(error: Callable[[Any], Any], interval: Sequence[Any], *, bits: int = 128) -> tuple[float, float]:
    """(low, high) with ``low <= max |error| <= high`` on the interval, or on a union of intervals: proven.

    ``error`` is called on object arrays of balls (python-flint) that know arithmetic, ``abs``, comparisons and the
    usual functions under their NumPy names; ``np.exp(x) - p(x)`` with a `Polynomial` p is such a function. Kinks and
    branches are allowed. high / low - 1 is about 1e-15 where the function is smooth. ``bits`` is the working precision.
    Raises ValueError where the function cannot be followed or the proof does not close. Branch and bound with Taylor
    models, as in Sollya's ``supnorm`` (Chevillard, Harrison, Joldes and Lauter, *Efficient and accurate computation of
    upper bounds of approximation errors*, 2011).

    >>> import numpy as np
    >>> low, high = enclose(lambda x: np.sin(x) - x, (0.0, 1.0))
    >>> low <= 1 - np.sin(1.0) <= high <= low + 1e-15
    True
    """
    pieces = intervals_of(interval)
    with precise(bits):
        try:
            low, high = sup_norm(lambda x: error(x), [(ball(a), ball(b)) for a, b in pieces])
        except (NotFollowedError, UnprovableError) as problem:
            raise ValueError(
                f"enclose: no proof for this function ({problem}). Write it with arithmetic and NumPy functions of x."
            ) from problem
        return float_down(low), float_up(high)


def sup_norm(
    error: Callable[[Any], Any], pieces: list[tuple[arb, arb]], *, slack: arb | None = None, budget: int = 20_000
) -> tuple[arb, arb]:
    """Lower and upper bound of max |error| on the pieces, at the working precision."""

    def point(x: arb) -> tuple[arb, arb]:
        try:
            series = follow(error, [arb_series([x, 1], prec=2)], 2)[0]
            return series[0], series[1]
        except UndecidedError:
            return follow(error, [arb_series([x], prec=1)], 1)[0][0], arb("nan")

    def model(m: arb, r: arb) -> arb_poly | list[arb]:
        return taylor(error, m, r)

    bounds = proven_range(model, point, pieces, symmetric=True, slack=slack, budget=budget)
    return bounds[2], max(bounds[3], -bounds[0])


def taylor(f: Callable[[Any], Any], m: arb, r: arb) -> arb_poly | list[arb]:
    """Taylor model of f(m + t) for |t| <= r; a ball for the values of each branch where a kink lies inside."""
    wide = arb(m, r)
    try:
        at, over = follow(f, [_variable(m), _variable(wide)], _ORDER)
        coefficients = [at[k] for k in range(_ORDER - 1)] + [over[_ORDER - 1]]
        if all(c.is_finite() for c in coefficients):
            return arb_poly(coefficients)
    except UndecidedError:
        pass
    return values_over(f, wide)


def _variable(x: arb) -> arb_series:
    return arb_series([x, 1], prec=_ORDER)


def dual_bound(problem: Problem, points: list[Known], signs: list[int]) -> arb:
    """A ball whose lower end is at most the least error: linear programming duality on n + 1 points.

    Multipliers m with ``sum m_i phi_j(x_i) = 0`` for every basis function give, for every polynomial p,
    ``|sum m_i f_i| = |sum m_i (f - p)(x_i)| <= max w |f - p| * sum |m_i| / w_i``. For a Chebyshev
    system this is the bound of de la Vallee-Poussin; it needs no such system.
    """
    if not points:
        return arb(0)
    rows = [[*problem.basis_ball(x), s / w] for (x, _, w), s in zip(points, signs, strict=True)]
    with precise(max(128, flint.ctx.prec - problem.spare)):
        bound = _dual(rows, points)
    # A system that fewer digits do not solve gets them all.
    return bound if problem.spare == 0 or bound.rel_accuracy_bits() > 64 else _dual(rows, points)


def alternating_bound(problem: Problem, points: list[Known], polynomial: arb_poly) -> arb:
    """The same bound for a Chebyshev system without a linear system: the least of n + 1 alternating errors of any
    polynomial (de la Vallee-Poussin 1910). 0 where they do not alternate for certain, in order, away from a common
    zero of the powers."""
    z = [(x - problem.shift) / problem.scale for x, _, _ in points]
    errors = [w * (f - polynomial(at)) for at, (_, f, w) in zip(z, points, strict=True)]
    flips = [e if k % 2 == 0 else -e for k, e in enumerate(errors)]
    ordered = all(a < b for a, b in pairwise(x for x, _, _ in points))
    away = problem.powers[0] == 0 or all(not x.contains(arb(0)) for x, _, _ in points)
    weighed = all(w > 0 for _, _, w in points)
    same = all(e > 0 for e in flips) or all(e < 0 for e in flips)
    if len(points) != problem.unknowns + 1 or not (ordered and away and weighed and same):
        return arb(0)
    # Ends of balls are numbers: compared as such, not as the doubles next to them.
    return min(abs(e).lower() for e in errors)


def _dual(rows: list[list[arb]], points: list[Known]) -> arb:
    n = len(points)
    try:
        m = arb_mat(rows).transpose().solve(arb_mat([[int(i == n - 1)] for i in range(n)]))
    except ZeroDivisionError:  # points that tell nothing
        return arb(0)
    value = sum((m[i, 0] * f for i, (_, f, _) in enumerate(points)), arb(0))
    mass = sum((abs(m[i, 0]) / w for i, (_, _, w) in enumerate(points)), arb(0))
    return abs(value) / mass


class ErrorModel:
    """``w (f - p)`` for a polynomial p with exact coefficients, as values and as Taylor models.

    The models begin with ``order`` coefficients and grow longer where short ones are of no use: recurrences in ``f``
    widen balls by orders of magnitude, which a high power of the radius makes up for.
    """

    def __init__(self, problem: Problem, polynomial: arb_poly, order: int = 8) -> None:
        self.problem = problem
        self.polynomial = polynomial
        self.order = order
        self._slopes = [polynomial]
        self._zoom: Zoom | None = None
        self._threshold = arb(0)
        self._longer = [_Longer(3 * order, _budget(polynomial)), _Longer(6 * order, _budget(polynomial) + 2_000)]
        self._asked = self._lost = 0

    def _series(self, points: list[arb], order: int) -> list[tuple[arb_poly, arb_poly]]:
        """Taylor coefficients of target and weight at points (or over balls)."""
        given = [arb_series([x, 1] if order > 1 else [x], prec=order) for x in points]
        f = follow(self.problem.target_ball, given, order)
        w = follow(self.problem.weight_ball, given, order) if self.problem.weight_ball else None
        rows = [arb_poly([v[k] for k in range(order)]) for v in f]
        weights = [arb_poly([v[k] for k in range(order)]) for v in w] if w else [arb_poly([1])] * len(rows)
        return list(zip(rows, weights, strict=True))

    def _expansion(self, m: arb, r: arb) -> arb_poly:
        if self._zoom is not None:
            return self._zoom.model(m, r)
        return self.polynomial(arb_poly([(m - self.problem.shift) / self.problem.scale, 1 / self.problem.scale]))

    def derivatives(self, x: arb, order: int) -> list[arb]:
        """Taylor coefficients of the error at x."""
        ((f, w),) = self._series([x], order)
        e = w * (f - self._start(x, order))
        return [e[k] for k in range(order)]

    def _start(self, x: arb, order: int) -> arb_poly:
        """The first coefficients of the expansion at x, a Horner's rule for each: a whole shift costs far more."""
        z = (x - self.problem.shift) / self.problem.scale
        while len(self._slopes) < order:
            self._slopes.append(self._slopes[-1].derivative())
        terms = zip(self._slopes[:order], range(order), strict=True)
        return arb_poly([q(z) / (self.problem.scale**k * math.factorial(k)) for q, k in terms])

    def point(self, x: arb) -> tuple[arb, arb]:
        """The error and its derivative (nan at a kink)."""
        try:
            value, slope = self.derivatives(x, 2)
            return value, slope
        except UndecidedError:
            return self.derivatives(x, 1)[0], arb("nan")

    def model(self, m: arb, r: arb) -> arb_poly | list[arb]:
        """Taylor model on |t| <= r, or a ball for the values of each branch where a kink lies inside."""
        p = self._expansion(m, r)
        self._asked += 1
        try:
            f, w = self._wide(m, r)
            self._lengthen(f, p, r)
            return w * (f - p)
        except UndecidedError:
            values = values_over(self.problem.target_ball, arb(m, r))
            over = self.problem.weight_ball
            weight = follow(over, [arb_series([arb(m, r)], prec=1)], 1)[0][0] if over else arb(1)
            return [weight * (f - p(arb(0, r))) for f in values]

    def _wide(self, m: arb, r: arb) -> tuple[arb_poly, arb_poly]:
        (f, w), (f_wide, w_wide) = self._series([m, arb(m, r)], self.order)
        f[self.order - 1] = f_wide[self.order - 1]
        if self.problem.weight_ball is not None:
            w[self.order - 1] = w_wide[self.order - 1]
        if not all(c.is_finite() for c in (*f.coeffs(), *w.coeffs())):
            raise UndecidedError
        return f, w

    def _lengthen(self, f: arb_poly, p: arb_poly, r: arb) -> None:
        """Take longer models for the next pieces where the rest of this one covers waves that p resolves."""
        if not self._longer:
            return
        last = self.order - 1
        waves = sum((abs(p[k]) * r**k for k in range(last, p.length())), arb(0))
        body = sum((abs(f[k].mid()) * r**k for k in range(last)), arb(0))
        self._lost += bool(f[last].rad() * r**last > body / 4 and waves < body / 64)
        if self._lost > _PATIENCE or self._asked > self._longer[0].after:
            self.order, self._lost = self._longer.pop(0).order, 0
            self._zoom_in()

    def _zoom_in(self) -> None:
        if self.polynomial.length() > 2 * self.order:
            shift, scale = self.problem.shift, self.problem.scale
            self._zoom = Zoom(self.polynomial, shift, scale, threshold=self._threshold, highest=self.order)
        else:
            self._zoom = None

    def bounds(self, pieces: list[tuple[arb, arb]], slack: arb, found: list[arb] | None = None) -> tuple[arb, arb]:
        """Proven lower and upper bound of max |w (f - p)|; raises UnprovableError.

        ``found`` collects the points where larger and larger errors were met.
        """
        self._threshold = slack / 2**20
        self._zoom_in()
        low_bound, _, high, high_bound = proven_range(
            self.model, self.point, pieces, symmetric=True, slack=slack,
            budget=_budget(self.polynomial) + 8_000, found=found,
        )  # fmt: skip
        return high, max(high_bound, -low_bound)


class _Longer(NamedTuple):
    """The next length of models, and the number of pieces after which it is taken in any case."""

    order: int
    after: int


def _budget(polynomial: arb_poly) -> int:
    return 600 + 6 * polynomial.length()
