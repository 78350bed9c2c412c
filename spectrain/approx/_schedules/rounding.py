"""Schedules that survive rounding: a statistical model of one step, and the best composition under it.

The model proposes. Small matrices pushed through a schedule with every product rounded decide between designs
(`spectrain.approx._schedules.simulation`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import floor, hypot, inf, log2
from typing import TypeAlias

from spectrain.approx._polynomial import Number, Polynomial
from spectrain.approx._schedule import Cost
from spectrain.approx._schedules.mix import DEGREES
from spectrain.approx._schedules.widened import FINE, UNIT_ROUNDOFF, Steps, widened_top_of_each

_CUSHIONS = (0.0, 0.015, 0.02, 0.024, 0.03, 0.04, 0.05, 0.08, 0.12, 0.18, 0.27, 0.4)
_LEAST = 0.25  # in units of u: below it rounding, not the design, decides what becomes of a singular value
_MOST_SHRINKING = 0.5
_FINE_MARGIN = 1.001  # room for the drift of a Gram iteration, in fine arithmetic far more than rounding needs
_GRID = 24
"""Designs are made for lower ends rounded down to this many an octave."""


@dataclass(frozen=True)
class Weights:
    """What is held against a step: ``values u max|p| + terms u M`` of noise in the smallest directions, in root mean
    square, and values there that shrink by the fraction ``shrinking u c_1 / p``."""

    values: float
    terms: float
    shrinking: float


# No single choice fits both ends: the first suits a least singular value well above u, the second one near u.
# Both propose, a simulation decides.
WEIGHTS = (Weights(0.06, 0.0045, 0.1), Weights(0.1, 0.002, 0.03))


Design: TypeAlias = tuple[tuple[float, ...], float]
"""Coefficients of a step for a part of [0, 1], and its error there."""

Top: TypeAlias = tuple[tuple[float, ...], float, bool]
"""Coefficients, the end of the interval, and whether the step comes first: `widened_top`."""


@dataclass(frozen=True)
class State:
    """After some steps: values in [low, 1] (scaled by ``top``), relative noise of the smallest direction, and the
    way here."""

    low: float
    noise: float
    steps: Steps
    degrees: tuple[int, ...]
    scale: float
    error: float

    @property
    def badness(self) -> float:
        """What the model expects of the smallest directions: distance from 1 and noise, as independent."""
        return hypot(self.error, self.noise)

    @property
    def polynomials(self) -> tuple[Polynomial, ...]:
        """The steps; thousands of states are looked at, and few become polynomials."""
        return tuple([Polynomial.odd(*c) for c in self.steps])


def robust_compositions(
    lower: float,
    upper: float,
    *,
    dtype: str,
    cost: Cost,
    budget: Number,
    choices: Callable[[int], Sequence[int]] = lambda _: DEGREES,
    most: int = 30,
    weights: Weights = WEIGHTS[0],
) -> dict[float, State]:
    """For every price up to the budget the composition that the model of roundoff likes best.

    The interval that arrives at the next step is the image, widened above by the noise; the noise of the smallest
    direction, relative to its value, adds up. Each step is a best polynomial for a part of its interval,
    [max(low, cushion), 1]: a larger cushion costs growth of the small values and spares the middle ones from being sent
    near 0 and drowned. A beam search over degrees (``choices(t)`` at step t) and cushions; u -> 0 gives exact
    composition.
    """
    u = UNIT_ROUNDOFF[dtype]
    top = upper * (1 + 2 * u)  # entries are rounded twice before the first product: to the dtype, and scaled
    low = max(lower / top, _LEAST * u)
    fronts: dict[float, list[State]] = {0.0: [State(low, 0.0, (), (), top, inf)]}
    best: dict[float, State] = {}
    tops: dict[Top, float] = {}
    while fronts:
        price = min(fronts)
        plans = []
        for state in _thin(fronts.pop(price)):
            if state.steps and (price not in best or state.badness < best[price].badness):
                best[price] = state
            for d in choices(len(state.steps)) if len(state.steps) < most else ():
                after = round(cost.total((*state.degrees, d)), 9)
                if after <= budget:
                    plans.append((after, state, d, _designs(state, d, u)))
        # Thousands of states share a few hundred designs; where each carries the largest value is found together.
        new = {(c, 1.0, not state.steps) for _, state, _, designs in plans for c, _ in designs} - tops.keys()
        tops.update(zip(new, widened_top_of_each(list(new), u), strict=True))
        for after, state, d, designs in plans:
            fronts.setdefault(after, []).extend(_next(state, d, designs, tops, u, weights))
    return best


def _thin(states: list[State], most: int = 16) -> list[State]:
    """Those that nothing else beats in both interval and noise, a few dozen of them."""
    kept: list[State] = []
    for s in sorted(states, key=lambda s: (-s.low, s.noise)):
        if not kept or s.noise < kept[-1].noise * 0.98:
            kept.append(s)
    return sorted(kept, key=lambda s: s.badness)[:most] if len(kept) > most else kept


def _designs(state: State, degree: int, u: float) -> list[Design]:
    """The next step of this degree for every cushion that matters."""
    low = state.low / _margin(state, u)
    if u <= FINE:
        return [_design(low, degree)]
    starts = [low, *(cushion for cushion in _CUSHIONS if cushion > low)]
    return [_design(_round_down(start), degree) for start in starts]


def _margin(state: State, u: float) -> float:
    return 1.0 if u > FINE or not state.steps else _FINE_MARGIN


def _next(
    state: State, degree: int, designs: list[Design], tops: dict[Top, float], u: float, weights: Weights
) -> Iterable[State]:
    """The state after one more step, for each of these designs that keeps small values above 0."""
    arriving, top = state.low / _margin(state, u), state.scale * _margin(state, u)
    for c, error in designs:
        # Below its part of the interval the polynomial rises from 0, so its least value there is the first.
        first = sum([cj * arriving ** (1 + 2 * j) for j, cj in enumerate(c)])
        low, high = min(first, 1 - error), tops[c, 1.0, not state.steps]
        if low <= 0:
            continue
        low = low / (1 + min(weights.shrinking * u * c[0] / low, _MOST_SHRINKING))
        middle = (low + high) / 2
        scaled = tuple([cj / middle / top ** (1 + 2 * j) for j, cj in enumerate(c)])
        mass = sum(map(abs, c))
        noise = state.noise + u * (weights.values * (1 + error) + weights.terms * mass) / low
        yield State(
            low / high, noise, (*state.steps, scaled), (*state.degrees, degree), high / middle,
            (high - low) / (high + low),
        )  # fmt: skip


def _round_down(low: float) -> float:
    """A grid point at most ``low``, so that few different designs are needed; the grid is fine near 1 too."""
    if low > 0.5:
        gap = 1 - low
        return max(0.5, 1 - 2.0 ** (-floor(-log2(gap) * _GRID) / _GRID)) if gap > 1e-12 else 1 - 1e-12
    return 2.0 ** (floor(log2(low) * _GRID) / _GRID)


@lru_cache(maxsize=20_000)
def _design(low: float, degree: int) -> Design:
    """Coefficients and error of the best odd polynomial for 1 on [low, 1]."""
    from spectrain.approx._balls.range import ball
    from spectrain.approx._schedules.unit import unit_step

    c, error = unit_step(ball(low), ball(1.0), (degree + 1) // 2)
    return tuple(map(float, c)), float(error)
