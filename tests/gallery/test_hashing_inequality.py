"""The inequality from hashing: exact coefficients, rigorous gaps, and false inequalities that must be refused."""

from fractions import Fraction
from math import factorial, log

import mpmath
import numpy as np
import pytest

from spectrain.gallery.hashing_inequality import Show, coefficients, enclose, enclose_between, prove


def series_by_multiplication(j, order):
    """Coefficients of sum_{i<=j} L^i/i! by multiplying power series of fractions: no Stirling numbers."""
    L = [Fraction(0)] + [Fraction(1, k) for k in range(1, order + 1)]
    power, total = [Fraction(1)] + [Fraction(0)] * order, [Fraction(0)] * (order + 1)
    for i in range(j + 1):
        total = [t + c / factorial(i) for t, c in zip(total, power, strict=True)]
        power = [sum((power[k] * L[n - k] for k in range(n + 1)), Fraction(0)) for n in range(order + 1)]
    return total


@pytest.mark.parametrize(("j", "order"), [(0, 5), (1, 12), (2, 3), (5, 16), (9, 20)])
def test_coefficients_are_those_of_multiplied_series(j, order):
    assert coefficients(j, order) == series_by_multiplication(j, order)


def gap_in_mpmath(j, p, digits=400):
    """Right minus left side by plain sums with hundreds of digits."""
    with mpmath.workdps(digits + 40 * j):
        p = mpmath.mpf(p)
        L = -mpmath.log(1 - p)
        return mpmath.fsum(L**i / mpmath.factorial(i) for i in range(j + 1)) - mpmath.fsum(p**i for i in range(j + 1))


HARD = [1e-12, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6, 1 - 1e-12]


def contains_the_truth(enclosure, j, p):
    low, high = enclosure(j, p)
    truth = gap_in_mpmath(j, p)
    return bool(mpmath.mpf(low) <= truth <= mpmath.mpf(high)) and high - low <= 1e-14 * low + 5e-324


@pytest.mark.parametrize("p", HARD)
def test_the_gap_is_enclosed_and_positive(p, full, record_property):
    powers = range(1, 201, 1 if full else 33)
    record_property("cases", len(powers))
    for j in powers:
        assert contains_the_truth(enclose, j, p), j
        assert enclose(j, p)[0] >= 0
        assert enclose(j, p)[1] > 0


def test_no_gap_at_zero_and_for_j_zero():
    assert enclose(7, 0) == (0.0, 0.0)
    assert enclose(0, 0.75) == (0.0, 0.0)


def test_j_one_is_the_logarithm():
    low, high = enclose(1, 0.5)
    assert low <= log(2) - 0.5 <= high


def in_doubles(j, p):
    L = -np.log1p(-p)
    gap = sum(L**i / factorial(i) for i in range(j + 1)) - sum(p**i for i in range(j + 1))
    return gap, gap


def in_doubles_with_a_margin(j, p):
    gap = in_doubles(j, p)[0]
    return gap - 1e-15, gap + 1e-15


WRONG = {
    "double precision": in_doubles,
    "double precision with a margin": in_doubles_with_a_margin,
    "one term too many": lambda j, p: enclose(j + 1, p),
    "one term too few": lambda j, p: enclose(j - 1, p),
    "everything": lambda j, p: (0.0, np.inf),
    "only the leading term": lambda j, p: (p ** (j + 1) * 0.5, p ** (j + 1) * 0.5000001),
    "not outward": lambda j, p: (enclose(j, p)[1], enclose(j, p)[1]),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_answers(wrong):
    assert not all(contains_the_truth(wrong, j, p) for j in (1, 2, 9) for p in HARD)


@pytest.mark.parametrize("j", [0, 1, 2, 7, 30])
def test_the_argument_is_checked_step_by_step(j):
    verdict = prove(j)
    assert verdict.holds
    assert len(verdict.steps) == 5
    assert verdict.counterexample is None


def test_the_argument_for_j_200(full):
    j = 200 if full else 60
    assert prove(j).holds


FALSE = {
    "the last coefficient above one": (2, (1, 1, 1.01)),
    "the first coefficient above one": (3, (Fraction(10**9 + 1, 10**9), 1, 1, 1)),
    "a middle coefficient above one": (4, (1, 1, 2, 1, 1)),
    "a term too many, too heavy": (2, (1, 1, 1, 1)),
    "the other direction": (1, (2, 2)),
}


@pytest.mark.parametrize(("j", "left"), FALSE.values(), ids=FALSE)
def test_a_planted_false_inequality_is_refused(j, left):
    verdict = prove(j, left=left)
    assert not verdict.holds
    p = verdict.counterexample
    assert p is not None
    with mpmath.workdps(100):
        x = mpmath.mpf(p)
        right = mpmath.fsum((-mpmath.log(1 - x)) ** i / mpmath.factorial(i) for i in range(j + 1))
        coefficients_of_left = [mpmath.mpf(Fraction(c).numerator) / Fraction(c).denominator for c in left]
        assert right < mpmath.fsum(c * x**k for k, c in enumerate(coefficients_of_left))


def test_a_true_inequality_with_less_on_the_left_is_proved():
    assert prove(3, left=(1, 1, Fraction(1, 2))).holds
    assert prove(2, left=(1, 1, 1, Fraction(5, 6))).holds


def test_an_interval_encloses_its_points():
    low, high = enclose_between(6, 0.2, 0.3)
    for p in np.linspace(0.2, 0.3, 11):
        assert low <= enclose(6, float(p))[0] <= enclose(6, float(p))[1] <= high


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, float("nan"), float("inf")])
def test_p_outside_the_domain_is_refused(p):
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        enclose(3, p)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="last power"):
        enclose(-1, 0.5)
    with pytest.raises(ValueError, match="order"):
        coefficients(2, -1)
    with pytest.raises(ValueError, match="order"):
        prove(9, order=4)
    with pytest.raises(ValueError, match="interval"):
        enclose_between(2, 0.5, 0.4)


def test_the_picture_has_a_line_for_each_j():
    text, picture = Show((1, 3))()
    assert "proved" in text
    assert [line.name for line in picture.lines] == ["j = 1", "j = 3"]


@pytest.mark.parametrize("powers", [(), (0,), (3, -1)])
def test_there_must_be_powers_to_draw(powers):
    with pytest.raises(ValueError, match="power"):
        Show(powers)()
