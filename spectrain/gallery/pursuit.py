"""A pursuer that always heads for its target: does it arrive, when, and how far has it run?

With R the vector from pursuer to target, d = |R|, the rule is P' = speed * R/d. For a target that flees along a
straight line at speed v, put n = speed/v and phi for the angle between R and the flight. Then n d + R.x falls at
the constant rate v (n^2 - 1), and d sin(phi)/tan(phi/2)^n is constant: that is the whole solution. For any other
path the equation is integrated, and what happens is decided with a certificate: a bound on the closing speed, a
closed form, or a contraction. (The rule is the gradient of a concave function, so two pursuers of one target never
move apart: that is why limit cycles attract.)

Source: the blog's old series on pursuit (the cow, the thief, the missile); Nahin, Chases and Escapes (2007), ch. 1, 2.

>>> cow = Straight((0.0, 0.0), (0.0, 1.0))                     # 300 m away, walking across; the farmer at 4/3
>>> chase = pursue(cow, 4 / 3, (300.0, 0.0))
>>> chase.captured, bool(abs(chase.distance - 4800 / 7) < 1e-9)
(True, True)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar

from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._drawing import Line, Picture
from spectrain.gallery._straight_flight import Path, checked_start
from spectrain.gallery._straight_flight import Straight as Straight
from spectrain.gallery._straight_flight import intercept as intercept
from spectrain.gallery._straight_flight import straight_flight as straight_flight
from spectrain.gallery._straight_flight import straight_flight_path as straight_flight_path

Law = Literal["pursuit", "lead"]

CLOSE = 1e-7  # of the first distance: from here on the target's path is taken as straight, an error of order CLOSE^2
TOLERANCE = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14}


@dataclass(frozen=True)
class Round:
    """A target that runs round a circle about the origin."""

    radius: Real
    speed: Real

    @property
    def period(self) -> float:
        """The time of one turn."""
        return 2 * np.pi * self.radius / self.speed

    def __call__(self, t: float) -> Array:
        """Where the target is at time t."""
        phi = self.speed * t / self.radius
        return self.radius * np.array([np.cos(phi), np.sin(phi)])


@dataclass(frozen=True)
class Pursuit:
    """How a pursuit ends, and why that is certain.

    ``time`` is the time of capture or the time followed; ``distance`` = speed * time is the way run; ``closest`` the
    least distance seen; ``position(t)`` the pursuer at any time up to ``time`` (interpolated to order 7).
    """

    outcome: Literal["capture", "miss", "limit cycle", "undecided"]
    time: Real
    distance: float
    closest: float
    certificate: str
    position: Callable[[float], Array]

    @property
    def captured(self) -> bool:
        """Whether the pursuer reaches the target."""
        return self.outcome == "capture"


def pursue(
    target: Path,
    speed: Real,
    start: Numbers,
    *,
    radius: Real = 0.0,
    delay: Real = 0.0,
    law: Law = "pursuit",
    until: Real | None = None,
    period: Real | None = None,
) -> Pursuit:
    """Follow a pursuer of the given speed from ``start`` until it is within ``radius`` of ``target(t)``.

    With ``radius`` 0 that means CLOSE times the first distance; the rest is added in closed form.
    ``target`` is a function of time in the plane or in space; ``delay`` is a reaction time (the pursuer heads for
    where the target was then); ``law="lead"`` keeps the bearing constant instead. ``until`` ends the pursuit (unless
    told: what a faster pursuer needs at most, or 30 times distance/speed, or 40 periods); ``period`` says that the
    target's path repeats, and lets a limit cycle be recognised.

    The outcome is "capture"; "miss", only where it is certain: straight flight of a target as fast or faster, or a
    pursuer with a delay that has arrived behind its target; "limit cycle" with a contraction as its certificate;
    and otherwise "undecided". Relative error about 1e-11.
    Raises ValueError for a speed that is not positive, NaN, a negative delay or radius, and mismatched dimensions.

    >>> thief = Round(radius=1.0, speed=1.0)
    >>> chase = pursue(thief, 0.5, (0.0, 0.0))                  # the guard runs in a circle of half the radius
    >>> chase.outcome, round(float(np.linalg.norm(chase.position(chase.time))), 9)
    ('limit cycle', 0.5)
    """
    start = checked_start(target, speed, start, radius, delay)
    if law not in get_args(Law):
        raise ValueError(f"pursue: law must be one of {', '.join(get_args(Law))}, got {law!r}.")
    if not np.isfinite(delay) or (until is not None and not 0 < until < np.inf):
        raise ValueError(f"pursue: delay and until must be finite and until positive, got {delay} and {until}.")
    period = period if period is not None else getattr(target, "period", None)
    first = float(np.linalg.norm(np.asarray(target(0.0), dtype=float) - start))
    if first <= radius:
        return Pursuit("capture", 0.0, 0.0, first, "The pursuer starts within reach.", lambda t: start)
    horizon = until if until is not None else _horizon(target, speed, first, period)
    rule = partial(_velocity_of_pursuer, target=target, speed=speed, delay=delay, law=law)
    reach = max(radius, CLOSE * first)
    events = [_arrival(target, reach, 0.0)] + ([_arrival(target, CLOSE * first, delay)] if delay > 0 else [])
    run = solve_ivp(rule, (0.0, horizon), start, events=events, dense_output=True, **TOLERANCE)
    times = np.union1d(run.t, np.linspace(0.0, run.t[-1], 1000))
    gaps = np.linalg.norm(np.array([target(t) for t in times], dtype=float) - run.sol(times).T, axis=1)
    ended = partial(Pursuit, position=run.sol, closest=_closest(target, run.sol, times, gaps))
    if run.t_events[0].size:
        time = float(run.t_events[0][0])
        time += 0.0 if radius >= CLOSE * first else _last_bit(target, speed, run.sol(time), time, law)
        why = f"The distance falls to {reach:.3g} at t = {run.t_events[0][0]:.12g}"
        why += _closing(target, speed, horizon) if law == "pursuit" and delay == 0 else "."
        return ended("capture", time, speed * time, certificate=why)
    time = float(run.t[-1])
    kind, why = (
        _after_a_delay(target, delay, law, radius, run)
        or _in_straight_flight(target, speed, start, delay, law, radius)
        or _limit_cycle(rule, period, run)
    )
    return ended(kind, time, speed * time, certificate=why)


def ring(starts: Numbers, speed: Real) -> Pursuit:
    """Pursuers in a ring, each heading for the next and the last for the first, until two of them meet.

    A regular ring of n, side L, meets in the middle at L/(speed (1 - cos(2 pi/n))). ``position(t)`` has shape
    (n, dimension). Raises ValueError for fewer than two pursuers, or two neighbours at the same place.

    >>> square = ring([[0, 0], [1, 0], [1, 1], [0, 1]], 1.0)
    >>> square.captured, bool(abs(square.time - 1) < 1e-6)
    (True, True)
    """
    starts = np.asarray(starts, dtype=float)
    if starts.ndim != 2 or len(starts) < 2 or not np.isfinite(starts).all() or not (np.isfinite(speed) and speed > 0):
        raise ValueError("pursuit: a ring needs at least two finite positions and a positive speed.")
    shape, sides = starts.shape, np.linalg.norm(np.roll(starts, -1, axis=0) - starts, axis=1)
    if not np.all(sides > 0):
        raise ValueError("pursuit: two neighbours of the ring start at the same place.")

    def gaps(x: Array) -> Array:
        x = x.reshape(shape)
        return np.asarray(np.roll(x, -1, axis=0) - x)

    def rule(t: float, x: Array) -> Array:
        R = gaps(x)
        return np.asarray((speed * R / np.linalg.norm(R, axis=1, keepdims=True)).reshape(-1))

    def meeting(t: float, x: Array) -> float:
        return float(np.linalg.norm(gaps(x), axis=1).min() - CLOSE * sides.min())

    meeting.terminal = True  # type: ignore[attr-defined]
    # The perimeter falls at the rate speed * sum of 1 - cos(turn), and the turns of a closed ring add up to 2 pi or
    # more (Fenchel): with 1 - cos(x) >= 2 (x/pi)^2 and Cauchy-Schwarz the sum is at least 8/n.
    n = len(starts)
    limit = n * float(sides.sum()) / (8 * speed)
    run = solve_ivp(rule, (0.0, 1.01 * limit), starts.reshape(-1), events=[meeting], dense_output=True, **TOLERANCE)
    met, left = bool(run.t_events[0].size), gaps(run.y[:, -1])
    size = np.linalg.norm(left, axis=1)
    i = int(size.argmin())
    cosine = float(left[i] @ left[(i + 1) % n] / size[i] / size[(i + 1) % n])
    time = float(run.t[-1]) + float(size[i]) / (speed * (1 - cosine)) * met
    why = f"Two must meet by t = {limit:.6g} (n perimeter / (8 speed)); here two are {size[i]:.3g} apart."
    outcome: Literal["capture", "undecided"] = "capture" if met else "undecided"
    return Pursuit(outcome, time, speed * time, float(size[i]), why, lambda t: run.sol(t).reshape(shape))


def _velocity(target: Path, t: float) -> Array:
    """The target's velocity, by a central difference of order 4 unless the target knows it."""
    if isinstance(target, Straight):
        return np.asarray(target.velocity, dtype=float)
    h = 1e-3
    values = [np.asarray(target(t + k * h), dtype=float) for k in (-2, -1, 1, 2)]
    return np.asarray((values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h))


