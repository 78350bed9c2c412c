"""Kepler's equation, E - e sin E = M and e sinh H - H = M, to about two ulp everywhere and without iteration.

Written with Stumpff's functions as (1 - e) E + e E^3 c3(E^2) = M, nothing in it cancels, up to e = 1 - 2^-53 and
down to the smallest M. A cubic is solved for the starter (Markley 1995: sin E by a Pade approximant whose
parameter alpha we fit by our own minimax approximation), and one fifth-order step finishes.

Source: Markley, Kepler equation solver, Celestial Mechanics 63 (1995) 101-111.
"""

import numpy as np
from numpy.typing import NDArray

from spectrain.gallery._arrays import Array, Numbers
from spectrain.gallery._stumpff import c2, c3, series_of_both

BLOCK = 8192  # entries solved at once: the temporaries stay in the cache
# Two pi as a sum of three floats, the first two with 33 bits, so that k times each is exact for |k| < 2^20.
TWO_PI = (6.2831853069365025, 2.4308402025215864e-10, 8.089064995183803e-21)
EXACT_TURNS = 2.0**20

# sin E ~ E (6 alpha - (alpha - 3) E^2)/(6 alpha + 3 E^2). ALPHA_AT_PI makes it exact at E = pi. From there alpha
# grows by about SLOPE (pi - M)/(1 + e): the best such line for e = 1, in the sense of the largest relative error
# that it causes in E. tests/gallery/test_kepler.py recomputes it with approx.minimax.
ALPHA_AT_PI = 3 * np.pi**2 / (np.pi**2 - 6)
SLOPE = 1.3244969745
LARGEST_H = 711.0  # no float M has a larger H: sinh(711) overflows


def eccentric_anomaly(M: Numbers, e: Numbers) -> Array:
    """E with E - e sin E = M, for 0 <= e < 1 and any finite M; both broadcast, the answer is an array.

    The error is below 2 ulp of E (or of M when many turns have been made), for e up to 1 - 2^-53 and M down to the
    smallest normal number. Cost: about 90 array operations, a cube root and a square root; no iteration.
    Raises ValueError for e outside [0, 1) and for NaN or infinity.

    >>> eccentric_anomaly([0.0, np.pi], 0.9).tolist() == [0.0, np.pi]
    True
    """
    M, e = np.broadcast_arrays(np.asarray(M, dtype=float), np.asarray(e, dtype=float))
    if not np.all((e >= 0) & (e < 1)):
        raise ValueError(
            "eccentric_anomaly: e must lie in [0, 1), an ellipse, "
            f"got {first_of(e, ~((e >= 0) & (e < 1)))}. For e > 1 use hyperbolic_anomaly, for e = 1 perifocal."
        )
    check_finite("eccentric_anomaly", M=M)
    flat_M, flat_e, E = M.reshape(-1), e.reshape(-1), np.empty(M.size)
    for i in range(0, M.size, BLOCK):
        E[i : i + BLOCK] = _solve_ellipse(flat_M[i : i + BLOCK], flat_e[i : i + BLOCK])
    return E.reshape(M.shape)


