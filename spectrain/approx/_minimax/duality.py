"""Where alternation does not characterise optimality: linear programs for corrections, in units of the gap."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat

from spectrain._extras import wanted_by
from spectrain.approx._balls.range import ball, float_down
from spectrain.approx._minimax.certificate import dual_bound
from spectrain.approx._minimax.exchange import Balls, between, peaks_of, sharpen
from spectrain.approx._minimax.level import Known
from spectrain.approx._minimax.problem import Array, Problem
from spectrain.approx._minimax.start import initial_grid

_ROUNDS = 60
_TARGET = 1e-14


class Refined(NamedTuple):
    """A polynomial, points with signs that prove it nearly best, and what both bounds are."""

    coefficients: list[arb]
    points: list[Known]
    signs: list[int]
    lower: float
    largest: float
    regular: bool
    rounds: int


def refine(problem: Problem, size: float, floor: float) -> Refined:
    """Close the gap between the largest error U of a polynomial and the dual bound L, round by round, from p = 0.

    The next program is for a correction q: minimise h subject to ``h + s_i w_i q(x_i) >= (|e_i| - U) / (U - L)`` over
    points x_i where the error is large, s_i its sign there, and q inside a trust region. Only q / (U - L) and h
    meet double precision; errors are computed in balls. (Gleixner, Steffy and Wolter, *Iterative refinement for
    linear programming*, INFORMS J. Comput. 2016.) It needs no reference that determines the polynomial, so
    degenerate duals are no harder than others. It ends where the error is ``floor`` times the size of the target.
    """
    errors = _Errors(problem, size)
    grid = initial_grid(problem, problem.unknowns + 1)
    best = Refined([arb(0)] * problem.unknowns, [], [], 0.0, 0.0, False, 0)
    pool, largest = _peaks(problem, errors, best.coefficients, grid, grid)
    best, lower, trust = best._replace(largest=largest * size), 0.0, 1e3
    for count in range(1, _ROUNDS + 1):
        gap = largest - lower
        if gap <= _TARGET * largest or largest <= floor:
            break
        step = _correction(problem, pool, errors(pool, best.coefficients), largest, gap, trust, size)
        if step is None:
            break
        support = pool[step.chosen]
        points = errors.balls.points(support)
        bound = float_down(dual_bound(problem, points, step.signs) / ball(size))
        if bound > lower or not best.points:
            lower = max(lower, bound)
            best = best._replace(points=points, signs=step.signs, regular=step.regular)
        scaled = [ball(gap) * ball(size) * ball(float(q)) for q in step.coefficients]
        trial = [a + q for a, q in zip(best.coefficients, scaled, strict=True)]
        tops, top = _peaks(problem, errors, trial, grid, support)
        if top < largest:
            largest = top
            best = best._replace(coefficients=trial, largest=top * size, rounds=count)
            pool, trust = np.concatenate([support, tops]), trust * (2 if step.inside else 4)
        else:
            pool, trust = np.concatenate([pool, tops]), trust / 4
        pool = np.unique(pool)
    return best


def _peaks(problem: Problem, errors: "_Errors", c: list[arb], grid: Array, s: Array) -> tuple[Array, float]:
    """Tops of the error of these coefficients, and the largest of them."""
    dense = np.unique(np.concatenate([grid, s, between(problem, s)]))
    e = errors(dense, c)
    tops = sharpen(problem, partial(errors, c=c), dense, dense[peaks_of(e, float(np.abs(e).max()) / 4)])
    tops = np.unique(tops)
    return tops, float(np.abs(errors(tops, c)).max())


class _Errors:
    """``w (f - p) / size`` in balls, handed out as doubles; points are remembered with their row of the basis."""

    def __init__(self, problem: Problem, size: float) -> None:
        self.problem, self.size = problem, ball(size)
        self.balls = Balls(problem)
        self.rows: dict[float, list[arb]] = {}

    def __call__(self, s: Array, c: list[arb]) -> Array:
        known = self.balls.points(s)
        for v, (x, _, _) in zip(s.tolist(), known, strict=True):
            if v not in self.rows:
                self.rows[v] = self.problem.basis_ball(x)
        p = arb_mat([self.rows[v] for v in s.tolist()]) * arb_mat([[v] for v in c])
        return np.array([float((w * (f - p[i, 0]) / self.size).mid()) for i, (_, f, w) in enumerate(known)])


class _Step(NamedTuple):
    """A correction over the gap; which points with which signs make the next bound; whether the trust region was
    wide enough."""

    coefficients: Array
    chosen: list[int]
    signs: list[int]
    regular: bool
    inside: bool


def _correction(
    problem: Problem, s: Array, e: Array, top: float, gap: float, trust: float, size: float
) -> _Step | None:
    """The next program's answer; None where the solver finds none, which ends the search with the bounds so far."""
    with wanted_by("a best approximation that does not alternate"):
        from scipy.optimize import linprog

    x = problem.doubles(s)
    signs = np.where(e >= 0, 1.0, -1.0)
    rows = problem.basis(x) * problem.values(x)[1][:, None]
    columns = np.maximum(np.abs(rows).max(axis=0), 1e-300)
    even, back = _orthogonal(rows / columns)
    table, one = even * signs[:, None], np.ones((len(s), 1))
    near, far = (np.abs(e) - top) / gap, (-np.abs(e) - top) / gap
    # The other side of the band is far where the gap is small.
    both = far > -1e3 * trust
    program = {
        "c": np.append(np.zeros(rows.shape[1]), 1.0),
        "A_ub": -np.vstack([np.hstack([table, one]), np.hstack([-table, one])[both]]),
        "b_ub": -np.concatenate([near, far[both]]),
        "bounds": [(-trust, trust)] * rows.shape[1] + [(None, None)],
    }
    # The simplex method stops on programs that are badly scaled, where that of interior points may not.
    for method in ("highs-ds", "highs-ipm"):
        result = linprog(
            **program, method=method,
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )  # fmt: skip
        if result.x is not None and result.status == 0:
            break
    else:
        return None
    multipliers = -result.ineqlin.marginals[: len(s)]
    multipliers[both] += result.ineqlin.marginals[len(s) :]
    signs = np.where(multipliers < 0, -signs, signs)
    chosen, regular = _support_of(even, signs, multipliers)
    inside = bool(np.abs(result.x[:-1]).max() < trust)
    return _Step(back(result.x[:-1]) / columns, chosen, [int(v) for v in signs[chosen]], regular, inside)


