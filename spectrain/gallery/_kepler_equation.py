"""Kepler's equation, E - e sin E = M and e sinh H - H = M, to about two ulp everywhere and without iteration.

Written with Stumpff's functions as (1 - e) E + e E^3 c3(E^2) = M, nothing in it cancels, up to e = 1 - 2^-53 and
down to the smallest M. A cubic is solved for the starter (Markley 1995: sin E by a Pade approximant whose
parameter alpha we fit by our own minimax approximation), and one fifth-order step finishes.

One number and an array go through the same formulas, and give the same digits.

Source: Markley, Kepler equation solver, Celestial Mechanics 63 (1995) 101-111.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._stumpff import c2, c3, series_at, series_of_both

BLOCK = 1536  # at most so many entries at once: the temporaries stay in the cache
FEW = 8  # up to here one by one is faster than by array operations
# Two pi as a sum of three floats, the first two with 33 bits, so that k times each is exact for |k| < 2^20.
TWO_PI = (6.2831853069365025, 2.4308402025215864e-10, 8.089064995183803e-21)
EXACT_TURNS = 2.0**20

# sin E ~ E (6 alpha - (alpha - 3) E^2)/(6 alpha + 3 E^2). ALPHA_AT_PI makes it exact at E = pi. From there alpha
# grows by about SLOPE (pi - M)/(1 + e): the best such line for e = 1, in the sense of the largest relative error
# that it causes in E. tests/gallery/test_kepler_equation.py recomputes it with approx.minimax.
ALPHA_AT_PI = 3 * math.pi**2 / (math.pi**2 - 6)
SLOPE = 1.3244969745
LARGEST_H = 711.0  # no float M has a larger H: sinh(711) overflows

Reals = Any  # a float or an array of floats: the solver's formulas serve both


def eccentric_anomaly(M: Numbers, e: Numbers) -> Array:
    """E with E - e sin E = M, for 0 <= e < 1 and any finite M; both broadcast, the answer is an array.

    The error is below 2 ulp of E (or of M when many turns have been made), for e up to 1 - 2^-53 and M down to the
    smallest normal number. Cost: about 80 array operations, a cube root and a square root; no iteration.
    Raises ValueError for e outside [0, 1) and for NaN or infinity.

    >>> E = eccentric_anomaly([0.0, 1e-9, 3.0], [0.9, 1 - 1e-9, 0.5])
    >>> bool(E[0] == 0), bool(abs(E[2] - 0.5 * np.sin(E[2]) - 3.0) < 1e-15)
    (True, True)
    """
    M, e = np.asarray(M, dtype=float), np.asarray(e, dtype=float)
    if M.shape != e.shape:
        M, e = np.broadcast_arrays(M, e)
    flat_M, flat_e = M.reshape(-1), e.reshape(-1)
    if M.size <= FEW:
        return np.array([_checked(m, q) for m, q in zip(flat_M.tolist(), flat_e.tolist(), strict=True)]).reshape(
            M.shape
        )
    if not (np.minimum.reduce(flat_e) >= 0 and np.maximum.reduce(flat_e) < 1):
        raise _not_an_ellipse(first_of(e, ~((e >= 0) & (e < 1))))
    most = np.maximum.reduce(np.abs(flat_M))
    if not most < np.inf:
        check_finite("eccentric_anomaly", M=M)
    E = np.empty(M.size)
    part = -(-M.size // -(-M.size // BLOCK))  # blocks of equal length
    for i in range(0, M.size, part):
        some = slice(i, i + part)
        E[some] = _with_turns(flat_M[some], flat_e[some], most)
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
    return np.asarray(np.copysign(solve_hyperbola(np.abs(M).reshape(-1), e.reshape(-1)).reshape(M.shape), M))


def reduce_angle(M: Reals) -> Reals:
    """M less the nearest multiple of 2 pi, with the digits of 2 pi that it takes: in [-pi, pi] up to rounding."""
    turns = float(round(M * (0.5 / math.pi))) if isinstance(M, float) else np.rint(M * (0.5 / math.pi))
    m = M - turns * TWO_PI[0] - turns * TWO_PI[1] - turns * TWO_PI[2]
    far = abs(turns) > EXACT_TURNS
    if far if isinstance(M, float) else far.any():  # the library's sine reduces its argument exactly, at a price
        m = np.where(far, np.arctan2(np.sin(M), np.cos(M)), m)
    return m


def solve_ellipse(M: Reals, e: Reals, gap: Reals = None) -> Reals:
    """E for 0 <= M <= pi: one number, or an array of one dimension. ``gap`` is 1 - e, where it is known better."""
    gap = 1 - e if gap is None else gap
    return _improve(_starter(M, e, gap), M, e, gap)


def solve_hyperbola(M: Array, e: Array, excess: Array | None = None) -> Array:
    """H for M >= 0 in one dimension. ``excess`` is e - 1, where it is known better than from e."""
    g = e - 1 if excess is None else excess
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        scale = np.sqrt(2 * (g / e))
        cubic = 2 * scale * np.sinh(np.arcsinh(1.5 * M / g / scale) / 3)
        H = np.arcsinh((M + np.minimum(cubic, LARGEST_H)) / e)
        for _ in range(3):
            z = H * H
            residual = M - g * H - e * H * (z * c3(-z))
            slope = g + e * (z * c2(-z))
            H = H + _fifth_order(residual, slope, 0.5 * e * np.sinh(H), (slope + 1) / 6, e * np.sinh(H) / 24)
    return np.asarray(H)


def _checked(M: float, e: float) -> float:
    """E for one number: what the arrays' path does, in floats."""
    if not 0 <= e < 1:
        raise _not_an_ellipse(e)
    if not -math.inf < M < math.inf:
        raise ValueError(f"eccentric_anomaly: M must be finite, got {M}.")
    if abs(M) <= math.pi:
        return math.copysign(solve_ellipse(abs(M), e), M)
    m = float(reduce_angle(M))
    return math.copysign(solve_ellipse(abs(m), e), m) + (M - m)


