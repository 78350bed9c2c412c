"""Polynomial: the same numbers whatever it is called on."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from spectrain.approx import Polynomial

CASES = {
    "odd": ((1, 3, 5), (1.5, -0.25, 3.0)),
    "even": ((0, 2, 4), (0.5, -2.0, 1.0)),
    "all": ((0, 1, 2, 3), (1.0, 2.0, -3.0, 4.0)),
    "gaps": ((2, 3, 9, 20), (1.0, 2.0, -3.0, 0.5)),
    "constant": ((0,), (7.0,)),
    "one term": ((4,), (2.0,)),
}


def by_fractions(powers, coefficients, x):
    return float(sum(Fraction(c) * Fraction(x) ** n for n, c in zip(powers, coefficients, strict=True)))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_agree_with_exact_arithmetic_on_floats_arrays_and_tensors(case):
    p = Polynomial(*case)
    x = np.linspace(-1.5, 1.5, 31)
    exact = np.array([by_fractions(*case, v) for v in x])
    np.testing.assert_allclose(p(x), exact, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose([p(float(v)) for v in x], exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p(torch.from_numpy(x)), torch.from_numpy(exact), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_dtype_of_arrays_stays(case):
    p = Polynomial(*case)
    assert p(np.ones(3, dtype=np.float32)).dtype == np.float32
    assert p(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_derivative_and_scaling_against_differences(case):
    p, x, h = Polynomial(*case), 0.7, 1e-6
    assert p.derivative()(x) == pytest.approx((p(x + h) - p(x - h)) / (2 * h), rel=1e-6, abs=1e-8)
    assert p.scaled(1.25)(x) == pytest.approx(p(1.25 * x), rel=1e-12)


def test_equal_polynomials_are_one_key():
    assert len({Polynomial.odd(1.5, -0.5), Polynomial((1, 3), (1.5, -0.5))}) == 1


@pytest.mark.parametrize(
    ("powers", "coefficients", "words"),
    [
        ((1, 3), (1.0,), "as many coefficients"),
        ((), (), "at least one"),
        ((3, 1), (1.0, 2.0), "must rise"),
        ((1, 1), (1.0, 2.0), "duplicate powers"),
        ((-1, 1), (1.0, 2.0), "whole numbers"),
    ],
)
def test_bad_powers_are_refused(powers, coefficients, words):
    with pytest.raises(ValueError, match=words):
        Polynomial(powers, coefficients)