def _velocity_of_pursuer(t: float, P: Array, *, target: Path, speed: Real, delay: Real, law: Law) -> Array:
    R = np.asarray(target(max(t - delay, 0.0)), dtype=float) - P
    sight = R / np.linalg.norm(R)
    if law == "pursuit":
        return np.asarray(speed * sight)
    v = _velocity(target, t)
    across = v - (v @ sight) * sight
    size = float(np.linalg.norm(across))
    if size >= speed:  # the bearing cannot be kept: do what can be done
        return np.asarray(speed * across / size)
    return np.asarray(across + np.sqrt(speed**2 - size**2) * sight)


def _fastest(target: Path, until: Real) -> float:
    """The target's greatest speed: exact for our own targets, the largest of 400 chords otherwise."""
    if isinstance(target, Straight):
        return float(np.linalg.norm(target.velocity))
    if isinstance(target, Round):
        return abs(target.speed)
    t = np.linspace(0.0, until, 401)
    points = np.array([target(s) for s in t], dtype=float)
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).max() / (t[1] - t[0]))


def _horizon(target: Path, speed: Real, first: float, period: Real | None) -> float:
    """How long to follow: until a faster pursuer must have arrived, else long enough to see what happens."""
    span = max(30 * first / speed, 40 * period if period else 0.0)
    slack = speed - _fastest(target, span)
    return max(span, 1.01 * first / slack) if slack > 1e-6 * speed else span


