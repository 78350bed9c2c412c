"""Degree 200: closed forms, the expansion of Varga and Carpenter for abs(x), errors below all doubles."""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from flint import arb, arb_mat

from spectrain.approx import minimax
from spectrain.approx._balls.range import precise
from spectrain.approx._minimax.exchange import Balls
from spectrain.approx._minimax.level import _by_interpolation, alternating_signs, solve_level
from spectrain.approx._minimax.problem import Problem
from spectrain.approx._minimax.start import first_reference, initial_grid


def runge(x):
    return 1 / (1 + 25 * x * x)


def pole(x):
    return 1 / (x - 1.5)


def bernstein(n, terms=4):
    """E_n(|x|) for even n = 2m: 2m E is 0.2801694990238691330 - 0.04396752888 / m^2 + 0.02640716877 / m^4 - ...

    Varga and Carpenter, Constr. Approx. 1 (1985): the constant to 50 digits, the others to those written here.
    """
    m = n / 2
    known = (0.2801694990238691330, -0.04396752888, 0.02640716877, -0.03125342)
    return sum(c / m ** (2 * k) for k, c in enumerate(known[:terms])) / n


def of_a_pole(a, n):
    """E_n of 1 / (x - a) on [-1, 1] (Chebyshev; Meinardus, section 4.3), in 50 digits."""
    with mpmath.workdps(50):
        a = mpmath.mpf(a)
        root = mpmath.sqrt(a * a - 1)
        return float((a - root) ** n / root**2)


# In y = x^2 = (1 + t) / 2 Runge's function is 0.08 / (t + 1.08).
TRUE = {
    "abs": (np.abs, bernstein(200), 1e-13),
    "runge": (runge, 0.08 * of_a_pole(1.08, 100), 1e-13),
    "pole": (pole, of_a_pole(1.5, 200), 1e-13),
    "power": (lambda x: x**201, 2.0**-200, 1e-14),
}


@pytest.mark.parametrize(
    "name", ["abs", "runge", *(pytest.param(n, marks=pytest.mark.full) for n in ("pole", "power"))]
)
def test_degree_200_has_the_known_error(name):
    f, truth, rtol = TRUE[name]
    best = minimax(f, 200, (-1, 1))
    assert best.error == pytest.approx(truth, rel=rtol, abs=0)
    assert best.status == "alternation"
    assert best.proven
    assert best.gap <= 1e-12
    assert best.iterations <= 16  # 39 from points that crowd at 0


def by_interpolation(f, n):
    p = np.polynomial.Chebyshev.interpolate(f, n)
    x = np.linspace(-1, 1, 200_001)
    return float(np.abs(f(x) - p(x)).max())


