"""Compositions that are optimal in exact arithmetic: the best step for what those before it make of the interval."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from spectrain.approx._polynomial import Number, Polynomial
from spectrain.approx._schedule import Interval, error_of_image, images
from spectrain.approx._schedules.mix import best_mix
from spectrain.approx._schedules.widened import UNIT_ROUNDOFF
from spectrain.approx._setting import MOST_STEPS, Setting


def degrees_of(setting: Setting) -> tuple[int, ...]:
    """The degree of each step: the cheapest mix, those of the caller, or as many of one as the tolerance asks for."""
    if setting.degrees is None:
        steps, products, tol = setting.steps, setting.products, setting.target
        return best_mix(*setting.interval, cost=setting.cost, steps=steps, products=products, tol=tol)
    return setting.degrees if setting.target is None else _enough(setting, setting.degrees, setting.target)


def _enough(setting: Setting, degrees: tuple[int, ...], tol: Number) -> tuple[int, ...]:
    if isinstance(setting.degree, tuple):
        return degrees
    reached = setting.interval
    for count, (p, _) in enumerate(_exact_steps(setting.interval, degrees, float(setting.cushion)), start=1):
        # The last step takes its argument as it is, those before it a part of it.
        error = error_of_image(images([p], reached)[-1])
        if error <= tol:
            return degrees[:count]
        reached = images([p.scaled(1 / float(setting.margin))], reached)[-1]
    raise ValueError(
        f"tol={tol} is not reached on [{setting.lower:g}, {setting.upper:g}] in {MOST_STEPS} steps of degree "
        f"{setting.degree} (error {error:.3g}). Take a higher degree, or degree='auto'."
    )


def compose(interval: Interval, degrees: Sequence[int], *, cushion: float = 0.0) -> tuple[Polynomial, ...]:
    """Best step after best step, in double precision."""
    return tuple(p for p, _ in _exact_steps(interval, degrees, cushion))


def with_margin(steps: Sequence[Polynomial], margin: float) -> tuple[Polynomial, ...]:
    """All steps but the last at x / margin; the last takes its argument as it is."""
    return (*(p.scaled(1 / margin) for p in steps[:-1]), steps[-1]) if margin != 1 else tuple(steps)


def _exact_steps(interval: Interval, degrees: Iterable[int], cushion: float) -> Iterator[tuple[Polynomial, Interval]]:
    from spectrain.approx._schedules.best_steps import best_steps, rounding_of_terms

    noise = partial(rounding_of_terms, unit=UNIT_ROUNDOFF["float64"])
    return best_steps(interval, ((d + 1) // 2 for d in degrees), cushion=cushion, noise=noise)
