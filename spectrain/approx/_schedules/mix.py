"""The mix of degrees of least price: dynamic programming over the price of a composition."""

import math
from typing import TYPE_CHECKING, Any

from spectrain.approx._polynomial import Number
from spectrain.approx._schedule import Cost
from spectrain.approx._setting import MOST_STEPS

if TYPE_CHECKING:
    from flint import arb

DEGREES = (3, 5, 9, 13)
"""Degrees worth choosing from: the highest for each number of products."""


def next_interval(low: "arb", high: "arb", degree: int) -> "tuple[arb, arb]":
    """The image of [low, high] under the best odd polynomial of this degree for 1."""
    from spectrain.approx._schedules.unit import unit_step

    error = unit_step(low, high, (degree + 1) // 2)[1].mid()
    return (1 - error).mid(), (1 + error).mid()


def best_mix(
    low: float,
    high: float,
    *,
    cost: Cost,
    steps: int | None = None,
    products: Number | None = None,
    tol: Number | None = None,
) -> tuple[int, ...]:
    """Degrees of the cheapest composition for a tolerance, or of the best one for a price or a number of steps.

    Dynamic programming: of all compositions with one price the one with the least error is enough to keep, because the
    next error rises with this one. (Lee, Lee, No and Kim, IEEE TDSC 2022, searched the same way for encrypted
    comparison.)
    """
    from spectrain.approx._balls.range import ball, precise

    if steps is not None:
        return (max(DEGREES),) * steps
    best: dict[tuple[float, int], tuple[float, tuple[int, ...], object, object]] = {}
    with precise(400):
        frontier: dict[tuple[float, int], tuple[float, tuple[int, ...], Any, Any]]
        frontier = {(0.0, 0): (math.inf, (), ball(low), ball(high))}
        while frontier:
            key = min(frontier)
            error, degrees, a, u = frontier.pop(key)
            best[key] = (error, degrees, a, u)
            if degrees and tol is not None and error <= float(tol) * (1 - 1e-9) - 4e-16:
                return degrees
            if error < 1e-18 or len(degrees) >= MOST_STEPS or _is_dominated(key, error, best):
                continue
            for d in DEGREES:
                after = (*degrees, d)
                price = round(cost.total(after), 9)
                if products is not None and price > products:
                    continue
                low_next, high_next = next_interval(a, u, d)
                reached = float(high_next - 1)
                spot = (price, min(len(after), 3) if cost.gram else 0)
                if reached < frontier.get(spot, (math.inf,))[0]:
                    frontier[spot] = (reached, after, low_next, high_next)
    error, degrees = min(((v[0], v[1]) for v in best.values() if v[1]), default=(math.inf, ()))
    if not degrees:
        raise ValueError(f"products={products} is less than the cheapest step costs, {cost.total((3,)):g}.")
    return degrees


def _is_dominated(key: tuple[float, int], error: float, best: dict) -> bool:
    """Whether something cheaper of the same kind is already as good."""
    return any(k != key and k[1] == key[1] and k[0] <= key[0] and v[0] <= error and v[1] for k, v in best.items())
