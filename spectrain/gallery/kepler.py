"""Two bodies: from a position and a velocity to the whole orbit, whatever conic it is.

Two integrals decide everything: the energy v^2/2 - mu/r (the vis-viva integral; its sign is the kind of conic) and
the angular momentum r x v (its length is twice the area swept per time). What is left is one equation for the
place at a given time, Kepler's E - e sin E = M. Written with Stumpff's functions as

    (1 - e) E + e E^3 c3(E^2) = M

nothing in it cancels, so the answer is good to about two ulp for every M and every e < 1 (``_kepler_equation.py``
has the solver), and the same equation carries the motion through the parabola and on to the hyperbola.

Source: Battin, An Introduction to the Mathematics and Methods of Astrodynamics (1999), chapters 3 and 4; Markley,
Celestial Mechanics 63 (1995) 101-111; the blog's old series on two-body motion.

>>> E = eccentric_anomaly(1.0, 0.5)
>>> bool(abs(E - 0.5 * np.sin(E) - 1.0) < 1e-15)
True
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._drawing import Line, Picture
from spectrain.gallery._kepler_equation import check_finite, reduce_angle
from spectrain.gallery._kepler_equation import eccentric_anomaly as eccentric_anomaly
from spectrain.gallery._kepler_equation import hyperbolic_anomaly as hyperbolic_anomaly
from spectrain.gallery._stumpff import c2, c3


class Orbit(NamedTuple):
    """The integrals of the motion: energy, angular momentum, eccentricity (Laplace) vector, and what they decide."""

    energy: float
    angular_momentum: Array
    eccentricity_vector: Array
    eccentricity: float
    periapsis: float
    kind: Literal["ellipse", "parabola", "hyperbola"]


class Elements(NamedTuple):
    """Periapsis distance, eccentricity, inclination, ascending node, argument of periapsis, true anomaly (radians)."""

    periapsis: float
    eccentricity: float
    inclination: float
    node: float
    argument: float
    true_anomaly: float


def perifocal(t: Numbers, periapsis: Numbers, e: Numbers, mu: Real = 1.0) -> tuple[Array, Array]:
    """Distance r and true anomaly theta in (-pi, pi] at time t after periapsis, for every conic alike.

    In units of sqrt(q^3/mu), q the distance of periapsis, the time is w + e w^3 c3((1-e) w^2), which passes through
    the parabola (w + w^3/6, Barker's equation, solved in closed form) without a seam: no digit is lost near e = 1.
    Raises ValueError unless q > 0, e >= 0, mu > 0 and all is finite.

    >>> r, theta = perifocal(np.array([0.0, 10.0]), 1.0, 1.0)            # a comet on a parabola
    >>> bool(r[0] == 1), bool(abs(r[1] * (1 + np.cos(theta[1])) - 2) < 1e-14)
    (True, True)
    """
    t, q, e = np.broadcast_arrays(*(np.asarray(a, dtype=float) for a in (t, periapsis, e)))
    check_finite("perifocal", t=t, periapsis=q, e=e, mu=np.asarray(mu))
    if not (np.all(q > 0) and np.all(e >= 0) and mu > 0):
        raise ValueError("perifocal: periapsis and mu must be positive and e at least 0.")
    shape, t, q, e = t.shape, t.reshape(-1), q.reshape(-1), e.reshape(-1)
    x, y = _plane(_universal_anomaly(t * np.sqrt(mu / q / q / q), e), e)
    return (q * np.hypot(x, y)).reshape(shape), np.arctan2(y, x).reshape(shape)


def vis_viva(r: Numbers, energy: Numbers, mu: Real = 1.0) -> Array:
    """Speed at distance r on an orbit of the given energy: v^2 = 2 (energy + mu/r).

    Raises ValueError where the orbit does not reach r.

    >>> float(vis_viva(1.0, -0.5))                                     # the circle of radius 1
    1.0
    """
    squared = 2 * (np.asarray(energy, dtype=float) + mu / np.asarray(r, dtype=float))
    if not np.all(squared >= 0):
        raise ValueError("vis_viva: no orbit of this energy reaches r; it must have energy >= -mu/r.")
    return np.asarray(np.sqrt(squared))


def orbit(r: Numbers, v: Numbers, mu: Real = 1.0) -> Orbit:
    """The integrals and the conic of the state (r, v), two vectors of three numbers.

    Raises ValueError for NaN, zero position or velocity, and collinear vectors (a fall along a straight line).

    >>> orbit([1, 0, 0], [0, 1, 0]).kind, orbit([2, 0, 0], [0, 1, 0]).kind, orbit([2, 0, 0], [0, 2, 0]).kind
    ('ellipse', 'parabola', 'hyperbola')
    """
    r, v = _state(r, v, mu)
    distance = np.linalg.norm(r)
    energy = float(v @ v / 2 - mu / distance)
    h = np.cross(r, v)
    toward = np.cross(v, h) / mu - r / distance
    # |toward| and sqrt(1 + 2 energy h^2/mu^2) agree; near the circle only the first keeps its digits, and near the
    # parabola only the second gives 1 - e its sign from the energy.
    gap = -2 * energy * float(h @ h) / mu**2  # (1 - e)(1 + e)
    e = float(np.sqrt(1 - gap)) if abs(gap) < 0.5 else float(np.linalg.norm(toward))
    kind: Literal["ellipse", "parabola", "hyperbola"]
    kind = "parabola" if e == 1 else "ellipse" if e < 1 else "hyperbola"
    return Orbit(energy, h, toward, e, float(h @ h) / mu / (1 + e), kind)


def propagate(r: Numbers, v: Numbers, t: Numbers, mu: Real = 1.0) -> tuple[Array, Array]:
    """Positions and velocities at the times t (any shape) of the body that is at r with velocity v at time 0.

    The shapes are t.shape + (3,). Raises ValueError as ``orbit`` does.

    >>> r, v = propagate([1, 0, 0], [0, 1, 0], [0.0, np.pi])
    >>> np.allclose(r, [[1, 0, 0], [-1, 0, 0]], atol=1e-15), np.allclose(v, [[0, 1, 0], [0, -1, 0]], atol=1e-15)
    (True, True)
    """
    r, v = _state(r, v, mu)
    o = orbit(r, v, mu)
    P, Q = _axes(o, r)
    t = np.asarray(t, dtype=float)
    check_finite("propagate", t=t)
    start = _time_of(float(np.arctan2(r @ Q, r @ P)), o.eccentricity)
    tau = start + t.reshape(-1) * np.sqrt(mu / o.periapsis) / o.periapsis
    x, y = _plane(_universal_anomaly(tau, np.full_like(tau, o.eccentricity)), o.eccentricity)
    s = np.hypot(x, y)
    speed = np.sqrt(mu / o.periapsis / (1 + o.eccentricity))
    position = o.periapsis * (x[:, None] * P + y[:, None] * Q)
    velocity = speed * ((-y / s)[:, None] * P + (o.eccentricity + x / s)[:, None] * Q)
    return position.reshape(*t.shape, 3), velocity.reshape(*t.shape, 3)


def to_elements(r: Numbers, v: Numbers, mu: Real = 1.0) -> Elements:
    """The elements of the state (r, v). An angle that does not exist is 0: the node of an orbit in the reference
    plane (then the argument is counted from the first axis), the argument of a circle (then the anomaly is).

    >>> to_elements([1, 0, 0], [0, 0, 1.2]).inclination == np.pi / 2
    True
    """
    r, v = _state(r, v, mu)
    o = orbit(r, v, mu)
    h = o.angular_momentum / np.linalg.norm(o.angular_momentum)
    tilt = float(np.hypot(h[0], h[1]))
    line = np.array([-h[1], h[0], 0.0]) / tilt if tilt > 0 else np.array([1.0, 0.0, 0.0])
    P, Q = _axes(o, r) if o.eccentricity > 0 else (line, np.cross(h, line))
    return Elements(
        o.periapsis,
        o.eccentricity,
        float(np.arctan2(tilt, h[2])),
        float(np.arctan2(line[1], line[0])),
        float(np.arctan2(P @ np.cross(h, line), P @ line)),
        float(np.arctan2(r @ Q, r @ P)),
    )


def to_state(elements: Elements, mu: Real = 1.0) -> tuple[Array, Array]:
    """Position and velocity of the body with these elements; the inverse of ``to_elements``.

    Raises ValueError unless periapsis > 0, e >= 0 and the anomaly is one that the hyperbola reaches.

    >>> r, v = to_state(Elements(1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    >>> np.array_equal(r, [1, 0, 0]), np.array_equal(v, [0, 1, 0])
    (True, True)
    """
    q, e, i, node, w, theta = elements
    if not (q > 0 and e >= 0 and 1 + e * np.cos(theta) > 0):
        raise ValueError(
            f"to_state: needs periapsis > 0, e >= 0 and 1 + e cos(anomaly) > 0, got q={q}, e={e}, {theta}."
        )
    line = np.array([np.cos(node), np.sin(node), 0.0])
    across = np.array([-np.sin(node) * np.cos(i), np.cos(node) * np.cos(i), np.sin(i)])
    P, Q = np.cos(w) * line + np.sin(w) * across, -np.sin(w) * line + np.cos(w) * across
    r = q * (1 + e) / (1 + e * np.cos(theta))
    speed = np.sqrt(mu / q / (1 + e))
    return r * (np.cos(theta) * P + np.sin(theta) * Q), speed * (-np.sin(theta) * P + (e + np.cos(theta)) * Q)


def _universal_anomaly(tau: Array, e: Array) -> Array:
    """w with w + e w^3 c3((1-e) w^2) = tau, within half a turn of periapsis: E/sqrt(1-e), or H/sqrt(e-1)."""
    W = 1.5 * tau / np.sqrt(2)
    w = np.array(np.sqrt(8) * np.sinh(np.arcsinh(W) / 3))  # the parabola; the other conics overwrite it
    closed, open_ = e < 1, e > 1
    g = np.abs(1 - e)
    if closed.any():
        M = reduce_angle(tau[closed] * g[closed] * np.sqrt(g[closed]))
        w[closed] = eccentric_anomaly(M, e[closed]) / np.sqrt(g[closed])
    if open_.any():
        w[open_] = hyperbolic_anomaly(tau[open_] * g[open_] * np.sqrt(g[open_]), e[open_]) / np.sqrt(g[open_])
    return w


def _plane(w: Array, e: Numbers) -> tuple[Array, Array]:
    """Coordinates along and across the line of periapsis, in units of its distance."""
    squared = w * w
    z = (1 - np.asarray(e)) * squared
    return 1 - squared * c2(z), np.sqrt(1 + np.asarray(e)) * w * (1 - z * c3(z))


def _time_of(theta: float, e: float) -> float:
    """The time since periapsis, in units of sqrt(q^3/mu), at which the true anomaly is theta."""
    s, c = np.sin(theta / 2), np.cos(theta / 2)
    g = abs(1 - e)
    if e < 1:
        w = 2 * np.arctan2(np.sqrt(g) * s, np.sqrt(1 + e) * c) / np.sqrt(g)
    elif e > 1:
        w = 2 * np.arctanh(np.sqrt(g / (1 + e)) * s / c) / np.sqrt(g)
    else:
        w = np.sqrt(2) * s / c
    return float(w + e * w**3 * c3(np.asarray((1 - e) * w * w)))


def _axes(o: Orbit, r: Array) -> tuple[Array, Array]:
    """Unit vectors towards periapsis and across it in the plane of motion; on a circle, towards the body."""
    h = o.angular_momentum / np.linalg.norm(o.angular_momentum)
    P = o.eccentricity_vector if o.eccentricity > 0 else r
    P = P - (P @ h) * h
    P = P / np.linalg.norm(P)
    return P, np.cross(h, P)


def _state(r: Numbers, v: Numbers, mu: Real) -> tuple[Array, Array]:
    """Both vectors as arrays, or a ValueError that says why they start no orbit."""
    r, v = np.asarray(r, dtype=float), np.asarray(v, dtype=float)
    if r.shape != (3,) or v.shape != (3,) or not mu > 0:
        raise ValueError(f"kepler: position and velocity must be 3 numbers, mu > 0; got {r.shape}, {v.shape}, {mu}.")
    check_finite("kepler", position=r, velocity=v)
    if not (r.any() and v.any()):
        raise ValueError("kepler: position and velocity must not be zero: a body at rest falls straight in.")
    if np.linalg.norm(np.cross(r, v)) <= 4 * np.finfo(float).eps * np.linalg.norm(r) * np.linalg.norm(v):
        raise ValueError("kepler: position and velocity are collinear: the body moves on a line through the centre.")
    return r, v


@dataclass(frozen=True)
class Show:
    """An orbit with the areas swept in equal times; the page plays it."""

    e: float = 0.6
    """eccentricity, 0 <= e < 1"""
    parts: int = 12
    """number of equal times to cut a turn into"""

    def __call__(self) -> tuple[str, Picture]:
        """The areas, which must agree, and the picture."""
        if self.parts < 2:
            raise ValueError(f"kepler: a turn needs at least 2 parts, got {self.parts}.")
        x, y = self._place(np.linspace(0, 2 * np.pi, self.parts * 4000 + 1))
        swept = 0.5 * (x[:-1] * y[1:] - x[1:] * y[:-1]).reshape(self.parts, -1).sum(axis=1)
        x, y = x[::100], y[::100]
        cuts = [slice(40 * i, 40 * i + 41) for i in range(self.parts)]
        sectors = tuple(
            Line(np.r_[0, x[c], 0], np.r_[0, y[c], 0], style="area", color=i % 2) for i, c in enumerate(cuts)
        )
        lines = (*sectors, Line(x, y, color=7, name="orbit"), Line([0], [0], style="marks", color=6, name="centre"))
        frames = tuple(
            (Line([a], [b], style="marks", color=4, name="body"),) for a, b in zip(x[::4], y[::4], strict=True)
        )
        text = f"e = {self.e}: the {self.parts} areas, in a^2, lie between {swept.min():.8f} and {swept.max():.8f}"
        return text, Picture(
            f"Equal areas in equal times, e = {self.e}", "x / a", "y / a", lines, equal=True, frames=frames
        )

    def _place(self, M: Array) -> tuple[Array, Array]:
        E = eccentric_anomaly(M, self.e)
        return np.cos(E) - self.e, np.sqrt(1 - self.e**2) * np.sin(E)
