"""Best uniform approximation by given powers, with a lower and an upper bound of the least error."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spectrain.approx._balls.range import ball, precise
from spectrain.approx._minimax.answer import EXACT_DIGITS, Minimax, finish
from spectrain.approx._minimax.constraint import Condition, Constrained, check_conditions
from spectrain.approx._minimax.domain import check_bounded, check_weight, intervals_of, is_chebyshev, reduce_by_parity
from spectrain.approx._minimax.duality import refine
from spectrain.approx._minimax.exchange import Balls, Doubles, Exchange, exchange
from spectrain.approx._minimax.level import alternating_signs, solve_level
from spectrain.approx._minimax.polish import polish
from spectrain.approx._minimax.problem import Problem
from spectrain.approx._minimax.residual import Deep, by_remainders
from spectrain.approx._minimax.rounds import conclude
from spectrain.approx._minimax.start import first_reference, initial_grid
from spectrain.approx._polynomial import check_powers

Target = Callable[[Any], Any]

_CROWDINGS = (0.0, 3.0, 5.0, 2.0, 4.0, 1.0)
_HIGHEST = 2000
"""The highest power: dense exact coefficients have two bits a power."""

_CLOSED = 1e-3
"""The relative gap from where Newton's method goes on alone."""

_BEGUN = 0.5
"""The relative gap from where the reference of one arithmetic is a start for the next."""


def minimax(
    f: Target,
    powers: Sequence[Any] | float | int | np.integer[Any],
    interval: Sequence[Any],
    *,
    weight: Target | None = None,
    f_ball: Target | None = None,
    weight_ball: Target | None = None,
    constraints: Sequence[Condition] = (),
) -> Minimax:
    """The polynomial ``p = sum c_j x^powers[j]`` with the least ``max weight(x) |f(x) - p(x)|`` on the interval.

    ``powers`` is a list, or a degree n for 0, 1, ..., n. ``interval`` is ``(a, b)`` or a list of such, disjoint. ``f``
    and ``weight`` (positive) are called on arrays of doubles and, for more digits and for the proof, on object arrays
    of balls that know arithmetic, ``abs``, comparisons and functions by their NumPy names; ``f_ball``, ``weight_ball``
    replace them there.

    ``constraints`` are conditions the polynomial meets: ``("coefficient", n, v)``, ``("value", x, v)``,
    ``("slope", x, v)``.

    The exchange algorithm (Remez 1934; Veidinger 1960 for its quadratic convergence) in double precision; where the
    error is small against the target, on what a polynomial in balls of growing precision leaves over of it, with levels
    by barycentric weights (Pachon and Trefethen, BIT 2009). The lower bound is LP duality at
    the reference, de la Vallee-Poussin's bound for Chebyshev systems; the upper bound is a proof by Taylor models in
    balls, computed at once; where it meets a larger error than the search knew, the search takes that point in and goes
    on, so that nothing narrow is missed. Odd and even sets on symmetric intervals go by parity. See `Minimax`.

    Raises ValueError for bad intervals, powers (whole, at most 2000) or weights, for values that are complex or not
    finite, for poles inside, and for sets of powers without 0 on an interval that holds 0 unless f(0) = 0.

    >>> best = minimax(lambda x: 1 + 0 * x, (1, 3, 5), (0.001, 1.0))
    >>> print(", ".join(f"{c:.4f}" for c in best.coefficients), f"error {best.error:.4f}")
    8.4703, -25.1081, 18.6293 error 0.9915
    >>> best = minimax(np.exp, 10, (-1, 1))
    >>> best.proven and best.lower <= best.error <= best.upper and best.gap < 1e-12
    True
    """
    wanted = _powers(powers)
    pieces = tuple(intervals_of(interval))
    given = (f, weight, wanted, pieces, f_ball or f, (weight_ball or weight) if weight else None)
    if constraints:
        check_conditions(constraints, wanted)
        constrained = Constrained(*given, conditions=tuple(constraints))
        check_weight(constrained)
        return conclude(constrained, _by_duality)
    return conclude(Problem(*given), _attempt)


