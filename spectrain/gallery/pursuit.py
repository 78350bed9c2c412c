"""A pursuer that always heads for its target: does it arrive, when, and how far has it run?

With R the vector from pursuer to target, d = |R|, the rule is P' = speed * R/d. For a target that flees along a
straight line at speed v, put n = speed/v and phi for the angle between R and the flight. Then n d + R.x falls at
the constant rate v (n^2 - 1), and d sin(phi)/tan(phi/2)^n is constant: that is the whole solution. For any other
path the equation is integrated, and what happens is decided with a certificate: a bound on the closing speed, a
closed form, or a contraction (``_outcomes.py``).

Source: article 1047 (kexue.fm/archives/1047), the thief, the cow and the missile; Nahin, Chases and Escapes (2007),
ch. 1, 2.

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
from scipy.optimize import minimize_scalar

from spectrain._drawing import Line, Picture
from spectrain.gallery._arrays import Array, Numbers, Real
from spectrain.gallery._outcomes import (
    CLOSE,
    STIFF,
    TOLERANCE,
    Law,
    Run,
    after_a_delay,
    closing,
    counted,
    last_bit,
    limit_cycle,
    never,
    solved,
)
from spectrain.gallery._outcomes import Pursuit as Pursuit
from spectrain.gallery._ring import ring as ring
from spectrain.gallery._straight_flight import checked_start
from spectrain.gallery._straight_flight import intercept as intercept
from spectrain.gallery._straight_flight import straight_flight as straight_flight
from spectrain.gallery._straight_flight import straight_flight_path as straight_flight_path
from spectrain.gallery._targets import Path, fastest, place, velocity
from spectrain.gallery._targets import Round as Round
from spectrain.gallery._targets import Straight as Straight

POINT = 1e-10  # of the first distance: a radius below it counts as 0 while the equation is integrated
NEAR = 0.05  # of the first distance: from here on a tail chase may be stiff


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

    With ``radius`` 0 the equation is integrated until the distance is CLOSE times the first one; from there the
    closed forms for straight flight tell whether and when it vanishes.
    ``target`` is a function of time in the plane or in space; ``delay`` is a reaction time (the pursuer heads for
    where the target was then); ``law="lead"`` keeps the bearing constant instead. ``until`` ends the pursuit (unless
    told: what a faster pursuer needs at most, or 30 times distance/speed, or 40 periods); ``period`` says that the
    target's path repeats, and lets a limit cycle be recognised.

    The outcome is "capture"; "miss", only where it is certain: straight flight of a target as fast or faster, or a
    pursuer with a delay that has arrived behind its target; "limit cycle" with a contraction as its certificate;
    and otherwise "undecided". Relative error about 1e-11, and more where the
    speeds are nearly equal.
    Raises ValueError for a speed that is not positive, NaN (also of the target, later), a negative delay or radius,
    mismatched dimensions, and where rounding of the coordinates hides the end: then the equation cannot be followed.

    >>> thief = Round(radius=1.0, speed=1.0)
    >>> chase = pursue(thief, 0.5, (0.0, 0.0))                  # the guard runs in a circle of half the radius
    >>> chase.outcome, round(float(np.linalg.norm(chase.position(chase.time))), 9)
    ('limit cycle', 0.5)
    """
    start = checked_start(target, speed, start, radius, delay)
    target, origin = _from_its_start(target)
    start = start - origin
    period = period if period is not None else getattr(target, "period", None)
    _check_settings(law, delay, until, period)
    first = float(np.linalg.norm(place(target, 0.0) - start))
    if first <= radius:
        return Pursuit("capture", 0.0, 0.0, first, "The pursuer starts within reach.", lambda t: start + origin)
    horizon = until if until is not None else _horizon(target, speed, first, period)
    step = 1e-3 * min(first / speed, period or np.inf)
    rule = counted(partial(_velocity_of_pursuer, target=target, speed=speed, delay=delay, law=law, step=step))
    point = radius < POINT * first
    reach = CLOSE * first if point else radius
    escapes = never(target, speed, start, delay, law, radius)
    run = _follow(rule, target, start, horizon, delay, first, None if point and delay > 0 else reach)
    left = _time_left(run, target, speed, start, law, step) if point else 0.0
    met = run.arrived is not None and not escapes and left < np.inf
    ended = partial(Pursuit, position=lambda t: (run.sol(t).T + origin).T, closest=_closest(target, run))
    time = run.end
    if met:
        why = f"The distance falls to {reach:.3g} at t = {time:.12g}"
        why += closing(target, speed, horizon) if law == "pursuit" and delay == 0 else "."
        return ended("capture", time + left, speed * (time + left), certificate=why)
    if run.arrived is not None and not escapes:
        escapes = "undecided", f"At t = {time:.9g} the distance is {reach:.3g}, and nothing says that it vanishes."
    kind, why = escapes or after_a_delay(target, delay, law, radius, run) or limit_cycle(rule, period, run)
    return ended(kind, time, speed * time, certificate=why)


