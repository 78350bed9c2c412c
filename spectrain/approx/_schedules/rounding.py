"""Schedules that survive rounding: a statistical model of one step, and the best composition under it.

The model proposes. Small matrices pushed through a schedule with every product rounded decide between designs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import floor, hypot, inf, log2

import numpy as np

from spectrain.approx._polynomial import Number, Polynomial
from spectrain.approx._schedule import Cost
from spectrain.approx._schedules.mix import DEGREES
from spectrain.approx._schedules.widened import FINE, UNIT_ROUNDOFF, widened_top

_CUSHIONS = (0.0, 0.015, 0.02, 0.024, 0.03, 0.04, 0.05, 0.08, 0.12, 0.18, 0.27, 0.4)
_LEAST = 0.25  # in units of u: below it rounding, not the design, decides what becomes of a singular value
_MOST_SHRINKING = 0.5
_FINE_MARGIN = 1.001  # room for the drift of a Gram iteration, in fine arithmetic far more than rounding needs
_GRID = 24
"""Designs are made for lower ends rounded down to this many an octave."""


def round_to(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values rounded to nearest, ties to even, in the dtype.

    >>> [float(round_to(np.array([1.0 + 2.0**-8 + e], np.float32), "bfloat16")[0]) for e in (0.0, 2.0**-12)]
    [1.0, 1.0078125]
    """
    if dtype == "float32":
        return x
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    kept = {"bfloat16": 16, "tfloat32": 13}[dtype]
    bits = x.astype(np.float32).view(np.uint32)
    # Half a unit of what stays, less one, and one more where the last bit that stays is odd: ties go to even. A carry
    # runs into the exponent, which is what rounding up to the next power of two is.
    half = np.uint32((1 << (kept - 1)) - 1) + ((bits >> np.uint32(kept)) & np.uint32(1))
    return ((bits + half) & np.uint32(0xFFFFFFFF << kept & 0xFFFFFFFF)).view(np.float32)


def simulated_error(
    steps: Sequence[Polynomial], low: float, high: float, dtype: str, *, size: int = 48, seeds: Sequence[int] = (2025,)
) -> float:
    """The largest relative Frobenius distance from the polar factor over twelve spectra that fill [low, high].

    Square matrices of this size, one set for each seed; the mean over the seeds, because a difference of a tenth
    between two designs is the luck of one set.
    """
    return float(np.mean([_largest(steps, low, high, dtype, size, seed) for seed in seeds]))


def _largest(steps: Sequence[Polynomial], low: float, high: float, dtype: str, size: int, seed: int) -> float:
    X, polar = _matrices(low / high, dtype, size, seed)
    with np.errstate(all="ignore"):
        for p in (steps[0].scaled(high), *steps[1:]):
            X = _step(p.coefficients, X, dtype)
        errors = np.linalg.norm(X.astype(np.float64) - polar, axis=(1, 2)) / size**0.5
    return float(errors.max()) if np.isfinite(errors).all() else np.inf


