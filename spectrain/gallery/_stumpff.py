"""Stumpff's functions c1, c2, c3: what sine and cosine leave after their first terms, without cancellation.

c_k(z) = 1/k! - z/(k+2)! + z^2/(k+4)! - ..., so that with z = x^2

    sin x = x c1(z),   cos x = 1 - z c2(z),   x - sin x = x^3 c3(z),

and for z = -x^2 the same with the hyperbolic functions. They carry an orbit through the parabola and a turn
through the straight line, where z = 0 and the formulas with sin x / x^3 lose every digit.

Source: Stumpff, Himmelsmechanik I (1959); Battin, An Introduction to the Mathematics and Methods of
Astrodynamics (1999), section 4.5.
"""

from math import factorial, pi

import numpy as np

from spectrain.gallery._arrays import Array

# The first term left out, pi^28/30!, is below 1e-18 of the sum for |z| <= pi^2.
TERMS = 14
SERIES_END = pi**2
C2 = tuple((-1) ** i / factorial(2 * i + 2) for i in range(TERMS))
C3 = tuple((-1) ** i / factorial(2 * i + 3) for i in range(TERMS))
PAIRS = tuple(np.array([[a], [b]]) for a, b in zip(C2[-2::-1], C3[-2::-1], strict=True))


def series(coefficients: tuple[float, ...], z: Array) -> Array:
    """The power series sum_i coefficients[i] z^i by Horner's rule, in one array.

    >>> float(series((1.0, 2.0, 3.0), np.array(10.0)))
    321.0
    """
    total = np.full_like(z, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        np.multiply(total, z, out=total)
        np.add(total, c, out=total)
    return total


def series_of_both(z: Array) -> Array:
    """c2 and c3 on |z| <= pi^2 as the rows of one array: half the passes over the data of two calls.

    >>> series_of_both(np.zeros(1)).ravel().tolist() == [1 / 2, 1 / 6]
    True
    """
    total = np.empty((2, *z.shape))
    total[0], total[1] = C2[-1], C3[-1]
    for pair in PAIRS:
        np.multiply(total, z, out=total)
        np.add(total, pair, out=total)
    return total


def c2(z: Array) -> Array:
    """(1 - cos x)/x^2 at z = x^2 and (cosh x - 1)/x^2 at z = -x^2, to a few ulp.

    >>> bool(abs(c2(np.array(1.0)) - (1 - np.cos(1.0))) < 1e-16), float(c2(np.array(0.0)))
    (True, 0.5)
    """
    x = np.sqrt(np.abs(z))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        half = np.where(z > 0, np.sin(x / 2), np.sinh(x / 2)) / x
    return np.where(np.abs(z) <= SERIES_END, series(C2, np.asarray(np.clip(z, -SERIES_END, SERIES_END))), 2 * half**2)


def c3(z: Array) -> Array:
    """(x - sin x)/x^3 at z = x^2 and (sinh x - x)/x^3 at z = -x^2, to a few ulp.

    >>> float(c3(np.array(0.0))) == 1 / 6, bool(abs(c3(np.array(-1.0)) - (np.sinh(1.0) - 1)) < 1e-16)
    (True, True)
    """
    x = np.sqrt(np.abs(z))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        far = np.where(z > 0, x - np.sin(x), np.sinh(x) - x) / x / x / x
    return np.where(np.abs(z) <= SERIES_END, series(C3, np.asarray(np.clip(z, -SERIES_END, SERIES_END))), far)
