"""The first three derivatives of a curve, from a function or from samples, each with an estimate of its error.

Functions: central differences on 13 points, at a dozen widths; for each parameter and order the width is taken at
which two neighbours agree best. Samples: the interpolating spline of degree 7; how far the one of degree 5 is from
it is the estimate. An estimate as large as the derivative means that there is none: a corner, or a cusp where it is
the first one.

Source: Fornberg, Mathematics of Computation 51 (1988) 699-706, for the weights; de Boor, A Practical Guide to Splines.
"""

from collections.abc import Callable
from itertools import pairwise
from math import factorial
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.optimize import minimize_scalar

from spectrain.gallery._arrays import Array, Numbers, Real

Curve = Callable[[Array], Any]  # t -> coordinates, shape (2 or 3, *t.shape)

STENCIL = np.arange(-6, 7)
WIDTHS = tuple(0.1 * 0.6**k for k in range(12))  # stencil steps tried for a parameter of unit scale
CUSP = 1e-7  # a speed below this part of the one around it is a cusp
UNSURE = 0.1  # a higher derivative less certain than this part of it does not exist
EPS = float(np.finfo(float).eps)


class Derivatives(NamedTuple):
    """The curve and three derivatives, shape (dimension, n) each; the errors of the derivatives, shape (3, n).

    ``around`` is the least of two mean speeds over a neighbourhood of t, a small and a large one; ``scale`` the length
    of parameter over which the curve was looked at.
    """

    values: list[Array]
    errors: Array
    around: Array
    scale: float


def of_function(curve: Curve, t: Array, scale: Real) -> Derivatives:
    """By central differences; t of one dimension."""
    here = points(curve, t)
    spread = [points(curve, t[..., None] + width * scale * STENCIL) - here[..., None] for width in WIDTHS]
    size = np.abs(here).max(axis=0) + np.abs(spread).max(axis=(1, 3))
    values, errors = [here], []
    for order, weights in enumerate(_weights(), 1):
        steps = np.array([6 * width * scale for width in WIDTHS]) ** order
        tried = np.stack([d @ weights / step for d, step in zip(spread, steps, strict=True)])
        change = np.linalg.norm(np.diff(tried, axis=0), axis=1)
        best = 1 + change.argmin(axis=0)
        values.append(np.take_along_axis(tried, best[None, None], axis=0)[0])
        noise = EPS * size[best, range(len(t))] * np.abs(weights).sum() / steps[best]
        errors.append(change.min(axis=0) + noise)
    reach = [np.linalg.norm(d, axis=0).max(axis=-1) / (6 * w * scale) for d, w in zip(spread, WIDTHS, strict=True)]
    return Derivatives(values, np.array(errors), np.minimum(reach[-1], reach[0]), float(scale))


def of_samples(samples: Numbers, t: Array) -> Derivatives:
    """By splines. Raises ValueError where the samples have a cusp between two of them."""
    samples = np.asarray(samples, dtype=float)
    if samples.ndim != 2 or samples.shape[1] not in (2, 3) or samples.shape[0] != t.size or t.size < 8:
        raise ValueError(f"curvature: samples must have shape (n, 2 or 3), n = len(t) >= 8, got {samples.shape}.")
    if not (np.isfinite(samples).all() and np.isfinite(t).all() and np.all(np.diff(t) > 0)):
        raise ValueError("curvature: samples and t must be finite and t must rise.")
    fine, coarse = make_interp_spline(t, samples, k=7), make_interp_spline(t, samples, k=5)
    values = [np.asarray(fine(t, k).T) for k in range(4)]
    errors = np.array([np.linalg.norm(values[k] - coarse(t, k).T, axis=0) for k in (1, 2, 3)])
    speed = lambda u: np.linalg.norm(fine(u, 1), axis=-1)  # noqa: E731
    around = np.full(t.shape, speed(t).max())
    for at in _slowest(speed, t):
        if speed(at) <= max(CUSP * around[0], 3 * float(np.linalg.norm(fine(at, 1) - coarse(at, 1)))):
            raise cusp(at)
    return Derivatives(values, errors, around, float(t[-1] - t[0]))


def cusp(t: float) -> ValueError:
    """What to say of a point without speed."""
    return ValueError(
        f"curvature: the curve has a cusp at t = {t:.9g}: its speed is zero there, so it has no direction. "
        "Leave the point out, or use another parameter."
    )


def check(d: Derivatives, t: Array) -> None:
    """ValueError at a cusp, and where the second or third derivative does not exist: a corner, a jump of curvature."""
    speed, second, third = (np.linalg.norm(v, axis=0) for v in d.values[1:])
    still = speed <= np.maximum(CUSP * d.around, 10 * d.errors[0])
    if still.any():
        raise cusp(float(t[still][0]))
    level = speed / d.scale
    unsure = (d.errors[1] > UNSURE * (second + level)) | (d.errors[2] > UNSURE * (third + (second + level) / d.scale))
    if unsure.any():
        worst = (d.errors[2] * unsure).argmax()
        raise ValueError(
            f"curvature: near t = {float(t[worst]):.9g} the curve has a corner or a jump of its curvature, or bends "
            "too fast for the scale or the samples given. Leave the point out, or give a smaller scale or more samples."
        )


def points(curve: Curve, t: Array) -> Array:
    """The curve at t with each coordinate broadcast to t's shape, or a ValueError."""
    coordinates = [np.broadcast_to(np.asarray(c, dtype=float), t.shape) for c in curve(t)]
    if len(coordinates) not in (2, 3):
        raise ValueError(f"curvature: a curve must return 2 or 3 coordinates, got {len(coordinates)}.")
    found = np.stack(coordinates)
    if not np.isfinite(found).all():
        raise ValueError("curvature: the curve is not finite around t; keep t inside its domain by 0.6 scale.")
    return found


def _weights() -> Array:
    """Weights of the first three derivatives at 0 on the stencil scaled to [-1, 1]: exact for x^0..x^12."""
    nodes = STENCIL.astype(float) / 6
    powers = np.vander(nodes, increasing=True).T
    right = np.zeros((13, 3))
    for k in (1, 2, 3):
        right[k, k - 1] = factorial(k)
    return np.asarray(np.linalg.solve(powers, right).T, dtype=np.float64)


def _slowest(speed: Callable[[Any], Any], t: Array) -> list[float]:
    """Where the speed has a low minimum, on or between the samples."""
    u = np.unique(np.concatenate([np.linspace(a, b, 9) for a, b in pairwise(t)]))
    v = speed(u)
    low = (v[1:-1] <= v[:-2]) & (v[1:-1] <= v[2:]) & (v[1:-1] < 0.1 * v.max())
    found = []
    for i in 1 + np.flatnonzero(low):
        options = {"xatol": 1e-10 * (u[i + 1] - u[i - 1])}
        found.append(float(minimize_scalar(speed, bounds=(u[i - 1], u[i + 1]), method="bounded", options=options).x))
    return found
