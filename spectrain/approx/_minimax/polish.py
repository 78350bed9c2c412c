"""The last digits of a reference: Newton's method in balls, bisection at cusps."""

import flint
from flint import arb

from spectrain.approx._balls.branches import UndecidedError
from spectrain.approx._balls.range import ball
from spectrain.approx._minimax.certificate import ErrorModel
from spectrain.approx._minimax.level import Known, solve_level
from spectrain.approx._minimax.problem import Problem


def polish(
    problem: Problem, points: list[Known], signs: list[int], gap: float = 1.0
) -> tuple[list[Known], list[arb], arb]:
    """The level at the reference, after Newton steps of its points to the stationary points of the error.

    ``gap`` is how far, relatively, the level was below the largest error. A step that moves the polynomial by
    far more is undone: in flat problems a slightly better reference can determine a much worse polynomial.
    """
    c, h = solve_level(problem, points, signs)
    if not problem.followed:
        return points, c, h
    for count in range(5):
        model = ErrorModel(problem, problem.polynomial(c))
        places = _newton(problem, model, [x for x, _, _ in points])
        values = problem.values_ball(places)
        moved = [(x, f, w) for x, (f, w) in zip(places, values, strict=True)]
        c_new, h_new = solve_level(problem, moved, signs)
        moves = float(sum((abs(a - b) for a, b in zip(c, c_new, strict=True)), arb(0))) if problem.stride else 0.0
        # The first step finds cusps, where doubles are off by much.
        allowed = max(1e6 * gap, 1e-2 if count == 0 and abs(h_new) > abs(h) * (1 + ball(2.0**-40)) else 1e-4)
        if not abs(h_new) >= abs(h) or moves > allowed * float(abs(h)):
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
        spacing = model.problem.half * ball(2.0**-52)
        if abs(e1) * spacing > abs(e0) * ball(1e-13) and (top := _cusp(model, x, spacing * 256)) is not None:
            return top
        step = -(e1 / (2 * e2)).mid()
        if not (step.is_finite() and e0 * e2 < 0):
            step = room / 1000 * (1 if e0 * e1 > 0 else -1)
        moved = (x + step).mid()
        moved = low if moved < low else high if moved > high else moved
        gains = abs(moved - x) <= room and abs(model.point(moved)[0]) >= abs(e0) * (1 - ball(2.0**-60))
    except (UndecidedError, ZeroDivisionError):
        return x
    return moved if gains else x


def _cusp(model: ErrorModel, x: arb, width: arb) -> arb | None:
    """The top of a kink or a cusp near x that doubles miss by more than the error can bear: bisection of the slope.
    None: there is none."""
    a, b = (x - width).mid(), (x + width).mid()
    (rise, fall), height = (_slope(model, v) for v in (a, b)), abs(model.derivatives(x, 1)[0])
    if not (rise > 0 and fall < 0):
        return None
    for _ in range(flint.ctx.prec):
        middle = ((a + b) / 2).mid()
        slope = _slope(model, middle)
        a, b = (middle, b) if slope > 0 else (a, middle)
        if not (slope > 0 or slope < 0):
            a = b = middle
            break
    best = max((a, b), key=lambda v: float(abs(model.derivatives(v, 1)[0]).mid()))
    return best if abs(model.derivatives(best, 1)[0]) >= height else x


def _slope(model: ErrorModel, x: arb) -> arb:
    """The slope of |e|, 0 where there is none."""
    try:
        value, slope = model.derivatives(x, 2)
        return slope if value > 0 else -slope
    except (UndecidedError, ZeroDivisionError):
        return arb(0)
