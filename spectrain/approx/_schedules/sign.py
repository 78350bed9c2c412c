"""Schedules for the sign: the best composition of odd polynomials for 1 on [lower, upper]."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial, reduce
from itertools import repeat
from typing import Any, Literal

import numpy as np

from spectrain.approx._polynomial import Number, Polynomial
from spectrain.approx._schedule import DTYPES, Cost, Schedule, certified, error_of_image, images
from spectrain.approx._schedules.cache import cached
from spectrain.approx._schedules.frozen import frozen, key_of
from spectrain.approx._schedules.mix import MOST_STEPS, best_mix
from spectrain.approx._schedules.rounding import WEIGHTS, State, robust_compositions, simulated_error
from spectrain.approx._schedules.widened import FINE, UNIT_ROUNDOFF, guarded, is_safe, odd_coefficients

DEFAULT_TOL = {"float64": 1e-10, "float32": 1e-4, "tfloat32": 5e-2, "float16": 5e-2, "bfloat16": 5e-2}

_EDITION = 6  # of the designs for a dtype: files of another one are not used
_NOISE_OF_SUMS = 16 * UNIT_ROUNDOFF["float32"]
_SHORTLIST = 18
_FINALISTS = 6
_SEEDS = (1, 2, 3)
_NOISE, _TIE = 0.02, 1.2
_LOST = 2.0  # expected error of results that have nothing to do with the sign

_SAFETIES = tuple(
    (c, m)
    for c in (0.0, 0.015, 0.024, 0.04, 0.06, 0.09, 0.4, 0.9, 0.999)
    for m in (1.0, 1.001, 1.005, 1.01, 1.02, 1.04, 1.05)
)
"""Cushion and margin of quintics that compete with what the beam search proposes; published ones among them."""


def sign_schedule(
    lower: Number,
    upper: Number = 1.0,
    *,
    steps: int | None = None,
    products: Number | None = None,
    tol: Number | None = None,
    degree: int | Sequence[int] | Literal["auto"] = 5,
    cushion: Number = 0.0,
    margin: Number = 1.0,
    gram: bool = False,
    symmetric: bool = False,
    aspect: Number = 1.0,
    dtype: str = "float64",
) -> Schedule:
    """The composition of odd polynomials with the least ``max |p_T(... p_1(x)) - 1|`` on [lower, upper].

    One of ``steps``, ``products`` and ``tol`` says when to stop (none: ``tol`` of the dtype). ``degree`` is that of
    every step, or one for each step, or ``"auto"``: the mix with the least error for the products, or the
    least products for the tolerance; ``products=`` implies it. Prices follow ``gram``, ``symmetric`` and
    ``aspect`` (`Cost`).

    Step by step the best polynomial on the image of the steps before it is best for the whole, for any degrees
    (Amsel, Persson, Musco and Gower, *The Polar Express*, arXiv 2505.16932, theorem 4.1; article 10996,
    kexue.fm/archives/10996). The error depends on lower / upper only and grows as that falls, so the best mix
    of degrees comes from dynamic programming over the price.

    ``cushion`` designs on [max(l, cushion * u), u] and recentres, ``margin`` evaluates every step but the last at
    x / margin: the two published ways to survive half precision. For a ``dtype`` other than float64, without these
    two, the schedule is designed for what rounding makes of it (`spectrain.approx._schedules.rounding`): exact-optimal
    steps overflow
    there, because the largest values leave their interval. ``.reached`` is then the expected relative Frobenius
    error of the worst spectrum, a statistical statement; ``.error`` stays the proven one in exact arithmetic.

    The terms of high degrees cancel: evaluated in doubles, a step of degree 21 is off by 1e-9 near lower = 0, one of
    degree 41 by 1e-1, whatever ``.error`` says of exact arithmetic.

    Raises ValueError for an interval that is reversed, empty or reaches 0, for a tolerance that cannot be
    reached, for even degrees, and when more than one of steps, products and tol is given. About a millisecond a step.

    >>> first = sign_schedule(1e-3, steps=1)
    >>> print(first)
    sign on [0.001, 1] for float64: 1 steps, 3 products, error <= 0.9915 (proven, exact arithmetic)
      8.47033 x - 25.1081 x^3 + 18.6293 x^5
    >>> sign_schedule(1e-3, products=15).degrees
    (5, 9, 9, 9)
    """
    setting: dict[str, Any] = dict(  # noqa: C408
        lower=float(lower), upper=float(upper), steps=steps, products=products, tol=tol,
        degree=degree if isinstance(degree, (int, str)) else tuple(degree), cushion=cushion, margin=margin,
        gram=gram, symmetric=symmetric, aspect=aspect, dtype=dtype,
    )  # fmt: skip
    known = frozen(setting)
    if known is not None:
        return known
    if dtype == "float64":
        return compute_sign_schedule(**setting)
    # Beam searches take up to a second; everything else is faster than a file.
    return cached(
        (key_of(setting), _EDITION, WEIGHTS, _SHORTLIST, _FINALISTS, _SEEDS, _SAFETIES),
        lambda: compute_sign_schedule(**setting),
        fits=lambda found: (found.interval, found.dtype, found.target) == ((float(lower), float(upper)), dtype, "sign"),
    )


def compute_sign_schedule(
    lower: Number,
    upper: Number = 1.0,
    *,
    steps: int | None = None,
    products: Number | None = None,
    tol: Number | None = None,
    degree: int | Sequence[int] | Literal["auto"] = 5,
    cushion: Number = 0.0,
    margin: Number = 1.0,
    gram: bool = False,
    symmetric: bool = False,
    aspect: Number = 1.0,
    dtype: str = "float64",
) -> Schedule:
    """`sign_schedule` without looking into the frozen tables."""
    low, high = _interval(lower, upper)
    cost = Cost(gram=gram, symmetric=symmetric, aspect=aspect)
    _check_stops(steps, products, tol, degree, dtype, cushion, margin)
    if products is not None:
        degree = "auto"
    if tol is None and steps is None and products is None and isinstance(degree, (int, str)):
        tol = DEFAULT_TOL[dtype]
    if dtype != "float64" and cushion == 0.0 and margin == 1.0:
        return _robust(low, high, degree, steps, products, tol, cost, dtype)
    if degree == "auto":
        degrees = best_mix(low, high, cost=cost, steps=steps, products=products, tol=tol)
    else:
        degrees = _fixed(low, high, degree, steps, tol, float(cushion), float(margin))
    polynomials = _compose(low, high, degrees, cushion=float(cushion), margin=float(margin))
    return certified(polynomials, (low, high), products=cost.total(degrees), dtype=dtype)


def _robust(
    low: float,
    high: float,
    degree: int | Sequence[int] | str,
    steps: int | None,
    products: Number | None,
    tol: Number | None,
    cost: Cost,
    dtype: str,
) -> Schedule:
    """The schedule designed for the dtype: proposals of the model of roundoff, decided by simulation."""
    fixed = (degree,) * (steps or MOST_STEPS) if isinstance(degree, int) else degree
    if isinstance(fixed, str):
        budget = float(products) if products is not None else cost.total((5,) * (steps or 16))
        search = partial(robust_compositions, low, high, dtype=dtype, cost=cost, budget=budget, most=steps or 30)
    else:
        wanted = tuple(fixed)[: 16 if tol is not None else None]
        search = partial(
            robust_compositions, low, high, dtype=dtype, cost=cost, budget=cost.total(wanted),
            choices=lambda t: wanted[t : t + 1], most=len(wanted),
        )  # fmt: skip
    if tol is not None:
        return _cheapest(search(), low, high, float(tol), cost, dtype)
    proposals = [s for weights in WEIGHTS for s in search(weights=weights).values()]
    if not isinstance(fixed, str):
        proposals = [s for s in proposals if len(s.steps) == len(fixed)]
    if not proposals:
        raise ValueError(
            f"no schedule for {dtype} on [{low:g}, {high:g}] within {products or steps} "
            f"{'products' if products else 'steps'}: the cheapest step costs {cost.total((3,)):g} products."
        )
    shortlist = sorted(proposals, key=lambda s: s.badness)[:_SHORTLIST]
    candidates = [s.steps for s in shortlist]
    if all(d == 5 for d in shortlist[0].degrees) or isinstance(fixed, str):
        count = len(fixed) if not isinstance(fixed, str) else steps or int(budget // cost.step(5))
        # Steps beyond the floor of rounding only add noise, so fewer compete as well where they are not prescribed.
        counts = [count] if steps or not isinstance(fixed, str) else range(max(1, count - 2), count + 1)
        candidates += [tuple(_compose(low, high, (5,) * n, cushion=c, margin=m)) for n in counts for c, m in _SAFETIES]
    candidates = _made_safe(candidates, high, UNIT_ROUNDOFF[dtype])
    # Below the noise of float32 sums nothing is told apart: there the best would be who raises nothing at all.
    least = max(low, high * _NOISE_OF_SUMS) if dtype == "float32" else low
    rough = sorted(candidates, key=lambda c: simulated_error(c, least, high, dtype))
    final = [(simulated_error(c, least, high, dtype, size=96, seeds=_SEEDS), c) for c in rough[:_FINALISTS]]
    reached, chosen = _least(final, low, high, dtype) if final else (math.inf, ())
    if reached > _LOST:
        raise ValueError(
            f"no schedule of degree {degree} survives {dtype} on [{low:g}, {high:g}]: the rounding of its powers and "
            f"coefficients is larger than what they are to give. Take lower degrees and more steps, or a wider dtype."
        )
    price = cost.total([p.degree for p in chosen])
    return certified(chosen, (low, high), products=price, dtype=dtype, reached=reached)


def _made_safe(candidates: Iterable[tuple[Polynomial, ...]], high: float, u: float) -> list[tuple[Polynomial, ...]]:
    """Those that rounding cannot carry out of their intervals; where there is none, what a guard makes of them."""
    given = [c for c in candidates if c]
    safe = [c for c in given if is_safe(odd_coefficients(c), high, u)]
    return safe or [g for g in (guarded(c, high, u) for c in given) if is_safe(odd_coefficients(g), high, u)]


def _least(
    final: list[tuple[float, tuple[Polynomial, ...]]], low: float, high: float, dtype: str
) -> tuple[float, tuple[Polynomial, ...]]:
    """The candidate of least simulated error; where only noise is left to it in float32, the best for larger values.

    Near the noise the simulation sees only what becomes of the smallest values, and would give up four digits of all
    from sqrt(low high) on for a tenth of it: 14 steps would leave 2e-5 where 13 leave 1e-6.
    """
    best = min(final, key=lambda pair: pair[0])
    x = np.geomspace(low, high, 2001)

    def left(pair: tuple[float, tuple[Polynomial, ...]], first: int = 1000) -> float:
        return float(np.abs(reduce(lambda y, p: p(y), pair[1], x[first:]) - 1).max())

    if UNIT_ROUNDOFF[dtype] > FINE or left(best, 0) > _NOISE * best[0]:
        return best
    return min([pair for pair in final if pair[0] <= _TIE * best[0]], key=lambda pair: (round(left(pair), 7), pair[0]))


def _cheapest(best: "dict[float, State]", low: float, high: float, tol: float, cost: Cost, dtype: str) -> Schedule:
    """The lowest price at which the model expects the tolerance."""
    enough = [price for price, s in best.items() if s.badness <= tol]
    if not enough:
        state = min(best.values(), key=lambda s: s.badness)
        raise ValueError(
            f"tol={tol} is not reached in {dtype} on [{low:g}, {high:g}]: the least expected error is "
            f"{state.badness:.2g}, for "
            f"{cost.total(state.degrees):g} products. Rounding sets that floor: raise tol or lower, or iterate "
            f"in a wider dtype."
        )
    state = best[min(enough)]
    return certified(state.steps, (low, high), products=cost.total(state.degrees), dtype=dtype, reached=state.badness)


def _interval(lower: Number, upper: Number) -> tuple[float, float]:
    low, high = float(lower), float(upper)
    if not (0 < low < high < math.inf):
        raise ValueError(
            f"sign_schedule needs 0 < lower < upper, got [{lower}, {upper}]: every odd polynomial is 0 at 0, so "
            f"no error "
            "below 1 is possible there. Give the least singular value that must arrive at 1."
        )
    return low, high


def _check_stops(
    steps: int | None,
    products: Number | None,
    tol: Number | None,
    degree: object,
    dtype: str,
    cushion: Number,
    margin: Number,
) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    if sum(stop is not None for stop in (steps, products, tol)) > 1:
        raise ValueError(
            f"give one of steps, products and tol, got steps={steps}, products={products}, tol={tol}: each "
            f"decides alone."
        )
    if steps is not None and not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps must be between 1 and {MOST_STEPS}, got {steps}.")
    if tol is not None and not 4e-16 <= tol < 1:
        raise ValueError(
            f"tol must be between 4e-16, the rounding of the coefficients, and 1, got {tol}. Use matfun for "
            f"exact routes."
        )
    if not (0 <= cushion < 1 <= margin < 2):
        raise ValueError(f"cushion must be in [0, 1) and margin in [1, 2), got cushion={cushion}, margin={margin}.")
    if products is not None and not products > 0:
        raise ValueError(f"products must be positive, got {products}.")
    _check_degrees(degree, steps)


def _check_degrees(degree: object, steps: int | None) -> None:
    if degree == "auto":
        return
    degrees = tuple(degree) if isinstance(degree, Sequence) else (degree,)
    if not degrees or any(not isinstance(d, int) or d < 3 or d % 2 == 0 or d > 41 for d in degrees):
        raise ValueError(f"degree must be odd and from 3 to 41, a list of such, or 'auto', got {degree!r}.")
    if isinstance(degree, Sequence) and steps not in (None, len(degrees)):
        raise ValueError(f"steps={steps} disagrees with {len(degrees)} degrees: leave steps out.")


def _fixed(
    low: float,
    high: float,
    degree: int | Sequence[int],
    steps: int | None,
    tol: Number | None,
    cushion: float,
    margin: float,
) -> tuple[int, ...]:
    """Degrees given by the caller, or as many steps of one degree as the tolerance asks for."""
    if not isinstance(degree, int):
        return tuple(degree)
    if steps is not None:
        return (degree,) * steps
    assert tol is not None
    reached = (low, high)
    for count, (p, _) in enumerate(_designed(low, high, repeat(degree, MOST_STEPS), cushion), start=1):
        # The last step takes its argument as it is, those before it a part of it.
        error = error_of_image(images([p], reached)[-1])
        if error <= tol:
            return (degree,) * count
        reached = images([p.scaled(1 / margin)], reached)[-1]
    raise ValueError(
        f"tol={tol} is not reached on [{low:g}, {high:g}] in {MOST_STEPS} steps of degree {degree} (error "
        f"{error:.3g}). "
        "Take a higher degree, or degree='auto'."
    )


def _compose(
    low: float, high: float, degrees: Sequence[int], *, cushion: float = 0.0, margin: float = 1.0
) -> list[Polynomial]:
    """Best step after best step, in double precision, all but the last at x / margin."""
    steps = [p for p, _ in _designed(low, high, degrees, cushion)]
    return [*(p.scaled(1 / margin) for p in steps[:-1]), steps[-1]] if margin != 1 else steps


def _designed(
    low: float, high: float, degrees: Iterable[int], cushion: float
) -> Iterator[tuple[Polynomial, tuple[float, float]]]:
    from spectrain.approx._schedules.designed import designed, rounding_of_terms

    noise = partial(rounding_of_terms, unit=UNIT_ROUNDOFF["float64"])
    return designed((low, high), ((d + 1) // 2 for d in degrees), cushion=cushion, noise=noise)