def _arrival(target: Path, reach: Real, delay: Real) -> Callable[[float, Array], float]:
    def event(t: float, P: Array) -> float:
        return float(np.linalg.norm(np.asarray(target(max(t - delay, 0.0)), dtype=float) - P) - reach)

    event.terminal = True  # type: ignore[attr-defined]
    event.direction = -1  # type: ignore[attr-defined]
    return event


def _last_bit(target: Path, speed: Real, P: Array, t: float, law: Law) -> float:
    """The time from here to capture when the target goes straight on: the closed forms."""
    onward = Straight(tuple(np.asarray(target(t), dtype=float)), tuple(_velocity(target, t)))
    time = intercept(onward, speed, P) if law == "lead" else straight_flight(onward, speed, P)[0]
    R, v = onward(0.0) - P, np.asarray(onward.velocity)
    d = float(np.linalg.norm(R))
    return time if np.isfinite(time) else d / (speed - float(R @ v) / d)  # head-on up to rounding


def _closest(target: Path, position: Callable[[float], Array], times: Array, gaps: Array) -> float:
    """The least distance: the least of the samples, refined between its neighbours."""
    i = int(gaps.argmin())
    span = (times[max(i - 1, 0)], times[min(i + 1, len(times) - 1)])
    gap = lambda t: float(np.linalg.norm(np.asarray(target(t), dtype=float) - position(t)))  # noqa: E731
    return min(float(gaps[i]), float(minimize_scalar(gap, bounds=span, method="bounded", options={"xatol": 1e-9}).fun))


def _closing(target: Path, speed: Real, horizon: Real) -> str:
    """The reason why pursuit without delay had to succeed, if there is one."""
    slack = speed - _fastest(target, horizon)
    known = "" if isinstance(target, Straight | Round) else " (its speed was sampled)"
    return f"; it had to, closing in at {slack:.3g} or faster all the way{known}." if slack > 0 else "."


Decision = tuple[Literal["miss", "limit cycle", "undecided"], str]


def _after_a_delay(target: Path, delay: Real, law: Law, radius: Real, run: Any) -> Decision | None:
    """A pursuer that has arrived where the target was can only follow it from then on.

    That is never within reach where the lag is one length for ever: straight flight and the circle. Any other
    target may stop, turn back or cross its own path.
    """
    if delay == 0 or not run.t_events[1].size:
        return None
    time = float(run.t_events[1][0])
    left = float(np.linalg.norm(np.asarray(target(time), dtype=float) - run.sol(time)))
    for_ever = isinstance(target, (Straight, Round)) and law == "pursuit" and left > radius
    return "miss" if for_ever else "undecided", (
        f"At t = {time:.9g} the pursuer is where the target was {delay:g} earlier, and follows it from then on; "
        f"the target is {left:.6g} away."
    )


