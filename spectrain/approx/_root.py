"""Schedules for powers P^(s/r) of positive definite matrices, by a coupled iteration."""

import math

from spectrain.approx._polynomial import Number, Polynomial
from spectrain.approx._schedule import Schedule, certified

_MOST_STEPS = 60


def root_schedule(
    r: int, s: int = 1, *, lower: Number, steps: int | None = None, tol: Number | None = None, terms: int = 3
) -> Schedule:
    """Steps ``w_t(x) x`` that take x = eigenvalue^(1/r), eigenvalues of P in [lower, 1], to 1.

    With q(y) = p(x) / x, y = x^r, for each p of the schedule: start from G and P, and repeat W = q(P), G <- G W^|s|,
    P <- W^r P. Then P goes to I and G to G P^(-|s|/r): start from G = I for s < 0, and from G = P^k, k =
    ceil(s/r), with
    exponent k r - s for s > 0 (article 11175, kexue.fm/archives/11175; Higham, *Functions of Matrices*, section
    7.4). Each p is the best
    ``c0 x + c1 x^(r+1) + ... `` of ``terms`` terms for 1 on the image of those before, which is best for the whole.

    ``error`` is the proven ``max |x - 1|`` at the end, so the computed root is off by at most the factor
    (1 + error)^(exponent). Default: tol = 1e-10. Raises ValueError for r < 1, s = 0, lower outside (0, 1).

    >>> schedule = root_schedule(4, -1, lower=1e-4, steps=4)
    >>> [round(c, 6) for c in schedule.polynomials[0].coefficients], round(schedule.error, 6)
    ([3.850032, -10.85386, 8.618934], 0.000227)
    """
    _check(r, s, lower, steps, tol, terms)
    tol = 1e-10 if tol is None and steps is None else tol
    low = float(lower) ** (1 / r) * (1 - 2.0**-52)
    price = 0.0
    polynomials: list[Polynomial] = []
    for count in range(1, _MOST_STEPS + 1):
        polynomials = _compose(low, r, terms, count)
        price = float(count) * (terms - 2 + _power_products(r) + 1 + _power_products(abs(s)) + 1)
        if count == steps:
            break
        if (
            tol is not None
            and (result := certified(polynomials, (low, 1.0), products=price, target="root")).error <= tol
        ):
            return result
    if tol is not None:
        raise ValueError(
            f"root_schedule: tol={tol} is not reached in {_MOST_STEPS} steps for r={r}, lower={lower}; error "
            f"{result.error:.2g}."
        )
    return certified(polynomials, (low, 1.0), products=price, target="root")


def _power_products(n: int) -> int:
    """Products that form W^n from W by squaring."""
    return n.bit_length() - 1 + n.bit_count() - 1


def _check(r: int, s: int, lower: Number, steps: int | None, tol: Number | None, terms: int) -> None:
    if r < 1 or s == 0 or math.gcd(r, s) != 1:
        raise ValueError(f"root_schedule: P^(s/r) needs r >= 1 and s != 0 without a common factor, got s/r = {s}/{r}.")
    if not 0 < lower < 1:
        raise ValueError(f"root_schedule: lower must be in (0, 1), the least eigenvalue over the largest, got {lower}.")
    if steps is not None and tol is not None:
        raise ValueError(f"root_schedule: give steps or tol, not both, got steps={steps}, tol={tol}.")
    if (steps is not None and not 1 <= steps <= _MOST_STEPS) or (tol is not None and not 4e-16 <= tol < 1):
        raise ValueError(f"root_schedule: steps from 1 to {_MOST_STEPS}, tol from 4e-16 to 1, got {steps} and {tol}.")
    if not 2 <= terms <= 8:
        raise ValueError(f"root_schedule: terms must be from 2 to 8, got {terms}.")


def _compose(low: float, r: int, terms: int, count: int) -> list[Polynomial]:
    from spectrain.approx._precision import ball, precise
    from spectrain.approx._unit import unit_step

    result = []
    with precise(400):
        a, b = ball(low), ball(1.0)
        for _ in range(count):
            c, error = unit_step(a, b, terms, r)
            result.append(Polynomial(tuple(1 + r * j for j in range(terms)), tuple(map(float, c))))
            a, b = (1 - error).mid(), (1 + error).mid()
    return result