def _from_its_start(target: Path) -> tuple[Path, Array]:
    """The target in coordinates from its first place, where it flies straight: those far away have fewer digits."""
    if not isinstance(target, Straight):
        return target, np.zeros(())
    origin = place(target, 0.0)
    return Straight(np.zeros_like(origin), target.velocity), origin


def _check_settings(law: str, delay: Real, until: Real | None, period: Real | None) -> None:
    if law not in get_args(Law):
        raise ValueError(f"pursue: law must be one of {', '.join(get_args(Law))}, got {law!r}.")
    if not np.isfinite(delay) or (until is not None and not 0 < until < np.inf):
        raise ValueError(f"pursue: delay and until must be finite and until positive, got {delay} and {until}.")
    if period is not None and not 0 < period < np.inf:
        raise ValueError(f"pursue: period must be positive and finite, got {period}.")


def _velocity_of_pursuer(t: float, P: Array, *, target: Path, speed: Real, delay: Real, law: Law, step: float) -> Array:
    R = place(target, max(t - delay, 0.0)) - P
    distance = np.linalg.norm(R)
    if distance == 0:  # on top of it, for one instant
        return np.zeros_like(R)
    sight = R / distance
    if law == "pursuit":
        return np.asarray(speed * sight)
    v = velocity(target, t, step)
    across = v - (v @ sight) * sight
    size = float(np.linalg.norm(across))
    if size >= speed:  # the bearing cannot be kept: do what can be done
        return np.asarray(speed * across / size)
    return np.asarray(across + np.sqrt(speed**2 - size**2) * sight)


def _horizon(target: Path, speed: Real, first: float, period: Real | None) -> float:
    """How long to follow: until a faster pursuer must have arrived, else long enough to see what happens."""
    span = max(30 * first / speed, 40 * period if period else 0.0)
    slack = speed - fastest(target, span)
    return max(span, 1.01 * first / slack) if slack > 1e-6 * speed else span


def _follow(
    rule: Any, target: Path, start: Array, horizon: Real, delay: Real, first: float, reach: float | None
) -> Run:
    """Integrate to the horizon, to within ``reach`` (unless None), or, with a delay, close to where the target was.

    Once the distance is below NEAR times the first one, by a method for stiff equations.
    """
    near = _arrival(target, NEAR * first, 0.0)
    aims = {"arrived": None if reach is None else _arrival(target, reach, 0.0)}
    aims["behind"] = _arrival(target, CLOSE * first, delay) if delay > 0 else None
    kept = {name: event for name, event in aims.items() if event is not None}
    soon = [near] if delay == 0 and (reach is None or reach < NEAR * first) else []
    far = solved(rule, (0.0, horizon), start, [*kept.values(), *soon], TOLERANCE)
    if not (soon and far.t_events[-1].size):
        return Run(far.t, far.sol, TOLERANCE, **_times(aims, kept, far))
    span = (float(far.t[-1]), horizon)
    late = solved(rule, span, far.y[:, -1], list(kept.values()), STIFF)

    def sol(t: Any) -> Array:
        early = np.asarray(t) < span[0]
        return np.asarray(np.where(early, far.sol(np.minimum(t, span[0])), late.sol(np.maximum(t, span[0]))))

    return Run(np.concatenate([far.t, late.t[1:]]), sol, STIFF, **_times(aims, kept, late))


