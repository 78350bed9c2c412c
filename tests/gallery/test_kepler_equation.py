"""Kepler's equation against 50 digits, on hard cases, with wrong answers beside it."""

import mpmath
import numpy as np
import pytest
from flint import arb, ctx

from spectrain import approx
from spectrain.gallery import _kepler_equation as equation
from spectrain.gallery import kepler
from spectrain.gallery._stumpff import c2, c3, series_of_both

DIGITS = 50
ULPS = 2.0


def hard_ellipses(count, seed=0):
    """Mean anomalies and eccentricities where solvers fail: e next to 1, tiny M, M next to k pi, many turns."""
    rng = np.random.default_rng(seed)
    n = -(-count // 7)
    e_near_1 = 1 - 10 ** rng.uniform(-15.9, 0, (3, n))
    turns = 2 * np.pi * rng.integers(-1000, 1000, n) * (1 + 2.0**-52 * rng.integers(-3, 4, n))
    M = [
        rng.uniform(-np.pi, np.pi, n),
        10 ** rng.uniform(-300, 0.49, n),
        10 ** rng.uniform(-20, 0.49, n),
        np.pi * (1 - 10 ** rng.uniform(-16, -3, n)),
        turns,
        rng.uniform(-1e6, 1e6, n),
        10 ** rng.uniform(6, 300, n),
    ]
    e = [
        rng.uniform(0, 1, n),
        *e_near_1,
        1 - 10 ** rng.uniform(-15.9, -6, n),
        rng.uniform(0, 1, n),
        rng.uniform(0, 1, n),
    ]
    return np.concatenate(M)[:count], np.concatenate(e)[:count]


def hard_hyperbolas(count, seed=1):
    rng = np.random.default_rng(seed)
    n = -(-count // 3)
    M = [10 ** rng.uniform(-280, 308, n), 10 ** rng.uniform(-3, 2, n), rng.uniform(-100, 100, n)]
    e = [1 + 10 ** rng.uniform(-15.6, 2, n), 1 + 10 ** rng.uniform(-15.6, 1, n), 10 ** rng.uniform(0.01, 100, n)]
    return np.concatenate(M)[:count], np.concatenate(e)[:count]


def elliptic_residual(E, M, e):
    return E - e * E.sin() - M


def hyperbolic_residual(H, M, e):
    return e * H.sinh() - H - M


def farther_than(ulps, residual, E, M, e):
    """The indices at which the exact root is not within ``ulps`` of E: the residual rises, so its signs tell.

    Ball arithmetic of at least 50 digits: a sign that is not certain counts as a failure.
    """
    bad = []
    for i, (x, m, q) in enumerate(zip(E.tolist(), M.tolist(), e.tolist(), strict=True)):
        with ctx.workprec(220 + max(0, int(3 * np.log2(abs(m) + 1)))):
            margin = arb(ulps) * arb(float(np.spacing(abs(x))))
            below, above = residual(arb(x) - margin, arb(m), arb(q)), residual(arb(x) + margin, arb(m), arb(q))
            if not (below <= 0 and above >= 0):
                bad.append(i)
    return bad


def test_two_ulp_on_hard_ellipses(full, record_property):
    M, e = hard_ellipses(100_000 if full else 2100)
    record_property("cases", len(M))
    assert farther_than(ULPS, elliptic_residual, kepler.eccentric_anomaly(M, e), M, e) == []


def test_four_ulp_on_hard_hyperbolas(full, record_property):
    M, e = hard_hyperbolas(30_000 if full else 1500)
    record_property("cases", len(M))
    assert farther_than(4, hyperbolic_residual, kepler.hyperbolic_anomaly(M, e), M, e) == []


def test_mpmath_agrees_on_a_sample(full, record_property):
    M, e = hard_ellipses(700 if full else 70, seed=2)
    keep = np.abs(M) < 100
    M, e = M[keep], e[keep]
    record_property("cases", len(M))
    E = kepler.eccentric_anomaly(M, e)
    with mpmath.workdps(DIGITS):
        for x, m, q in zip(E.tolist(), M.tolist(), e.tolist(), strict=True):
            root = mpmath.mpf(x)
            for _ in range(6):
                root -= (root - q * mpmath.sin(root) - mpmath.mpf(m)) / (1 - q * mpmath.cos(root))
            assert abs(root - x) <= ULPS * np.spacing(abs(x)), (m, q)


def newton_from_mean(M, e):
    E = M.copy()
    for _ in range(10):
        E = E - (E - e * np.sin(E) - M) / (1 - e * np.cos(E))
    return E


def cancelling_residual(M, e):
    E = kepler.eccentric_anomaly(M, e)
    return E - (E - e * np.sin(E) - M) / (1 - e * np.cos(E))


WRONG = {
    "the mean anomaly": lambda M, e: M,
    "ten Newton steps from M": newton_from_mean,
    "a last step with a residual that cancels": cancelling_residual,
    "first order in e": lambda M, e: M + e * np.sin(M),
    "the starter alone": lambda M, e: equation._starter(M, e, 1 - e),
    "8 ulp off": lambda M, e: kepler.eccentric_anomaly(M, e) * (1 + 2.0**-49),
    "single precision": lambda M, e: kepler.eccentric_anomaly(M, e).astype(np.float32).astype(float),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_check_rejects_wrong_answers(wrong):
    rng = np.random.default_rng(3)
    M, e = 10 ** rng.uniform(-8, 0.49, 300), 1 - 10 ** rng.uniform(-14, -1, 300)
    assert len(farther_than(ULPS, elliptic_residual, wrong(M, e), M, e)) > 30


def test_the_starter_is_our_own_best_approximation():
    """SLOPE is the best line through alpha at E = pi, for e = 1, in the relative error that it causes in E."""
    nearly_one = np.nextafter(1.0, 0.0)

    def z_at(v):
        return kepler.eccentric_anomaly(np.pi - 2 * np.asarray(v, dtype=float), nearly_one) ** 2

    def alpha(z):
        return 3 * z / (1 / c3(z) - 6)

    def effect(v):
        z = z_at(v)
        return z / alpha(z) ** 2 / (6 + 3 * z / alpha(z))

    best = approx.minimax(lambda v: alpha(z_at(v)) - equation.ALPHA_AT_PI, (1,), (0.0, 1.55), weight=effect)
    assert abs(best.coefficients[0] - equation.SLOPE) < 1e-8
    assert best.error < 2e-4


def test_the_starter_is_good_enough_for_one_step():
    M, e = hard_ellipses(20_000, seed=5)
    M = np.abs(equation.reduce_angle(M))
    start, exact = equation._starter(M, e, 1 - e), kepler.eccentric_anomaly(M, e)
    assert np.max(np.abs(start[exact > 0] / exact[exact > 0] - 1)) < 4e-4


def test_two_pi_has_the_digits_it_claims():
    with mpmath.workdps(60):
        assert abs(sum(map(mpmath.mpf, equation.TWO_PI)) - 2 * mpmath.pi) < mpmath.mpf(2) ** -118
    for part in equation.TWO_PI[:2]:
        mantissa, _ = np.frexp(part)
        assert mantissa * 2**33 == int(mantissa * 2**33)


@pytest.mark.parametrize(
    "z", [0.0, 1e-30, 1e-8, 0.5, 3.0, 9.8, 9.9, 30.0, 200.0, -1e-8, -3.0, -9.8, -9.9, -50.0, -400.0]
)
def test_stumpff_functions_match_50_digits(z):
    with mpmath.workdps(DIGITS):
        terms = [mpmath.mpf(-z) ** k for k in range(120)]
        two = mpmath.fsum(t / mpmath.factorial(2 * k + 2) for k, t in enumerate(terms))
        three = mpmath.fsum(t / mpmath.factorial(2 * k + 3) for k, t in enumerate(terms))
    np.testing.assert_allclose(c2(np.array(float(z))), float(two), rtol=3e-15)
    np.testing.assert_allclose(c3(np.array(float(z))), float(three), rtol=3e-15)
    if 0 <= z < np.pi**2:
        np.testing.assert_allclose(np.ravel(series_of_both(np.array([z]))), [float(two), float(three)], rtol=1e-15)


def test_anomalies_are_odd_and_advance_by_whole_turns():
    M, e = hard_ellipses(700, seed=6)
    np.testing.assert_array_equal(kepler.eccentric_anomaly(-M, e), -kepler.eccentric_anomaly(M, e))
    H_M, H_e = hard_hyperbolas(300, seed=7)
    np.testing.assert_array_equal(kepler.hyperbolic_anomaly(-H_M, H_e), -kepler.hyperbolic_anomaly(H_M, H_e))
    m = np.linspace(-3, 3, 50)
    np.testing.assert_allclose(
        kepler.eccentric_anomaly(m + 2 * np.pi, 0.7) - 2 * np.pi, kepler.eccentric_anomaly(m, 0.7), atol=1e-14
    )


def test_the_circle_and_the_ends_are_exact():
    M = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(kepler.eccentric_anomaly(M, 0.0), M, rtol=2.3e-16)
    assert kepler.eccentric_anomaly(0.0, 0.99) == 0
    assert kepler.hyperbolic_anomaly(0.0, 2.0) == 0


def test_a_number_and_an_array_get_the_same_digits():
    M, e = hard_ellipses(3 * equation.FEW, seed=9)
    one_by_one = [float(kepler.eccentric_anomaly(m, q)) for m, q in zip(M, e, strict=True)]
    np.testing.assert_array_equal(kepler.eccentric_anomaly(M, e), one_by_one)


def test_shapes_broadcast_and_blocks_join():
    M, e = np.linspace(-3, 3, 5)[:, None], np.linspace(0, 0.9, 7)
    E = kepler.eccentric_anomaly(M, e)
    assert E.shape == (5, 7)
    assert E[2, 3] == kepler.eccentric_anomaly(M[2, 0], e[3])
    long_M, long_e = hard_ellipses(2 * equation.BLOCK + 17, seed=8)
    part = slice(equation.BLOCK - 5, equation.BLOCK + 5)
    np.testing.assert_array_equal(
        kepler.eccentric_anomaly(long_M, long_e)[part], kepler.eccentric_anomaly(long_M[part], long_e[part])
    )
    assert kepler.eccentric_anomaly(np.empty((0, 3)), 0.5).shape == (0, 3)


BAD = {
    "e below 0": (lambda: kepler.eccentric_anomaly(1.0, -0.1), r"\[0, 1\)"),
    "e = 1": (lambda: kepler.eccentric_anomaly(1.0, 1.0), r"\[0, 1\)"),
    "e is NaN": (lambda: kepler.eccentric_anomaly([1.0, 1.0], [0.5, np.nan]), r"\[0, 1\)"),
    "M is NaN": (lambda: kepler.eccentric_anomaly(np.nan, 0.5), "finite"),
    "M is infinite": (lambda: kepler.eccentric_anomaly(np.inf, 0.5), "finite"),
    "a hyperbola with e = 1": (lambda: kepler.hyperbolic_anomaly(1.0, 1.0), "above 1"),
}


@pytest.mark.parametrize(("call", "word"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call, word):
    with pytest.raises(ValueError, match=word):
        call()