def _powers(powers: Sequence[Any] | float | int | np.integer[Any]) -> tuple[int, ...]:
    """The powers as whole numbers, none cut to one. Raises ValueError for what is not."""
    single = isinstance(powers, (float, int, np.integer))
    given: list[Any] = [powers] if isinstance(powers, (float, int, np.integer)) else list(powers)
    if not given:
        raise ValueError("minimax: at least one power is needed, got none.")
    check_powers(given)
    wanted = tuple(int(n) for n in given)
    if wanted[-1] > _HIGHEST:
        raise ValueError(
            f"minimax: the highest power is at most {_HIGHEST}, got {_short(wanted[-1])}: exact coefficients take two "
            "bits a power, and time grows faster. Where all powers are multiples of a k, approximate f(y^(1/k)) by "
            "powers of y = x^k."
        )
    return tuple(range(wanted[0] + 1)) if single else wanted


def _short(n: int) -> str:
    return str(n) if n < 10**18 else f"an integer of {n.bit_length()} bits"


def _attempt(problem: Problem) -> Minimax:
    small = reduce_by_parity(problem)
    return _solve(problem, small) if is_chebyshev(small) else _by_duality(problem)


def _by_duality(problem: Problem) -> Minimax:
    """The answer where alternation is no criterion."""
    size = _size(problem) or 1.0
    spent = (2 if problem.stride else 8) * problem.powers[-1]
    bits = 192 + spent
    while True:
        digits = bits - spent - 92 if problem.followed else 46
        with precise(bits):
            problem = replace(problem)
            found = refine(problem, size, 2.0**-digits)
        lost = found.largest <= 2.0**-digits * size
        if not lost or not problem.followed or digits >= EXACT_DIGITS:
            break
        bits *= 2
    with precise(bits):
        check_bounded(problem, np.array([float(x) for x, _, _ in found.points]))
        points, c, h = found.points, found.coefficients, ball(found.largest)
        status = ("exact" if problem.followed else "rounding") if lost else "duality"
        if found.regular and not lost:
            points, c, h = polish(problem, points, found.signs)
        return finish(problem, problem, points, found.signs, c, h, size=size, iterations=found.rounds, status=status)


def _solve(problem: Problem, small: Problem) -> Minimax:
    """Exchange in doubles, then in balls of as much precision as the level needs."""
    size = _size(small)
    if size == 0:
        return _zero(problem, small)
    run = None
    noise = 2.0**-46 * size
    if small.stride:
        run = _exchange_in_doubles(small, size, noise)
    trusted = run is not None and abs(run.level) > (2.0**-22 * size if small.followed else noise)
    trusted = trusted and run is not None and (run.gap <= _CLOSED or not small.followed)
    if run is not None and not small.followed and not trusted:
        s = _at_rounding(small, size)
        s = run.reference if s is None else s
        return _in_balls(problem, small, s, size, run.iterations, 192 + 2 * small.powers[-1], "rounding")
    iterations = run.iterations if run else 0
    if run is not None and trusted:
        bits = 160 + 2 * small.powers[-1]
        found = _in_balls(problem, small, run.reference, size, iterations, bits, "alternation", run.gap)
        # A target that doubles evaluate badly shows another level in balls.
        if abs(found.error - abs(run.level)) <= 0.1 * found.error or not small.followed:
            return replace(found, status="alternation" if run.gap <= _CLOSED else "stopped")
    start = run.reference if run is not None and run.gap <= _BEGUN else None
    return _solve_in_balls(problem, small, size, iterations, start)


def _solve_in_balls(
    problem: Problem, small: Problem, size: float, iterations: int, start: np.ndarray | None
) -> Minimax:
    """Exchange in balls, of more and more precision while the level is below what the precision carries."""
    # Monomial coefficients outgrow the polynomial, by 2.4 to the degree for the full set.
    spent = 2 * small.powers[-1] if small.stride else 8 * small.powers[-1]
    bits = 160 + spent
    while True:
        digits = bits - spent - 90
        last = digits >= EXACT_DIGITS + 10 * small.powers[-1]
        found = by_remainders(small, size, bits, digits, start=start, last=last) if small.stride else None
        run = found or _exchange_in_balls(small, size, bits, digits)
        iterations += run.iterations
        trusted = run.depth < digits or not small.followed
        # The error of an entire function falls with n like 2^n (n + 1)!, of all that is called exact still faster.
        if trusted or last:
            break
        bits *= 2
    status = "alternation" if run.gap <= _CLOSED else "stopped"
    if run.depth >= EXACT_DIGITS and small.followed:
        # A level that more digits do not lower is an error, below all that doubles hold.
        status = "rounding" if trusted else "exact"
    return _in_balls(problem, small, run.reference, size, iterations, bits, status, run.gap)