WRONG = {
    "Bernstein's constant alone": bernstein(200, terms=1),
    "two terms of the expansion": bernstein(200, terms=2),
    "the next lower degree": bernstein(198),
    "interpolation": by_interpolation(np.abs, 200),
    "a level too low by 1e-12": bernstein(200) * (1 - 1e-12),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_expansion_refuses_other_errors(wrong):
    _, truth, rtol = TRUE["abs"]
    assert wrong != pytest.approx(truth, rel=rtol, abs=0)


def test_a_cusp_of_degree_200_alternates_in_fifty_digits():
    best = minimax(lambda x: np.sqrt(abs(x - 0.1)), 200, (-1, 1))
    assert best.status == "alternation"
    assert best.proven
    assert best.gap <= 1e-12
    with mpmath.workdps(120):
        c = [mpmath.mpf(v.numerator) / v.denominator for v in reversed(best.exact)]
        points = [mpmath.mpf(x) for x in best.reference]
        errors = [mpmath.sqrt(abs(x - mpmath.mpf(0.1))) - mpmath.polyval(c, x) for x in points]
        # de la Vallee-Poussin: no polynomial errs by less than the least of 202 errors of alternating signs.
        flips = [e * (-1) ** k for k, e in enumerate(errors)]
    away = [e for x, e in zip(points, flips, strict=True) if abs(x - 0.1) > 1e-9]  # a double is not at the cusp
    assert len(flips) == 202
    assert len(away) >= 201
    assert min(abs(e) for e in away) >= best.lower * (1 - 1e-9)
    assert len({e > 0 for e in flips}) == 1
    x = np.linspace(-1, 1, 100_001)
    assert np.abs(np.sqrt(np.abs(x - 0.1)) - best(x)).max() <= best.upper * (1 + 1e-10)


def coefficient(k):
    """Chebyshev's coefficient of exp on [-1, 1]: 2 I_k(1)."""
    return 2 * mpmath.besseli(k, 1)


def brackets(error, n):
    """Whether E_n(exp) may be this.

    On the extrema of T_(n+1) the functional of alternating signs takes c_(n+1) + c_(3n+3) + ..., so E_n is at least
    c_(n+1); the series cut after T_n errs by what is left of it, by 1 / (2 n) more.
    """
    with mpmath.workdps(40):
        above = sum(coefficient(k) for k in range(n + 1, n + 9))
        return coefficient(n + 1) <= error <= above


@pytest.mark.parametrize("n", [30, 60, 120])
def test_exp_lies_between_two_of_its_coefficients(n):
    best = minimax(np.exp, n, (-1, 1))
    assert best.status == "alternation"
    assert best.proven
    assert best.gap <= 1e-12
    assert brackets(mpmath.mpf(best.error), n)
    for wrong in (best.error * 1.02, best.error / 1.02, float(coefficient(n)), float(coefficient(n + 2))):
        assert not brackets(mpmath.mpf(wrong), n)


def test_exp_of_degree_200_errs_by_less_than_any_double():
    best = minimax(np.exp, 200, (-1, 1))
    assert best.status == "rounding"
    assert best.proven
    assert best.lower == best.error == 0  # E is 4e-438
    assert best.upper < 1e-280
    with mpmath.workdps(700):
        c = [mpmath.mpf(v.numerator) / v.denominator for v in reversed(best.exact)]
        errors = [mpmath.exp(mpmath.mpf(x)) - mpmath.polyval(c, mpmath.mpf(x)) for x in best.reference[::10]]
        assert all(brackets(abs(e), 200) for e in errors)
        assert all((a > 0) == (b > 0) for a, b in itertools.pairwise(errors))  # every tenth: one sign


def level_by_elimination(problem, points, signs):
    rows = [[*problem.basis_ball(x), s / w] for (x, _, w), s in zip(points, signs, strict=True)]
    return arb_mat(rows).solve(arb_mat([[f] for _, f, _ in points])).entries()


LEVELS = {
    "all powers": Problem(np.exp, None, tuple(range(31)), ((-1.0, 1.0),), np.exp, None),
    "odd": Problem(np.sin, None, tuple(range(1, 64, 2)), ((0.0, 1.0),), np.sin, None),
    "weighted, two intervals": Problem(
        np.cos, lambda x: 2 + x, tuple(range(31)), ((-1.0, 0.0), (0.5, 2.0)), np.cos, lambda x: 2 + x
    ),
    "from 4 on by 3": Problem(np.exp, None, tuple(range(4, 98, 3)), ((0.25, 1.5),), np.exp, None),
}


@pytest.mark.parametrize("problem", LEVELS.values(), ids=LEVELS)
def test_the_level_by_differences_is_that_of_the_linear_system(problem):
    with precise(1400):
        fresh = Problem(**{name: getattr(problem, name) for name in ("target", "weight", "powers", "pieces",
                                                                     "target_ball", "weight_ball")})  # fmt: skip
        count = fresh.unknowns + 1
        s = first_reference(fresh, initial_grid(fresh, count), count)
        points, signs = Balls(fresh).points(s), alternating_signs(count)
        c, h = _by_interpolation(fresh, points, signs)
        assert solve_level(fresh, points, signs) == (c, h)
        *truth, level = level_by_elimination(fresh, points, signs)
        assert abs(h / level - 1) < arb(2) ** -300

        def off(found):
            return max(float(abs(a - b).upper()) for a, b in zip(found, truth, strict=True)) / float(abs(level).mid())

        assert off(c) < 1e-80
        wrong = {
            "one point less": _by_interpolation(fresh, points, [*signs[:-1], -signs[-1]])[0],
            "order of powers": c[::-1],
            "constant not halved": [2 * c[0], *c[1:]],
        }
        assert all(off(w) > 1e-3 for w in wrong.values())


@pytest.mark.parametrize("powers", [tuple(range(0, 41, 2)), tuple(range(1, 42, 2)), (0, 3, 6, 9)])
@pytest.mark.parametrize("low", [0.0, 0.1])
def test_a_reference_lies_as_chebyshevs_points_in_the_power(powers, low):
    problem = Problem(np.exp, None, powers, ((low, 1.0),), np.exp, None)
    count, stride = len(powers) + 1, powers[1] - powers[0]
    x = problem.doubles(first_reference(problem, initial_grid(problem, count), count))
    angles = np.arccos(np.clip(2 * (x**stride - low**stride) / (1 - low**stride) - 1, -1, 1))
    gaps = np.diff(angles[::-1])
    assert np.ptp(gaps) < 1e-6
    idle = low == 0 and powers[0] > 0
    assert (x[0] > 0) == (idle or low > 0)
    assert math.isclose(x[-1], 1.0)


@pytest.mark.parametrize("n", [60, pytest.param(200, marks=pytest.mark.full)])
def test_a_target_of_high_degree_is_proven_to_be_found(n):
    best = minimax(lambda x: x ** (2 * n // 3) - 3 * x**7, n, (-1, 1))
    assert best.status == "exact"
    assert best.proven
    assert best.upper < 1e-300
    for k, c in enumerate(best.exact):
        assert abs(c - {2 * n // 3: 1, 7: -3}.get(k, 0)) < Fraction(1, 10**200)


@pytest.mark.parametrize("n", [30, 200])
def test_rounding_of_a_target_known_in_doubles_is_not_followed(n):
    """Exchanges would chase the noise: at degree 30 the polynomial was off by 8e-7, at degree 60 by 1.4."""
    best = minimax(lambda x: math.exp(x), n, (-1, 1))
    assert best.status == "rounding"
    assert not best.proven
    x = np.linspace(-1, 1, 10_001)
    assert np.abs(best(x) - np.exp(x)).max() < 1e-14
