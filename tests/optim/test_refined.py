"""The refined schedule: the least of the bound that it is made for, and its special cases; mean-field weights."""

import numpy as np
import pytest

from spectrain.optim import WarmupDecay
from spectrain.optim.averaging import averaging_coefficients
from spectrain.optim.schedules import Refined


def rates(schedule, steps):
    return np.array([schedule(step).lr for step in range(steps)])


def bound(eta, G, R=1.0):
    """Article 11530 before its discretisation: R^2 / 2 S_0 + (1/2) sum eta^2 G^2 / S_t, scaled to its best length."""
    after = np.cumsum(eta[::-1])[::-1]
    first, second = R**2 / 2 / after[0], 0.5 * np.sum(eta**2 * G**2 / (after - eta / 2))
    return 2 * np.sqrt(first * second)  # min over c of first / c + c second


STEPS = 400
SHAPES = {
    "falling": np.linspace(3, 1, STEPS),
    "a warm-up": 1 + 5 * np.exp(-np.arange(STEPS) / 20),
    "rising": np.linspace(1, 3, STEPS),
}


def test_equal_gradients_give_the_linear_fall():
    for steps, norms in ((7, (2.0,) * 7), (10, (5.0,) * 3)):
        linear = rates(WarmupDecay(steps=steps), steps + 2)
        np.testing.assert_allclose(rates(Refined(norms=norms, steps=steps), steps + 2), linear, atol=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_small_change_lowers_the_bound(shape):
    G = SHAPES[shape]
    eta = rates(Refined(norms=G, steps=STEPS, smooth=0), STEPS)
    least, t = bound(eta, G), np.linspace(0, 1, STEPS)
    for change in (np.sin(np.pi * k * t) for k in range(1, 7)):
        for size in (-0.1, 0.1):
            assert bound(eta * (1 + size * change), G) > least * (1 - 2e-4)


WRONG = {
    "linear": lambda G: 1 - np.arange(STEPS) / STEPS,
    "the inverse norm": lambda G: (1 - np.arange(STEPS) / STEPS) / G,
    "no fall": lambda G: G**-2.0,
    "the norm squared": lambda G: G**2 * (1 - np.arange(STEPS) / STEPS),
    "Q that begins at the end": lambda G: G**-2.0 * np.cumsum(G**-2.0) / np.sum(G**-2.0),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_other_schedules_have_a_larger_bound(wrong):
    G = SHAPES["falling"]
    assert bound(wrong(G), G) > 1.01 * bound(rates(Refined(norms=G, steps=STEPS, smooth=0), STEPS), G)


def test_another_length_takes_the_norms_of_the_same_shares():
    G = 1 + 5 * np.exp(-np.linspace(0, 10, 1000))
    long, short = (rates(Refined(norms=G, steps=steps, smooth=0), steps) for steps in (1000, 100))
    np.testing.assert_allclose(short, long.reshape(100, 10).mean(1), atol=0.02)


def test_medians_take_out_what_is_rare():
    G = np.ones(200)
    G[[30, 77, 150]] = 100.0
    smooth = rates(Refined(norms=G, steps=200), 200)
    np.testing.assert_allclose(smooth, 1 - np.arange(200) / 200, atol=1e-12)
    assert rates(Refined(norms=G, steps=200, smooth=0), 200)[77] < 1e-3


def test_joint_moves_the_decay():
    assert Refined(norms=(2.0, 1.0), steps=2, joint=True)(0).weight_decay == Refined(norms=(2.0, 1.0), steps=2)(0).lr
    assert Refined(norms=(2.0, 1.0), steps=2)(0).weight_decay == 1.0


@pytest.mark.parametrize(
    "wrong",
    [{"norms": ()}, {"norms": (1.0, 0.0)}, {"norms": (1.0, np.nan)}, {"steps": 0}, {"smooth": 2.0}, {"steps": True}],
    ids=str,
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="Refined: "):
        Refined(**{"norms": (1.0, 2.0), "steps": 2, **wrong})


BETAS = [(0.9, 0.95), (0.95, 0.0), (0.0, 0.0), (0.5, 0.999)]


@pytest.mark.parametrize("betas", BETAS, ids=str)
def test_mean_field_weights_are_those_of_the_recursions(betas):
    """m and v step by step for each gradient alone, averaged with the weights of the updates."""
    lr, wd, steps = np.linspace(0.3, 0.05, 30), 0.4, 30
    run = averaging_coefficients(lr, wd, betas)
    c = run.coefficients / run.coefficients.sum()
    for beta, found in zip(betas, run.mean_field, strict=True):
        for j in range(steps):
            average, total = 0.0, 0.0
            for i in range(steps):
                average = beta * average + (1 - beta) * (i == j)
                total += c[i] * average
            assert found[j] == pytest.approx(total, rel=1e-12, abs=1e-15)
    assert run.gradients is None


def test_mean_field_weights_of_a_constant_run_are_the_closed_form_of_the_article():
    lr, wd, steps, betas = 0.1, 0.5, 200, (0.9, 0.99)
    run, b = averaging_coefficients([lr] * steps, wd, betas), 1 - 0.05
    s = steps - np.arange(steps)
    for beta, found in zip(betas, run.mean_field, strict=True):
        closed = (1 - b) * (1 - beta) / ((1 - b**steps) * (b - beta)) * (b**s - beta**s)
        np.testing.assert_allclose(found, closed, rtol=1e-9, atol=1e-14)
        for wrong in (run.coefficients / run.coefficients.sum(), found[::-1], closed * 0.99):
            assert not np.allclose(found, wrong, rtol=1e-3)


def test_with_a_constant_denominator_mean_field_is_exact():
    rng = np.random.default_rng(0)
    g, lr, wd = rng.choice([-1.0, 1.0], 50), 0.1, 0.3  # v is 1 from the first step on, bias corrected
    theta, m = 2.0, 0.0
    for gradient in g:
        m = 0.9 * m + 0.1 * gradient
        theta -= lr * (m / np.sqrt(1.0) + wd * theta)
    run = averaging_coefficients([lr] * 50, wd, (0.9, 0.95))
    made = run.initial * 2.0 - run.coefficients.sum() * (run.mean_field.gradients @ g)
    assert theta == pytest.approx(made, rel=1e-12)
    for wrong in ((0.9,), (0.9, 1.0), (0.9, 0.9, 0.9)):
        with pytest.raises(ValueError, match="pair of numbers"):
            averaging_coefficients([0.1], 0.1, wrong)