def _times(aims: dict[str, Any], kept: dict[str, Any], run: Any) -> dict[str, float | None]:
    """When each of the aims was reached, if it was looked for and was."""
    found = dict(zip(kept, run.t_events, strict=False))
    return {name: float(found[name][0]) if name in found and found[name].size else None for name in aims}


def _time_left(run: Run, target: Path, speed: Real, start: Array, law: Law, step: float) -> float:
    """The time from the end of a run to capture, if the target goes straight on; inf if the distance never vanishes.

    Of a target in straight flight the start decides: at the end head-on has become head-on up to rounding.
    """
    if law == "pursuit" and isinstance(target, Straight):
        return straight_flight(target, speed, start)[0] - run.end
    return last_bit(target, speed, run.sol(run.end), run.end, law, step)


def _arrival(target: Path, reach: Real, delay: Real) -> Callable[[float, Array], float]:
    def event(t: float, P: Array) -> float:
        return float(np.linalg.norm(place(target, max(t - delay, 0.0)) - P) - reach)

    event.terminal = True  # type: ignore[attr-defined]
    event.direction = -1  # type: ignore[attr-defined]
    return event


def _closest(target: Path, run: Run) -> float:
    """The least distance: the least of the samples, refined between its neighbours."""
    times = np.union1d(run.t, np.linspace(0.0, run.t[-1], 1000))
    gap = lambda t: float(np.linalg.norm(place(target, t) - run.sol(t)))  # noqa: E731
    gaps = np.array([gap(t) for t in times.tolist()])
    i = int(gaps.argmin())
    span = (times[max(i - 1, 0)], times[min(i + 1, len(times) - 1)])
    return min(float(gaps[i]), float(minimize_scalar(gap, bounds=span, method="bounded", options={"xatol": 1e-9}).fun))


_COW = Straight((0.0, 0.0), (0.0, 1.0))
# Of each problem the target, where the pursuer starts, and its reaction time.
_SCENES: dict[str, tuple[Path, tuple[float, float], float]] = {
    "cow": (_COW, (300.0, 0.0), 0.0),
    "lead": (_COW, (300.0, 0.0), 0.0),
    "thief": (Round(1.0, 1.0), (2.5, 0.0), 0.0),
    "missile": (Straight((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0), 0.0),
    "delay": (_COW, (300.0, 0.0), 30.0),
}


@dataclass(frozen=True)
class Show:
    """One of the classical pursuits; the page plays it."""

    problem: Literal["cow", "thief", "missile", "delay", "ring", "lead"] = "cow"
    """cow: straight flight; thief: round a block; missile: from (0, 0) at a ship on the line x = 1;
    delay: with reaction time; ring: four dogs; lead: both laws"""
    ratio: float = 4 / 3
    """speed of the pursuer over the speed of the target"""

    def __call__(self) -> tuple[str, Picture]:
        """The outcome with its certificate, and the paths."""
        if self.problem == "ring":
            return _four_dogs()
        target, start, delay = _SCENES[self.problem]
        runs = {"pursuit": pursue(target, self.ratio, start, delay=delay)}
        if self.problem == "lead":
            runs["lead (constant bearing)"] = pursue(target, self.ratio, start, law="lead")
        first = float(np.linalg.norm(np.subtract(target(0.0), start)))
        span = min(max(run.time for run in runs.values()), 12 * max(first, start[0]) / self.ratio)
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
