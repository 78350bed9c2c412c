"""How often a composition on the short side must form its Gram matrix anew, so that rounding does no harm.

With G = X X^T the steps x -> x q_t(x^2) become R <- q_t(G) R, G <- q_t(G) G q_t(G), and R X at the end. Rounding moves
the eigenvalues of G by u ||G||, and negative ones grow with every step, until G is formed from the matrix as it stands
there. Which steps may share one G is a matter of numbers alone: they are looked at here as for diagonal matrices.
"""

import functools
import itertools

import numpy as np

from spectrain.approx._schedule import Interval
from spectrain.approx._schedules.widened import FINE, Steps, rooms, widened_tops

NOISE = 0.3
"""Spectral norm of the rounding error of G, in units of u ||G||: `spectrain.approx._schedules.rounding.SPECTRAL`."""
MOST_CUTS = 3

_ROOM, _ROOM_BY_GRAM = 4.0, 0.006  # in roundoffs and at least: what the Gram form may add at the end to the plain one
_GRID = np.unique(np.r_[0.0, np.geomspace(2.0**-24, 1.0, 1500), np.linspace(0.0, 1.0, 257)])  # dips are narrow
_SOURCES = ("B", "q g", "g", "R")
_LONGEST = 4  # steps on one Gram matrix in half precision; more were never safe


@functools.lru_cache(maxsize=256)
def fewest_cuts(
    steps: Steps, intervals: tuple[Interval, ...], error: float, u: float, sums: float
) -> tuple[int, ...] | None:
    """Before which steps G has to be formed anew, as few as are safe; None where three are not enough.

    ``intervals`` are those of the schedule, ``error`` its error, u the unit roundoff of the products, ``sums`` the
    roundoffs that each of them adds at most. Safe is said in :func:`spectrain.matfun._iteration.gram.safe_cuts`.
    """
    drift = functools.cache(lambda start, stop: _drift(steps[start:stop], intervals[start], NOISE * u))
    top = functools.cache(lambda start, stop, high: _top(steps[start:stop], high, sums * u, first=start == 0))
    inner, last = _allowance(intervals[0], error, u)
    end = max(widened_tops(steps, intervals[0][1], sums * u)[-1], 1 + error) + max(_ROOM * u, _ROOM_BY_GRAM)
    room = rooms(steps, end, sums * u)
    for count in range(min(MOST_CUTS, len(steps) - 1) + 1):  # fewest first: each costs two products with the long side
        safe = []
        for cuts in itertools.combinations(range(1, len(steps)), count):
            segments = list(itertools.pairwise((0, *cuts, len(steps))))
            drifts = [drift(a, b) for a, b in segments]
            if max(max(d) for d in drifts) > inner or drifts[-1][1] > last:
                continue
            high = intervals[0][1]
            for a, b in segments:
                high = top(a, b, high)
                if not high <= room[b]:
                    break
            else:
                safe.append((drifts[-1][1], cuts))
        if safe:
            return min(safe)[1]
    return None


@np.errstate(over="ignore", invalid="ignore")
def _top(segment: Steps, high: float, u: float, *, first: bool) -> float:
    """Return the largest singular value after a segment on one Gram matrix of values in [0, high], rounding at worst.

    In half precision it is the largest over all choices of signs, one for each step and one for the start and for R;
    in finer arithmetic effects add up, and each rounding is looked at by itself.
    """
    sources = 1 + len(_SOURCES) * len(segment)
    if u < FINE:
        exact = _after(segment, high, u, np.zeros(sources), first=first)
        parts = [np.abs(_after(segment, high, u, signs, first=first) - exact) for signs in np.eye(sources)]
        return float(np.nan_to_num(np.abs(exact) + sum(parts), nan=np.inf).max())
    if len(segment) > _LONGEST:
        return np.inf
    # A rounding of half precision moves the argument of the next step so far that effects no longer add up: no sum of
    # parts is a bound, so every choice of signs is carried through to the end.
    worst = 0.0
    for start, turn, *signs in itertools.product((-1.0, 0.0, 1.0), (-1.0, 1.0), *[(-1.0, 1.0)] * len(segment)):
        every = [start, *[value for sign in signs for value in (sign, sign, sign, turn)]]
        worst = max(worst, float(np.abs(_after(segment, high, u, np.array(every), first=first)).max()))
    return worst if np.isfinite(worst) else np.inf


def _after(segment: Steps, high: float, u: float, signs: np.ndarray, *, first: bool) -> np.ndarray:
    """Return R x for x in [0, high] when the roundings of G, then in each step of B, q g, g and R are signs times u.

    The tracked square g and the value x part ways: every error has the size u times the norm of its matrix.
    """
    x = high * _GRID
    g, R = x**2 + signs[0] * u * high**2, np.ones_like(x)
    for i, c in enumerate(segment):
        of_b, of_product, of_square, of_factor = u * signs[1 + len(_SOURCES) * i :][: len(_SOURCES)]
        b = np.polyval([*reversed(c[1:]), 0.0], g)
        size = np.abs(b).max()
        if first and i == 0:  # G^2 is rounded by itself
            size += sum([abs(cj) * high ** (2 * j) for j, cj in enumerate(c) if j > 1])
        q = c[0] + b + of_b * size
        R = q * R
        R = R + of_factor * np.abs(R).max()
        g = q * g + of_product * np.abs(q * g).max()
        g = q * g + of_square * np.abs(q * g).max()
    return R * x * (1 + u)


def _allowance(interval: Interval, error: float, u: float) -> tuple[float, float]:
    """Return how far values may drift in a segment and in the last one: as much as rounding costs step by step."""
    step_by_step = max(error, NOISE * u * interval[1] / interval[0])
    return min(0.1, max(2 * step_by_step, 8 * u)), max(error, 4 * u)


@np.errstate(over="ignore", invalid="ignore")
def _drift(segment: Steps, interval: Interval, noise: float) -> tuple[float, float]:
    """Return the largest relative change after the steps of one segment, of the slope at zero and of the values."""
    low, high = interval
    x = np.r_[0.0, np.geomspace(low, high, 64)] / high
    change = np.zeros_like(x)
    for sign in (1.0, -1.0):
        g, exact = x**2 + sign * noise, x**2
        R, true = np.ones_like(x), np.ones_like(x)
        for step in segment:
            c = [cj * high ** (2 * j) for j, cj in enumerate(step)]
            q, q_exact = np.polyval(c[::-1], g), np.polyval(c[::-1], exact)
            R, true = R * q, true * q_exact
            g, exact = g * q**2, exact * q_exact**2
            g = g + sign * noise * max(float(exact.max()), 1.0)
        change = np.maximum(change, np.abs(R / true - 1))
    change = np.nan_to_num(change, nan=np.inf)
    return float(change[0]), float(change[1:].max())
