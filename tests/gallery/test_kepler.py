"""Two-body motion against 50 digits, numerical integration, conservation laws, and wrong answers."""

import mpmath
import numpy as np
import pytest
from flint import arb, ctx
from scipy.integrate import solve_ivp

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


def test_two_ulp_on_hard_ellipses(full):
    M, e = hard_ellipses(100_000 if full else 2100)
    assert farther_than(ULPS, elliptic_residual, kepler.eccentric_anomaly(M, e), M, e) == []


def test_four_ulp_on_hard_hyperbolas(full):
    M, e = hard_hyperbolas(30_000 if full else 1500)
    assert farther_than(4, hyperbolic_residual, kepler.hyperbolic_anomaly(M, e), M, e) == []


def test_mpmath_agrees_on_a_sample(full):
    M, e = hard_ellipses(700 if full else 70, seed=2)
    keep = np.abs(M) < 100
    M, e = M[keep], e[keep]
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
    "the starter alone": lambda M, e: equation._starter(M, e),
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
    start, exact = equation._starter(M, e), kepler.eccentric_anomaly(M, e)
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
    if abs(z) < np.pi**2:
        np.testing.assert_allclose(series_of_both(np.array([z])).ravel(), [float(two), float(three)], rtol=2e-15)


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


def place_in_50_digits(t, e):
    """Distance and anomaly at time t after a periapsis of distance 1, mu = 1, by the universal equation in mpmath."""
    with mpmath.workdps(DIGITS):
        t, e = mpmath.mpf(t), mpmath.mpf(e)

        def c(k, z):
            return mpmath.nsum(lambda n: (-z) ** int(n) / mpmath.factorial(2 * int(n) + k), [0, 60], method="d")

        w = 2 * mpmath.sqrt(2) * mpmath.sinh(mpmath.asinh(3 * t / (2 * mpmath.sqrt(2))) / 3)
        for _ in range(12):
            z = (1 - e) * w * w
            w -= (w + e * w**3 * c(3, z) - t) / (1 + e * w**2 * c(2, z))
        z = (1 - e) * w * w
        x, y = 1 - w * w * c(2, z), mpmath.sqrt(1 + e) * w * (1 - z * c(3, z))
        return float(mpmath.hypot(x, y)), float(mpmath.atan2(y, x))


NEAR_PARABOLIC = [1.0, 1 - 2.0**-53, 1 + 2.0**-52, 1 - 1e-12, 1 + 1e-12, 1 - 1e-7, 1 + 1e-7, 0.999, 1.001, 0.967]


@pytest.mark.parametrize("e", NEAR_PARABOLIC)
@pytest.mark.parametrize("t", [1e-8, 0.3, 4.0, 20.0])
def test_near_parabolic_motion_matches_50_digits(e, t):
    r, theta = kepler.perifocal(t, 1.0, e)
    true_r, true_theta = place_in_50_digits(t, e)
    np.testing.assert_allclose(r, true_r, rtol=2e-15)
    np.testing.assert_allclose(theta, true_theta, rtol=2e-15)


def test_barkers_equation_in_closed_form():
    theta = np.linspace(-3, 3, 41)
    D = np.tan(theta / 2)
    t = np.sqrt(2) * (D + D**3 / 3)
    r, found = kepler.perifocal(t, 1.0, 1.0)
    np.testing.assert_allclose(found, theta, rtol=2e-15, atol=1e-16)
    np.testing.assert_allclose(r, 1 + D * D, rtol=2e-14)


STATES = {
    "circle": ([1, 0, 0], [0, 1, 0]),
    "ellipse, inclined": ([1, 0.2, 0], [0.3, 0.9, 0.4]),
    "retrograde": ([0, 1.5, 0.1], [0.8, 0.1, 0]),
    "nearly parabolic": ([1, 0, 0], [0, np.sqrt(2) * (1 - 1e-10), 0]),
    "parabola": ([2, 0, 0], [0, 1, 0]),
    "hyperbola": ([0.2, 1, 0.3], [-1.5, 1.1, 0.7]),
    "thin ellipse": ([1, 0, 0], [0.1, 0.25, 0]),
}


@pytest.mark.parametrize(("r", "v"), STATES.values(), ids=STATES)
def test_propagation_matches_numerical_integration(r, v):
    def rule(t, y):
        return np.r_[y[3:], -y[:3] / np.linalg.norm(y[:3]) ** 3]

    t = np.linspace(0, 8, 9)
    run = solve_ivp(rule, (0, 8), np.r_[r, v].astype(float), t_eval=t, method="DOP853", rtol=3e-14, atol=1e-15)
    position, velocity = kepler.propagate(r, v, t)
    np.testing.assert_allclose(np.concatenate([position, velocity], axis=1), run.y.T, rtol=0, atol=2e-9)


