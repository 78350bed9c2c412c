"""The exchange algorithm of Remez, with all points moved at once."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from flint import arb

from spectrain.approx._balls.range import ball
from spectrain.approx._minimax.level import Known, alternating_signs, solve_level
from spectrain.approx._minimax.problem import Array, Problem
from spectrain.approx._minimax.start import first_reference, initial_grid

_MOST = 200
_STUCK = 30
_STILL = 1e-15
Pair = tuple[Array, Array]


@runtime_checkable
class Arithmetic(Protocol):
    """What the exchange needs: the level at a reference, and errors at points, scaled alike."""

    def level(self, s: Array) -> tuple[Any, float]: ...

    def errors(self, s: Array, coefficients: Any) -> Array: ...


class Exchange(NamedTuple):
    """Where the exchange ended."""

    reference: Array
    level: float
    largest: float
    iterations: int

    @property
    def gap(self) -> float:
        """How far the level is below the largest error, relative."""
        return float((self.largest - abs(self.level)) / self.largest) if self.largest else 0.0


class Doubles:
    """Exchange in double precision."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def tables(self, s: Array) -> tuple[Array, Array, Array]:
        """Basis, target and weight at points."""
        x = self.problem.doubles(s)
        f, w = self.problem.values(x)
        return self.problem.basis(x), f, w

    def level(self, s: Array) -> tuple[Array, float]:
        B, f, w = self.tables(s)
        signs = (-1.0) ** np.arange(len(s))
        rows = np.column_stack([B * w[:, None], signs])
        try:
            solution = np.linalg.solve(rows, f * w)
        except np.linalg.LinAlgError:
            solution = np.linalg.lstsq(rows, f * w, rcond=None)[0]
        return solution[:-1], float(solution[-1])

    def errors(self, s: Array, coefficients: Array) -> Array:
        B, f, w = self.tables(s)
        return w * (f - B @ coefficients)


class Balls:
    """Exchange with errors and levels computed in ball arithmetic and handed out as scaled doubles."""

    def __init__(self, problem: Problem, scale: arb | float = 1.0) -> None:
        self.problem = problem
        self.scale = ball(scale)
        self.known: dict[float, Known] = {}

    def points(self, s: Array) -> list[Known]:
        """The points with target and weight."""
        new = [v for v in s.tolist() if v not in self.known]
        places = [self.problem.exact(v) for v in new]
        for v, x, values in zip(new, places, self.problem.values_ball(places) if new else [], strict=True):
            self.known[v] = (x, *values)
        return [self.known[v] for v in s.tolist()]

    def level(self, s: Array) -> tuple[Any, float]:
        c, level = solve_level(self.problem, self.points(s), alternating_signs(len(s)))
        return self.problem.polynomial(c), float((level / self.scale).mid())

    def errors(self, s: Array, coefficients: Any) -> Array:
        shift, size = self.problem.shift, self.problem.scale
        errors = [w * (f - coefficients((x - shift) / size)) / self.scale for x, f, w in self.points(s)]
        return np.array([float(e.mid()) for e in errors])


