"""The level at a reference: coefficients and h with ``w (f - p) = signs * h`` at one point more than powers."""

from collections.abc import Sequence
from itertools import pairwise

import flint
import numpy as np
from flint import arb, arb_mat, arb_poly

from spectrain.approx._balls.range import precise
from spectrain.approx._balls.refined import solve_refined
from spectrain.approx._minimax.problem import Array, Problem

Known = tuple[arb, arb, arb]
"""A point with target and weight."""

_MANY = 24
_DEEP = 320
"""Bits beyond those that powers need: from there on interpolation is the faster way."""


def solve_level(problem: Problem, points: list[Known], signs: Sequence[int]) -> tuple[list[arb], arb]:
    """Coefficients and h with w (f - p) = signs * h at the points (x, f, w)."""
    found = _by_interpolation(problem, points, signs)
    if found is not None:
        return found
    # The level in units of the largest 1 / w, so that it weighs as much as the coefficients.
    unit = max((abs(w) for _, _, w in points), key=lambda w: -float(w)).mid()
    rows = [[*problem.basis_ball(x), s * unit / w] for (x, _, w), s in zip(points, signs, strict=True)]
    right = [f.mid() for _, f, _ in points]
    with precise(max(128, flint.ctx.prec - problem.spare)):
        solution = solve_refined(rows, right, _in_doubles(problem, points, rows))
        if solution is None:
            solution = list(arb_mat(rows).solve(arb_mat([[v] for v in right]), algorithm="approx").entries())
    return [v.mid() for v in solution[:-1]], (solution[-1] * unit).mid()


def _in_doubles(problem: Problem, points: list[Known], rows: list[list[arb]]) -> Array:
    """About the same rows."""
    basis = problem.basis(np.array([float(x) for x, _, _ in points]))
    return np.column_stack([basis, [float(row[-1]) for row in rows]])


def alternating_signs(count: int) -> list[int]:
    """1, -1, 1, ..."""
    return [(-1) ** i for i in range(count)]


def _by_interpolation(problem: Problem, points: list[Known], signs: Sequence[int]) -> tuple[list[arb], arb] | None:
    """The level by divided differences, then p by interpolation; None where elimination is as fast, or needed.

    With t affine in z^stride and p = z^first q(t) it is q(t_i) = u_i - h v_i, u = f / z^first, v = signs / (w z^first);
    the difference of q over all points is 0, so h is a quotient of two sums with the weights 1 / prod (t_i - t_j) (the
    barycentric form of Pachon and Trefethen, BIT 2009). n^2 products of balls where a linear system takes as many for
    every 50 bits. Newton's form loses 1.6 bits a degree, of the two that the working precision has to spare.
    """
    n = len(points)
    if not problem.stride or problem.conditions or n < _MANY or flint.ctx.prec - problem.spare < _DEEP:
        return None
    z = [((x - problem.shift) / problem.scale).mid() for x, _, _ in points]
    if problem.powers[0] and any(v == 0 for v in z):
        return None
    t = [problem.affine(v).mid() for v in z]
    u = [(f / v ** problem.powers[0]).mid() for v, (_, f, _) in zip(z, points, strict=True)]
    v = [(s / (w * at ** problem.powers[0])).mid() for s, at, (_, _, w) in zip(signs, z, points, strict=True)]
    weights = [_product([a - b for b in t if b is not a]) for a in t]
    sums = (sum([x / weight for x, weight in zip(values, weights, strict=True)], arb(0)) for values in (u, v))
    h = (next(sums).mid() / next(sums).mid()).mid()
    q = arb_poly.interpolate(
        t[:-1], [(a - h * b).mid() for a, b in zip(u[:-1], v[:-1], strict=True)], algorithm="newton"
    )
    return _in_chebyshev([q[k].mid() for k in range(n - 1)]), h


def _product(factors: list[arb]) -> arb:
    result = arb(1)
    for factor in factors:
        result = (result * factor).mid()
    return result


def _in_chebyshev(a: list[arb]) -> list[arb]:
    """Chebyshev coefficients from those of powers: t^k = 2^(1 - k) sum C(k, i) T_(k - 2 i), with T_0 halved."""
    c = [arb(0)] * len(a)
    row = [1]
    for k, value in enumerate(a):
        scaled = value * arb(2) ** (1 - k)
        for i in range(k // 2 + 1):
            c[k - 2 * i] += scaled * row[i]
        row = [1, *map(sum, pairwise(row)), 1]
    return [(c[0] / 2).mid(), *(v.mid() for v in c[1:])]
