"""Best uniform approximation by given powers, with a lower and an upper bound of the least error."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flint import arb

from spectrain.approx._answer import Minimax, finish
from spectrain.approx._certificate import ErrorModel
from spectrain.approx._constraint import Condition, Constrained, check_conditions
from spectrain.approx._domain import check_weight, intervals_of, is_chebyshev, reduced
from spectrain.approx._duality import dual_support
from spectrain.approx._exchange import (
    Balls,
    Doubles,
    Known,
    alternating,
    exchange,
    initial_grid,
    solve_level,
)
from spectrain.approx._jet import UndecidedError
from spectrain.approx._polynomial import check_powers
from spectrain.approx._precision import ball, precise
from spectrain.approx._problem import Problem

Target = Callable[[Any], Any]


def minimax(
    f: Target,
    powers: Sequence[int] | int,
    interval: Sequence[Any],
    *,
    weight: Target | None = None,
    f_ball: Target | None = None,
    weight_ball: Target | None = None,
    constraints: Sequence[Condition] = (),
) -> Minimax:
    """The polynomial ``p = sum c_j x^powers[j]`` with the least ``max weight(x) |f(x) - p(x)|`` on the interval.

    ``powers`` is a list, or a degree n for 0, 1, ..., n. ``interval`` is ``(a, b)`` or a list of such, disjoint.
    ``f`` and
    ``weight`` (positive) are called on arrays of doubles and, for more digits and for the proof, on object arrays
    of balls that
    know arithmetic, ``abs``, comparisons and functions by their NumPy names; ``f_ball``, ``weight_ball`` replace
    them there.

    ``constraints`` are conditions the polynomial meets: ``("coefficient", n, v)``, ``("value", x, v)``,
    ``("slope", x, v)``.

    The exchange algorithm (Remez 1934; Veidinger 1960 for its quadratic convergence), in double precision first,
    in ball
    arithmetic of growing precision where the error is small against the target. The lower bound is LP duality at
    the reference, de la Vallee-Poussin's bound for Chebyshev systems; the upper bound is a proof by Taylor models in
    balls, computed when first asked for. Odd and even sets on symmetric intervals go by parity. See `Minimax`.

    Raises ValueError for bad intervals, powers or weights, for values that are not finite, and for sets of powers
    without 0
    on an interval that holds 0 unless f(0) = 0.

    >>> best = minimax(lambda x: 1 + 0 * x, (1, 3, 5), (0.001, 1.0))
    >>> print(", ".join(f"{c:.4f}" for c in best.coefficients), f"error {best.error:.4f}")
    8.4703, -25.1081, 18.6293 error 0.9915
    >>> best = minimax(np.exp, 10, (-1, 1))
    >>> best.proven and best.lower <= best.error <= best.upper and best.gap < 1e-12
    True
    """
    wanted = tuple(range(powers + 1)) if isinstance(powers, int) else tuple(int(n) for n in powers)
    if not wanted:
        raise ValueError("minimax: at least one power is needed, got none.")
    check_powers(wanted)
    pieces = tuple(intervals_of(interval))
    given = (f, weight, wanted, pieces, f_ball or f, (weight_ball or weight) if weight else None)
    if constraints:
        check_conditions(constraints, wanted)
        constrained = Constrained(*given, conditions=tuple(constraints))
        check_weight(constrained)
        return _by_duality(constrained)
    problem = Problem(*given)
    small = reduced(problem)
    return _solve(problem, small) if is_chebyshev(small) else _by_duality(problem)


def _by_duality(problem: Problem) -> Minimax:
    """The answer where alternation is no criterion."""
    size = _size(problem) or 1.0
    bits = 192 + (2 if problem.stride else 8) * problem.powers[-1]
    with precise(bits):
        problem = replace(problem)
        found = dual_support(problem, size)
        points, signs = Balls(problem).points(found.points), found.signs
        if found.regular and found.level > 1e-14 * size:
            points, c, h = polish(problem, points, signs)
        else:
            c, h = [ball(float(v)) for v in found.coefficients], ball(found.level)
        return finish(problem, problem, points, signs, c, h, size=size, iterations=found.iterations, status="duality")


def _solve(problem: Problem, small: Problem) -> Minimax:
    """Exchange in doubles, then in balls of as much precision as the level needs."""
    size = _size(small)
    if size == 0:
        return _zero(problem, small)
    run = None
    noise = 2.0**-46 * size
    if small.stride:
        run = exchange(small, Doubles(small), None, close=_closeness(small, size), floor=noise)
    trusted = run is not None and abs(run.level) > (2.0**-22 * size if small.followed else noise)
    if run is not None and not small.followed and not trusted:
        return _in_balls(problem, small, run.reference, size, run.iterations, 192 + 2 * small.powers[-1], "rounding")
    iterations = run.iterations if run else 0
    # Monomial coefficients outgrow the polynomial, by 2.4 to the degree for the full set.
    spent = 2 * small.powers[-1] if small.stride else 8 * small.powers[-1]
    bits = 160 + spent
    while not trusted:
        floor = 2.0 ** -(bits - spent - 90)
        with precise(bits):
            fresh = replace(small)
            run = exchange(fresh, Balls(fresh, size), None, close=_closeness(small, 2.0**-60), floor=floor)
        iterations += run.iterations
        trusted = abs(run.level) > floor or not small.followed
        if not trusted and bits - spent > 3000:
            return _in_balls(problem, small, run.reference, size, iterations, bits, "exact")
        bits = bits if trusted else 2 * bits
    assert run is not None
    status = "alternation" if run.largest - abs(run.level) <= 1e-3 * run.largest else "stopped"
    return _in_balls(problem, small, run.reference, size, iterations, bits, status)


def _closeness(problem: Problem, size: float) -> Callable[[float], float]:
    """How far the exchange has to go: Newton steps finish what balls can follow, doubles go down to their noise."""
    if problem.followed:
        return lambda level: max(1e-11, min(1e-4, 2.0**-44 * size / max(level, 1e-300)))
    return lambda level: max(1e-14, min(1e-4, 2.0**-50 * size / max(level, 1e-300)))


def _in_balls(
    problem: Problem, small: Problem, s: np.ndarray, size: float, iterations: int, bits: int, status: str
) -> Minimax:
    """The answer at this precision from a reference that doubles can hold."""
    with precise(bits):
        problem, small = replace(problem), replace(small)
        signs = alternating(len(s))
        points, c, h = polish(small, Balls(small).points(s), signs)
        return finish(problem, small, points, signs, c, h, size=size, iterations=iterations, status=status)


def _size(problem: Problem) -> float:
    """About the largest weighted value of the target."""
    x = np.concatenate([np.linspace(a, b, 65) for a, b in problem.pieces])
    f, w = problem.values(x)
    return float(np.abs(f * w).max())


def _zero(problem: Problem, small: Problem) -> Minimax:
    """The answer for a target that is 0 at all samples."""
    grid = initial_grid(small, small.unknowns + 1)
    s = grid[np.linspace(0, len(grid) - 1, small.unknowns + 1).astype(int)]
    return _in_balls(problem, small, s, 1.0, 0, 128 + 2 * small.powers[-1], "exact")


def polish(problem: Problem, points: list[Known], signs: list[int]) -> tuple[list[Known], list[arb], arb]:
    """The level at the reference, after Newton steps of its points to the stationary points of the error."""
    c, h = solve_level(problem, points, signs)
    if not problem.followed:
        return points, c, h
    for _ in range(5):
        model = ErrorModel(problem, problem.polynomial(c))
        places = _newton(problem, model, [x for x, _, _ in points])
        values = problem.values_ball(places)
        moved = [(x, f, w) for x, (f, w) in zip(places, values, strict=True)]
        c_new, h_new = solve_level(problem, moved, signs)
        if not abs(h_new) >= abs(h):
            break
        change = abs(h_new) - abs(h)
        points, c, h = moved, c_new, h_new
        if change <= abs(h) * ball(2.0**-60):
            break
    return points, c, h


def _newton(problem: Problem, model: ErrorModel, places: list[arb]) -> list[arb]:
    """One Newton step of every interior point towards a stationary point of the error, where that gains."""
    ends = [(ball(a), ball(b)) for a, b in problem.pieces]
    result = []
    for k, x in enumerate(places):
        low, high = next(piece for piece in ends if piece[0] <= x <= piece[1])
        room = min((abs(places[j] - x) for j in (k - 1, k + 1) if 0 <= j < len(places)), key=float) / 4
        result.append(x if x in (low, high) else _uphill(model, x, low, high, room))
    return result


def _uphill(model: ErrorModel, x: arb, low: arb, high: arb, room: arb) -> arb:
    """Where Newton's method for e' leads from x, at most ``room`` away, an end of the piece if it leads beyond; x
    if lower."""
    try:
        e0, e1, e2 = model.derivatives(x, 3)
        step = -(e1 / (2 * e2)).mid()
        if not (step.is_finite() and e0 * e2 < 0):
            step = room / 1000 * (1 if e0 * e1 > 0 else -1)
        moved = (x + step).mid()
        moved = low if moved < low else high if moved > high else moved
        gains = abs(moved - x) <= room and abs(model.point(moved)[0]) >= abs(e0) * (1 - ball(2.0**-60))
    except (UndecidedError, ZeroDivisionError):
        return x
    return moved if gains else x
