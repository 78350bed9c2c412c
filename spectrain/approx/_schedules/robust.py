"""Schedules for arithmetic that rounds: a model of roundoff proposes, a simulation decides."""

import math
from collections.abc import Iterable
from functools import partial, reduce

import numpy as np

from spectrain.approx._schedule import Schedule, certified
from spectrain.approx._schedules.exact import compose, with_margin
from spectrain.approx._schedules.mix import DEGREES
from spectrain.approx._schedules.rounding import WEIGHTS, State, robust_compositions
from spectrain.approx._schedules.simulation import Candidate, Simulated, simulate
from spectrain.approx._schedules.widened import FINE, UNIT_ROUNDOFF, are_safe, guarded, odd_coefficients
from spectrain.approx._setting import Setting

_EDITION = 7  # of the designs for a dtype: files of another one are not used
_NOISE_OF_SUMS = 16 * UNIT_ROUNDOFF["float32"]
_SHORTLIST = 18
_FINALISTS = 6
_SEEDS = (1, 2, 3)
_NOISE, _TIE = 0.02, 1.2
_LOST = 2.0  # expected error of results that have nothing to do with the sign
_MOST_FIXED, _MOST_MIXED, _USUAL = 16, 30, 16  # steps that are tried for a tolerance, in a mix, and paid for in one

# Of quintics that compete with what the beam search proposes; published ones among them.
_CUSHIONS = (0.0, 0.015, 0.024, 0.04, 0.06, 0.09, 0.4, 0.9, 0.999)
_MARGINS = (1.0, 1.001, 1.005, 1.01, 1.02, 1.04, 1.05)

DESIGN = (_EDITION, WEIGHTS, _SHORTLIST, _FINALISTS, _SEEDS, _CUSHIONS, _MARGINS)
"""What a design depends on beside its setting: part of the name of a file in the cache."""


def robust_schedule(setting: Setting) -> Schedule:
    """The schedule designed for what rounding in the dtype of the setting makes of it.

    The model of one step (`spectrain.approx._schedules.rounding`) is a guess at a statistical quantity, good enough to
    leave few candidates and too coarse to choose between them: of these every one is simulated, and only those compete
    that rounding cannot carry out of their intervals. With a tolerance the model alone decides.

    Raises ValueError where nothing survives the dtype.
    """
    search, most = _search(setting)
    if setting.target is not None:
        return _cheapest(setting, search())
    proposals = [s for weights in WEIGHTS for s in search(weights=weights).values()]
    if setting.degrees is not None:
        proposals = [s for s in proposals if len(s.steps) == most]
    if not proposals:
        budget = f"{setting.products} products" if setting.products else f"{setting.steps} steps"
        raise ValueError(
            f"no schedule for {setting.dtype} on [{setting.lower:g}, {setting.upper:g}] within {budget}: the cheapest "
            f"step costs {setting.cost.total((3,)):g} products."
        )
    shortlist = sorted(proposals, key=lambda s: s.badness)[:_SHORTLIST]
    candidates = [s.polynomials for s in shortlist]
    if setting.degrees is None or all(d == 5 for d in shortlist[0].degrees):
        candidates += _quintics(setting, most)
    reached, chosen = _best(setting, _keep_safe(candidates, setting.upper, UNIT_ROUNDOFF[setting.dtype]))
    price = setting.cost.total([p.degree for p in chosen])
    return certified(chosen, setting.interval, products=price, dtype=setting.dtype, reached=reached)


