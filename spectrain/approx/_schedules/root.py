"""Schedules for powers P^(s/r) of positive definite matrices, by a coupled iteration."""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat

from spectrain.approx._modes import RootDtype
from spectrain.approx._polynomial import Number, Polynomial
from spectrain.approx._schedule import Interval, Schedule, certified, error_of_image

MOST_STEPS = 60


def root_schedule(
    r: int,
    s: int = 1,
    *,
    lower: Number,
    steps: int | None = None,
    tol: Number | None = None,
    terms: int = 3,
    dtype: RootDtype = "float64",
) -> Schedule:
    """Steps ``w_t(x) x`` that take x = eigenvalue^(1/r), eigenvalues of P in [lower, 1], to 1.

    With q(y) = p(x) / x, y = x^r, for each p of the schedule: start from G and P, and repeat W = q(P), G <- G W^|s|,
    P <- W^r P. Then P goes to I and G to G P^(-|s|/r): start from G = I for s < 0, and from G = P^k, k = ceil(s/r),
    with exponent k r - s for s > 0 (article 11175, kexue.fm/archives/11175; Higham, *Functions of Matrices*, section
    7.4). Each p is the best ``c0 x + c1 x^(r+1) + ... `` of ``terms`` terms for 1 on the image of those before, which
    is best for the whole. The image is widened by what rounding in ``dtype`` ("float64" or "float32") adds to it, for
    values just above it leave it further at every step.

    ``error`` is the proven ``max |x - 1|`` at the end, in exact arithmetic, so the computed root is off by a factor
    between (1 - error)^e and (1 + error)^e, e the exponent. Default: tol = 1e-10. Raises ValueError for r < 1, s = 0,
    lower outside (0, 1).

    >>> schedule = root_schedule(4, -1, lower=1e-4, steps=4)
    >>> [round(c, 6) for c in schedule.polynomials[0].coefficients], round(schedule.error, 6)
    ([3.850032, -10.85386, 8.618934], 0.000227)
    """
    _check(r, s, lower, steps, tol, terms, dtype)
    tol = 1e-10 if tol is None and steps is None else tol
    start = (root_below(lower, r), 1.0)
    step = terms - 2 + _power_products(r) + 1 + _power_products(abs(s)) + 1
    polynomials: list[Polynomial] = []
    for p, image in _steps(start, r, repeat(terms, steps or MOST_STEPS), dtype):
        polynomials.append(p)
        if tol is not None and error_of_image(image) <= tol:
            break
    else:
        if tol is not None:
            raise ValueError(
                f"root_schedule: tol={tol} is not reached in {MOST_STEPS} steps for r={r}, lower={lower}; error "
                f"{error_of_image(image):.2g}."
            )
    return certified(polynomials, start, products=float(len(polynomials) * step), dtype=dtype, target="root")


def _steps(start: Interval, r: int, terms: Iterable[int], dtype: str) -> Iterator[tuple[Polynomial, Interval]]:
    from spectrain.approx._schedules.best_steps import best_steps, rounding_of_power
    from spectrain.approx._schedules.rounding import UNIT_ROUNDOFF

    return best_steps(start, terms, r, noise=partial(rounding_of_power, unit=UNIT_ROUNDOFF[dtype]))


def root_below(lower: Number, r: int) -> float:
    """A double at most lower^(1/r)."""
    from spectrain.approx._balls.range import ball, float_down, precise

    with precise(128):
        return float_down(ball(lower).root(r))


def _power_products(n: int) -> int:
    """Products that form W^n from W by squaring."""
    return n.bit_length() - 1 + n.bit_count() - 1


def _check(r: int, s: int, lower: Number, steps: int | None, tol: Number | None, terms: int, dtype: str) -> None:
    if dtype not in ("float64", "float32"):
        raise ValueError(
            f'root_schedule: dtype must be "float64" or "float32", the coupled iteration\'s, got {dtype!r}.'
        )
    if r < 1 or s == 0 or math.gcd(r, s) != 1:
        raise ValueError(f"root_schedule: P^(s/r) needs r >= 1 and s != 0 without a common factor, got s/r = {s}/{r}.")
    if not 0 < lower < 1:
        raise ValueError(f"root_schedule: lower must be in (0, 1), the least eigenvalue over the largest, got {lower}.")
    if steps is not None and tol is not None:
        raise ValueError(f"root_schedule: give steps or tol, not both, got steps={steps}, tol={tol}.")
    if (steps is not None and not 1 <= steps <= MOST_STEPS) or (tol is not None and not 4e-16 <= tol < 1):
        raise ValueError(f"root_schedule: steps from 1 to {MOST_STEPS}, tol from 4e-16 to 1, got {steps} and {tol}.")
    if not 2 <= terms <= 8:
        raise ValueError(f"root_schedule: terms must be from 2 to 8, got {terms}.")