def exchange(
    problem: Problem,
    arithmetic: Arithmetic,
    start: Array | None,
    *,
    close: Callable[[float], float],
    floor: float = 0.0,
    crowding: float = 0.0,
    sparing: bool = False,
) -> Exchange:
    """Run until the largest error exceeds the level by the fraction ``close(level)``, or nothing gets better.

    A level below ``floor`` ends the run at once: it is rounding. ``crowding`` weighs distances against heights where
    there are more extrema than needed (`_thin`), both as logarithms; flat problems need it. ``sparing`` of errors, it
    looks for the tops of peaks as closely as the gap of the round before asks for.
    """
    count = problem.unknowns + 1
    grid = initial_grid(problem, count)
    s = start if start is not None else first_reference(problem, grid, count)
    highest, least, stuck, iteration, gap = 0.0, np.inf, 0, 0, 1.0
    while True:
        iteration += 1
        c, level = arithmetic.level(s)
        points = np.unique(np.concatenate([grid, s, between(problem, s)]))
        errors = partial(arithmetic.errors, coefficients=c)
        e = errors(points)
        tops = points[peaks_of(e, abs(level) / 2)]
        peaks = sharpen(problem, errors, points, tops, settled=max(_STILL, 1e-4 * gap if sparing else 0.0))
        points = np.concatenate([points, peaks])
        order = np.unique(points, return_index=True)[1]
        points, e = points[order], np.concatenate([e, errors(peaks)])[order]
        moved = alternate(points, e, s, level, count, crowding=crowding)
        largest = float(np.abs(e).max())
        gap = (largest - abs(level)) / largest if largest else 0.0
        better = abs(level) > highest * (1 + 1e-14) or largest < least * (1 - 1e-14)
        stuck = 0 if better or iteration < 3 else stuck + 1
        least = min(least, largest)
        highest = max(highest, abs(level))
        done = largest - abs(level) <= close(abs(level)) * largest or np.array_equal(moved, s)
        if done or (abs(level) < floor and iteration > 2) or stuck > (_STUCK if crowding else 12) or iteration == _MOST:
            return _end(s, moved, level, largest, iteration)
        s = moved


def _end(s: Array, moved: Array, level: float, largest: float, iterations: int) -> Exchange:
    # At a gap this small the next reference may be worse: its level is a matter of the last digits.
    return Exchange(s if largest - abs(level) <= 1e-9 * largest else moved, level, largest, iterations)


def between(problem: Problem, s: Array) -> Array:
    """Points between neighbours of the reference, where the grid may be too coarse."""
    inner = (s[:-1, None] + np.diff(s)[:, None] * np.arange(1, 6) / 6).ravel()
    inside = ((inner[:, None] >= problem.ends[:, 0]) & (inner[:, None] <= problem.ends[:, 1])).any(axis=1)
    return inner[inside]


def alternate(points: Array, e: Array, s: Array, level: float, count: int, *, crowding: float = 0.0) -> Array:
    """``count`` points where e alternates and is at least |level|, the largest |e| among them: the level rises."""
    size = np.abs(e)
    top = float(size.max())
    # A stretch below the level may stand beside a high one: left in, it would drag the next level down. Ties within
    # a little are kept, so that there is a choice.
    tie = min(1e-9, max(1e-15, 1e-3 * (top - abs(level)) / top)) if top else 1e-15
    peaks = _extremes(e, np.flatnonzero(size >= abs(level) * (1 - tie)))
    if len(peaks) < count:
        peaks = _extremes(e, np.arange(len(e)))
    if len(peaks) < count:
        return _single(points, e, s, level)
    return points[_thin(points, size / (abs(level) or 1.0), peaks.tolist(), count, crowding)]


def _thin(points: Array, height: Array, chosen: list[int], count: int, crowding: float) -> list[int]:
    """Drop ends and neighbouring pairs until ``count`` are left, the largest among them.

    What goes is low, or crowded (``crowding`` > 0): of equally high points those are kept whose distances have the
    largest product, as in Fekete's problem, because a reference with a hole in it determines a polynomial that is
    huge there.
    """
    height = np.log(np.maximum(height, 1e-300))
    lead = max(chosen, key=lambda k: height[k])
    while len(chosen) > count:
        x, h = points[chosen], height[chosen]
        apart = np.zeros(len(x))
        if crowding:
            apart = crowding * np.log(np.abs(x[:, None] - x) + np.eye(len(x))).sum(axis=1)
        h[chosen.index(lead)] = np.inf
        ends = apart[[0, -1]] + h[[0, -1]]
        pairs = apart[:-1] + apart[1:] - apart.mean() - crowding * np.log(np.diff(x)) + np.maximum(h[:-1], h[1:])
        k = int(np.argmin(pairs))
        if len(chosen) == count + 1 or ends.min() <= pairs[k]:
            del chosen[0 if ends[0] <= ends[1] else -1]
        else:
            del chosen[k : k + 2]
    return chosen


