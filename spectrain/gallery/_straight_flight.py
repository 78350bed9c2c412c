"""A pursuit of a target in straight flight, in closed form.

With n the ratio of the speeds, d the distance, phi the angle between sight and flight and x the coordinate along
the flight: n d + R.x falls at the constant rate v (n^2 - 1), and d sin(phi)/tan(phi/2)^n is constant.

Source: Nahin, Chases and Escapes (2007), chapter 1 (Bouguer's problem); both integrals follow in two lines from
d' = v cos(phi) - n v and phi' = -v sin(phi)/d.
"""

import numpy as np

from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._targets import Path, Straight


def straight_flight(target: Straight, speed: Real, start: Numbers) -> tuple[float, float]:
    """Time of capture (inf if never) and least distance, in closed form.

    From n d + R.x: captured at (n d + R.x)/(v (n^2 - 1)) if n > 1, or in d/(speed + v) if exactly head-on. With
    R.x = d cos(phi) that is d/(speed + v) (1 + 2 cos(phi/2)^2 / (n - 1)), where no digits cancel as n tends to 1. Else
    d = C tan(phi/2)^n / sin(phi) is least at cos(phi) = n, unless the target is already flying further away; for
    n = 1 it tends to (d + R.x)/2 = d cos(phi/2)^2 as time goes on.

    >>> round(straight_flight(Straight((0, 0), (0, 1)), 4 / 3, (300, 0))[0] * 4 / 3 * 7, 9)
    4800.0
    >>> time, closest = straight_flight(Straight((0, 0), (0, 1)), 1.0, (300, 0))
    >>> time, round(closest, 9)
    (inf, 150.0)
    """
    start = checked_start(target, speed, start, 0.0, 0.0)
    R, v = target(0.0) - start, float(np.linalg.norm(target.velocity))
    d = float(np.linalg.norm(R))
    if v == 0 or d == 0:
        return d / speed, 0.0
    n = speed / v
    psi = _angle(R, -np.asarray(target.velocity, dtype=float))  # pi - phi, with digits where phi is next to pi
    if speed > v:
        return d / (speed + v) * (1 + 2 * float(np.sin(psi / 2)) ** 2 * v / (speed - v)), 0.0
    if psi == 0:
        return d / (speed + v), 0.0
    if speed == v:
        return np.inf, float(d * np.sin(psi / 2) ** 2)
    turn = np.arccos(n)
    if psi >= np.pi - turn:
        return np.inf, d
    return np.inf, float(d * np.sin(psi) / np.sin(turn) * (np.tan(turn / 2) * np.tan(psi / 2)) ** n)


def straight_flight_path(target: Straight, speed: Real, start: Numbers, phi: Numbers) -> tuple[Array, Array]:
    """Times and positions at which the angle between sight and flight has come down to phi, in closed form.

    Raises ValueError for angles that are not between 0 and the first one, and for speed equal to the target's
    (where time is not a function of n d + R.x).

    >>> t, P = straight_flight_path(Straight((0, 0), (0, 1)), 2.0, (1.0, 0.0), [np.pi / 2])
    >>> bool(abs(t[0]) < 1e-15), np.allclose(P, [[1.0, 0.0]], atol=1e-15)
    (True, True)
    """
    start = checked_start(target, speed, start, 0.0, 0.0)
    velocity, phi = np.asarray(target.velocity, dtype=float), np.asarray(phi, dtype=float)
    v, R = float(np.linalg.norm(velocity)), target(0.0) - start
    n, d0, phi0 = speed / v, float(np.linalg.norm(R)), _angle(R, velocity)
    if n == 1 or not 0 < phi0 < np.pi or not np.all((phi > 0) & (phi <= phi0)):
        raise ValueError(f"pursuit: needs speed unequal to {v} and angles in (0, {phi0}], from a sight not along it.")
    d = d0 * np.sin(phi0) / np.sin(phi) * (np.tan(phi / 2) / np.tan(phi0 / 2)) ** n
    t = (n * (d0 - d) + d0 * np.cos(phi0) - d * np.cos(phi)) / (v * (n * n - 1))
    ahead = velocity / v
    side = R - (R @ ahead) * ahead
    side /= np.linalg.norm(side)
    sight = np.cos(phi)[:, None] * ahead + np.sin(phi)[:, None] * side
    return t, np.array([target(time) for time in t]) - d[:, None] * sight


def intercept(target: Straight, speed: Real, start: Numbers) -> float:
    """The least time in which a straight run meets a target in straight flight (lead guidance); inf if none does.

    The smaller positive root of |R + velocity t| = speed t; never later than pursuit.

    >>> intercept(Straight((0, 0), (0, 3)), 5.0, (4, 0))
    1.0
    """
    start = checked_start(target, speed, start, 0.0, 0.0)
    R, velocity = target(0.0) - start, np.asarray(target.velocity, dtype=float)
    a, b, c = float(velocity @ velocity) - speed**2, float(R @ velocity), float(R @ R)
    if c == 0:
        return 0.0
    if a == 0:
        return c / (-2 * b) if b < 0 else np.inf
    root = b * b - a * c
    if root < 0 or (a > 0 and b >= 0):
        return np.inf
    return float(c / (np.sqrt(root) - b))  # the form of the root that does not cancel for a < 0; for a > 0, b < 0


def checked_start(target: Path, speed: Real, start: Numbers, radius: Real, delay: Real) -> Array:
    """The start as an array, or a ValueError that says what is wrong."""
    start = np.asarray(start, dtype=float)
    at = np.asarray(target(0.0), dtype=float)
    if not (np.isfinite(speed) and speed > 0):
        raise ValueError(f"pursuit: the speed, and so its ratio to the target's, must be positive, got {speed}.")
    if start.shape not in ((2,), (3,)) or at.shape != start.shape:
        raise ValueError(f"pursuit: start and target need the same 2 or 3 coordinates, got {start.shape}, {at.shape}.")
    if not (np.isfinite(start).all() and np.isfinite(at).all()):
        raise ValueError("pursuit: start and target must be finite.")
    if not (radius >= 0 and delay >= 0):
        raise ValueError(f"pursuit: radius and delay must be at least 0, got {radius} and {delay}.")
    return start


def _angle(a: Array, b: Array) -> float:
    """The angle between two vectors, accurate also when it is small (Kahan)."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))
