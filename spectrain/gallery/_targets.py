"""What is pursued: straight flight, a run round a circle, or any function of time, checked where it is asked."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spectrain.gallery._arrays import Array, Numbers, Real

Path = Callable[[float], Numbers]


@dataclass(frozen=True)
class Straight:
    """A target that flees along a straight line: point + velocity * t. Raises ValueError for NaN and other shapes."""

    point: Numbers
    velocity: Numbers

    def __post_init__(self) -> None:
        point, velocity = np.asarray(self.point, dtype=float), np.asarray(self.velocity, dtype=float)
        if point.shape != velocity.shape or point.shape not in ((2,), (3,)):
            raise ValueError(
                "pursuit: point and velocity need the same 2 or 3 coordinates, "
                f"got the shapes {point.shape} and {velocity.shape}."
            )
        if not (np.isfinite(point).all() and np.isfinite(velocity).all()):
            raise ValueError(f"pursuit: point and velocity must be finite, got {self.point} and {self.velocity}.")

    def __call__(self, t: float) -> Array:
        """Where the target is at time t."""
        return np.asarray(self.point, dtype=float) + np.asarray(self.velocity, dtype=float) * t


@dataclass(frozen=True)
class Round:
    """A target that runs round a circle about the origin. Raises ValueError unless radius and speed are positive."""

    radius: Real
    speed: Real

    def __post_init__(self) -> None:
        if not (0 < self.radius < np.inf and 0 < self.speed < np.inf):
            raise ValueError(f"pursuit: radius and speed must be positive, got {self.radius} and {self.speed}.")

    @property
    def period(self) -> float:
        """The time of one turn."""
        return 2 * np.pi * self.radius / self.speed

    def __call__(self, t: float) -> Array:
        """Where the target is at time t."""
        phi = self.speed * t / self.radius
        return self.radius * np.array([np.cos(phi), np.sin(phi)])


def place(target: Path, t: float) -> Array:
    """Where the target is at time t, or a ValueError if that is nowhere."""
    at = np.asarray(target(t), dtype=float)
    if not np.isfinite(at).all():
        raise ValueError(f"pursuit: the target must be finite all the time it is followed, got {at} at t = {t:.9g}.")
    return at


def velocity(target: Path, t: float, step: float) -> Array:
    """The target's velocity: known for our own, else from the polynomial through five places ``step`` apart,
    none of them before time 0."""
    if isinstance(target, Straight):
        return np.asarray(target.velocity, dtype=float)
    if isinstance(target, Round):
        phi = target.speed * t / target.radius
        return target.speed * np.array([-np.sin(phi), np.cos(phi)])
    first = max(t - 2 * step, 0.0)
    places = np.array([place(target, first + k * step) for k in range(5)])
    at = (t - first) / step
    coefficients = np.linalg.solve(np.vander(np.arange(5.0), increasing=True), places)
    return np.asarray(np.array([k * at ** max(k - 1, 0) for k in range(5)]) @ coefficients / step)


def fastest(target: Path, until: Real) -> float:
    """The target's greatest speed: exact for our own targets, the largest of 400 chords otherwise."""
    if isinstance(target, Straight):
        return float(np.linalg.norm(target.velocity))
    if isinstance(target, Round):
        return float(target.speed)
    t = np.linspace(0.0, until, 401)
    points = np.array([place(target, s) for s in t.tolist()])
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).max() / (t[1] - t[0]))
