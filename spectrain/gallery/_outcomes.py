"""How a pursuit ends, and the certificate for it: a bound, a closed form, or a contraction.

The rule of pursuit is the gradient of a concave function of the pursuer's place, so two pursuers of one target never
move apart: that is why limit cycles attract. A fixed point of the map over one period, with the norm of its
derivative below 1, is the certificate (Banach).

Source: Nahin, Chases and Escapes (2007), chapters 1 and 2.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.integrate import solve_ivp

from spectrain.gallery._arrays import Array, Real
from spectrain.gallery._straight_flight import intercept, straight_flight
from spectrain.gallery._targets import Path, Round, Straight, fastest, place, velocity

Law = Literal["pursuit", "lead"]
Decision = tuple[Literal["miss", "limit cycle", "undecided"], str]

TOLERANCE = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14}
STIFF = TOLERANCE | {"method": "LSODA"}  # for a tail chase: the sight turns ever faster as the distance falls
CALLS = 20_000_000  # of the equation: three minutes, and ten times what a speed ratio of 1.00001 needs
CLOSE = 1e-7  # of the first distance: from here on the target's path is taken as straight, an error of order CLOSE^2


def counted(rule: Callable[[float, Array], Array]) -> Callable[[float, Array], Array]:
    """The rule, with an end: a ValueError after so many calls that steps must have shrunk to rounding."""
    calls = itertools.count(1)

    def limited(t: float, P: Array) -> Array:
        if next(calls) > CALLS:
            raise ValueError(
                f"pursue: at t = {t:.9g} the equation has been evaluated {CALLS:,} times, and its steps shrink: "
                "rounding of the coordinates hides the rest. Put the origin near the target, or give radius= or until="
            )
        return rule(t, P)

    return limited


def solved(rule: Any, span: tuple[float, float], start: Array, events: list[Any], method: dict[str, Any]) -> Any:
    """The equation integrated, with the times of the events.

    An event is noticed at the end of a step and then looked for in the interpolant, which can differ in the last
    digits: SciPy's root finder then sees no change of sign. The other method has other steps; if it fails too, rounding
    hides the event.
    """
    for how in (method, TOLERANCE if method is STIFF else STIFF):
        try:
            return solve_ivp(rule, span, start, events=events, dense_output=True, **how)
        except ValueError as error:
            if "sign" not in str(error):
                raise
    raise ValueError(
        "pursue: whether the distance falls to the radius is hidden by rounding; give a slightly other radius="
    )


@dataclass(frozen=True)
class Run:
    """The equation integrated: times of the steps, places, the last method, and when it arrived: at the target, and
    where the target was a delay earlier (None if it did not)."""

    t: Array
    sol: Callable[[Any], Array]
    method: dict[str, Any]
    arrived: float | None
    behind: float | None

    @property
    def end(self) -> float:
        """The time at which it ended."""
        return float(self.t[-1])


@dataclass(frozen=True)
class Pursuit:
    """How a pursuit ends, and why that is certain.

    ``time`` is the time of capture or the time followed (until the horizon, or until the distance is CLOSE times the
    first one); ``distance`` = speed * time is the way run; ``closest`` the least distance seen; ``position(t)`` the
    pursuer at any time up to ``time`` (the integrator's dense output).
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


def never(target: Path, speed: Real, start: Array, delay: Real, law: Law, radius: Real) -> Decision | None:
    """A target in straight flight that is as fast as the pursuer or faster escapes, by the closed forms."""
    if not isinstance(target, Straight) or delay > 0:
        return None
    if law == "pursuit":
        time, closest = straight_flight(target, speed, start)
        if time == np.inf and (closest > radius or radius == 0):
            return (
                "miss",
                f"Straight flight, not slower than the pursuer: the distance never falls below {closest:.9g}.",
            )
    elif radius == 0 and intercept(target, speed, start) == np.inf:
        return "miss", "No run at this speed, straight or not, ever meets the target."
    return None


def last_bit(target: Path, speed: Real, P: Array, t: float, law: Law, step: float) -> float:
    """The time from here to capture when the target goes straight on, by the closed forms; inf if there is none."""
    onward = Straight(tuple(place(target, t)), tuple(velocity(target, t, step)))
    return intercept(onward, speed, P) if law == "lead" else straight_flight(onward, speed, P)[0]


def closing(target: Path, speed: Real, horizon: Real) -> str:
    """The reason why pursuit without delay had to succeed, if there is one."""
    slack = speed - fastest(target, horizon)
    known = "" if isinstance(target, Straight | Round) else " (its speed was sampled)"
    return f"; it had to, closing in at {slack:.3g} or faster all the way{known}." if slack > 0 else "."


def after_a_delay(target: Path, delay: Real, law: Law, radius: Real, run: Run) -> Decision | None:
    """A pursuer that has arrived where the target was can only follow it from then on.

    That is never within reach where the lag is one length for ever: straight flight and the circle. Any other
    target may stop, turn back or cross its own path.
    """
    if run.behind is None:
        return None
    time = run.behind
    settled = max(time, delay)
    lag = float(np.linalg.norm(place(target, settled) - place(target, settled - delay)))
    left = min(lag, float(np.linalg.norm(place(target, time) - run.sol(time))))
    noticed = float(np.linalg.norm(place(target, max(time - delay, 0.0)) - run.sol(time)))
    keeps = isinstance(target, Straight) or (isinstance(target, Round) and delay < target.period)
    # Within twice the distance at which the arrival is noticed it may as well be none.
    for_ever = keeps and law == "pursuit" and left > max(radius, 2 * noticed)
    return "miss" if for_ever else "undecided", (
        f"At t = {time:.9g} the pursuer is where the target was {delay:g} earlier, and follows it from then on; "
        f"the target is then {lag:.6g} away."
    )


def limit_cycle(rule: Any, period: Real | None, run: Run) -> Decision:
    """Whether the position repeats after a period: fixed point of the map over one period, with its contraction."""
    if not period:
        return "undecided", f"Followed to t = {run.end:g} without arriving; a longer time or a period may decide."

    def after_one_period(x: Array) -> Array:
        end = solve_ivp(rule, (t0, t0 + period), x, **run.method).y[:, -1]
        return np.asarray(end)

    t0 = period * np.floor(run.end / period)
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
    return "undecided", f"After {run.end / period:.0f} periods the position still moves by {residual:.2g} a period."
