"""Images of intervals under polynomials ``x^k q(x^r)``, proven by balls."""

import math

from flint import acb_poly, arb, arb_poly

from spectrain.approx._balls.range import UnprovableError, ball, float_down, float_up, polynomial_range, precise
from spectrain.approx._polynomial import Polynomial

Interval = tuple[float, float]

_BITS = 192
_SHARP = 2.0**-140
"""What zeros of p' are enclosed to, far below the spacing of doubles."""
_MOST_DENSE = 4096
"""The degree up to which a polynomial is written out with all its powers."""


def image(p: Polynomial, interval: Interval) -> Interval:
    """The image of the interval, rounded outward; (-inf, inf) where it overflows or no proof is found.

    The extrema of p = sum c_j x^(k + j r) on x >= 0 are at the ends and where s(x^r) = 0, s(y) = sum (k + j r) c_j y^j.
    Balls isolate all zeros of s, so the result is as sharp as doubles are. Where they do not (the interval reaches
    below 0, s has a multiple zero) branch and bound takes over (`spectrain.approx._balls.range`).

    >>> image(Polynomial((1, 3), (1.5, -0.5)), (0.5, 1.5))
    (0.5625, 1.0000000000000002)
    """
    with precise(_BITS):
        low, high = map(ball, interval)
        values = (_at_extrema(p, low, high) if low >= 0 else None) or _by_branching(p, low, high)
        found = (min(map(float_down, values)), max(map(float_up, values))) if values else (-math.inf, math.inf)
    return found if all(map(math.isfinite, found)) else (-math.inf, math.inf)


def _at_extrema(p: Polynomial, low: arb, high: arb) -> list[arb] | None:
    """p at both ends and at every zero of p' between them; None where the zeros are not isolated."""
    first = p.powers[0]
    stride = math.gcd(*(n - first for n in p.powers)) or 1
    if (p.degree - first) // stride > _MOST_DENSE:
        return None
    slope = acb_poly([0] * ((p.degree - first) // stride + 1))
    for n, c in zip(p.powers, p.coefficients, strict=True):
        slope[(n - first) // stride] = n * ball(c)
    try:
        zeros = [z.real for z in slope.roots(_SHARP) if z.imag.contains(0)]
    except ValueError:
        return None
    inside = [y for y in zeros if not (y < low**stride or y > high**stride)]
    if not all(y > 0 for y in inside):
        return None
    values = [_at(p, x) for x in (low, high, *(y.root(stride) for y in inside))]
    return values if all(v.is_finite() for v in values) else None


def _at(p: Polynomial, x: arb) -> arb:
    return sum((ball(c) * x**n for n, c in zip(p.powers, p.coefficients, strict=True)), arb(0))


def _by_branching(p: Polynomial, low: arb, high: arb) -> list[arb] | None:
    if p.degree > _MOST_DENSE:
        return None
    dense = arb_poly([0] * (p.degree + 1))
    for n, c in zip(p.powers, p.coefficients, strict=True):
        dense[n] = ball(c)
    try:
        bounds = polynomial_range(dense, low, high)
    except UnprovableError:
        return None
    return [bounds[0], bounds[3]]