def _at_rounding(small: Problem, size: float) -> np.ndarray | None:
    """The first reference, if nothing but rounding is left of the target there; exchanges would follow that noise."""
    grid = initial_grid(small, small.unknowns + 1)
    s, arithmetic = first_reference(small, grid, small.unknowns + 1), Doubles(small)
    left = np.abs(arithmetic.errors(grid, arithmetic.level(s)[0])).max()
    return s if left <= 2.0**-42 * size else None


def _exchange_in_doubles(small: Problem, size: float, noise: float) -> Exchange:
    """Flat problems need luck with the reference: another weight of its distances is another chance."""
    arithmetic, iterations = Doubles(small), 0
    for crowding in _CROWDINGS[:4]:
        close = (lambda _: 1e-11) if crowding else _closeness(small, size)
        run = exchange(small, arithmetic, None, close=close, floor=noise, crowding=crowding)
        iterations += run.iterations
        if run.gap <= _CLOSED or abs(run.level) <= 2.0**-22 * size or not small.followed:
            break
    return run._replace(iterations=iterations)


def _exchange_in_balls(small: Problem, size: float, bits: int, digits: int) -> Deep:
    """The same in balls of this precision."""
    # Levels below the range of doubles come in a smaller unit.
    unit = max(0, digits - 500)
    floor, iterations = 2.0 ** (unit - digits), 0
    with precise(bits):
        fresh = replace(small)
        for crowding in _CROWDINGS:
            close = (lambda _: 1e-13) if crowding else _closeness(small, 2.0**-60)
            balls = Balls(fresh, size * ball(2.0) ** -unit)
            run = exchange(fresh, balls, None, close=close, floor=floor, crowding=crowding)
            iterations += run.iterations
            if run.gap <= _CLOSED or abs(run.level) <= floor:
                break
    return Deep(run.reference, unit - math.log2(abs(run.level)) if run.level else math.inf, run.gap, iterations)


def _closeness(problem: Problem, size: float) -> Callable[[float], float]:
    """How far the exchange has to go: Newton steps finish what balls can follow, doubles go down to their noise."""
    if problem.followed:
        return lambda level: max(1e-11, min(1e-4, 2.0**-44 * size / max(level, 1e-300)))
    return lambda level: max(1e-14, min(1e-4, 2.0**-50 * size / max(level, 1e-300)))


def _in_balls(
    problem: Problem,
    small: Problem,
    s: np.ndarray,
    size: float,
    iterations: int,
    bits: int,
    status: str,
    gap: float = 1.0,
) -> Minimax:
    """The answer at this precision from a reference that doubles can hold."""
    with precise(bits):
        problem, small = replace(problem), replace(small)
        check_bounded(small, small.doubles(s))
        signs = alternating_signs(len(s))
        points = Balls(small).points(s)
        # Where nothing is left of the target there are no peaks to go to.
        points, c, h = (
            polish(small, points, signs, gap) if status != "exact" else (points, *solve_level(small, points, signs))
        )
        return finish(problem, small, points, signs, c, h, size=size, iterations=iterations, status=status)


def _size(problem: Problem) -> float:
    """About the largest weighted value of the target."""
    even = np.linspace(0.0, 1.0, 65)
    # Multiples of the golden ratio keep in step with no period.
    odd = np.arange(1, 512) * ((5**0.5 - 1) / 2) % 1.0
    x = np.concatenate([a + (b - a) * part for a, b in problem.pieces for part in (even, odd)])
    x = np.concatenate([np.clip(x, problem.pieces[0][0], problem.pieces[-1][1]), problem.watched])
    f, w = problem.values(x)
    return float(np.abs(f * w).max())


def _zero(problem: Problem, small: Problem) -> Minimax:
    """The answer for a target that is 0 at all samples."""
    grid = initial_grid(small, small.unknowns + 1)
    s = grid[np.linspace(0, len(grid) - 1, small.unknowns + 1).astype(int)]
    return _in_balls(problem, small, s, 1.0, 0, 1100 + 2 * small.powers[-1], "exact")
