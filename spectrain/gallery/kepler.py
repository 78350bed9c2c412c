"""Two bodies: from a position and a velocity to the whole orbit, whatever conic it is.

Two integrals decide everything: the energy v^2/2 - mu/r (the vis-viva integral; its sign is the kind of conic) and
the angular momentum r x v (its length is twice the area swept per time). What is left is one equation for the
place at a given time, Kepler's E - e sin E = M. Written with Stumpff's functions as

    (1 - e) E + e E^3 c3(E^2) = M

nothing in it cancels, so the answer is good to about two ulp for every M and every e < 1 (``_kepler_equation.py``
has the solver), and the same equation carries the motion through the parabola and on to the hyperbola
(``_conic.py``). 1 - e is carried beside e, so that nearly radial orbits, where a float e has no digits left for it,
keep theirs.

Source: Battin, An Introduction to the Mathematics and Methods of Astrodynamics (1999), chapters 3 and 4; Markley,
Celestial Mechanics 63 (1995) 101-111; article 561 (kexue.fm/archives/561), vis-viva integral and Kepler's equation.

>>> E = eccentric_anomaly(1.0, 0.5)
>>> bool(abs(E - 0.5 * np.sin(E) - 1.0) < 1e-15)
True
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from spectrain._drawing import Line, Picture
from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._conic import Conic, anomaly, mean_anomaly, place
from spectrain.gallery._integrals import Integrals, integrals
from spectrain.gallery._kepler_equation import check_finite
from spectrain.gallery._kepler_equation import eccentric_anomaly as eccentric_anomaly
from spectrain.gallery._kepler_equation import hyperbolic_anomaly as hyperbolic_anomaly


class Orbit(NamedTuple):
    """The integrals of the motion: energy, angular momentum, eccentricity (Laplace) vector, and what they decide.

    ``gap`` is 1 - e with digits of its own: 1e-16 on a nearly radial orbit, where ``eccentricity`` is 1.0.
    ``semi_major_axis`` is a = -mu/(2 energy), the mean of the least and the greatest distance: inf on a parabola, and
    negative on a hyperbola. ``period`` is 2 pi sqrt(a^3/mu): inf where the body does not come back, or later than a
    float can say.
    """

    energy: float
    angular_momentum: Array
    eccentricity_vector: Array
    eccentricity: float
    periapsis: float
    kind: Literal["ellipse", "parabola", "hyperbola"]
    gap: float
    semi_major_axis: float
    period: float


class Elements(NamedTuple):
    """Periapsis distance, eccentricity, inclination, ascending node, argument of periapsis, true anomaly (radians).

    ``gap`` is 1 - e where that is known better than from ``eccentricity``; None means 1 - eccentricity.
    """

    periapsis: float
    eccentricity: float
    inclination: float
    node: float
    argument: float
    true_anomaly: float
    gap: float | None = None


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
    check_finite("perifocal", t=t, periapsis=q, e=e)
    _check_mu("perifocal", mu)
    if not (np.all(q > 0) and np.all(e >= 0)):
        raise ValueError("perifocal: periapsis must be positive and e at least 0.")
    shape, t, q, e = t.shape, t.reshape(-1), q.reshape(-1), e.reshape(-1)
    conic = Conic(q, e, 1 - e, mu)
    at = place(conic, anomaly(conic, t))
    return at.r.reshape(shape), np.arctan2(at.y, at.x).reshape(shape)


def vis_viva(r: Numbers, energy: Numbers, mu: Real = 1.0) -> Array:
    """Speed at distance r on an orbit of the given energy: v^2 = 2 (energy + mu/r).

    Raises ValueError unless r > 0, mu > 0 and all is finite, and where the orbit does not reach r.

    >>> float(vis_viva(1.0, -0.5))                                     # the circle of radius 1
    1.0
    """
    r, energy = np.asarray(r, dtype=float), np.asarray(energy, dtype=float)
    check_finite("vis_viva", r=r, energy=energy)
    _check_mu("vis_viva", mu)
    if not np.all(r > 0):
        raise ValueError("vis_viva: the distance r must be positive.")
    squared = 2 * (energy + mu / r)
    if not np.all(squared >= 0):
        raise ValueError("vis_viva: no orbit of this energy reaches r; it must have energy >= -mu/r.")
    return np.asarray(np.sqrt(squared))


def orbit(r: Numbers, v: Numbers, mu: Real = 1.0) -> Orbit:
    """The integrals and the conic of the state (r, v), two vectors of three numbers.

    They are computed from exact rationals, so ``kind`` is right for the numbers given, however near the parabola,
    and every integral has its digits. Raises ValueError for NaN, zero position or velocity, and collinear vectors
    (a fall along a straight line).

    >>> orbit([1, 0, 0], [0, 1, 0]).kind, orbit([2, 0, 0], [0, 1, 0]).kind, orbit([2, 0, 0], [0, 2, 0]).kind
    ('ellipse', 'parabola', 'hyperbola')
    >>> round(orbit([1, 0, 0], [0, 1e-8, 0]).gap * 1e16, 12)          # e itself has no digits left for it
    1.0
    >>> orbit([1, 0, 0], [0, 1, 0]).period == 2 * np.pi, orbit([1, 0, 0], [0, 2, 0]).semi_major_axis
    (True, -0.5)
    """
    found = integrals(r, v, mu)
    _, P, _ = _start(found, r, mu)
    kind: Literal["ellipse", "parabola", "hyperbola"]
    kind = "parabola" if found.alpha == 0 else "ellipse" if found.alpha > 0 else "hyperbola"
    q = found.parameter / (1 + found.e)
    a = 1 / found.alpha if found.alpha else math.inf
    period = 2 * math.pi * math.sqrt(a) * (a / math.sqrt(mu)) if kind == "ellipse" else math.inf
    return Orbit(found.energy, found.momentum, found.e * P, found.e, q, kind, found.gap, a, period)


def propagate(r: Numbers, v: Numbers, t: Numbers, mu: Real = 1.0) -> tuple[Array, Array]:
    """Positions and velocities at the times t (any shape) of the body that is at r with velocity v at time 0.

    The shapes are t.shape + (3,). Raises ValueError as ``orbit`` does.

    >>> r, v = propagate([1, 0, 0], [0, 1, 0], [0.0, np.pi])
    >>> np.allclose(r, [[1, 0, 0], [-1, 0, 0]], atol=1e-15), np.allclose(v, [[0, 1, 0], [0, -1, 0]], atol=1e-15)
    (True, True)
    """
    found = integrals(r, v, mu)
    w, P, Q = _start(found, r, mu)
    t = np.asarray(t, dtype=float)
    check_finite("propagate", t=t)
    conic = _conic(found, mu)
    at = place(conic, anomaly(conic, t.reshape(-1), mean_anomaly(conic, w)))
    position = at.x[:, None] * P + at.y[:, None] * Q
    velocity = at.vx[:, None] * P + at.vy[:, None] * Q
    return position.reshape(*t.shape, 3), velocity.reshape(*t.shape, 3)


def to_elements(r: Numbers, v: Numbers, mu: Real = 1.0) -> Elements:
    """The elements of the state (r, v). An angle that does not exist is 0: the node of an orbit in the reference
    plane (then the argument is counted from the first axis), the argument of a circle (then the anomaly is).

    >>> to_elements([1, 0, 0], [0, 0, 1.2]).inclination == np.pi / 2
    True
    """
    found = integrals(r, v, mu)
    _, P, Q = _start(found, r, mu)
    h = _unit(found.momentum)
    tilt = float(np.hypot(h[0], h[1]))
    line = np.array([-h[1], h[0], 0.0]) / tilt if tilt > 0 else np.array([1.0, 0.0, 0.0])
    if found.e == 0:
        P, Q = line, np.cross(h, line)
    towards = _unit(np.asarray(r, dtype=float))
    return Elements(
        found.parameter / (1 + found.e),
        found.e,
        float(np.arctan2(tilt, h[2])),
        float(np.arctan2(line[1], line[0])),
        float(np.arctan2(P @ np.cross(h, line), P @ line)),
        float(np.arctan2(towards @ Q, towards @ P)),
        found.gap,
    )


def to_state(elements: Elements, mu: Real = 1.0) -> tuple[Array, Array]:
    """Position and velocity of the body with these elements; the inverse of ``to_elements``.

    Near the far end of a thin ellipse the true anomaly fixes the place only to about 2^-52/sqrt(gap) of r.
    Raises ValueError unless all is finite, periapsis > 0, e >= 0, mu > 0 and the hyperbola reaches the anomaly.

    >>> r, v = to_state(Elements(1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    >>> np.array_equal(r, [1, 0, 0]), np.array_equal(v, [0, 1, 0])
    (True, True)
    """
    q, e, i, node, w, theta, gap = elements
    gap = 1 - e if gap is None else gap
    check_finite("to_state", elements=np.array([q, e, i, node, w, theta, gap], dtype=float))
    _check_mu("to_state", mu)
    # 1 + e cos(theta) and e + cos(theta), from the half angle, where gap keeps its digits
    near, far = (1 + e) * np.cos(theta / 2) ** 2, gap * np.sin(theta / 2) ** 2
    reach, ahead = near + far, near - far
    if not (q > 0 and e >= 0 and reach > 0):
        raise ValueError(
            f"to_state: needs periapsis > 0, e >= 0 and 1 + e cos(anomaly) > 0, got q={q}, e={e}, {theta}."
        )
    if not abs(1 - e - gap) <= 1e-15 * (1 + e):
        raise ValueError(f"to_state: gap must be 1 - e to rounding (or None), got gap={gap} and e={e}.")
    line = np.array([np.cos(node), np.sin(node), 0.0])
    across = np.array([-np.sin(node) * np.cos(i), np.cos(node) * np.cos(i), np.sin(i)])
    P, Q = np.cos(w) * line + np.sin(w) * across, -np.sin(w) * line + np.cos(w) * across
    r = q * (1 + e) / reach
    speed = np.sqrt(mu / q / (1 + e))
    return r * (np.cos(theta) * P + np.sin(theta) * Q), speed * (-np.sin(theta) * P + ahead * Q)


def _conic(found: Integrals, mu: Real) -> Conic:
    return Conic(found.parameter / (1 + found.e), found.e, found.gap, mu)


def _start(found: Integrals, r: Numbers, mu: Real) -> tuple[float, Array, Array]:
    """w at the state itself, and the unit vectors towards periapsis and across it in the plane of motion.

    The axes are the directions to the body and across it, turned back by the true anomaly at w: so they agree with w
    also where e is too small, or the orbit too thin, for the eccentricity vector to have digits.
    """
    conic = _conic(found, mu)
    unit = np.sqrt(abs(found.gap))
    sine = found.sine * np.sqrt(abs(found.alpha))  # e sin E, or e sinh H
    if found.alpha > 0:
        w = float(np.arctan2(sine, found.e_cosine) / unit)
    elif found.alpha < 0:
        w = float(np.arcsinh(sine / found.e) / unit)
    else:
        w = float(found.sine / np.sqrt(conic.q))
    at = place(conic, np.array([w]))
    cosine, sine = float(at.x[0] / at.r[0]), float(at.y[0] / at.r[0])
    h, towards = _unit(found.momentum), _unit(np.asarray(r, dtype=float))
    across = np.cross(h, towards)
    P, Q = cosine * towards - sine * across, sine * towards + cosine * across
    return w, P, Q


def _unit(vector: Array) -> Array:
    """The direction of a vector, whatever its length."""
    scaled = vector / np.abs(vector).max()
    return np.asarray(scaled / np.linalg.norm(scaled))


def _check_mu(who: str, mu: Real) -> None:
    if not (np.ndim(mu) == 0 and 0 < mu < np.inf):
        raise ValueError(f"{who}: mu, the strength of attraction, must be a positive number, got {mu}.")


@dataclass(frozen=True)
class Show:
    """An orbit with the areas swept in equal times; the page plays it."""

    e: float = 0.6
    """eccentricity, 0 <= e < 1"""
    parts: int = 12
    """number of equal times to cut a turn into"""

    def __call__(self) -> tuple[str, Picture]:
        """The areas, which must agree, and the picture."""
        if not 2 <= self.parts <= 360:
            raise ValueError(f"kepler: a turn is cut into 2 to 360 parts, got {self.parts}.")
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