def _in_straight_flight(
    target: Path, speed: Real, start: Array, delay: Real, law: Law, radius: Real
) -> Decision | None:
    """A target in straight flight that is as fast as the pursuer or faster escapes, by the closed forms."""
    if not isinstance(target, Straight) or delay > 0:
        return None
    if law == "pursuit":
        time, closest = straight_flight(target, speed, start)
        if time == np.inf and closest > radius:
            return (
                "miss",
                f"Straight flight, not slower than the pursuer: the distance never falls below {closest:.9g}.",
            )
    if radius == 0 and intercept(target, speed, start) == np.inf:
        return "miss", "No run at this speed, straight or not, ever meets the target."
    return None


def _limit_cycle(rule: Any, period: Real | None, run: Any) -> Decision:
    """Whether the position repeats after a period: fixed point of the map over one period, with its contraction."""
    if not period:
        return "undecided", f"Followed to t = {run.t[-1]:g} without arriving; a longer time or a period may decide."

    def after_one_period(x: Array) -> Array:
        end = solve_ivp(rule, (t0, t0 + period), x, **TOLERANCE).y[:, -1]
        return np.asarray(end)

    t0 = period * np.floor(run.t[-1] / period)
    x = run.sol(t0)
    moved = after_one_period(x)
    step = 1e-4 * max(float(np.linalg.norm(x)), 1e-3)
    columns = [(after_one_period(x + step * e) - after_one_period(x - step * e)) / (2 * step) for e in np.eye(len(x))]
    factor = float(np.linalg.norm(np.array(columns), 2))
    residual = float(np.linalg.norm(moved - x))
    if factor < 1 - 1e-6 and residual / (1 - factor) <= 1e-6 * max(float(np.linalg.norm(x)), 1e-6):
        return "limit cycle", (
            f"After one period the pursuer is back within {residual:.2g}, and the map over a period contracts by "
            f"{factor:.4g}: a cycle that attracts lies within {residual / (1 - factor):.2g}."
        )
    return "undecided", f"After {run.t[-1] / period:.0f} periods the position still moves by {residual:.2g} a period."


@dataclass(frozen=True)
class Show:
    """One of the classical pursuits; the page plays it."""

    problem: Literal["cow", "thief", "missile", "ring", "lead"] = "cow"
    """cow: straight flight; thief: round a block; missile: with reaction time; ring: four dogs; lead: both laws"""
    ratio: float = 4 / 3
    """speed of the pursuer over the speed of the target"""

    def __call__(self) -> tuple[str, Picture]:
        """The outcome with its certificate, and the paths."""
        if self.problem == "ring":
            return _four_dogs()
        cow = Straight((0.0, 0.0), (0.0, 1.0))
        target: Path = Round(1.0, 1.0) if self.problem == "thief" else cow
        start = (2.5, 0.0) if self.problem == "thief" else (300.0, 0.0)
        runs = {"pursuit": pursue(target, self.ratio, start, delay=30.0 if self.problem == "missile" else 0.0)}
        if self.problem == "lead":
            runs["lead (constant bearing)"] = pursue(target, self.ratio, start, law="lead")
        span = min(max(run.time for run in runs.values()), 12 * start[0] / self.ratio)
        times = np.linspace(0.0, span, 481)
        prey = np.array([target(float(t)) for t in times], dtype=float).T
        paths = {name: np.array([run.position(min(t, run.time)) for t in times]).T for name, run in runs.items()}
        hunters = [Line(*path, name=name, color=2 * i) for i, (name, path) in enumerate(paths.items())]
        seen = ((prey, 1), (paths["pursuit"], 0))
        frames = tuple(
            tuple(Line(*path[:, [k]], style="marks", color=color) for path, color in seen) for k in range(0, 481, 3)
        )
        text = [f"{k}: {r.outcome}, t = {r.time:.9g}, run {r.distance:.9g}. {r.certificate}" for k, r in runs.items()]
        title = f"Pursuit: {self.problem}, speed ratio {self.ratio:.4g}"
        lines = (Line(*prey, name="target", style="dash", color=1), *hunters)
        return "\n".join(text), Picture(title, "x", "y", lines, equal=True, frames=frames)


def _four_dogs() -> tuple[str, Picture]:
    run = ring([[0, 0], [1, 0], [1, 1], [0, 1]], 1.0)
    paths = np.array([run.position(t) for t in np.linspace(0.0, run.time * (1 - 1e-4), 400)])
    lines = tuple(Line(*paths[:, i].T, name=f"dog {i + 1}") for i in range(4))
    text = f"The four meet after {run.time:.9g}, having run {run.distance:.9g} (the side is 1). {run.certificate}"
    return text, Picture("Four dogs in a ring, each after the next", "x", "y", lines, equal=True)