@lru_cache(maxsize=64)
def _matrices(low: float, dtype: str, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounded matrices, one for each spectrum, with their polar factors."""
    generator = np.random.default_rng(seed)
    rows = []
    for s in _spectra(low, size):
        U, V = (np.linalg.qr(generator.standard_normal((size, size)))[0] for _ in range(2))
        rows.append(round_to(((U * s) @ V.T).astype(np.float32), dtype))
    X = np.stack(rows)
    left, _, right = np.linalg.svd(X.astype(np.float64))
    return X, left @ right


def _spectra(low: float, n: int) -> Iterator[np.ndarray]:
    half = n // 2
    yield np.geomspace(1, low, n)
    yield np.linspace(1, low, n)
    yield np.r_[1.0, np.full(n - 1, low)]
    yield np.r_[np.ones(n - 1), low]
    yield np.maximum((1.0 + np.arange(n)) ** (np.log(low) / np.log(n)), low)
    yield np.r_[1.0, np.geomspace(max(0.5, low), low, n - 1)]
    yield np.r_[1.0, np.geomspace(max(0.25, low), low, n - 1)]
    for upper in (1.0, 0.9, 0.75, 0.5, 0.35):
        yield np.r_[1.0, np.full(half - 1, max(upper, low)), np.full(n - half, low)]


def _step(c: Sequence[float], X: np.ndarray, dtype: str) -> np.ndarray:
    """One odd polynomial of a stack, every intermediate matrix rounded, sums in float32."""
    A = round_to(X @ X.swapaxes(-1, -2), dtype)
    q = np.asarray(c[1:], dtype=np.float32)
    width = min(len(q), 2 if len(q) <= 4 else 3)
    powers = [A]
    for _ in range(width - 1):
        powers.append(round_to(powers[-1] @ A, dtype))
    B = round_to(sum(cj * P for cj, P in zip(q, powers, strict=False)), dtype)
    if len(q) > width:
        high = round_to(sum(cj * P for cj, P in zip(q[width:], powers, strict=False)), dtype)
        B = round_to(B + powers[-1] @ high, dtype)
    return round_to(np.float32(c[0]) * X + B @ X, dtype)


@dataclass(frozen=True)
class Weights:
    """What is held against a step: ``values u max|p| + terms u M`` of noise in the smallest directions, in root mean
    square, and values there that shrink by the fraction ``shrinking u c_1 / p``."""

    values: float
    terms: float
    shrinking: float


# No single choice fits both ends: the first suits a least singular value well above u, the second one near u.
# Both propose, a simulation decides (`simulated_error`).
WEIGHTS = (Weights(0.06, 0.0045, 0.1), Weights(0.1, 0.002, 0.03))


@dataclass(frozen=True)
class State:
    """After some steps: values in [low, 1] (scaled by ``top``), relative noise of the smallest direction, and the
    way here."""

    low: float
    noise: float
    steps: tuple[Polynomial, ...]
    degrees: tuple[int, ...]
    scale: float
    error: float

    @property
    def badness(self) -> float:
        """What the model expects of the smallest directions: distance from 1 and noise, as independent."""
        return hypot(self.error, self.noise)


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
    while fronts:
        price = min(fronts)
        for state in _thin(fronts.pop(price)):
            if state.steps and (price not in best or state.badness < best[price].badness):
                best[price] = state
            for d in choices(len(state.steps)) if len(state.steps) < most else ():
                after = round(cost.total((*state.degrees, d)), 9)
                if after <= budget:
                    fronts.setdefault(after, []).extend(_next(state, d, u, weights))
    return best


def _thin(states: list[State], most: int = 16) -> list[State]:
    """Those that nothing else beats in both interval and noise, a few dozen of them."""
    kept: list[State] = []
    for s in sorted(states, key=lambda s: (-s.low, s.noise)):
        if not kept or s.noise < kept[-1].noise * 0.98:
            kept.append(s)
    return sorted(kept, key=lambda s: s.badness)[:most] if len(kept) > most else kept


def _next(state: State, degree: int, u: float, weights: Weights) -> Iterable[State]:
    """The state after one more step, for every cushion that matters."""
    coarse = u > FINE
    margin = 1.0 if coarse or not state.steps else _FINE_MARGIN
    arriving, top = state.low / margin, state.scale * margin
    for cushion in _CUSHIONS if coarse else (0.0,):
        if 0 < cushion <= arriving:
            continue
        start = max(arriving, cushion)
        c, error = _design(_round_down(start) if coarse else start, degree)
        # Below its part of the interval the polynomial rises from 0, so its least value there is the first.
        first = sum(cj * arriving ** (1 + 2 * j) for j, cj in enumerate(c))
        low, high = min(first, 1 - error), widened_top(c, 1.0, u, first=not state.steps)
        if low <= 0:
            continue
        low = low / (1 + min(weights.shrinking * u * c[0] / low, _MOST_SHRINKING))
        middle = (low + high) / 2
        scaled = (cj / middle / top ** (1 + 2 * j) for j, cj in enumerate(c))
        mass = sum(map(abs, c))
        noise = state.noise + u * (weights.values * (1 + error) + weights.terms * mass) / low
        yield State(
            low / high, noise, (*state.steps, Polynomial.odd(*scaled)), (*state.degrees, degree), high / middle,
            (high - low) / (high + low),
        )  # fmt: skip


def _round_down(low: float) -> float:
    """A grid point at most ``low``, so that few different designs are needed; the grid is fine near 1 too."""
    if low > 0.5:
        gap = 1 - low
        return max(0.5, 1 - 2.0 ** (-floor(-log2(gap) * _GRID) / _GRID)) if gap > 1e-12 else 1 - 1e-12
    return 2.0 ** (floor(log2(low) * _GRID) / _GRID)


@lru_cache(maxsize=20_000)
def _design(low: float, degree: int) -> tuple[tuple[float, ...], float]:
    """Coefficients and error of the best odd polynomial for 1 on [low, 1]."""
    from spectrain.approx._balls.range import ball
    from spectrain.approx._schedules.unit import unit_step

    c, error = unit_step(ball(low), ball(1.0), (degree + 1) // 2)
    return tuple(map(float, c)), float(error)
