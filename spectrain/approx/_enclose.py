"""A rigorous supremum norm."""

from collections.abc import Callable, Sequence
from typing import Any

from flint import arb, arb_poly, arb_series

from spectrain.approx._balls.branches import NotFollowedError, UndecidedError
from spectrain.approx._balls.jet import follow, values_over
from spectrain.approx._balls.range import UnprovableError, proven_range
from spectrain.approx._minimax.domain import intervals_of
from spectrain.approx._precision import ball, float_down, float_up, precise

_ORDER = 8
"""Length of the Taylor models; any length is rigorous, this one is about the fastest."""


def enclose(error: Callable[[Any], Any], interval: Sequence[Any], *, bits: int = 128) -> tuple[float, float]:
    """(low, high) with ``low <= max |error| <= high`` on the interval, or on a union of intervals: proven.

    ``error`` is called on object arrays of balls (python-flint) that know arithmetic, ``abs``, comparisons and the
    usual
    functions under their NumPy names; ``np.exp(x) - p(x)`` with a `Polynomial` p is such a function. Kinks and
    branches are allowed. high / low - 1 is about 1e-15 where the function is smooth. ``bits`` is the working
    precision. Raises ValueError where the
    function cannot be followed or the proof does not close. Branch and bound with Taylor models, as in Sollya's
    ``supnorm``
    (Chevillard, Harrison, Joldes and Lauter, *Efficient and accurate computation of upper bounds of approximation
    errors*, 2011).

    >>> import numpy as np
    >>> low, high = enclose(lambda x: np.sin(x) - x, (0.0, 1.0))
    >>> low <= 1 - np.sin(1.0) <= high <= low + 1e-15
    True
    """
    pieces = intervals_of(interval)
    with precise(bits):
        try:
            low, high = sup_norm(lambda x: error(x), [(ball(a), ball(b)) for a, b in pieces])
        except (NotFollowedError, UnprovableError) as problem:
            raise ValueError(
                f"enclose: no proof for this function ({problem}). Write it with arithmetic and NumPy functions of x."
            ) from problem
        return float_down(low), float_up(high)


def sup_norm(
    error: Callable[[Any], Any], pieces: list[tuple[arb, arb]], *, slack: arb | None = None, budget: int = 20_000
) -> tuple[arb, arb]:
    """Lower and upper bound of max |error| on the pieces, at the working precision."""

    def point(x: arb) -> tuple[arb, arb]:
        try:
            series = follow(error, [arb_series([x, 1], prec=2)], 2)[0]
            return series[0], series[1]
        except UndecidedError:
            return follow(error, [arb_series([x], prec=1)], 1)[0][0], arb("nan")

    def model(m: arb, r: arb) -> arb_poly | list[arb]:
        return taylor(error, m, r)

    bounds = proven_range(model, point, pieces, symmetric=True, slack=slack, budget=budget)
    return bounds[2], max(bounds[3], -bounds[0])


def taylor(f: Callable[[Any], Any], m: arb, r: arb) -> arb_poly | list[arb]:
    """Taylor model of f(m + t) for |t| <= r; a ball for the values of each branch where a kink lies inside."""
    wide = arb(m, r)
    try:
        at, over = follow(f, [_variable(m), _variable(wide)], _ORDER)
        coefficients = [at[k] for k in range(_ORDER - 1)] + [over[_ORDER - 1]]
        if all(c.is_finite() for c in coefficients):
            return arb_poly(coefficients)
    except UndecidedError:
        pass
    return values_over(f, wide)


def _variable(x: arb) -> arb_series:
    return arb_series([x, 1], prec=_ORDER)