def _search(setting: Setting) -> tuple[partial[dict[float, State]], int]:
    """The beam search for the degrees and the price of a setting, and how many steps it takes or quintics it pays."""
    cost, wanted = setting.cost, setting.degrees
    search = partial(robust_compositions, *setting.interval, dtype=setting.dtype, cost=cost)
    if wanted is not None:
        wanted = wanted[: _MOST_FIXED if setting.target is not None else None]
        choices = partial(_turn, wanted)
        return partial(search, budget=cost.total(wanted), choices=choices, most=len(wanted)), len(wanted)
    usual = cost.total((5,) * (setting.steps or _USUAL))
    budget = usual if setting.products is None else float(setting.products)
    most = setting.steps or int(budget // cost.step(5))
    return partial(search, budget=budget, choices=lambda _: DEGREES, most=setting.steps or _MOST_MIXED), most


def _turn(degrees: tuple[int, ...], step: int) -> tuple[int, ...]:
    return degrees[step : step + 1]


def _quintics(setting: Setting, most: int) -> list[Candidate]:
    """Exact optima with every published safety; fewer of them as well where the number of steps is not prescribed.

    Steps beyond the floor of rounding only add noise.
    """
    prescribed = setting.steps or setting.degrees is not None
    counts = [most] if prescribed else range(max(1, most - 2), most + 1)
    # Neither fewer steps nor a margin change what is best for the steps before: one composition serves for all of them.
    longest = {c: compose(setting.interval, (5,) * most, cushion=c) for c in _CUSHIONS}
    smaller = {(c, m): with_margin(longest[c], m) for c in _CUSHIONS for m in _MARGINS}
    return [(*smaller[c, m][: n - 1], longest[c][n - 1]) for n in counts for c in _CUSHIONS for m in _MARGINS]


def _keep_safe(candidates: Iterable[Candidate], high: float, u: float) -> list[Candidate]:
    """Those that rounding cannot carry out of their intervals; where there is none, what a guard makes of them."""
    given = [c for c in candidates if c]
    return _safe(given, high, u) or _safe([guarded(c, high, u) for c in given], high, u)


def _safe(candidates: list[Candidate], high: float, u: float) -> list[Candidate]:
    safe = are_safe([odd_coefficients(c) for c in candidates], high, u)
    return [c for c, is_safe in zip(candidates, safe, strict=True) if is_safe]


def _best(setting: Setting, candidates: list[Candidate]) -> tuple[float, Candidate]:
    """The candidate of least simulated error, and that error: a small simulation of all, a larger one of the best."""
    (low, high), dtype = setting.interval, setting.dtype
    # Below the noise of float32 sums nothing is told apart: there the best would be who raises nothing at all.
    least = max(low, high * _NOISE_OF_SUMS) if dtype == "float32" else low
    rough = sorted(simulate(candidates, least, high, dtype, limit=_among_finalists), key=lambda trial: trial.error)
    finalists, tie = rough[:_FINALISTS], 1.0 if UNIT_ROUNDOFF[dtype] > FINE else _TIE
    final = simulate(
        [trial.steps for trial in finalists], least, high, dtype, size=96, seeds=_SEEDS,
        spectra=[trial.telling for trial in finalists], limit=lambda found: _near_best(found, tie),
    )  # fmt: skip
    reached, chosen = _least(setting, final) if final else (math.inf, ())
    if reached > _LOST:
        raise ValueError(
            f"no schedule of degree {setting.degree if setting.products is None else 'auto'} survives {dtype} on "
            f"[{low:g}, {high:g}]: the rounding of its powers and coefficients is larger than what they are to give. "
            "Take lower degrees and more steps, or a wider dtype."
        )
    return reached, chosen


def _among_finalists(found: list[float]) -> float:
    return sorted(found)[_FINALISTS - 1] if len(found) >= _FINALISTS else math.inf


def _near_best(found: list[float], tie: float) -> float:
    return tie * min(found, default=math.inf)


def _least(setting: Setting, final: list[Simulated]) -> tuple[float, Candidate]:
    """The candidate of least simulated error; where only noise is left to it in float32, the best for larger values.

    Near the noise the simulation sees only what becomes of the smallest values, and would give up four digits of all
    from sqrt(low high) on for a tenth of it: 14 steps would leave 2e-5 where 13 leave 1e-6.
    """
    best = min(final, key=lambda trial: trial.error)
    x = np.geomspace(*setting.interval, 2001)

    def left(trial: Simulated, first: int = 1000) -> float:
        return float(np.abs(reduce(lambda y, p: p(y), trial.steps, x[first:]) - 1).max())

    if UNIT_ROUNDOFF[setting.dtype] <= FINE and left(best, 0) <= _NOISE * best.error:
        ties = [trial for trial in final if trial.error <= _TIE * best.error]
        best = min(ties, key=lambda trial: (round(left(trial), 7), trial.error))
    return best.error, best.steps


def _cheapest(setting: Setting, best: dict[float, State]) -> Schedule:
    """The lowest price at which the model expects the tolerance."""
    assert setting.target is not None
    tol, cost = float(setting.target), setting.cost
    enough = [price for price, s in best.items() if s.badness <= tol]
    if not enough:
        state = min(best.values(), key=lambda s: s.badness)
        raise ValueError(
            f"tol={tol} is not reached in {setting.dtype} on [{setting.lower:g}, {setting.upper:g}]: the least "
            f"expected error is {state.badness:.2g}, for {cost.total(state.degrees):g} products. Rounding sets that "
            "floor: raise tol or lower, or iterate in a wider dtype."
        )
    state = best[min(enough)]
    price = cost.total(state.degrees)
    return certified(state.polynomials, setting.interval, products=price, dtype=setting.dtype, reached=state.badness)
