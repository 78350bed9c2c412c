"""Inputs at each decision of the solver: parity, holes, jumps, ends of the range, and rough functions in 50 digits."""

import random

import mpmath
import numpy as np
import pytest
from flint import arb, arb_poly

from spectrain.approx import enclose, minimax
from spectrain.approx._balls.range import precise
from spectrain.approx._minimax.certificate import alternating_bound
from spectrain.approx._minimax.problem import Problem

mpf = mpmath.mpf


def test_a_parity_broken_below_doubles_is_seen():
    # E of 1 + d x + x^2 by 1, x^2: the part d x is left, E = d (its error is odd, 0 is its best).
    best = minimax(lambda x: 1 + 1e-20 * x + x * x, (0, 2), (-1, 1))
    assert best.proven
    assert best.error == pytest.approx(1e-20, rel=1e-12)
    assert best.gap <= 1e-12
    # With x among the powers nothing is left.
    assert minimax(lambda x: 1 + 1e-20 * x, 2, (-1, 1)).upper < 1e-200


@pytest.mark.parametrize("depth", [1e-7, 1e-14])
def test_a_hole_between_samples_is_refused(depth):
    with pytest.raises(ValueError, match=r"nan at x = 0\.1234"):
        minimax(lambda x: np.sqrt(abs(x - 0.1234567) - depth), 3, (-1, 1))


def test_both_sides_of_a_jump_are_bounded_sharply():
    assert enclose(np.sign, (-1, 1)) == (1, 1)
    assert enclose(lambda x: np.where(x > 0.3, 2.0, -1.0), (-1, 1)) == (2, 2)


@pytest.mark.parametrize(
    ("interval", "words"), [((0, 10**400), "range of doubles"), ((-1.7e308, 1.7e308), "longer than the largest double")]
)
def test_intervals_beyond_doubles_are_refused(interval, words):
    with pytest.raises(ValueError, match=words):
        minimax(np.sin, 3, interval)


@pytest.mark.parametrize("m", [2, 6])
def test_what_misses_one_power_in_closed_form(m):
    # x by x^3, ..., x^(2m + 1) on [-1, 1]: T_(2m+1) / (2m + 1) has slope (-1)^m at 0, so E = 1 / (2m + 1). Even powers
    # do not help; with them the powers are no Chebyshev system, and in doubles they are nearly dependent.
    best = minimax(lambda x: x + x * x, tuple(n for n in range(2 * m + 2) if n != 1), (-1, 1))
    assert best.error == pytest.approx(1 / (2 * m + 1), rel=1e-12)
    assert best.proven
    assert best.gap <= 1e-12


def test_powers_with_gaps_on_the_negative_side_are_as_on_the_positive():
    powers = (0, 1, 8, 11, 13)
    left = minimax(lambda x: np.cbrt(x), powers, (-1.25, -1.2))
    right = minimax(lambda x: -np.cbrt(x), powers, (1.2, 1.25))
    assert left.status == right.status == "alternation"
    assert left.error == pytest.approx(right.error, rel=1e-12)


@pytest.mark.parametrize("powers", [(0, 1, 8, 15), (0, 2), 3])
def test_zero_is_approximated_by_zero(powers):
    best = minimax(lambda x: np.maximum(0, x - 3), powers, (-1, 1))
    assert (best.status, best.error, best.upper) == ("exact", 0, 0)


POINTS = (-1.0, -0.5, 0.5, 1.0)
CUBIC = Problem(lambda x: x**3, None, (0, 1, 2), ((-1.0, 1.0),), lambda x: x**3, None)


def bound(points=POINTS, weights=(1, 1, 1, 1), coefficients=(0, 0.75), problem=CUBIC):
    with precise(128):
        known = [(arb(x), arb(x) ** 3, arb(w)) for x, w in zip(points, weights, strict=True)]
        return float(alternating_bound(problem, known, arb_poly(list(coefficients))))


def test_alternating_errors_bound_from_below():
    # x^3 - 3 x / 4 = T_3 / 4.
    assert bound() == 0.25


ODD = Problem(lambda x: x**3, None, (1, 3, 5), ((0.0, 1.0),), lambda x: x**3, None)
NO_BOUND = {
    "out of order": bound(points=(-0.5, -1.0, 0.5, 1.0)),
    "one twice": bound(points=(-1.0, -1.0, 0.5, 1.0)),
    "one too few": bound(points=POINTS[:3], weights=(1, 1, 1)),
    "no alternation": bound(coefficients=(0, -1)),
    "a weight below 0": bound(weights=(1, -1, 1, 1)),
    "a weight of 0": bound(weights=(1, 0, 1, 1)),
    "a common zero": bound(points=(0.0, 0.3, 0.6, 1.0), coefficients=(0.1, -0.5), problem=ODD),
}


@pytest.mark.parametrize("value", NO_BOUND.values(), ids=NO_BOUND)
def test_what_does_not_alternate_bounds_nothing(value):
    assert value == 0