def _with_turns(M: Array, e: Array, most: Real) -> Array:
    """One block of ``eccentric_anomaly``, |M| <= most: E for M within half a turn, and the turns put back."""
    if most <= math.pi:
        return np.copysign(solve_ellipse(np.abs(M), e), M)
    m = reduce_angle(M)
    return np.copysign(solve_ellipse(np.abs(m), e), m) + (M - m)


def _not_an_ellipse(e: float) -> ValueError:
    return ValueError(
        f"eccentric_anomaly: e must lie in [0, 1), an ellipse, got {e}. For e > 1 use hyperbolic_anomaly, "
        "for e = 1 perifocal."
    )


def _starter(M: Reals, e: Reals, gap: Reals) -> Reals:
    """E to 4 digits: the root of the cubic that Kepler's equation becomes under the approximant of sin E."""
    sqrt = math.sqrt if isinstance(M, float) else np.sqrt
    squared = M * M
    alpha = (math.pi - M) * SLOPE / (1 + e) + ALPHA_AT_PI
    d = alpha * e + 3 * gap
    alpha = alpha * d
    q = 2 * gap * alpha - squared
    r = (3 * alpha * (d - gap) + squared) * M
    w = np.cbrt(sqrt(q * q * q + r * r) + r)  # not math.cbrt, whose last digit may be another
    w = w * w
    E = (2 * r * w / ((w + q) * w + q * q) + M) / d
    return float(E) if isinstance(M, float) else E


def _improve(E: Reals, M: Reals, e: Reals, gap: Reals) -> Reals:
    """One step of order five on (1 - e) E + e E^3 c3(E^2) = M for 0 <= E <= pi."""
    z = E * E
    two, three = series_at(z) if isinstance(z, float) else series_of_both(z)
    rest = three * z * E  # E - sin E
    slope = two * z * e + gap
    half_sine = (E - rest) * e * 0.5
    return _fifth_order(M - gap * E - rest * e, slope, half_sine, (1 - slope) / 6, half_sine / -12) + E


def _fifth_order(f: Reals, f1: Reals, f2: Reals, f3: Reals, f4: Reals) -> Reals:
    """The root of f1 x + f2 x^2 + f3 x^3 + f4 x^4 = f near 0, to fifth order in f (nested Halley steps)."""
    x = f / (f / f1 * f2 + f1)
    x = f / ((x * f3 + f2) * x + f1)
    return f / (((x * f4 + f3) * x + f2) * x + f1)


def check_finite(who: str, **values: Array) -> None:
    """ValueError if any of the named arrays holds NaN or an infinity."""
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{who}: {name} must be finite, got {first_of(value, ~np.isfinite(value))}.")


def first_of(values: Array, where: NDArray[np.bool_] | np.bool_) -> float:
    """The first offending value, for a message."""
    return float(values[where][0])
