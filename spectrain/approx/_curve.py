"""Error curves to draw, with the points where Chebyshev's theorem is seen."""

from typing import NamedTuple

import numpy as np

from spectrain.approx._polynomial import Polynomial
from spectrain.approx._schedule import Interval, Schedule


class ErrorCurve(NamedTuple):
    """``error[i] = p(x[i]) - 1`` on the interval, and the points where the error turns round, ends included."""

    powers: tuple[int, ...]
    coefficients: tuple[float, ...]
    interval: Interval
    x: tuple[float, ...]
    error: tuple[float, ...]
    points: tuple[float, ...]
    heights: tuple[float, ...]


def error_curve(p: Polynomial, interval: Interval, *, samples: int = 400) -> ErrorCurve:
    """The curve of ``p - 1`` on the interval, with its extremes: the alternation points where p is best.

    Raises ValueError for a reversed interval or fewer than two samples.

    >>> curve = error_curve(Polynomial.odd(1.5, -0.5), (0.5, 1.0))
    >>> curve.points, [round(h, 4) for h in curve.heights]
    ((0.5, 1.0), [-0.3125, 0.0])
    """
    low, high = interval
    if not (low < high and samples >= 2):
        raise ValueError(f"error_curve needs low < high and two samples or more, got {interval} and {samples}.")
    logarithmic = 0 < low < high / 20
    x = np.geomspace(low, high, samples) if logarithmic else np.linspace(low, high, samples)
    points = np.array([low, *_stationary(p, low, high), high])
    return ErrorCurve(
        p.powers, p.coefficients, (low, high), tuple(x.tolist()), tuple((p(x) - 1.0).tolist()),
        tuple(points.tolist()), tuple((p(points) - 1.0).tolist()),
    )  # fmt: skip


def step_curves(schedule: Schedule, *, samples: int = 400) -> tuple[ErrorCurve, ...]:
    """`error_curve` of every step of a schedule, each on the interval where its values stand.

    >>> from spectrain.approx import sign_schedule
    >>> [len(curve.points) for curve in step_curves(sign_schedule(0.001, steps=3))]    # degree 5: four alternations
    [4, 4, 4]
    """
    pairs = zip(schedule.polynomials, schedule.intervals, strict=False)
    return tuple(error_curve(p, interval, samples=samples) for p, interval in pairs)


def _stationary(p: Polynomial, low: float, high: float) -> list[float]:
    """Zeros of p' strictly inside the interval, rising."""
    slope = p.derivative()
    x = np.unique(np.concatenate([np.linspace(low, high, 2001), np.geomspace(low, high, 2001) if low > 0 else [low]]))
    values = slope(x)
    where = np.flatnonzero(np.sign(values[:-1]) * np.sign(values[1:]) < 0)
    return [_bisect(slope, float(x[k]), float(x[k + 1])) for k in where]


def _bisect(f: Polynomial, a: float, b: float) -> float:
    rising = f(b) > 0
    for _ in range(60):
        m = (a + b) / 2
        a, b = (a, m) if (f(m) > 0) == rising else (m, b)
    return (a + b) / 2
