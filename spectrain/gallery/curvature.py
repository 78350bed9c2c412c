"""How much does a curve bend and twist, and which curves bend by the same amount everywhere?

With derivatives in any parameter, curvature = |r' x r''|/|r'|^3 and torsion = (r' x r'') . r'''/|r' x r''|^2. In the
plane, as a complex function z(t), the direction of motion is z'/|z'| = exp(i phi), and d phi/ds gives at once
curvature = Im(conj(z') z'')/|z'|^3: turning left counts as positive. The way back, from curvature and torsion to
the curve, is a linear equation in the group of rigid motions (``_rigid_motions.py``). In the plane constant
curvature leaves only circles; in space torsion is free, and each choice of it is another curve.

Source: article 1381 (kexue.fm/archives/1381); do Carmo, Differential Geometry of Curves and Surfaces, 1.5;
Salkowski's curves: Monterde, Computer Aided Geometric Design 26 (2009) 271-278.

>>> helix = lambda t: (3 * np.cos(t), 3 * np.sin(t), 4 * t)
>>> bends = bend(helix, [0.0, 1.0])
>>> np.allclose(bends.curvature, 3 / 25, rtol=1e-9), np.allclose(bends.torsion, 4 / 25, rtol=1e-8)
(True, True)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectrain._drawing import Line, Picture
from spectrain.gallery import _derivatives, _rigid_motions
from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._derivatives import CUSP, Curve, Derivatives, cusp
from spectrain.gallery._rigid_motions import Rate

STRAIGHT = 1e-9  # a turn of the direction, over the scale of the parameter, that is no turn
LEAST_TOL = 1e-14  # below it rounding decides


class Bend(NamedTuple):
    """Of a curve at some parameters: curvature, torsion, and the Frenet frame as rows (tangent, normal, binormal).

    ``radius`` is 1/curvature. In the plane curvature has a sign (left is positive) and torsion is zero. Where a
    space curve is straight, its normal and torsion do not exist and are NaN.
    """

    curvature: Array
    torsion: Array
    frame: Array

    @property
    def radius(self) -> Array:
        """The radius of the osculating circle, infinite where the curve is straight."""
        with np.errstate(divide="ignore"):
            return np.asarray(1 / np.abs(self.curvature))


def bend(curve: Curve | Numbers, t: Numbers, *, scale: Real = 1.0) -> Bend:
    """Curvature, torsion and frame of a curve in the plane or in space, at the parameters t (any shape, or a number).

    ``curve`` is a function of arrays that returns (x, y) or (x, y, z), smooth around each t over some part of
    ``scale``; or samples of shape (n, 2) or (n, 3) at the n rising values t. Derivatives of functions are central
    differences on 13 points, of the width that is best for each t (relative error about 1e-11, 1e-9 for torsion);
    those of samples come from the interpolating spline of degree 7. Raises ValueError for NaN, a wrong shape, a cusp
    (a point where the speed is zero has no direction; for samples also between them), and a corner or a jump of the
    curvature.

    >>> np.round(bend(lambda t: (np.cos(t), np.sin(t)), [0.0]).curvature, 10).tolist()
    [1.0]
    """
    shape, t = np.shape(t), np.asarray(t, dtype=float).reshape(-1)
    _check_scale(scale)
    d = _derivatives.of_function(curve, t, scale) if callable(curve) else _derivatives.of_samples(curve, t)
    _derivatives.check(d, t)
    flat = _plane_bend(d) if len(d.values[1]) == 2 else _space_bend(d)
    return Bend(*(part.reshape(shape + part.shape[1:]) for part in flat))


def complex_curvature(z: Callable[[NDArray[np.complex128]], Any], t: Numbers, *, scale: Real = 1.0) -> Array:
    """Curvature Im(conj(z') z'')/|z'|^3 of a plane curve given as an analytic function of its parameter.

    The derivatives are Cauchy integrals: means of z over a circle of radius scale/4 around each t in the complex
    plane of parameters, with x and y the parts of z on the real axis. Nothing is shared with ``bend``.
    ``z`` must return the two real-analytic coordinates x(t), y(t) for complex t. Raises ValueError at a cusp.

    >>> ellipse = lambda t: (2 * np.cos(t), np.sin(t))
    >>> np.allclose(complex_curvature(ellipse, [0.0, np.pi / 2]), [2.0, 0.25], rtol=1e-13)
    True
    """
    t = np.asarray(t, dtype=float)
    _check_scale(scale)
    circle = 0.25 * scale * np.exp(2j * np.pi * np.arange(32) / 32)
    x, y = (np.asarray(part) for part in z(np.asarray(t[..., None] + circle)))
    # The derivative of a real coordinate is the real part: the circle is symmetric about the real axis.
    first = (x / circle).mean(-1).real + 1j * (y / circle).mean(-1).real
    second = 2 * ((x / circle**2).mean(-1).real + 1j * (y / circle**2).mean(-1).real)
    around = (np.abs(x - x.mean(-1, keepdims=True)) + np.abs(y - y.mean(-1, keepdims=True))).max(-1) / (0.25 * scale)
    still = ~(np.abs(first) > CUSP * around)
    if still.any():
        raise cusp(float(t[still][0]))
    return np.asarray((first.conj() * second).imag / np.abs(first) ** 3)


def derivatives(curve: Curve, t: Array, *, scale: Real = 1.0) -> list[Array]:
    """The curve and its first three derivatives at t, each of shape (dimension, *t.shape).

    For each t and order the width is taken at which two neighbouring widths agree best.

    >>> d = derivatives(lambda t: (np.exp(t), t**3), np.array([0.0, 1.0]))
    >>> np.allclose(d[3], [[1, np.e], [6, 6]], rtol=1e-8)
    True
    """
    values = _derivatives.of_function(curve, np.asarray(t, dtype=float).reshape(-1), scale).values
    return [value.reshape(len(value), *np.shape(t)) for value in values]


def reconstruct(curvature: Rate, torsion: Rate, s: Numbers, *, tol: Real = 1e-12, finest: Real | None = None) -> Array:
    """Points of the curve with this curvature and torsion at the arc lengths s; shape (len(s), 3).

    It starts at s[0] in the origin, along the first axis, with its normal along the second; with torsion 0 it
    stays in the plane of the two. The frame and the point solve g' = g xi(s) in the group of rigid motions;
    Magnus's method of order six gives each step as one screw motion, exact for constant rates. Functions are first
    seen at 1024 steps or more, then steps are halved where they and their halves differ, until the differences,
    relative to the length, add up to less than ``tol``: jumps of the rates are found, and bends narrow against the
    length. One narrower than the first steps can fall between them: ``finest`` is the length of the narrowest, and
    no step is longer. Raises ValueError for s that does not rise, rates that are not finite or not integrable, and
    ``tol`` below 1e-14.

    >>> circle = reconstruct(1.0, 0.0, np.linspace(0, 2 * np.pi, 9))
    >>> bool(abs(circle[-1] - circle[0]).max() < 1e-14)
    True
    """
    return reconstruct_frames(curvature, torsion, s, tol=tol, finest=finest)[0]


def reconstruct_frames(
    curvature: Rate, torsion: Rate, s: Numbers, *, tol: Real = 1e-12, finest: Real | None = None
) -> tuple[Array, Array]:
    """``reconstruct``, with the frames: rows tangent, normal, binormal, shape (len(s), 3, 3).

    >>> _, frames = reconstruct_frames(1.0, 0.5, np.linspace(0, 10, 50))
    >>> bool(abs(frames @ frames.transpose(0, 2, 1) - np.eye(3)).max() < 1e-14)
    True
    """
    s = np.asarray(s, dtype=float)
    if s.ndim != 1 or len(s) < 2 or not np.isfinite(s).all() or not np.all(np.diff(s) > 0):
        raise ValueError("curvature: s must be a rising list of at least two finite arc lengths.")
    if not LEAST_TOL <= tol < np.inf:
        raise ValueError(f"curvature: tol must be at least {LEAST_TOL}, where rounding begins, got {tol}.")
    if finest is not None and not 0 < finest < np.inf:
        raise ValueError(f"curvature: finest is a length, positive and finite, got {finest}.")
    return _rigid_motions.along(curvature, torsion, s, tol, finest)


def closure(curvature: Real, turns: int = 1) -> float:
    """The constant-curvature theorem in the plane, as a number: the gap after ``turns`` times 2 pi/curvature,
    and the spread of the distances to the centre, relative to the radius; both are 0 for a circle.

    >>> closure(0.37) < 1e-12
    True
    """
    if not (np.isfinite(curvature) and curvature > 0):
        raise ValueError(f"curvature: a circle needs a positive curvature, got {curvature}.")
    s = np.linspace(0, 2 * np.pi * turns / curvature, 64 * turns + 1)
    points = reconstruct(lambda s: np.full_like(s, curvature), 0.0, s)
    centre = np.array([0, 1 / curvature, 0])
    spread = np.abs(np.linalg.norm(points - centre, axis=1) * curvature - 1).max()
    return float(max(spread, np.linalg.norm(points[-1] - points[0]) * curvature))


def salkowski(m: float, t: Array) -> Array:
    """Salkowski's curve of constant curvature 1 and torsion -tan(n t), n = m/sqrt(1 + m^2); shape (3, *t.shape).

    Its arc length is sin(n t)/m. In closed form, hence a test of everything here.

    >>> np.allclose(bend(lambda t: salkowski(0.4, t), [0.0, 0.5, 1.0]).curvature, 1.0, rtol=1e-8)
    True
    """
    n = m / np.sqrt(1 + m * m)
    a, b = (1 - n) / (4 * (1 + 2 * n)), (1 + n) / (4 * (1 - 2 * n))
    x = -a * np.sin((1 + 2 * n) * t) - b * np.sin((1 - 2 * n) * t) - np.sin(t) / 2
    y = a * np.cos((1 + 2 * n) * t) + b * np.cos((1 - 2 * n) * t) + np.cos(t) / 2
    return np.stack([x, y, np.cos(2 * n * t) / (4 * m)]) / np.sqrt(1 + m * m)


ZOO: dict[str, Rate] = {
    "circle": 0.0,
    "helix": 0.4,
    "wave": lambda s: np.cos(s),
    "spring": lambda s: np.asarray(s) / 6,
    "kink": lambda s: 2 / np.cosh(np.asarray(s) - 6) ** 2,
    "two-thirds": lambda s: 0.8 * np.sin(2 * np.asarray(s) / 3),
}
"""Torsions for curvature 1: circle and helix are all that the plane and constant torsion allow; others abound."""


def _check_scale(scale: Real) -> None:
    if not 0 < scale < np.inf:
        raise ValueError(f"curvature: scale must be a positive length of the parameter, got {scale}.")


def _plane_bend(d: Derivatives) -> Bend:
    _, first, second, _ = d.values
    speed = np.linalg.norm(first, axis=0)
    tangent = first / speed
    normal = np.stack([-tangent[1], tangent[0]])
    curvature = (first[0] * second[1] - first[1] * second[0]) / speed**3
    return Bend(curvature, np.zeros_like(curvature), np.moveaxis(np.stack([tangent, normal]), (0, 1), (-2, -1)))


def _space_bend(d: Derivatives) -> Bend:
    _, first, second, third = d.values
    speed = np.linalg.norm(first, axis=0)
    cross = np.cross(first, second, axis=0)
    area = np.linalg.norm(cross, axis=0)
    straight = area <= speed * np.maximum(STRAIGHT * speed / d.scale, 20 * d.errors[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        torsion = np.where(straight, np.nan, np.sum(cross * third, axis=0) / area**2)
        binormal = np.where(straight, np.nan, cross / area)
    tangent = first / speed
    rows = np.stack([tangent, np.cross(binormal, tangent, axis=0), binormal])
    return Bend(area / speed**3, torsion, np.moveaxis(rows, (0, 1), (-2, -1)))


@dataclass(frozen=True)
class Show:
    """A curve of curvature 1 in space, with a torsion from the zoo."""

    torsion: Literal["circle", "helix", "wave", "spring", "kink", "two-thirds"] = "two-thirds"
    """which torsion"""
    length: float = 60.0
    """arc length to draw"""

    def __call__(self) -> tuple[str, Picture]:
        """The curvature measured on the drawn points, and the curve."""
        if not 0 < self.length <= 1000:
            raise ValueError(f"curvature: the length to draw must lie in (0, 1000], got {self.length}.")
        s = np.linspace(0, self.length, 40 + int(20 * self.length))
        points = reconstruct(1.0, ZOO[self.torsion], s)
        error = np.abs(bend(points, s).curvature[10:-10] - 1).max()
        text = f"{self.torsion}: curvature measured on {len(s)} points differs from 1 by at most {error:.1e}"
        title = f"Constant curvature 1, torsion: {self.torsion}"
        return text, Picture(title, "x", "y", (Line(*points.T, name="curve"),))
