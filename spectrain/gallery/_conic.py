"""Motion along a conic, from periapsis on, with 1 - e kept apart from e.

A float e next to 1 has no digits left for 1 - e, and 1 - e decides everything on a nearly radial or nearly parabolic
orbit. So every function here takes gap = 1 - e beside e. With w = E/sqrt(1 - e) on the ellipse, H/sqrt(e - 1) on
the hyperbola, z = gap w^2 and Stumpff's functions,

    time = w + e w^3 c3(z),   r = 1 + e w^2 c2(z),   x = 1 - w^2 c2(z),   y = sqrt(1 + e) w (1 - z c3(z))

in units of the periapsis distance q and of sqrt(q^3/mu). Nothing cancels and nothing divides by 1 - e: the parabola
(z = 0) is a point like any other.

Source: Battin, An Introduction to the Mathematics and Methods of Astrodynamics (1999), sections 4.5 and 4.6.
"""

from typing import NamedTuple

import numpy as np

from spectrain.gallery._arrays import Array, Real
from spectrain.gallery._kepler_equation import reduce_angle, solve_ellipse, solve_hyperbola
from spectrain.gallery._stumpff import c2, c3

TINY = 1e-90


class Conic(NamedTuple):
    """Periapsis distance, eccentricity, 1 - e, and mu; numbers or arrays of one shape."""

    q: Array | float
    e: Array | float
    gap: Array | float
    mu: Real


class Place(NamedTuple):
    """A place on the conic: distance, coordinates towards periapsis and across it, and their rates."""

    r: Array
    x: Array
    y: Array
    vx: Array
    vy: Array


def anomaly(conic: Conic, t: Array, since: float = 0.0) -> Array:
    """w at time t after a place whose own mean anomaly is ``since`` (after periapsis, unless told).

    The mean anomaly is counted in radians, on the parabola in units of sqrt(q^3/mu).
    """
    q, e, gap, t = np.broadcast_arrays(conic.q, conic.e, conic.gap, t)
    size = np.abs(gap)
    scale = np.where(gap == 0, 1.0, size) / q  # 1/|a|, computed thus because q^3 would leave the range of floats sooner
    mean = since + t * (np.sqrt(conic.mu * scale) * scale)
    # Next to periapsis of a conic next to the parabola the difference is far below rounding, but it underflows.
    none = (gap == 0) | ((size < TINY) & (np.abs(mean) < TINY))
    unit = np.where(gap == 0, 1.0, np.sqrt(size))
    w = np.empty(t.shape)
    for some, solve in ((none, _parabola), (~none & (gap > 0), _ellipse), (~none & (gap < 0), _hyperbola)):
        if some.any():
            w[some] = solve(mean[some], e[some], gap[some]) / unit[some]
    return w


def mean_anomaly(conic: Conic, w: float) -> float:
    """The mean anomaly at w, as ``anomaly`` counts it: the inverse for w within half a turn of periapsis."""
    size = abs(float(conic.gap)) or 1.0
    E = w * np.sqrt(size)
    return float(size * E + conic.e * E**3 * c3(np.asarray(conic.gap * w * w)))


def place(conic: Conic, w: Array) -> Place:
    """Where the body is at w, and how fast it moves, in the units of q and mu."""
    q, e = np.asarray(conic.q), np.asarray(conic.e)
    squared = w * w
    z = conic.gap * squared
    versine = squared * c2(z)
    sine, cosine = w * (1 - z * c3(z)), 1 - conic.gap * versine
    rho, wide, speed = 1 + e * versine, np.sqrt(1 + e), np.sqrt(conic.mu / q)
    return Place(q * rho, q * (1 - versine), q * wide * sine, -speed * (sine / rho), speed * wide * (cosine / rho))


def _ellipse(mean: Array, e: Array, gap: Array) -> Array:
    """E within half a turn of periapsis."""
    m = reduce_angle(mean)
    return np.copysign(solve_ellipse(np.abs(m), e, gap), m)


def _parabola(mean: Array, e: Array, gap: Array) -> Array:
    """Barker's equation w + w^3/6 = tau in closed form, in the unit of the other two."""
    unit = np.where(gap == 0, 1.0, np.sqrt(np.abs(gap)))
    return np.asarray(np.sqrt(8) * np.sinh(np.arcsinh(0.75 * np.sqrt(2) * (mean / unit / unit / unit)) / 3) * unit)


def _hyperbola(mean: Array, e: Array, gap: Array) -> Array:
    return np.copysign(solve_hyperbola(np.abs(mean), e, -gap), mean)
