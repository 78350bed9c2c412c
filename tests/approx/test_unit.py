"""One step: the best ``x q(x^r)`` for 1, judged by its alternation in mpmath (de la Vallee-Poussin)."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest

from spectrain.approx import sign_schedule
from spectrain.approx._balls.range import ball, precise
from spectrain.approx._schedules.unit import round_coefficients, unit_step

TERMS = (2, 3, 4, 7, 10, 11, 16, 21)
STRIDES = (1, 2, 3, 24, 48, 100, 200)
LOWERS = (1e-30, 1e-15, 1e-4, 0.1, 0.5, 0.89, 0.99, 1 - 1e-6, 1 - 1e-12)


def exactly(x):
    """A ball without radius as an mpmath number."""
    mantissa, exponent = x.man_exp()
    with mpmath.workprec(6000):
        return mpmath.ldexp(mpmath.mpf(int(mantissa)), int(exponent))


def solve(lower, terms, stride, upper=1.0):
    """The step as mpmath numbers."""
    with precise(4000):
        c, error = unit_step(ball(lower), ball(upper), terms, stride)
        return [exactly(v) for v in c], exactly(error)


class Judged:
    """Errors of p - 1 on [lower, upper] at the ends and at all zeros of p' between; what they prove.

    In y = x^r the extrema are near those of a Chebyshev polynomial: a grid finds them, bisection of p' places them.
    """

    def __init__(self, c, lower, stride, upper=1.0):
        self.c, self.stride = c, stride
        low, high = mpmath.mpf(lower) ** stride, mpmath.mpf(upper) ** stride
        n = 40 * len(c)
        grid = [low, *(low + (high - low) * mpmath.sinpi(mpmath.mpf(k) / (2 * n)) ** 2 for k in range(1, n))]
        signs = [self.slope(y) >= 0 for y in grid]
        changes = [(a, b) for (a, s), (b, t) in pairwise(zip(grid, signs, strict=True)) if s != t]
        self.places = [low, *(self.zero(a, b) for a, b in changes), high]
        self.values = [self.error(y) for y in self.places]
        self.largest = max(map(abs, self.values + [self.error(y) for y in grid[::5]]))

    def slope(self, y):
        return mpmath.polyval([v * (1 + j * self.stride) for j, v in enumerate(self.c)][::-1], y)

    def error(self, y):
        return mpmath.root(y, self.stride) * mpmath.polyval(self.c[::-1], y) - 1

    def zero(self, a, b):
        rising = self.slope(a) >= 0
        for _ in range(90):
            middle = (a + b) / 2
            a, b = (middle, b) if (self.slope(middle) >= 0) == rising else (a, middle)
        return a

    @property
    def least(self):
        """What no p of as many terms stays below (de la Vallee-Poussin)."""
        alternating = len(self.places) == len(self.c) + 1 and all(a * b < 0 for a, b in pairwise(self.values))
        return min(map(abs, self.values)) if alternating else mpmath.mpf(0)

    def improved(self):
        """Coefficients with errors of one size at these places: one round of exchange."""
        rows = [[mpmath.root(y, self.stride) * y**j for j in range(len(self.c))] for y in self.places]
        system = mpmath.matrix([[*row, (-1) ** i] for i, row in enumerate(rows)])
        return list(mpmath.lu_solve(system, mpmath.matrix([1] * len(self.places))))[:-1]


def is_best(c, error, lower, stride, upper=1.0):
    """Whether p and E are the best there are, to eleven digits of E and 1 - E; to six where doubles cannot hold p."""
    narrow = max(0, -mpmath.log10(1 - mpmath.mpf(lower) / upper))
    with mpmath.workdps(70 + int(2 * len(c) * narrow - mpmath.log10(lower / upper))):
        judged = best = Judged(c, lower, stride, upper)
        if lower < 1e-13 * upper and judged.least:  # where 1 - E between the ends need not be the best
            best = Judged(Judged(judged.improved(), lower, stride, upper).improved(), lower, stride, upper)
        size = min(best.least, 1 - best.least)
        close = size / 10 ** (11 if len(c) <= 7 or lower > 1e-8 * upper else 6)
        return 0 < best.least <= best.largest <= best.least + size / 10**11 and all(
            abs(e - best.least) <= close for e in (error, judged.largest)
        )


EVERY = [(t, r, low) for t in TERMS for r in STRIDES for low in LOWERS]
# Where the exchange in double precision collapsed (degrees 21 and 31, roots from 24 on) and the ends of each range.
HARD = (
    (2, 1, 1e-30), (3, 2, 1e-30), (11, 2, 0.5), (11, 2, 0.89), (16, 2, 0.89), (21, 2, 1e-4), (3, 48, 0.8),
    (5, 24, 0.68), (8, 200, 0.979), (7, 100, 1e-15), (3, 2, 1e-3), (4, 3, 1 - 1e-12), (7, 1, 1 - 1e-6),
)  # fmt: skip


@pytest.mark.parametrize("case", HARD, ids=str)
def test_the_step_alternates_and_no_step_is_better(case):
    terms, stride, lower = case
    assert is_best(*solve(lower, terms, stride), lower, stride)


@pytest.mark.full
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_every_step_alternates(case):
    terms, stride, lower = case
    assert is_best(*solve(lower, terms, stride), lower, stride)


def test_an_upper_end_other_than_one():
    assert is_best(*solve(0.3, 4, 3, upper=1.7), 0.3, 3, upper=1.7)


WRONG_STEP = {
    "Chebyshev points": lambda c, error: ([c[0] * mpmath.mpf("1.0001"), *c[1:]], error),
    "an error too small": lambda c, error: (c, error * mpmath.mpf("0.9999999")),
    "an error too large": lambda c, error: (c, error * mpmath.mpf("1.0000001")),
    "the limit at 1": lambda c, error: ([mpmath.mpf(15) / 8, mpmath.mpf(-5) / 4, mpmath.mpf(3) / 8], error),
    "a term missing": lambda c, error: ([*c[:-1], mpmath.mpf(0)], error),
    "rounded to seven digits": lambda c, error: ([mpmath.mpf(float(np.float32(float(v)))) for v in c], error),
    "of a wider interval": lambda c, error: solve(0.0999999, 3, 2),
}


@pytest.mark.parametrize("name", WRONG_STEP)
def test_the_judge_rejects_wrong_steps(name):
    assert not is_best(*WRONG_STEP[name](*solve(0.1, 3, 2)), 0.1, 2)


@pytest.mark.parametrize(("lower", "upper"), [(0.0, 1.0), (-0.5, 1.0), (1.0, 0.5), (float("nan"), 1.0)])
def test_empty_intervals_are_refused(lower, upper):
    with pytest.raises(ValueError, match="0 < lower"):
        unit_step(ball(lower), ball(upper), 3)


# degree, lower end, and what rounding to doubles may lose.
ROUNDED = [(5, 1e-3, 1e-14), (19, 0.3, 1e-14), (31, 0.89, 1e-15), (41, 1e-4, 2e-8), (41, 1e-12, 2e-8), (41, 0.5, 1e-14)]


@pytest.mark.parametrize(("degree", "lower", "lost"), ROUNDED)
def test_coefficients_are_rounded_together(degree, lower, lost):
    """Each alone, those of degree 41 are off by 3e-2: more than the values that must stay above 0."""
    schedule = sign_schedule(lower, steps=1, degree=degree)
    c, error = solve(lower, (degree + 1) // 2, 2)
    with mpmath.workdps(60):
        judged = Judged([mpmath.mpf(v) for v in schedule.polynomials[0].coefficients], lower, 2)
        assert judged.largest <= schedule.error <= judged.largest + mpmath.mpf(2) ** -52
        assert abs(schedule.error - error) <= lost
        assert min(judged.values) > -1
        alone = Judged([mpmath.mpf(float(v)) for v in c], lower, 2)
        assert degree < 41 or alone.largest > error + mpmath.mpf(10) ** -10


TINY = [(3, 1, 1e-30), (3, 2, 1e-30), (7, 2, 1e-14), (9, 100, 1e-14), (12, 1, 1e-14), (16, 2, 1e-12), (21, 1, 1e-10)]


@pytest.mark.parametrize(("terms", "stride", "lower"), TINY)
def test_values_stay_positive_where_one_minus_the_error_is_tiny(terms, stride, lower):
    with precise(400):
        p = round_coefficients(unit_step(ball(lower), ball(1.0), terms, stride)[0], ball(lower), ball(1.0), stride)
    with mpmath.workdps(60):
        assert min(Judged([mpmath.mpf(v) for v in p.coefficients], lower, stride).values) > -1
