"""Both bounds of a best approximation: duality below, Taylor models in balls above."""

import math

import flint
from flint import arb, arb_mat, arb_poly, arb_series

from spectrain.approx._exchange import Known
from spectrain.approx._jet import UndecidedError, follow
from spectrain.approx._precision import precise
from spectrain.approx._problem import Problem
from spectrain.approx._range import BudgetError, proven_range


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
    """``w (f - p)`` for a polynomial p with exact coefficients, as values and as Taylor models."""

    def __init__(self, problem: Problem, polynomial: arb_poly, order: int = 8) -> None:
        self.problem = problem
        self.polynomial = polynomial
        self.order = order
        self._slopes = [polynomial]

    def _series(self, x: arb, order: int) -> tuple[arb_poly, arb_poly]:
        points = [arb_series([x, 1] if order > 1 else [x], prec=order)]
        f = follow(self.problem.target_ball, points, order)[0]
        if self.problem.weight_ball is None:
            return arb_poly([f[k] for k in range(order)]), arb_poly([1])
        w = follow(self.problem.weight_ball, points, order)[0]
        return arb_poly([f[k] for k in range(order)]), arb_poly([w[k] for k in range(order)])

    def _expansion(self, x: arb) -> arb_poly:
        return self.polynomial(arb_poly([(x - self.problem.shift) / self.problem.scale, 1 / self.problem.scale]))

    def derivatives(self, x: arb, order: int) -> list[arb]:
        """Taylor coefficients of the error at x."""
        f, w = self._series(x, order)
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

    def model(self, m: arb, r: arb) -> arb_poly:
        """Taylor model on |t| <= r, or one ball for the values where a kink lies inside."""
        p = self._expansion(m)
        try:
            f, w = self._wide(m, r)
            return w * (f - p)
        except UndecidedError:
            f, w = self._series(arb(m, r), 1)
            return arb_poly([w[0] * (f[0] - p(arb(0, r)))])

    def _wide(self, m: arb, r: arb) -> tuple[arb_poly, arb_poly]:
        (f, w), (f_wide, w_wide) = self._series(m, self.order), self._series(arb(m, r), self.order)
        f[self.order - 1] = f_wide[self.order - 1]
        if self.problem.weight_ball is not None:
            w[self.order - 1] = w_wide[self.order - 1]
        if not all(c.is_finite() for c in (*f.coeffs(), *w.coeffs())):
            raise UndecidedError
        return f, w

    def bounds(self, pieces: list[tuple[arb, arb]], slack: arb, found: list[arb] | None = None) -> tuple[arb, arb]:
        """Proven lower and upper bound of max |w (f - p)|; raises UnprovableError.

        ``found`` collects the points where larger and larger errors were met. Models grow longer where short ones do
        not come to an end: recurrences in ``f`` widen balls by orders of magnitude, which a high power of the radius
        makes up for.
        """
        for order, budget in (
            (self.order, 600 + 6 * self.polynomial.length()),
            (3 * self.order, 2_000),
            (6 * self.order, 6_000),
        ):
            model = ErrorModel(self.problem, self.polynomial, order)
            try:
                low_bound, _, high, high_bound = proven_range(
                    model.model, model.point, pieces, symmetric=True, slack=slack, budget=budget, found=found
                )
                return high, max(high_bound, -low_bound)
            except BudgetError as problem:
                last = problem
        raise last
