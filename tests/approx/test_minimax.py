"""minimax: closed forms, degenerate cases, other sets of powers, and what is refused."""

import math

import numpy as np
import pytest
from numpy.polynomial import chebyshev as cheb

from spectrain.approx import Polynomial, equioscillates, minimax


def one(x):
    return 1 + 0 * x


def chebyshev(n):
    """T_n by its recurrence, for arrays and balls."""

    def value(x):
        before, here = one(x), x
        for _ in range(n - 1):
            before, here = here, 2 * x * here - before
        return here

    return value


def test_the_best_cubic_for_the_sign_in_closed_form():
    # Article 10996: x1 = sqrt((l^2 + l u + u^2) / 3), p' = k (x^2 - x1^2).
    low = 0.1
    best = minimax(one, (1, 3), (low, 1.0))
    x1 = math.sqrt((low * low + low + 1) / 3)
    k = -6 / (low * low + low + 2 * x1**3)
    np.testing.assert_allclose(best.coefficients, (-k * x1 * x1, k / 3), rtol=1e-12)
    assert best.reference == pytest.approx((low, x1, 1.0), rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_monomials_by_lower_powers_in_closed_form(n):
    # x^(n+1) on [-1, 1] by degree n: error 2^-n, error curve T_(n+1) / 2^n.
    best = minimax(lambda x: x ** (n + 1), n, (-1, 1))
    assert best.error == pytest.approx(2.0**-n, rel=1e-14)
    assert best.proven
    assert best.gap < 1e-12


def test_inverse_by_degree_n_in_closed_form():
    # 1 / (x - a) on [-1, 1], a > 1: E_n = (a - sqrt(a^2 - 1))^n / (a^2 - 1) (Chebyshev; Meinardus, section 4.3).
    a = 1.5
    for n in range(1, 12):
        truth = (a - math.sqrt(a * a - 1)) ** n / (a * a - 1)
        assert minimax(lambda x: 1 / (x - a), n, (-1, 1)).error == pytest.approx(truth, rel=1e-13)


def test_absolute_value_of_degree_ten_agrees_with_bernstein():
    # Varga and Carpenter, Constr. Approx. 1985: 2n E_2n(|x|) for n = 5 (degree 10) is 0.27845118553...
    assert minimax(np.abs, 10, (-1, 1)).error * 10 == pytest.approx(0.278451185, rel=1e-8)


@pytest.mark.parametrize(("k", "degree"), [(5, 1), (9, 5), (12, 7), (20, 11)])
def test_a_chebyshev_polynomial_by_lower_degree_has_error_one(k, degree):
    best = minimax(chebyshev(k), degree, (-1, 1))
    assert best.error == pytest.approx(1.0, rel=1e-13)
    assert best.gap < 1e-12
    assert max(map(abs, best.coefficients)) < 1e-12


def test_a_target_among_the_polynomials_is_found_exactly():
    best = minimax(lambda x: x**3 - x, 5, (-1, 1))
    assert best.status == "exact"
    assert best.upper < 1e-300
    np.testing.assert_allclose(best.coefficients, (0, -1, 0, 1, 0, 0), atol=1e-300)
    assert minimax(lambda x: 0 * x, 4, (-1, 1)).upper == 0
    assert minimax(lambda x: 0 * x + 3, 2, (-1, 1)).coefficients[0] == 3


def test_an_even_target_wastes_an_odd_degree():
    even, odd = minimax(np.cos, 4, (-1, 1)), minimax(np.cos, 5, (-1, 1))
    assert odd.error == pytest.approx(even.error, rel=1e-13)
    assert odd.gap < 1e-12


def test_parity_gives_the_same_as_all_powers():
    assert minimax(np.sin, (1, 3, 5), (-1, 1)).error == pytest.approx(minimax(np.sin, 6, (-1, 1)).error, rel=1e-12)
    assert minimax(np.cos, (0, 2, 4), (-1, 1)).error == pytest.approx(minimax(np.cos, 5, (-1, 1)).error, rel=1e-12)


SCALES = {
    "length 1e-12": (np.exp, 3, (1.0, 1.0 + 1e-12)),
    "length 1e30": (lambda x: x / 1e30 * np.exp(-x / 1e30), 8, (-1e30, 2e30)),
    "values 1e100": (lambda x: 1e100 * np.exp(x), 8, (-1, 1)),
    "values 1e-100": (lambda x: 1e-100 * np.exp(x), 8, (-1, 1)),
    "kink inside": (lambda x: abs(x - 0.1), 10, (-1, 1)),
    "root at the end": (np.sqrt, 10, (0, 1)),
    "tiny error": (np.exp, 30, (-1, 1)),
    "wide": (one, (1, 3, 5), (1e-8, 1.0)),
    "two pieces": (lambda x: np.where(x > 0, 1.0, 0.0), 9, [(-1, -0.1), (0.1, 1)]),
    "gaps in the powers": (np.exp, (0, 1, 3, 7), (0.5, 2.0)),
    "negative side": (lambda x: -one(x), (1, 3, 5), (-1.0, -0.01)),
    "branches": (lambda x: np.maximum(x - 0.3, 0), 6, (-1, 1)),
}


@pytest.mark.parametrize("case", SCALES.values(), ids=SCALES)
def test_bounds_meet_in_hard_cases(case):
    best = minimax(*case)
    assert best.status == "alternation"
    assert best.proven
    assert 0 < best.lower <= best.upper
    assert best.gap <= 1e-12


def test_a_high_degree_for_the_wiggly_function():
    # github.com/chebfun/chebfun/issues/555
    best = minimax(lambda x: np.sin(x) ** 2 + np.sin(x * x), 110, (0, 15))
    assert best.gap <= 1e-12
    assert best.proven


def test_exponential_relative_error_is_a_weight():
    best = minimax(np.exp, 6, (-1, 1), weight=lambda x: np.exp(-x))
    x = np.linspace(-1, 1, 5001)
    assert np.abs(1 - best(x) / np.exp(x)).max() == pytest.approx(best.error, rel=1e-6)


def test_what_balls_cannot_follow_is_called_not_proven():
    best = minimax(lambda x: math.exp(x), 5, (-1, 1))
    assert not best.proven
    assert "not proven" in str(best)
    assert best.error == pytest.approx(minimax(np.exp, 5, (-1, 1)).error, rel=1e-9)
    given = minimax(lambda x: math.exp(x), 5, (-1, 1), f_ball=np.exp)
    assert given.proven


def test_chebyshev_form_and_fractions_are_the_same_polynomial():
    best = minimax(np.exp, 12, (0.5, 3.0))
    x = np.linspace(0.5, 3.0, 101)
    stable = np.polynomial.Chebyshev(best.chebyshev, domain=(0.5, 3.0))(x)
    np.testing.assert_allclose(stable, np.exp(x), atol=best.error * 1.001 + 1e-14)
    exact = [float(sum(c * __import__("fractions").Fraction(v) ** n for n, c in enumerate(best.exact))) for v in x]
    np.testing.assert_allclose(exact, stable, rtol=1e-14)


DUAL = {
    "0, 2, 3": (np.exp, (0, 2, 3), (-1, 1)),
    "0, 1, 4, 6": (np.exp, (0, 1, 4, 6), (-1, 1)),
    "p(0) = 1": (np.exp, 4, (-1, 1), [("value", 0.0, 1.0)]),
    "value and slope": (np.exp, 5, (-1, 1), [("value", 0.0, 1.0), ("slope", 0.0, 1.0)]),
    "a fixed coefficient": (np.exp, 5, (0.5, 1), [("coefficient", 2, 0.5)]),
    "1 at 1": (one, (1, 3, 5, 7), (0.1, 1.0), [("value", 1.0, 1.0)]),
}


@pytest.mark.parametrize("case", DUAL.values(), ids=DUAL)
def test_duality_closes_the_gap_where_alternation_says_nothing(case):
    best = minimax(*case[:3], constraints=case[3] if len(case) > 3 else ())
    assert best.status == "duality"
    assert best.proven
    assert best.gap <= 1e-12
    with pytest.raises(ValueError, match="no Chebyshev system"):
        equioscillates(best)


def test_conditions_are_met():
    best = minimax(np.exp, 5, (-1, 1), constraints=DUAL["value and slope"][3])
    assert best(0.0) == pytest.approx(1.0, abs=1e-15)
    assert best.polynomial.derivative()(0.0) == pytest.approx(1.0, abs=1e-14)
    free = minimax(np.exp, 5, (-1, 1))
    assert free.upper < best.lower


def test_fixing_a_coefficient_is_leaving_its_power_out():
    fixed = minimax(np.exp, 3, (0.5, 1.0), constraints=[("coefficient", 3, 0.0)])
    assert fixed.error == pytest.approx(minimax(np.exp, 2, (0.5, 1.0)).error, rel=1e-12)


def test_odd_powers_do_not_help_an_even_target():
    best = minimax(lambda x: np.cos(x) - 1, (1, 3, 5), (-1, 1))
    assert best.status == "duality"
    assert best.error == pytest.approx(1 - math.cos(1), rel=1e-8)
    assert best.gap < 1e-7


SAMPLES = np.linspace(-1, 1, 99)
CUBIC = (0, 1, 2, 3)
WRONG = {
    "Taylor": Polynomial(CUBIC, (1.0, 1.0, 1 / 2, 1 / 6)),
    "interpolation": Polynomial(CUBIC, tuple(cheb.cheb2poly(cheb.chebinterpolate(np.exp, 3)))),
    "least squares": Polynomial(CUBIC, tuple(np.polynomial.polynomial.polyfit(SAMPLES, np.exp(SAMPLES), 3))),
    "a millionth off": Polynomial(CUBIC, tuple(c + 1e-6 for c in minimax(np.exp, 3, (-1, 1)).coefficients)),
    "of degree 2": minimax(np.exp, 2, (-1, 1)).polynomial,
}  # fmt: skip


@pytest.mark.parametrize("p", WRONG.values(), ids=WRONG)
def test_the_theorem_refuses_wrong_polynomials(p):
    if p.degree == 2:
        p = Polynomial((0, 1, 2, 3), (*p.coefficients, 0.0))
    assert not equioscillates(p, np.exp, (-1, 1))


RIGHT = {
    "all powers": (np.exp, 3, (-1, 1)),
    "odd": (np.sin, (1, 3, 5), (-1, 1)),
    "even": (np.cos, (0, 2, 4), (-1, 1)),
    "half line": (one, (1, 3, 5), (0.01, 1)),
    "kink": (np.abs, 8, (-1, 1)),
}


@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT)
def test_the_theorem_accepts_the_best(case):
    best = minimax(*case)
    assert equioscillates(best)
    assert equioscillates(best.polynomial, case[0], case[2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.exp, 3, (1, -1)), "a < b"),
        ((np.exp, 3, (1, 1)), "a < b"),
        ((np.exp, 3, (0, math.inf)), "finite"),
        ((np.exp, (), (0, 1)), "at least one power"),
        ((np.exp, (1, 1), (0.5, 1)), "duplicate"),
        ((np.exp, (3, 1), (0.5, 1)), "must rise"),
        ((np.exp, 3, [(0, 1), (0.5, 2)]), "overlap"),
        ((one, (1, 3), (-1, 1)), "is 0 at 0"),
        ((one, (1, 3), (0, 1)), "is 0 at 0"),
        ((lambda x: 1 / x, 3, (0, 1)), "must be finite"),
        ((np.log, 3, (-1, 1)), "must be finite"),
    ],
)
def test_bad_problems_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        minimax(*arguments)


@pytest.mark.parametrize("weight", [lambda x: x, lambda x: 0 * x, lambda x: -one(x)])
def test_weights_must_be_positive(weight):
    with pytest.raises(ValueError, match="weight must be positive"):
        minimax(np.exp, 3, (-1, 1), weight=weight)


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([("area", 0, 1)], "kind must be"),
        ([("coefficient", 9, 1.0)], "no coefficient"),
        ([("value", 0.0, 1.0)] * 4, "nothing to choose"),
        ([("value", 0.0, 1.0), ("value", 0.0, 2.0)], "depend on each other"),
    ],
)
def test_bad_conditions_are_refused(conditions, words):
    with pytest.raises(ValueError, match=words):
        minimax(np.exp, 3, (-1, 1), constraints=conditions)
