"""Stumpff's functions c1, c2, c3: what sine and cosine leave after their first terms, without cancellation.

c_k(z) = 1/k! - z/(k+2)! + z^2/(k+4)! - ..., so that with z = x^2

    sin x = x c1(z),   cos x = 1 - z c2(z),   x - sin x = x^3 c3(z),

and for z = -x^2 the same with the hyperbolic functions. They carry an orbit through the parabola and a turn
through the straight line, where z = 0 and the formulas with sin x / x^3 lose every digit.

Source: Stumpff, Himmelsmechanik I (1959); Battin, An Introduction to the Mathematics and Methods of
Astrodynamics (1999), section 4.5.
"""

from fractions import Fraction
from functools import reduce
from math import factorial, pi
from operator import add, mul

import numpy as np

from spectrain.gallery._arrays import Array

SERIES_END = pi**2
TERMS = 14  # the first term left out, pi^28/30!, is below 1e-18 of the sum for |z| <= pi^2
TAYLOR = [[Fraction((-1) ** i, factorial(2 * i + k)) for i in range(TERMS + 2)] for k in (2, 3)]
FEWER = 10  # terms that are enough on [0, pi^2] once the series has been economized: an error below 1e-16


def economized(series: list[Fraction], end: Fraction, terms: int) -> list[Fraction]:
    """The power series cut to ``terms`` terms for use on [0, end]: the highest power is taken out again and again
    by a multiple of the Chebyshev polynomial of its degree (Lanczos), each a change of 2^(1 - 2 degree) of the term.

    >>> [str(c) for c in economized([Fraction(0), Fraction(0), Fraction(1)], Fraction(1), 2)]
    ['-1/8', '1']
    """
    scaled = [c * end**i for i, c in enumerate(series)]
    shifted = [[1], [-1, 2]]  # Chebyshev polynomials of 2 x - 1
    while len(shifted) < len(series):
        last, before = shifted[-1], shifted[-2] + [0, 0]
        shifted.append([4 * a - 2 * b - c for a, b, c in zip([0, *last], [*last, 0], before, strict=True)])
    for degree in range(len(series) - 1, terms - 1, -1):
        factor = scaled[degree] / shifted[degree][-1]
        scaled = [a - factor * b for a, b in zip(scaled[:degree], shifted[degree], strict=False)]
    return [c / end**i for i, c in enumerate(scaled)]


# The last power comes first, so that sums begin with the smallest term.
TWO, THREE = ([float(c) for c in economized(row, Fraction(SERIES_END), FEWER)[::-1]] for row in TAYLOR)
COEFFICIENTS = np.array([TWO, THREE])[:, :, None]


def series_of_both(z: Array) -> tuple[Array, Array]:
    """c2 and c3 on [0, pi^2], z of one dimension, in nine array operations for both.

    >>> two, three = series_of_both(np.zeros(3))
    >>> float(two[0]) == 1 / 2, float(three[0]) == 1 / 6
    (True, True)
    """
    powers = np.empty((FEWER, z.size))  # z^9, ..., z, 1
    powers[9], powers[8] = 1.0, z
    np.multiply(z, z, out=powers[7])
    np.multiply(powers[7:9], powers[7], out=powers[5:7])
    np.multiply(powers[5:9], powers[5], out=powers[1:5])
    np.multiply(z, powers[1], out=powers[0])
    two = np.add.reduce(COEFFICIENTS[0] * powers, axis=0)
    powers *= COEFFICIENTS[1]
    return two, np.add.reduce(powers, axis=0)


def series_at(z: float) -> tuple[float, float]:
    """The same for one number: the same operations in the same order, so the same digits.

    >>> series_at(2.5) == tuple(float(row[0]) for row in series_of_both(np.full(2, 2.5)))
    True
    """
    z2 = z * z
    z3, z4 = z * z2, z2 * z2
    z8 = z4 * z4
    powers = (z * z8, z8, z3 * z4, z2 * z4, z * z4, z4, z3, z2, z, 1.0)
    return reduce(add, map(mul, TWO, powers)), reduce(add, map(mul, THREE, powers))  # sum() would compensate


def c2(z: Array) -> Array:
    """(1 - cos x)/x^2 at z = x^2 and (cosh x - 1)/x^2 at z = -x^2, to a few ulp.

    >>> bool(abs(c2(np.array(1.0)) - (1 - np.cos(1.0))) < 1e-16), float(c2(np.array(0.0)))
    (True, 0.5)
    """
    x = np.sqrt(np.abs(z))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        half = np.where(z > 0, np.sin(x / 2), np.sinh(x / 2)) / x
    return np.where(np.abs(z) <= SERIES_END, _near(z)[0], 2 * half**2)


def c3(z: Array) -> Array:
    """(x - sin x)/x^3 at z = x^2 and (sinh x - x)/x^3 at z = -x^2, to a few ulp.

    >>> float(c3(np.array(0.0))) == 1 / 6, bool(abs(c3(np.array(-1.0)) - (np.sinh(1.0) - 1)) < 1e-16)
    (True, True)
    """
    x = np.sqrt(np.abs(z))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        far = np.where(z > 0, x - np.sin(x), np.sinh(x) - x) / x / x / x
    return np.where(np.abs(z) <= SERIES_END, _near(z)[1], far)


def _near(z: Array) -> Array:
    """Both by their Taylor series, for z of any shape and either sign; what lies outside its reach is cut off."""
    z = np.clip(np.asarray(z, dtype=float), -SERIES_END, SERIES_END)
    total = np.zeros((2, *z.shape))
    for pair in zip(*(row[TERMS - 1 :: -1] for row in TAYLOR), strict=True):
        total *= z
        total += np.array(pair, dtype=float).reshape(2, *([1] * z.ndim))
    return total
