"""Where a Gram iteration has to form its Gram matrix anew, from the interval of the schedule and the dtype."""

import functools
import itertools
from typing import TypeAlias

import numpy as np
import torch

from spectrain.approx import Schedule
from spectrain.matfun._input import Real
from spectrain.matfun._iterate import odd_coefficients

_NOISE = 0.3  # spectral norm of the rounding error of G, in units of u ||G||: `spectrain.approx._roundoff.SPECTRAL`
_MOST = 3

Steps: TypeAlias = tuple[tuple[float, ...], ...]  # odd coefficients of each polynomial
Interval: TypeAlias = tuple[float, float]


def restarts(schedule: Schedule, dtype: torch.dtype) -> tuple[int, ...] | None:
    """Return before which steps G is formed anew, as few as are safe, or None where three are not enough.

    Safe means: with every eigenvalue of every G moved by 0.3 u ||G|| either way, u the unit roundoff of dtype, the
    singular values after each segment, and its slope at zero, stay within 10 % of where exact arithmetic brings
    them, and the singular values after the last one within max(error of the schedule, 4 u). A negative eigenvalue -e
    would become -e q(-e)^2, with q at its largest there: it is cut off before it matters, because a Gram matrix that
    is formed anew has none. Perturbations that do not commute with G cost as much here as in the plain iteration.

    >>> from spectrain.approx import sign_schedule
    >>> [restarts(sign_schedule(lower, steps=5), torch.bfloat16) for lower in (0.3, 3e-3)]
    [(2,), (1, 3)]
    >>> restarts(sign_schedule(3e-3, steps=5), torch.float32)
    ()
    """
    known = len(schedule.intervals) > len(schedule.polynomials)  # else made by hand, nothing is known
    return _constant(coefficients(schedule), tuple(schedule.intervals), schedule.error, dtype) if known else None


def coefficients(schedule: Schedule) -> Steps:
    """Return the odd coefficients of every polynomial."""
    return tuple([tuple(odd_coefficients(p)) for p in schedule.polynomials])


def gram_restarts(
    schedule: Schedule, dtype: torch.dtype, shape: tuple[int, ...], *, always: bool = False
) -> tuple[int, ...] | None:
    """Return the restarts of the Gram iteration where it is safe and takes fewer multiplications, else None.

    For quintics and ordinary products that is from an aspect of about 1.5 on; every restart moves it up. With
    ``always`` the price does not count, and a schedule for which it is not safe is a ValueError.
    """
    short, long = sorted(shape[-2:])
    cuts = restarts(schedule, dtype)
    if always and cuts is None:
        raise ValueError(
            f'msign: method="gram" is not safe in {dtype} for a schedule on {schedule.interval}: more than {_MOST} '
            'restarts would be needed. Use method="plain", a wider dtype, or an interval that starts higher'
        )
    if cuts is None or always:
        return cuts
    steps, aspect = coefficients(schedule), long / short
    return cuts if gram_products(steps, cuts, aspect) < plain_products(steps, aspect) else None


def plain_products(steps: Steps, aspect: Real) -> Real:
    """Return the price of the plain iteration in products of k x k: for each step, two with the long side, and q."""
    return 2 * aspect * len(steps) + _inner(steps)


def gram_products(steps: Steps, cuts: tuple[int, ...], aspect: Real) -> Real:
    """Return the price of the Gram iteration: per segment, two with the long side, q, and three from step to step."""
    segments = len(cuts) + 1
    return 2 * aspect * segments + _inner(steps) + 3 * (len(steps) - segments)


def _inner(steps: Steps) -> int:
    """Return how many products of k x k form q(G), as `without_identity` does it, over all steps."""
    return sum([len(c) // 2 for c in steps])


@torch.compiler.assume_constant_result
def _constant(
    steps: Steps, intervals: tuple[Interval, ...], error: float, dtype: torch.dtype
) -> tuple[int, ...] | None:
    return _fewest(steps, intervals, error, torch.finfo(dtype).eps / 2)


@functools.lru_cache(maxsize=256)
def _fewest(steps: Steps, intervals: tuple[Interval, ...], error: float, u: float) -> tuple[int, ...] | None:
    drift = functools.cache(lambda start, stop: _drift(steps[start:stop], intervals[start], _NOISE * u))
    inner, last = _allowed(intervals[0], error, u)
    for count in range(min(_MOST, len(steps) - 1) + 1):
        safe = []
        for cuts in itertools.combinations(range(1, len(steps)), count):
            drifts = [drift(a, b) for a, b in itertools.pairwise((0, *cuts, len(steps)))]
            if max(max(d) for d in drifts) <= inner and drifts[-1][1] <= last:
                safe.append((drifts[-1][1], cuts))
        if safe:
            return min(safe)[1]
    return None


def _allowed(interval: Interval, error: float, u: float) -> tuple[float, float]:
    """Return how far values may drift in a segment and in the last one: as much as rounding costs step by step."""
    step_by_step = max(error, _NOISE * u * interval[1] / interval[0])
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