@pytest.mark.parametrize(("r", "v"), STATES.values(), ids=STATES)
def test_integrals_are_kept_and_time_can_be_reversed(r, v):
    t = np.array([0.0, -3.0, 0.5, 40.0])
    position, velocity = kepler.propagate(r, v, t)
    before = kepler.orbit(r, v)
    for x, u in zip(position, velocity, strict=True):
        after = kepler.orbit(x, u)
        np.testing.assert_allclose(after.energy, before.energy, atol=2e-13)
        np.testing.assert_allclose(after.angular_momentum, before.angular_momentum, atol=2e-13)
        speed = kepler.vis_viva(np.linalg.norm(x), before.energy)
        np.testing.assert_allclose(np.linalg.norm(u), speed, rtol=1e-12)
    back, _ = kepler.propagate(position[2], velocity[2], -0.5)
    np.testing.assert_allclose(back, r, atol=1e-13)


@pytest.mark.parametrize(("r", "v"), STATES.values(), ids=STATES)
def test_elements_and_states_are_inverse(r, v):
    position, velocity = kepler.to_state(kepler.to_elements(r, v))
    np.testing.assert_allclose(position, r, atol=1e-14)
    np.testing.assert_allclose(velocity, v, atol=1e-14)


def test_elements_of_a_known_orbit():
    elements = kepler.Elements(0.7, 0.3, 0.4, 1.1, 2.2, 0.6)
    np.testing.assert_allclose(kepler.to_elements(*kepler.to_state(elements, 3.0), 3.0), elements, rtol=1e-13)


def test_halley_comes_back_after_75_years():
    """Halley in 1986: q = 0.5871 au, e = 0.96727; with mu = 4 pi^2 au^3/year^2 the period is a^(3/2) = 75.9 years."""
    q, e, mu = 0.5871, 0.96727, 4 * np.pi**2
    period = (q / (1 - e)) ** 1.5
    assert 75 < period < 77
    r, theta = kepler.perifocal([0.0, period / 2, period, 76 - period], q, e, mu)
    np.testing.assert_allclose(r[:3], [q, q * (1 + e) / (1 - e), q], rtol=1e-9)
    assert abs(abs(theta[1]) - np.pi) < 1e-7
    assert r[3] > q


def test_equal_areas_in_equal_times():
    t = np.linspace(0, 5, 20_001)
    position, _ = kepler.propagate([1, 0, 0], [0, 1.2, 0], t)
    swept = 0.5 * np.cross(position[:-1], position[1:])[:, 2].reshape(10, -1).sum(axis=1)
    np.testing.assert_allclose(swept, 0.5 * 1.2 * 0.5, rtol=1e-6)


def test_the_conic_is_decided_by_the_energy():
    assert kepler.orbit([2, 0, 0], [0, 1, 0]).kind == "parabola"
    assert kepler.orbit([1, 0, 0], [0, 1.41, 0]).kind == "ellipse"
    assert kepler.orbit([1, 0, 0], [0, 1.42, 0]).kind == "hyperbola"


BAD = {
    "e below 0": (lambda: kepler.eccentric_anomaly(1.0, -0.1), r"\[0, 1\)"),
    "e = 1": (lambda: kepler.eccentric_anomaly(1.0, 1.0), r"\[0, 1\)"),
    "e is NaN": (lambda: kepler.eccentric_anomaly([1.0, 1.0], [0.5, np.nan]), r"\[0, 1\)"),
    "M is NaN": (lambda: kepler.eccentric_anomaly(np.nan, 0.5), "finite"),
    "M is infinite": (lambda: kepler.eccentric_anomaly(np.inf, 0.5), "finite"),
    "a hyperbola with e = 1": (lambda: kepler.hyperbolic_anomaly(1.0, 1.0), "above 1"),
    "a periapsis of 0": (lambda: kepler.perifocal(1.0, 0.0, 0.5), "positive"),
    "a negative e": (lambda: kepler.perifocal(1.0, 1.0, -0.5), "at least 0"),
    "collinear": (lambda: kepler.orbit([1, 2, 3], [2, 4, 6]), "collinear"),
    "no velocity": (lambda: kepler.propagate([1, 0, 0], [0, 0, 0], 1.0), "zero"),
    "NaN in a state": (lambda: kepler.to_elements([1, 0, np.nan], [0, 1, 0]), "finite"),
    "two coordinates": (lambda: kepler.orbit([1, 0], [0, 1]), "3 numbers"),
    "out of reach": (lambda: kepler.vis_viva(3.0, -0.5), "reaches"),
    "beyond the asymptote": (lambda: kepler.to_state(kepler.Elements(1.0, 2.0, 0, 0, 0, 2.5)), "cos"),
    "a turn in one part": (lambda: kepler.Show(parts=1)(), "parts"),
}


@pytest.mark.parametrize(("call", "word"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_the_picture_has_equal_areas_and_moves():
    text, picture = kepler.Show(0.8)()
    low, high = (float(word) for word in text.split() if word.replace(".", "").isdigit() and float(word) < 0.5)
    assert high - low < 1e-6
    assert len(picture.frames) > 100