def hyperbolic_anomaly(M: Numbers, e: Numbers) -> Array:
    """H with e sinh H - H = M, for e > 1 and any finite M; both broadcast, the answer is an array.

    The error is below 4 ulp of H. The starter is asinh((M + H0)/e), H0 the root of the cubic in which
    sinh H - H is replaced by H^3/6: an upper bound, from which three fifth-order steps converge everywhere.
    Raises ValueError for e <= 1 and for NaN or infinity.

    >>> H = hyperbolic_anomaly(2.0, 1.5)
    >>> bool(abs(1.5 * np.sinh(H) - H - 2.0) < 1e-15)
    True
    """
    M, e = np.broadcast_arrays(np.asarray(M, dtype=float), np.asarray(e, dtype=float))
    if not np.all(e > 1):
        raise ValueError(
            f"hyperbolic_anomaly: e must be above 1, a hyperbola, got {first_of(e, ~(e > 1))}. "
            "For e < 1 use eccentric_anomaly, for e = 1 perifocal."
        )
    check_finite("hyperbolic_anomaly", M=M, e=e)
    shape, M, e = M.shape, M.reshape(-1), e.reshape(-1)
    m, g = np.abs(M), e - 1
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        scale = np.sqrt(2 * (g / e))
        cubic = 2 * scale * np.sinh(np.arcsinh(1.5 * m / g / scale) / 3)
        H = np.arcsinh((m + np.minimum(cubic, LARGEST_H)) / e)
        for _ in range(3):
            z = H * H
            f = g * H + e * H * (z * c3(-z)) - m
            slope = g + e * (z * c2(-z))
            H = H + _fifth_order(f, slope, e * np.sinh(H), slope + 1, e * np.sinh(H))
    return np.copysign(H, M).reshape(shape)


def _solve_ellipse(M: Array, e: Array) -> Array:
    """One block of ``eccentric_anomaly``: reduce M to [0, pi], start, improve once, and put the turns back."""
    m = reduce_angle(M)
    E = _improve(_starter(np.abs(m), e), np.abs(m), e)
    return np.where(m == M, np.copysign(E, M), M + (np.copysign(E, m) - m))


def reduce_angle(M: Array) -> Array:
    """M less the nearest multiple of 2 pi, with the digits of 2 pi that it takes: in [-pi, pi] up to rounding."""
    turns = np.rint(M * (0.5 / np.pi))
    if not turns.any():
        return M
    if np.abs(turns).max() > EXACT_TURNS:
        return np.arctan2(np.sin(M), np.cos(M))  # the library's sine reduces its argument exactly, at a price
    return M - turns * TWO_PI[0] - turns * TWO_PI[1] - turns * TWO_PI[2]


def _starter(M: Array, e: Array) -> Array:
    """E to 4 digits: the root of the cubic that Kepler's equation becomes under the approximant of sin E."""
    g, squared = 1 - e, M * M
    alpha = ALPHA_AT_PI + SLOPE * (np.pi - M) / (1 + e)
    d = 3 * g + alpha * e
    alpha *= d
    q = 2 * alpha * g - squared
    r = (3 * alpha * (d - g) + squared) * M
    w = np.cbrt(r + np.sqrt(q * q * q + r * r))
    w *= w
    return (2 * r * w / (w * (w + q) + q * q) + M) / d


def _improve(E: Array, M: Array, e: Array) -> Array:
    """One step of order five on (1 - e) E + e E^3 c3(E^2) = M for 0 <= E <= pi."""
    z, g = E * E, 1 - e
    versine, cube = z * series_of_both(z)  # 1 - cos E, and (E - sin E)/E
    slope = g + e * versine
    sine = e * (E - E * cube)
    return E + _fifth_order(g * E + e * (E * cube) - M, slope, sine, 1 - slope, -sine)


def _fifth_order(f: Array, f1: Array, f2: Array, f3: Array, f4: Array) -> Array:
    """The root of f + f1 x + f2 x^2/2 + f3 x^3/6 + f4 x^4/24 near 0, to fifth order in f (nested Halley steps)."""
    x = -f / (f1 - f * (0.5 * (f2 / f1)))
    x = -f / (f1 + x * (f2 / 2 + x * (f3 / 6)))
    return -f / (f1 + x * (f2 / 2 + x * (f3 / 6 + x * (f4 / 24))))


def check_finite(who: str, **values: Array) -> None:
    """ValueError if any of the named arrays holds NaN or an infinity."""
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{who}: {name} must be finite, got {first_of(value, ~np.isfinite(value))}.")


def first_of(values: Array, where: NDArray[np.bool_] | np.bool_) -> float:
    """The first offending value, for a message."""
    return float(values[where][0])
