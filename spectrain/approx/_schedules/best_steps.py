"""Best steps one after another, each for what those before make of an interval, their rounding included."""

import math
from collections.abc import Callable, Iterable, Iterator

from spectrain.approx._balls.image import Interval, image
from spectrain.approx._balls.range import ball, precise
from spectrain.approx._polynomial import Polynomial
from spectrain.approx._schedules.unit import round_coefficients, unit_step

_BITS = 400
# Of the unit roundoff times the size of the terms: a sum of a few products, each rounded.
_ROUNDINGS = 8


def best_steps(
    interval: Interval,
    terms: Iterable[int],
    stride: int = 2,
    *,
    cushion: float = 0.0,
    noise: Callable[[Polynomial, Interval], float],
) -> Iterator[tuple[Polynomial, Interval]]:
    """Best polynomials ``x q(x^r)`` for 1 of so many terms each, with the proven image of the interval so far.

    The upper end of an interval is nearly a fixed point of its step, and a repelling one: what stands above it by
    a rounding error stands 13 times as far above the next one, for quintics, 350 times for degree 21. So a step is
    designed for the image of the polynomials before it as they stand in doubles, widened at both ends by the fraction
    ``noise(p, interval)`` that rounding can add. It costs as large a fraction of the error.

    With a ``cushion`` it is designed on [max(low, cushion high), high] and recentred: its image is symmetric about 1.
    """
    for count in terms:
        p = _step(interval, count, stride, cushion)
        found = image(p, interval)
        yield p, found
        width = noise(p, interval)
        interval = (found[0] * (1 - min(width, 0.5)), found[1] * (1 + width))


def _step(interval: Interval, terms: int, stride: int, cushion: float) -> Polynomial:
    with precise(_BITS):
        low, high = map(ball, interval)
        start = low if low >= ball(cushion) * high else (ball(cushion) * high).mid()
        c, error = unit_step(start, high, terms, stride)
        if start > low:
            # Below its part of the interval p rises from 0: the image is [p(low), 1 + E], and is centred at 1 here.
            first = sum((cj * low ** (1 + stride * j) for j, cj in enumerate(c)), ball(0))
            factor = 2 / (first + 1 + error)
            c = [(factor * cj).mid() for cj in c]
        return round_coefficients(c, start, high, stride)


def rounding_of_terms(p: Polynomial, interval: Interval, *, unit: float) -> float:
    """What rounding the terms of p can add to a value near 1: 8 u sum |c_j| high^j."""
    high = interval[1]
    return _ROUNDINGS * unit * sum(abs(c) * high**n for n, c in zip(p.powers, p.coefficients, strict=True))


def rounding_of_power(p: Polynomial, interval: Interval, *, unit: float) -> float:
    """The same where x^r is iterated on: W^r P, W = p(x) / x, adds what rounding W^r does, seen by x as 1 / r of it.

    W^r is largest at the lower end; its rounding reaches all other eigenvalues. Where that is no longer small, no
    design helps.
    """
    low, stride = interval[0], p.powers[-1] - p.powers[-2]
    growth = math.exp(min(700.0, stride * math.log(max(p(low), low) / low)))
    return rounding_of_terms(p, interval, unit=unit) + min(_ROUNDINGS * unit * growth, 0.25) / stride