def rough(r):
    """A function for arrays and balls, the same for 50 digits, and where it is steep."""
    c, k, small = r.uniform(-1, 1), 10 ** r.uniform(0, 6), 10 ** r.uniform(-14, 0)
    e, at = mpf(small), mpf(c)
    return r.choice(
        [
            (lambda x: np.maximum(0, 1 - k * abs(x - c)), lambda x: max(mpf(0), 1 - mpf(k) * abs(x - at)), 1 / k),
            (
                lambda x: np.exp(x) + small * np.maximum(0, 1 - k * abs(x - c)),
                lambda x: mpmath.exp(x) + e * max(mpf(0), 1 - mpf(k) * abs(x - at)),
                1 / k,
            ),
            (lambda x: np.arctan(k * (x - c)), lambda x: mpmath.atan(mpf(k) * (x - at)), 1 / k),
            (lambda x: np.sqrt(abs(x - c)), lambda x: mpmath.sqrt(abs(x - at)), 1e-9),
            (lambda x: np.where(x > c, 1.0, 0.0), lambda x: mpf(x > at), 1e-15),
            (lambda x: 1 / ((x - c) * (x - c) + small), lambda x: 1 / ((x - at) ** 2 + e), small**0.5),
            (lambda x: 1 + small**3 * np.sin(5 * x), lambda x: 1 + mpf(small**3) * mpmath.sin(5 * x), 1),
            (
                lambda x: abs(x - c) + 1e-3 * np.sin(40 * x),
                lambda x: abs(x - at) + mpf(1e-3) * mpmath.sin(40 * x),
                1e-9,
            ),
            (
                lambda x: np.maximum(np.exp(x), 1 + c * x),
                lambda x: max(mpmath.exp(x), 1 + at * x),
                1e-9,
            ),
        ]
    ), c


def domain(r):
    low = r.uniform(-2, 0.5)
    a, b = r.choice([(-1.0, 1.0), (-1.0, 1.0), (low, low + 10 ** r.uniform(-6, 0.5))])
    if r.random() < 0.8:
        return [(a, b)]
    middle, width = a + (b - a) * r.uniform(0.3, 0.6), (b - a) * 10 ** r.uniform(-3, -1)
    return [(a, middle), (middle + width, b)]


def largest_in_fifty_digits(best, f, pieces, c, width):
    exact = [(mpf(v.numerator) / v.denominator, n) for v, n in zip(best.exact, best.polynomial.powers, strict=True)]

    def error(x):
        return abs(f(x) - sum(v * x**n if n else v for v, n in exact))

    x = [v for a, b in pieces for v in a + (b - a) * (1 - np.cos(np.linspace(0, np.pi, 101))) / 2]
    x += [c + s * width * 2.0**-n for s in (-1, 1) for n in range(-3, 30, 3)] + [c, *best.reference]
    return max(error(mpf(float(v))) for v in x if any(a <= v <= b for a, b in pieces))


def dual_in_fifty_digits(best, f):
    """The bound that the points of the reference prove, by a system of its own; None for parity and duality."""
    x, powers = [mpf(v) for v in best.reference], best.polynomial.powers
    # Two points on either side of a jump may round to one double.
    if best.status != "alternation" or len(set(x)) != len(powers) + 1:
        return None
    table = mpmath.matrix(len(powers), len(x))
    for i, n in enumerate(powers):
        for j, v in enumerate(x):
            table[i, j] = v**n if n else 1
    # Powers on a narrow interval are dependent to hundreds of digits.
    with mpmath.workdps(mpmath.mp.dps + 300):
        m = [*mpmath.lu_solve(table[:, : len(powers)], -table[:, len(powers)]), mpf(1)]
    return abs(sum(a * f(v) for a, v in zip(m, x, strict=True))) / sum(map(abs, m))


def check(seed):
    r = random.Random(seed)
    (f, exactly, width), c = rough(r)
    pieces, n = domain(r), r.choice([0, 1, 2, 3, 5, 8, 12])
    powers = n if r.random() < 0.8 else tuple(sorted({0, *r.sample(range(1, n + 4), min(n + 1, 4))}))
    best = minimax(f, powers, pieces)
    if not best.proven:
        return
    # Cancelled digits of coefficients, and of the error, come on top of 50.
    with mpmath.workdps(150 if best.error > 1e-90 else 700):
        largest = largest_in_fifty_digits(best, exactly, pieces, c, width)
        assert largest <= best.upper
        assert best.lower <= largest * (1 + mpf(10) ** -13)
        dual = dual_in_fifty_digits(best, exactly) if best.lower else None
        # The points are doubles here, those of the bound have more digits: steep places move it.
        assert dual is None or best.lower <= dual * (1 + mpf(10) ** -6) or width < 1e-5
    assert best.status == "stopped" or best.gap <= 1e-6


@pytest.mark.parametrize("seed", range(40))
def test_certificates_of_rough_functions_hold_in_fifty_digits(seed):
    check(seed)


@pytest.mark.full
@pytest.mark.parametrize("start", range(1000, 1600, 50))
def test_six_hundred_certificates_of_rough_functions_hold(start):
    for seed in range(start, start + 50):
        check(seed)
