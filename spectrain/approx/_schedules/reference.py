"""Where the best ``x q(x^r)`` for 1 alternates, in doubles: a start from which balls need one or two rounds."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

_TERMS = range(3, 9)
"""Two terms need no better start than Chebyshev's points, and of more than eight doubles do not know the level."""
_NARROW = 0.2
"""The width of [rho^r, 1] below which the level comes near the rounding of doubles."""
_MOST_ROUNDS = 12
_STILL = 1e-7  # of a point: steps square their distance to the end
_TRIES = 3


def in_doubles(rho: float, terms: int, stride: int) -> list[float] | None:
    """The inner alternation points in y = x^r on [rho^r, 1]; None where doubles do not find them.

    The exchange of :func:`spectrain.approx._schedules.unit.unit_step`, by divided differences: with q(y_i) =
    (1 - (-1)^i E) / x_i the difference of q over all points is 0, which gives E, and those over the first ones are q in
    Newton's form. Only a start: nothing is proven of it.

    >>> y = in_doubles(0.1, 3, 2)
    >>> 0.01 < y[0] < y[1] < 1
    True
    """
    low = rho**stride
    if terms not in _TERMS or not _NARROW < 1 - low < 1:
        return None
    half, centre = (1 - low) / 2, (1 + low) / 2
    y = [low, *(centre - half * math.cos(math.pi * i / terms) for i in range(1, terms)), 1.0]
    for _ in range(_MOST_ROUNDS):
        slope = [(1 + j * stride) * cj for j, cj in enumerate(_coefficients(y, stride))]
        moved = _zeros(slope, y)
        if moved is None:
            return None
        still = all(abs(a - b) <= _STILL * a for a, b in zip(moved, y, strict=True))
        y = moved
        if still:
            break
    return y[1:-1]


def _coefficients(y: list[float], stride: int) -> list[float]:
    """q of the level at these points."""
    values = [v ** (-1 / stride) for v in y]
    # Both sides at once, as the two parts of complex numbers: half the time.
    pairs = _differences(y, [complex(v, -v if i % 2 else v) for i, v in enumerate(values)])
    level = pairs[-1].real / pairs[-1].imag
    c: list[float] = []
    for start, pair in zip(reversed(y[:-1]), reversed(pairs[:-1]), strict=True):
        # Horner's rule in Newton's form: times (y - start), and the next difference added.
        c = [u - start * v for u, v in zip([pair.real - level * pair.imag, *c], [*c, 0.0], strict=True)]
    return c


def _differences(y: list[float], values: list[complex]) -> list[complex]:
    """Divided differences over the first point, the first two, and so on."""
    row, found = values, [values[0]]
    for k in range(1, len(y)):
        row = [(v - u) / (b - a) for u, v, a, b in zip(row, row[1:], y, y[k:], strict=False)]
        found.append(row[0])
    return found


def _zeros(slope: list[float], y: list[float]) -> list[float] | None:
    """The ends and the zeros of the slope between them: by Newton's method near the points, else all that there are."""
    inner = _of_square(slope) if len(slope) == 3 else _by_newton(slope, y)
    if inner is None:
        roots = np.roots(slope[::-1])
        inner = sorted(roots[abs(roots.imag) <= 1e-9 * abs(roots)].real.tolist())
    moved = [y[0], *inner, y[-1]]
    return moved if len(moved) == len(y) and all(a < b for a, b in pairwise(moved)) else None


def _of_square(slope: list[float]) -> list[float]:
    """Both zeros, by the sign that does not cancel."""
    inner = max(slope[1] ** 2 - 4 * slope[2] * slope[0], 0.0)
    q = -0.5 * (slope[1] + math.copysign(math.sqrt(inner), slope[1]))
    return sorted([q / slope[2], slope[0] / q])


def _by_newton(slope: Sequence[float], y: list[float]) -> list[float] | None:
    found = []
    for left, at, right in zip(y, y[1:], y[2:], strict=False):
        step = 0.0
        for _ in range(_TRIES):
            value = bend = 0.0
            for cj in reversed(slope):
                bend = bend * at + value
                value = value * at + cj
            step = value / bend if bend else math.inf
            at -= step
            if not left < at < right:
                return None
            if abs(step) <= 1e-15 * at:
                break
        if abs(step) > 1e-3 * (right - left):
            return None
        found.append(at)
    return found
