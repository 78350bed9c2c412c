"""Schedules for the sign: the best composition of odd polynomials for 1 on [lower, upper]."""

from collections.abc import Sequence
from typing import Literal

from spectrain.approx._modes import Dtype
from spectrain.approx._polynomial import Number
from spectrain.approx._schedule import Schedule, certified
from spectrain.approx._schedules.cache import recall
from spectrain.approx._schedules.exact import compose, degrees_of, with_margin
from spectrain.approx._schedules.frozen import frozen_schedule
from spectrain.approx._schedules.robust import DESIGN, robust_schedule
from spectrain.approx._setting import Setting


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
    dtype: Dtype = "float64",
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
    steps overflow there, because the largest values leave their interval. ``.reached`` is then the expected relative
    Frobenius error of the worst spectrum, a statistical statement; ``.error`` stays the proven one in exact arithmetic.

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
    setting = Setting(
        lower=float(lower), upper=float(upper), steps=steps, products=products, tol=tol,
        degree=degree if isinstance(degree, (int, str)) else tuple(degree), cushion=cushion, margin=margin,
        gram=gram, symmetric=symmetric, aspect=aspect, dtype=dtype,
    )  # fmt: skip
    known = frozen_schedule(setting)
    if known is not None:
        return known
    if dtype == "float64":
        return design(setting)
    # Beam searches take tenths of a second; everything else is faster than a file.
    return recall(
        (setting, DESIGN),
        lambda: design(setting),
        fits=lambda found: (found.interval, found.dtype, found.target) == (setting.interval, dtype, "sign"),
    )


def design(setting: Setting) -> Schedule:
    """The schedule of a setting, computed: `sign_schedule` without looking into tables and cache."""
    if setting.rounded:
        return robust_schedule(setting)
    degrees = degrees_of(setting)
    steps = compose(setting.interval, degrees, cushion=float(setting.cushion))
    polynomials = with_margin(steps, float(setting.margin))
    return certified(polynomials, setting.interval, products=setting.cost.total(degrees), dtype=setting.dtype)
