"""A schedule as it may be evaluated in a dtype: kept inside of its intervals, and how large its values then become."""

import functools

from spectrain.approx._schedule import Schedule, certified
from spectrain.approx._schedules.widened import guarded, is_safe, odd_coefficients, widened_tops


@functools.lru_cache(maxsize=256)
def guarded_schedule(schedule: Schedule, u: float) -> Schedule:
    """The schedule, or where rounding of unit u could carry values out of its intervals one that is safe there.

    Its error is proven anew: every step but the last is made smaller, and small values lose that much of their growth.
    """
    steps, high = schedule.polynomials, schedule.interval[1]
    if is_safe(odd_coefficients(steps), high, u):
        return schedule
    return certified(
        guarded(steps, high, u), schedule.interval, products=schedule.products, dtype=schedule.dtype,
        target=schedule.target, reached=schedule.reached,
    )  # fmt: skip


def largest_values(schedule: Schedule, u: float) -> tuple[float, float]:
    """The largest value after the last step, in exact arithmetic and with every rounding of unit u at its worst.

    >>> from spectrain.approx import sign_schedule
    >>> exact, rounded = largest_values(sign_schedule(3e-3, steps=5, dtype="bfloat16"), 2.0**-8)
    >>> 1 < exact < rounded < 1.05
    True
    """
    steps, high = odd_coefficients(schedule.polynomials), schedule.interval[1]
    return widened_tops(steps, high, 0.0)[-1], widened_tops(steps, high, u)[-1]