def _orthogonal(rows: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Rows in a basis that is orthogonal on these points, and the way back to the coefficients of the powers.

    Powers are nearly dependent, and a solver in doubles stops far from the optimum of such a program.
    """
    size = math.sqrt(len(rows))
    Q, R = np.linalg.qr(rows) if len(rows) >= rows.shape[1] else (rows, np.zeros((1, 1)))
    steps = np.abs(np.diag(R))
    if steps.min() <= 1e-14 * steps.max():
        return rows, lambda c: c
    return Q * size, lambda c: np.linalg.solve(R, c * size)


def _support_of(rows: Array, signs: Array, multipliers: Array) -> tuple[list[int], bool]:
    """Points that make the dual bound, one more than unknowns: those with multipliers first; and whether all have."""
    count = rows.shape[1] + 1
    heaviest = [int(k) for k in np.argsort(-np.abs(multipliers), kind="stable")]
    strong = [k for k in heaviest[:count] if abs(multipliers[k]) > 1e-9 * abs(multipliers[heaviest[0]])]
    table = np.column_stack([rows / np.maximum(np.abs(rows).max(axis=0), 1e-300), signs])
    chosen = sorted(_independent_rows(table, strong, count))
    return chosen, len(strong) == count and set(chosen) == set(strong)


def _independent_rows(rows: Array, first: list[int], count: int) -> list[int]:
    """``count`` independent rows: those of ``first`` as far as they are, then the farthest from the span so far."""
    rest = rows.copy()
    order: list[int] = []
    waiting = list(first)
    while len(order) < count:
        lengths = np.linalg.norm(rest, axis=1)
        at = waiting.pop(0) if waiting else int(np.argmax(lengths))
        if lengths[at] > 1e-9 or not waiting:
            order.append(at)
            direction = rest[at] / max(float(lengths[at]), 1e-300)
            rest = rest - np.outer(rest @ direction, direction)
    return order
