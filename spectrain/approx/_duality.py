"""Best approximation where alternation does not characterise it: linear programs on growing sets of points."""

from functools import partial
from typing import NamedTuple

import numpy as np

from spectrain.approx._exchange import Doubles, between, initial_grid, peaks_of, sharpen
from spectrain.approx._problem import Array, Problem


class Support(NamedTuple):
    """Coefficients, their largest error, and n + 1 points whose multipliers prove it nearly least."""

    coefficients: Array
    level: float
    points: Array
    signs: list[int]
    iterations: int
    regular: bool


def dual_support(problem: Problem, size: float) -> Support:
    """Solve ``min h, |w (f - p)| <= h`` on points that are added where the error is larger, by HiGHS.

    The multipliers that are not 0 name at most n + 1 points; where there are fewer (the solution is
    degenerate), others join with multiplier 0 so that the lower bound can be computed in balls.
    """
    doubles = Doubles(problem)
    grid = initial_grid(problem, problem.unknowns + 1)
    s, c, scale = grid, np.zeros(problem.unknowns), size
    for iteration in range(1, 30):
        # Each program is for the correction of the last answer, in units of its error: digits are not lost to the
        # target.
        B, f, w = doubles.tables(s)
        step, h, multipliers = _linear_program(B, f - B @ c, w, scale)
        c = c + step
        dense = np.unique(np.concatenate([grid, s, between(problem, s)]))
        e = doubles.errors(dense, c)
        tops = sharpen(problem, partial(doubles.errors, coefficients=c), dense, dense[peaks_of(e, h / 2)])
        heights = np.abs(doubles.errors(tops, c))
        scale = max(float(heights.max(initial=0.0)), 1e-14 * size)
        if iteration > 1 and scale <= h * (1 + 1e-9) + 4e-16 * size:
            break
        s = np.unique(np.concatenate([s, tops[heights > h * (1 + 1e-12)]]))
    return _support(doubles, s, c, h, multipliers, iteration)


def _linear_program(B: Array, f: Array, w: Array, size: float) -> tuple[Array, float, Array]:
    """Coefficients, level and one signed multiplier for each point."""
    from scipy.optimize import linprog

    n = B.shape[1]
    columns = np.maximum(np.abs(B).max(axis=0), 1e-300)
    rows, ones, right = B / columns * w[:, None], np.ones((len(B), 1)), f * w / size
    result = linprog(
        np.append(np.zeros(n), 1.0),
        A_ub=np.block([[rows, -ones], [-rows, -ones]]),
        b_ub=np.concatenate([right, -right]),
        bounds=[(None, None)] * n + [(0, None)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if result.x is None:
        raise ValueError(f"minimax: the linear program for these powers failed ({result.message}). Scale the problem.")
    over, under = np.split(result.ineqlin.marginals, 2)
    return result.x[:-1] / columns * size, float(result.x[-1] * size), over - under


def _support(doubles: Doubles, s: Array, c: Array, h: float, multipliers: Array, iterations: int) -> Support:
    count = doubles.problem.unknowns + 1
    multipliers = np.append(multipliers, np.zeros(len(s) - len(multipliers)))
    B, f, w = doubles.tables(s)
    signs = np.where(w * (f - B @ c) >= 0, 1.0, -1.0)
    heaviest = [int(k) for k in np.argsort(-np.abs(multipliers), kind="stable")]
    strong = [k for k in heaviest[:count] if abs(multipliers[k]) > 1e-9 * abs(multipliers[heaviest[0]])]
    rows = B * w[:, None]
    rows = np.column_stack([rows / np.maximum(np.abs(rows).max(axis=0), 1e-300), signs])
    chosen = sorted(_independent(rows, strong, count))
    regular = len(strong) == count and set(chosen) == set(strong)
    return Support(c, h, s[chosen], [int(v) for v in signs[chosen]], iterations, regular)


def _independent(rows: Array, first: list[int], count: int) -> list[int]:
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
