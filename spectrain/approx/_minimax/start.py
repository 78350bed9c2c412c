"""Where an exchange starts: a grid that is fine enough for all extrema, and a first reference."""

from dataclasses import replace

import numpy as np
from flint import arb, fmpq

from spectrain._extras import wanted_by
from spectrain.approx._balls.range import ball
from spectrain.approx._minimax.problem import Array, Problem


def initial_grid(problem: Problem, count: int) -> Array:
    """Points clustered at the ends of every piece, dense enough for ``count`` extrema."""
    share = np.maximum(np.diff(problem.ends, axis=1)[:, 0] / 2, 1 / (2 * count))
    parts = []
    for (a, b), size in zip(problem.ends, share, strict=True):
        m = max(24, int(8 * count * min(1.0, size) + 8))
        parts.append((a + b) / 2 - (b - a) / 2 * np.cos(np.pi * np.arange(m + 1) / m))
    s = np.unique(np.concatenate([*parts, _watched_points(problem)]))
    if problem.powers[0] > 0:
        s = np.array([v for v in s if problem.exact(float(v)) != 0])
    return s


def _watched_points(problem: Problem) -> Array:
    """The watched points, each with a ladder to both sides: what is narrow has its feet at some rung."""
    if not problem.watched:
        return np.array([])
    s = np.array([float((ball(x) - problem.centre) / problem.half) for x in problem.watched])
    steps = 2.0 ** -np.arange(4.0, 51.0, 2)
    s = (s[:, None] + np.concatenate([[0.0], steps, -steps])).ravel()
    return s[((s[:, None] >= problem.ends[:, 0]) & (s[:, None] <= problem.ends[:, 1])).any(axis=1)]


def first_reference(problem: Problem, grid: Array, count: int) -> Array:
    """Where the exchange starts: evenly among the points of one interval, which lie as Chebyshev's.

    Where powers have a stride, as parity leaves them, they lie so in x^stride: in x they would crowd at its lower end.

    On several intervals it is not known how many points belong on each, and a wrong number makes a polynomial that no
    exchange comes back from. There they are approximate Fekete points: the largest pivots of the basis with one power
    more (Sommariva and Vianello, *Computing approximate Fekete points by QR factorizations of Vandermonde matrices*,
    Comput. Math. Appl. 2009).
    """
    if len(problem.pieces) == 1 and problem.pieces[0][0] >= 0 and problem.stride > 1:
        return _in_the_power(problem, count)
    if len(problem.pieces) == 1:
        return grid[np.linspace(0, len(grid) - 1, count).round().astype(int)]
    with wanted_by("a best approximation on several intervals"):
        from scipy.linalg import qr

    more = problem.powers[-1] + (problem.stride or 1)
    rows = replace(problem, powers=(*problem.powers, more)).basis(problem.doubles(grid))
    pivots = qr(rows.T, mode="r", pivoting=True)[1]
    return np.sort(grid[pivots[:count]])


def _in_the_power(problem: Problem, count: int) -> Array:
    """Chebyshev's points in x^stride; beside 0, where all powers vanish, the upper half of twice as many."""
    (low, high), half = problem.pieces[0], _vanishes_below(problem)
    parts = 2 * count - (1 if half else 2)
    cosines = [arb.cos_pi_fmpq(fmpq(k, parts)) for k in reversed(range(count))]
    a, b = ball(low) ** problem.stride, ball(high) ** problem.stride
    places = [(a + (b - a) * c * c).root(problem.stride) for c in cosines]
    s = np.array([float(((x - problem.centre) / problem.half).mid()) for x in places])
    s[0], s[-1] = s[0] if half else -1.0, 1.0
    return s


def _vanishes_below(problem: Problem) -> bool:
    """Whether the lower end is 0 and every power vanishes there."""
    return problem.pieces[0][0] == 0 and problem.powers[0] > 0
