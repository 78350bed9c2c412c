"""The integrals of two-body motion from a state vector, with the digits of every difference in them.

Energy is the difference of v^2/2 and mu/r, e near the circle the difference of r v^2/mu and 1, angular momentum a
difference of products: in floats each loses all digits somewhere. But the state is rational, so v^2, r^2, r.v and
r x v are computed exactly, and each difference is multiplied out until only sums of like sign and exact rationals
are left:

    v^2/2 - mu/r = (v^4/4 - mu^2/r^2)/(v^2/2 + mu/r),   r v^2/mu - 1 = (r^2 v^4/mu^2 - 1)/(r v^2/mu + 1).

So the kind of conic is decided exactly for the numbers given, and all integrals are good to a few ulp.
"""

from fractions import Fraction
from math import hypot, isqrt, sqrt
from typing import NamedTuple

import numpy as np

from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._kepler_equation import check_finite

COLLINEAR = 4 * np.finfo(float).eps  # below this sine of the angle the plane of motion is rounding noise


class Integrals(NamedTuple):
    """Scaled so that nothing leaves the range of floats before the caller multiplies out."""

    distance: float
    energy: float
    alpha: float  # 1/a = -2 energy/mu: its sign is the kind of conic
    momentum: Array  # r x v
    parameter: float  # h^2/mu
    e: float
    gap: float  # 1 - e
    e_cosine: float  # e cos E, or e cosh H
    sine: float  # r.v/sqrt(mu)


def integrals(r: Numbers, v: Numbers, mu: Real) -> Integrals:
    """The integrals of the state, or a ValueError that says why it starts no orbit."""
    r, v = _vector(r, "position"), _vector(v, "velocity")
    if not (np.ndim(mu) == 0 and np.isfinite(mu) and mu > 0):
        raise ValueError(f"kepler: mu, the strength of attraction, must be a positive number, got {mu}.")
    R, V, M = [Fraction(x) for x in r.tolist()], [Fraction(x) for x in v.tolist()], Fraction(mu)
    r2, v2, rv = _dot(R, R), _dot(V, V), _dot(R, V)
    if r2 == 0 or v2 == 0:
        raise ValueError("kepler: position and velocity must not be zero: a body at rest falls straight in.")
    H = [R[1] * V[2] - R[2] * V[1], R[2] * V[0] - R[0] * V[2], R[0] * V[1] - R[1] * V[0]]
    h2 = _dot(H, H)
    if h2 <= Fraction(COLLINEAR) ** 2 * r2 * v2:
        raise ValueError("kepler: position and velocity are collinear: the body moves on a line through the centre.")
    try:
        found = _integrals(r2, v2, rv, H, h2, M)
    except OverflowError:
        found = None
    if found is None or not found.parameter > 0:
        raise ValueError("kepler: the integrals of this state leave the range of floats; use units nearer to r and mu.")
    return found


def _integrals(r2: Fraction, v2: Fraction, rv: Fraction, H: list[Fraction], h2: Fraction, mu: Fraction) -> Integrals:
    distance = _root(r2)
    lift = r2 * v2 * v2 / mu**2  # (r v^2/mu)^2
    root = _root(lift)
    alpha = float((4 - lift) / (Fraction(distance) * Fraction(2 + root)))
    e_cosine = float(lift - 1) / (root + 1)
    sine = _root(rv * rv / mu) * (1 if rv >= 0 else -1)
    parameter = float(h2 / mu)
    # 1 - e^2 = alpha h^2/mu. Near the circle e keeps its digits in the first form only, and 1 - e in the second.
    squares = float(Fraction(alpha) * h2 / mu)
    e = hypot(e_cosine, _root(abs(Fraction(alpha)) * rv * rv / mu)) if squares > 0.5 else sqrt(1 - squares)
    gap = squares / (1 + e)
    energy = -float(Fraction(alpha) * mu / 2)
    return Integrals(distance, energy, alpha, np.array([float(x) for x in H]), parameter, e, gap, e_cosine, sine)


def _vector(value: Numbers, name: str) -> Array:
    vector = np.asarray(value, dtype=float)
    if vector.shape != (3,):
        raise ValueError(f"kepler: {name} must be 3 numbers, got an array of shape {vector.shape}.")
    check_finite("kepler", **{name: vector})
    return vector


def _dot(a: list[Fraction], b: list[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def _root(x: Fraction) -> float:
    """The square root of a rational to a relative error below 2^-59 before the last rounding, whatever its size."""
    shift = 2 * (64 - (x.numerator.bit_length() - x.denominator.bit_length()) // 2) if x else 0
    scaled = x * Fraction(2) ** shift
    return float(Fraction(isqrt(scaled.numerator // scaled.denominator)) / Fraction(2) ** (shift // 2))
