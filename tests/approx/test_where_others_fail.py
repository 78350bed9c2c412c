"""Problems on which other solvers stop, loop or answer wrongly: each against a truth from elsewhere."""

import numpy as np
import pytest

from spectrain.approx import equioscillates, minimax


def wiggly(x):
    return np.sin(x) ** 2 + np.sin(x * x)


# github.com/chebfun/chebfun/issues/555. Sollya's remez runs for minutes at degree 60. Below degree 70 or so no
# polynomial follows sin x^2, which alternates 72 times at height 1, so E = 1 to many digits and the level is flat.
@pytest.mark.parametrize("degree", [30, 60, *(pytest.param(n, marks=pytest.mark.full) for n in (45, 70, 80))])
def test_flat_problems_converge(degree):
    best = minimax(wiggly, degree, (0, 15))
    assert best.status == "alternation"
    assert best.proven
    assert best.gap <= 1e-12
    assert best.error == pytest.approx(1.0, abs=1e-9)
    assert equioscillates(best)


CUSPS = {
    "github.com/chebfun/chebfun/issues/1405": (lambda x: np.sqrt(abs(x - 0.1)), 10, (-1, 1)),
    "the same, degree 40": (lambda x: np.sqrt(abs(x - 0.1)), 40, (-1, 1)),
    "at 0": (lambda x: np.sqrt(abs(x)), 12, (-1, 1)),
    "two kinks": (lambda x: abs(x - 0.3) + abs(x + 0.2), 9, (-1, 1)),
    "fourth root": (lambda x: abs(x - 0.1) ** 0.25, 8, (-1, 1)),
    "kinks and jumps of slope": (lambda x: np.maximum(np.sin(7 * x), 0.2), 14, (-1, 1)),
}


@pytest.mark.parametrize("case", CUSPS.values(), ids=CUSPS)
def test_cusps_and_kinks_close_the_gap(case):
    best = minimax(*case)
    assert best.status == "alternation"
    assert best.proven
    assert best.gap <= 1e-12
    f, _, (a, b) = case
    x = np.linspace(a, b, 200_001)
    measured = np.abs(f(x) - np.polynomial.Chebyshev(best.chebyshev, domain=(a, b))(x)).max()
    assert measured <= best.upper * (1 + 1e-13)
    assert measured >= best.lower * (1 - 1e-3)


def test_absolute_value_where_brasil_reports_convergence_at_a_wrong_error():
    # baryrat 2.1.2: converged=True with 0.04056. Varga and Carpenter 1985: 0.27845118553... / 10.
    best = minimax(np.abs, 10, (-1, 1))
    assert best.upper == pytest.approx(0.0278451185, rel=1e-8)


def test_constants_and_the_zero_function():
    # baryrat: RecursionError for constants; github.com/chebfun/chebfun/issues/1656: the zero function.
    assert minimax(lambda x: 0 * x + 2.5, 4, (-1, 1)).coefficients == (2.5, 0, 0, 0, 0)
    for powers in (3, (0, 2, 3), (0, 1, 4)):
        assert minimax(lambda x: 0 * x, powers, (-1, 1)).upper == 0


IDLE = {
    "even by all powers (baryrat issue 10)": (lambda x: np.exp(-x * x), 7, (0, 2, 4, 6)),
    "odd by all powers": (np.arctan, 6, (1, 3, 5)),
    "even by a list with gaps": (lambda x: np.cos(3 * x), (0, 1, 3, 4, 7), (0, 4)),
    "kink by a list": (np.abs, (0, 1, 2, 3), (0, 2)),
}


@pytest.mark.parametrize("case", IDLE.values(), ids=IDLE)
def test_powers_of_the_other_parity_are_idle(case):
    f, powers, needed = case
    wide, narrow = minimax(f, powers, (-1, 1)), minimax(f, needed, (-1, 1))
    assert wide.gap <= 1e-12
    assert wide.error == pytest.approx(narrow.error, rel=1e-13)
    assert wide.lower <= narrow.upper


def test_a_polynomial_of_those_powers_is_found_where_alternation_says_nothing():
    for f, powers in ((lambda x: x**3 - x * x, (0, 2, 3)), (lambda x: x**4 + x, (0, 1, 4))):
        best = minimax(f, powers, (-1, 1))
        assert best.status == "exact"
        assert best.upper < 1e-20


def test_a_target_that_doubles_evaluate_badly_is_solved_in_balls():
    # 1e13 x has an error of 1e-3 in doubles.
    best = minimax(lambda x: np.sin(1e13 * x), 20, (1.0, 1.0 + 1e-12))
    assert best.gap <= 1e-12
    same = minimax(lambda t: np.sin(5 * t), 20, (-1, 1)).error
    assert 1e-4 * same < best.error < 1e4 * same


def test_evenness_that_only_samples_show_does_not_spoil_the_lower_bound():
    # Even at the samples to 1e-13 only: the bounds are for the function itself.
    best = minimax(lambda x: np.cos(x) + 1e-14 * np.sin(x), 5, (-1, 1))
    even = minimax(np.cos, 4, (-1, 1))
    assert best.lower <= even.error + 2e-14
    assert best.lower <= best.upper