def _extremes(e: Array, among: Array) -> Array:
    """Where e is largest in each stretch of one sign of these places."""
    cuts = np.flatnonzero(np.diff(np.where(e[among] < 0, -1, 1))) + 1
    return np.array([run[np.argmax(np.abs(e[run]))] for run in np.split(among, cuts) if len(run)])


def _single(points: Array, e: Array, s: Array, level: float) -> Array:
    """Exchange one point: the worst one replaces the neighbour of its own sign."""
    worst = int(np.argmax(np.abs(e)))
    x = points[worst]
    if x in s:
        return s
    signs = np.sign(level if level else 1.0) * (-1.0) ** np.arange(len(s))
    sign = np.sign(e[worst])
    k = int(np.searchsorted(s, x))
    s = s.copy()
    if k == 0:
        return np.concatenate([[x], s[1:]]) if sign == signs[0] else np.concatenate([[x], s[:-1]])
    if k == len(s):
        return np.concatenate([s[:-1], [x]]) if sign == signs[-1] else np.concatenate([s[1:], [x]])
    s[k if sign == signs[k] else k - 1] = x
    return s


def peaks_of(e: Array, least: float) -> Array:
    """Where |e| is not less than beside, and at least ``least``."""
    size = np.concatenate([[0.0], np.abs(e), [0.0]])
    return np.flatnonzero((size[1:-1] >= size[:-2]) & (size[1:-1] >= size[2:]) & (size[1:-1] >= least))


def sharpen(
    problem: Problem, errors: Callable[[Array], Array], points: Array, s: Array, *, settled: float = _STILL
) -> Array:
    """Move each point of the reference to the top of its peak, by golden sections between its neighbours.

    Rounds that gain less than ``settled``, relatively, are the end: three of them where that is all that doubles hold.
    """
    where = np.searchsorted(points, s)
    low = points[np.maximum(where - 1, 0)]
    high = points[np.minimum(where + 1, len(points) - 1)]
    piece = np.argmin(np.maximum(problem.ends[:, 0] - s[:, None], s[:, None] - problem.ends[:, 1]), axis=1)
    low, high = np.maximum(low, problem.ends[piece, 0]), np.minimum(high, problem.ends[piece, 1])
    value = errors(s)
    sign = np.sign(value)
    # Parabolas end smooth peaks in a few rounds, halving ends kinks in a hundred; three rounds without gain are
    # the end.
    a, m, b = low, s, high
    ya, top, yb = sign * errors(a), np.abs(value), sign * errors(b)
    quiet = 0
    for _ in range(120):
        before = top
        for vertex in (True, False):
            half = np.where(m - a > b - m, (a + m) / 2, (m + b) / 2)
            trial = _vertex(a, m, b, ya, top, yb, half) if vertex else half
            y = sign * errors(trial)
            better, left = y > top, trial < m
            to_a, to_b = better & ~left, better & left
            a, ya = _choose(to_a, (m, top), ~better & left, (trial, y), (a, ya))
            b, yb = _choose(to_b, (m, top), ~better & ~left, (trial, y), (b, yb))
            m, top = np.where(better, trial, m), np.where(better, y, top)
        quiet = quiet + 1 if (top - before).max(initial=0.0) <= settled * top.max(initial=0.0) else 0
        if quiet == (3 if settled == _STILL else 1):
            break
    return m


def _choose(first: Array, one: Pair, second: Array, two: Pair, otherwise: Pair) -> Pair:
    x, y = (np.where(first, p, np.where(second, q, r)) for p, q, r in zip(one, two, otherwise, strict=True))
    return x, y


def _vertex(a: Array, m: Array, b: Array, ya: Array, ym: Array, yb: Array, otherwise: Array) -> Array:
    """The vertex of the parabola through three points of each peak, where there is one inside."""
    with np.errstate(all="ignore"):
        p, q = (m - a) * (ym - yb), (m - b) * (ym - ya)
        vertex = m - 0.5 * ((m - a) * p - (m - b) * q) / (p - q)
    return np.where(np.isfinite(vertex) & (vertex > a) & (vertex < b) & (vertex != m), vertex, otherwise)
