"""Schedules for min(x, 1) and for the step at 1, from the sign."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from spectrain.approx._polynomial import Number
from spectrain.approx._schedule import Schedule
from spectrain.approx._schedules.sign import sign_schedule

_ROOM = 2.0**-40
"""For the roundings of the formulas around a schedule, relative."""
_LARGEST = Fraction(2) ** 1000


@dataclass(frozen=True)
class GapSchedule:
    """The step or min(x, 1) on [0, upper], made of a schedule for the sign of (x^2 - 1) / scale.

    ``error`` bounds the distance from the target on [0, upper] outside ``gap``. Inside the gap nothing but the
    bounds of the functions below hold. Calling it takes floats, arrays and tensors, entry by entry.
    """

    kind: str
    sign: Schedule
    upper: float
    scale: float
    gap: tuple[float, float]
    error: float

    @property
    def products(self) -> float:
        """Products of the sign of an n x n matrix, one more for X^T X and one to apply it."""
        return self.sign.products + 2

    def __call__(self, x: Any) -> Any:
        above = self.sign((x * x + (-1.0)) * (1.0 / self.scale))
        return (above + 1.0) * 0.5 if self.kind == "step" else _clip(x, above)


def _clip(x: Any, above: Any) -> Any:
    """min(x, 1) = ((x + 1) - (x - 1) sign(x - 1)) / 2."""
    return ((x + 1.0) + (x + (-1.0)) * above * (-1.0)) * 0.5


def step_schedule(
    upper: Number, *, gap: Number, steps: int | None = None, tol: Number | None = None, degree: int = 5
) -> GapSchedule:
    """The step on [0, upper]: 0 below 1 - gap, 1 above 1 + gap, within ``error``; monotone values between are not
    promised.

    (1 + S((x^2 - 1) / scale)) / 2 with scale = max(1, upper^2 - 1) and S best for the sign on
    [((1 - (1 - gap)^2) / scale, 1]; a sign of a symmetric matrix with gap, in products of n x n matrices (article
    11006, kexue.fm/archives/11006). Raises ValueError for upper <= 1 + gap and gap outside (0, 1).

    >>> step = step_schedule(2.0, gap=0.1, tol=1e-3)
    >>> [round(step(x), 2) + 0.0 for x in (0.0, 0.5, 0.9, 1.1, 2.0)]
    [0.0, 0.0, 0.0, 1.0, 1.0]
    """
    sign, scale = _sign_across(upper, gap, steps, _for_sign(2, tol), degree)
    return GapSchedule("step", sign, float(upper), scale, (1 - gap, 1 + gap), _up(sign.error / 2))


def clip_schedule(
    upper: Number, *, gap: Number, steps: int | None = None, tol: Number | None = None, degree: int = 5
) -> GapSchedule:
    """min(x, 1) on [0, upper] within ``error`` outside (1 - gap, 1 + gap), and within ``error + gap`` inside.

    ((x + 1) - (x - 1) S((x^2 - 1) / scale)) / 2, S as in `step_schedule`: where S is off by e the result is off by
    |x - 1| e / 2. On matrices (x - 1) S needs the polar factor beside X; `spectrain.matfun` does that. Raises
    ValueError as `step_schedule`.

    >>> clip = clip_schedule(3.0, gap=0.05, tol=1e-3)
    >>> [round(clip(x), 3) for x in (0.0, 0.3, 0.9, 1.1, 3.0)]
    [0.0, 0.3, 0.9, 1.0, 1.0]
    """
    spread = max(1.0, float(upper) - 1)
    sign, scale = _sign_across(upper, gap, steps, _for_sign(2 / spread, tol), degree)
    return GapSchedule("clip", sign, float(upper), scale, (1 - gap, 1 + gap), _up(sign.error * spread / 2))


def _for_sign(factor: Number, tol: Number | None) -> Number | None:
    """What the sign must reach, so that ``_up`` of it stays within the tolerance; any below 1 is more than enough."""
    return None if tol is None else min(factor * tol * (1 - 2 * _ROOM), 0.5)


def _up(value: float) -> float:
    """A little more, for the roundings of the formulas around the schedule."""
    return value * (1 + _ROOM)


def _sign_across(
    upper: Number, gap: Number, steps: int | None, tol: Number | None, degree: int
) -> tuple[Schedule, float]:
    """A schedule for the sign of (x^2 - 1) / scale on [0, upper] outside the gap, and the scale.

    The interval and the scale are taken from the ends as they stand in doubles, in exact arithmetic, with room for the
    rounding of 1 / scale: differences of squares near 1 would lose what the bound rests on.
    """
    if not (0 < gap < 1 and 1 + gap < upper < float("inf")):
        raise ValueError(f"a gap in (0, 1) and an upper end above 1 + gap are needed, got gap={gap}, upper={upper}.")
    low, high, top = (Fraction(float(v)) for v in (1 - gap, 1 + gap, upper))
    nearest, farthest = min(1 - low**2, high**2 - 1), max(Fraction(1), top**2 - 1)
    if nearest <= 0 or farthest > _LARGEST:
        raise ValueError(
            f"gap={gap} must be visible beside 1, and upper={upper} have a square in double precision; scale x, or "
            "take a wider gap."
        )
    scale = float(farthest) * (1 + _ROOM)
    lower = float(nearest / Fraction(scale)) * (1 - _ROOM)
    if steps is None and tol is None:
        tol = 1e-6
    return sign_schedule(lower, 1.0, steps=steps, tol=tol, degree=degree), scale
