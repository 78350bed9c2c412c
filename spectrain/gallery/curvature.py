"""How much does a curve bend and twist, and which curves bend by the same amount everywhere?

With derivatives in any parameter, curvature = |r' x r''|/|r'|^3 and torsion = (r' x r'') . r'''/|r' x r''|^2. In the
plane, as a complex function z(t), the direction of motion is z'/|z'| = exp(i phi), and d phi/ds gives at once
curvature = Im(conj(z') z'')/|z'|^3: turning left counts as positive. The way back, from curvature and torsion to
the curve, is a linear equation in the group of rigid motions; it is solved by products of exact screw motions, so
that the frame stays orthonormal to rounding and circles and helices come out exact. In the plane constant
curvature leaves only circles; in space torsion is free, and each choice of it is another curve.

Source: article 1381 (kexue.fm/archives/1381); do Carmo, Differential Geometry of Curves and Surfaces, 1.5; Magnus
integrators: Blanes, Casas, Oteo, Ros, The Magnus expansion and some of its applications, Physics Reports 470 (2009),
section 5; Salkowski's curves: Monterde, Computer Aided Geometric Design 26 (2009) 271-278.

>>> helix = lambda t: (3 * np.cos(t), 3 * np.sin(t), 4 * t)
>>> bends = bend(helix, [0.0, 1.0])
>>> np.allclose(bends.curvature, 3 / 25, rtol=1e-9), np.allclose(bends.torsion, 4 / 25, rtol=1e-8)
(True, True)
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._drawing import Line, Picture
from spectrain.gallery._stumpff import c2, c3

Curve = Callable[[Array], Any]  # t -> coordinates, shape (2 or 3, *t.shape)
Rate = float | int | Callable[[Array], Numbers]  # curvature or torsion as a function of arc length

STENCIL = np.arange(-6, 7)
WIDTHS = tuple(0.1 * 0.6**k for k in range(12))  # stencil steps tried for a parameter of unit scale
CUSP = 1e-7  # a speed below this part of the largest one around is a cusp
MOST_STEPS = 1 << 15


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
    """Curvature, torsion and frame of a curve in the plane or in space, at the parameters t.

    ``curve`` is a function of arrays that returns (x, y) or (x, y, z), smooth around each t over the length
    ``scale``; or samples of shape (n, 2) or (n, 3) at the n rising values t. Derivatives of functions are central
    differences on 13 points, of the width that is best for each t (relative error about 1e-11, 1e-9 for torsion);
    those of samples come from the interpolating spline of degree 7. Raises ValueError for NaN, a wrong shape, and
    a cusp: a point where the speed is zero has no direction.

    >>> np.round(bend(lambda t: (np.cos(t), np.sin(t)), [0.0]).curvature, 10).tolist()
    [1.0]
    """
    shape, t = np.shape(t), np.asarray(t, dtype=float).reshape(-1)
    d = derivatives(curve, t, scale=scale) if callable(curve) else _spline_derivatives(curve, t)
    speed = np.linalg.norm(d[1], axis=0)
    if not np.all(speed > CUSP * max(np.max(np.linalg.norm(d[2], axis=0)) * scale, speed.max())):
        raise ValueError(
            f"curvature: the curve has a cusp at t = {t[speed.argmin()]}: its speed is zero there, "
            "so it has no direction. Leave the point out, or use another parameter."
        )
    flat = _plane_bend(d, speed) if len(d[1]) == 2 else _space_bend(d, speed)
    return Bend(*(part.reshape(*shape, *part.shape[1:]) for part in flat))


def complex_curvature(z: Callable[[NDArray[np.complex128]], Any], t: Numbers, *, scale: Real = 1.0) -> Array:
    """Curvature Im(conj(z') z'')/|z'|^3 of a plane curve given as an analytic function of its parameter.

    The derivatives are Cauchy integrals: means of z over a circle of radius scale/4 around each t in the complex
    plane of parameters, with x and y the parts of z on the real axis. Nothing is shared with ``bend``.
    ``z`` must return the two real-analytic coordinates x(t), y(t) for complex t.

    >>> ellipse = lambda t: (2 * np.cos(t), np.sin(t))
    >>> np.allclose(complex_curvature(ellipse, [0.0, np.pi / 2]), [2.0, 0.25], rtol=1e-13)
    True
    """
    t = np.asarray(t, dtype=float)
    circle = 0.25 * scale * np.exp(2j * np.pi * np.arange(32) / 32)
    x, y = (np.asarray(part) for part in z(np.asarray(t[..., None] + circle)))
    # The derivative of a real coordinate is the real part: the circle is symmetric about the real axis.
    first = (x / circle).mean(-1).real + 1j * (y / circle).mean(-1).real
    second = 2 * ((x / circle**2).mean(-1).real + 1j * (y / circle**2).mean(-1).real)
    if not np.all(np.abs(first) > CUSP * np.abs(second) * scale):
        raise ValueError("curvature: the curve has a cusp: its speed is zero there, so it has no direction.")
    return np.asarray((first.conj() * second).imag / np.abs(first) ** 3)


def derivatives(curve: Curve, t: Array, *, scale: Real = 1.0) -> list[Array]:
    """The curve and its first three derivatives at t, each of shape (dimension, *t.shape).

    For each t and order the width is taken at which two neighbouring widths agree best.

    >>> d = derivatives(lambda t: (np.exp(t), t**3), np.array([0.0, 1.0]))
    >>> np.allclose(d[3], [[1, np.e], [6, 6]], rtol=1e-8)
    True
    """
    tried = [_differences(curve, t, width * scale) for width in WIDTHS]
    found = [_points(curve, t)]
    for order in (1, 2, 3):
        values = np.stack([d[order - 1] for d in tried])
        change = np.linalg.norm(np.diff(values, axis=0), axis=1)
        best = 1 + change.argmin(axis=0)
        found.append(np.take_along_axis(values, best[None, None], axis=0)[0])
    return found


def reconstruct(curvature: Rate, torsion: Rate, s: Numbers, *, tol: Real = 1e-12) -> Array:
    """Points of the curve with this curvature and torsion at the arc lengths s; shape (len(s), 3).

    It starts at s[0] in the origin, along the first axis, with its normal along the second; with torsion 0 it
    stays in the plane of the two. The frame and the point solve g' = g xi(s) in the group of rigid motions;
    Magnus's method of order six gives each step as one screw motion, exact for constant rates; steps are halved
    until two answers differ by less than tol times the length. Raises ValueError for s that does not rise, rates
    that are not finite, and a tolerance that 32768 steps between neighbours of s do not reach.

    >>> circle = reconstruct(1.0, 0.0, np.linspace(0, 2 * np.pi, 9))
    >>> bool(abs(circle[-1] - circle[0]).max() < 1e-14)
    True
    """
    return reconstruct_frames(curvature, torsion, s, tol=tol)[0]


def reconstruct_frames(curvature: Rate, torsion: Rate, s: Numbers, *, tol: Real = 1e-12) -> tuple[Array, Array]:
    """``reconstruct``, with the frames: rows tangent, normal, binormal, shape (len(s), 3, 3).

    >>> _, frames = reconstruct_frames(1.0, 0.5, np.linspace(0, 10, 50))
    >>> bool(abs(frames @ frames.transpose(0, 2, 1) - np.eye(3)).max() < 1e-14)
    True
    """
    s = np.asarray(s, dtype=float)
    if s.ndim != 1 or len(s) < 2 or not np.isfinite(s).all() or not np.all(np.diff(s) > 0):
        raise ValueError("curvature: s must be a rising list of at least two finite arc lengths.")
    parts, old = 1, _integrate(curvature, torsion, s, 1)
    while parts < MOST_STEPS:
        parts *= 2
        new = _integrate(curvature, torsion, s, parts)
        if max(np.abs(new[0] - old[0]).max() / (s[-1] - s[0]), np.abs(new[1] - old[1]).max()) <= tol:
            return new
        old = new
        if len(s) * parts > 1 << 22:
            break
    raise ValueError(f"curvature: tol={tol} was not reached with {parts} steps between points; are the rates smooth?")


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


def _points(curve: Curve, t: Array) -> Array:
    """The curve at t with each coordinate broadcast to t's shape, or a ValueError."""
    coordinates = [np.broadcast_to(np.asarray(c, dtype=float), t.shape) for c in curve(t)]
    if len(coordinates) not in (2, 3):
        raise ValueError(f"curvature: a curve must return 2 or 3 coordinates, got {len(coordinates)}.")
    points = np.stack(coordinates)
    if not np.isfinite(points).all():
        raise ValueError("curvature: the curve is not finite around t; keep t inside its domain by 0.6 scale.")
    return points


def _weights() -> Array:
    """Weights of the first three derivatives at 0 on the stencil: they differentiate x^0..x^12 exactly."""
    nodes = STENCIL.astype(float) / 6
    powers = np.vander(nodes, increasing=True).T
    right = np.zeros((13, 3))
    for k in (1, 2, 3):
        right[k, k - 1] = factorial(k)
    return np.asarray(np.linalg.solve(powers, right).T, dtype=np.float64)


def _differences(curve: Curve, t: Array, width: float) -> list[Array]:
    """First three derivatives by central differences on 13 points across 2 * 6 * width."""
    values = _points(curve, t[..., None] + width * STENCIL)
    values = values - values[..., 6:7]
    return [np.asarray(values @ w / (6 * width) ** k, dtype=np.float64) for k, w in enumerate(_weights(), 1)]


def _spline_derivatives(samples: Numbers, t: Array) -> list[Array]:
    """The same from samples, by the interpolating spline of degree 7."""
    samples = np.asarray(samples, dtype=float)
    if samples.ndim != 2 or samples.shape[1] not in (2, 3) or samples.shape[0] != t.size or t.size < 8:
        raise ValueError(f"curvature: samples must have shape (n, 2 or 3), n = len(t) >= 8, got {samples.shape}.")
    if not (np.isfinite(samples).all() and np.isfinite(t).all() and np.all(np.diff(t) > 0)):
        raise ValueError("curvature: samples and t must be finite and t must rise.")
    spline = make_interp_spline(t, samples, k=7)
    return [spline(t, k).T for k in range(4)]


def _plane_bend(d: list[Array], speed: Array) -> Bend:
    tangent = d[1] / speed
    normal = np.stack([-tangent[1], tangent[0]])
    curvature = (d[1][0] * d[2][1] - d[1][1] * d[2][0]) / speed**3
    return Bend(curvature, np.zeros_like(curvature), np.moveaxis(np.stack([tangent, normal]), (0, 1), (-2, -1)))


def _space_bend(d: list[Array], speed: Array) -> Bend:
    cross = np.cross(d[1], d[2], axis=0)
    area = np.linalg.norm(cross, axis=0)
    straight = area <= 1e-11 * speed * np.linalg.norm(d[2], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        torsion = np.where(straight, np.nan, np.sum(cross * d[3], axis=0) / area**2)
        binormal = np.where(straight, np.nan, cross / area)
    tangent = d[1] / speed
    rows = np.stack([tangent, np.cross(binormal, tangent, axis=0), binormal])
    return Bend(area / speed**3, torsion, np.moveaxis(rows, (0, 1), (-2, -1)))


def _rate(rate: Rate, s: Array) -> Array:
    values = np.broadcast_to(np.asarray(rate(s) if callable(rate) else rate, dtype=float), s.shape)
    if not np.isfinite(values).all():
        raise ValueError("curvature: curvature and torsion must be finite on the whole range of s.")
    return values


def _integrate(curvature: Rate, torsion: Rate, s: Array, parts: int) -> tuple[Array, Array]:
    """Points and frames at s, with ``parts`` equal steps between neighbours."""
    edges = s[:-1, None] + np.diff(s)[:, None] * np.arange(parts) / parts
    h = np.repeat(np.diff(s) / parts, parts)
    R, p = _screw(_magnus(curvature, torsion, edges.reshape(-1), h))
    R, p = R.reshape(-1, parts, 3, 3), p.reshape(-1, parts, 3)
    turn, shift = R[:, 0], p[:, 0]
    for i in range(1, parts):  # the steps inside every interval, all intervals at once
        turn, shift = turn @ R[:, i], shift + np.einsum("nij,nj->ni", turn, p[:, i])
    points, frames = np.zeros((len(s), 3)), np.empty((len(s), 3, 3))
    frames[0] = np.eye(3)
    for i in range(len(s) - 1):
        frames[i + 1] = frames[i] @ turn[i]
        points[i + 1] = points[i] + frames[i] @ shift[i]
    return points, frames.transpose(0, 2, 1)


def _magnus(curvature: Rate, torsion: Rate, s: Array, h: Array) -> Array:
    """The logarithm of each step's motion, to order h^6: values at three Gauss points and four commutators.

    An infinitesimal motion is six numbers, a rotation vector and a translation.
    """
    nodes = np.array([0.5 - np.sqrt(0.15), 0.5, 0.5 + np.sqrt(0.15)])
    at = s[:, None] + h[:, None] * nodes
    kappa, tau = _rate(curvature, at), _rate(torsion, at)
    # xi(s): turning about torsion * tangent + curvature * binormal, and along the tangent at unit speed
    xi = np.zeros((3, len(h), 6))
    xi[:, :, 0], xi[:, :, 2], xi[:, :, 3] = tau.T, kappa.T, 1.0
    first, middle, last = xi * h[:, None]
    a1, a2, a3 = middle, np.sqrt(15) / 3 * (last - first), 10 / 3 * (last - 2 * middle + first)
    b1 = _bracket(a1, a2)
    b2 = _bracket(a1, 2 * a3 + b1) / -60
    return a1 + a3 / 12 + _bracket(-20 * a1 - a3 + b1, a2 + b2) / 240


def _bracket(a: Array, b: Array) -> Array:
    """The commutator [b, a]: the series is stated for g' = xi g; in g' = g xi products, and so brackets, turn round."""
    turn, shift = np.cross(b[:, :3], a[:, :3]), np.cross(b[:, :3], a[:, 3:]) - np.cross(a[:, :3], b[:, 3:])
    return np.concatenate([turn, shift], axis=1)


def _screw(motion: Array) -> tuple[Array, Array]:
    """The exponential: rotation matrices and displacements, by Rodrigues's formula with Stumpff's functions."""
    omega, v = motion[:, :3], motion[:, 3:]
    z = np.sum(omega * omega, axis=-1)
    one, two, three = 1 - z * c3(z), c2(z), c3(z)
    W = np.zeros((*z.shape, 3, 3))
    W[:, 0, 1], W[:, 0, 2], W[:, 1, 2] = -omega[:, 2], omega[:, 1], -omega[:, 0]
    W -= W.transpose(0, 2, 1)
    squared = W @ W
    R = np.eye(3) + one[:, None, None] * W + two[:, None, None] * squared
    along = np.cross(omega, v)
    return R, v + two[:, None] * along + three[:, None] * np.cross(omega, along)


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
