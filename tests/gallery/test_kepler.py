"""Two-body motion against 50 digits, numerical integration, conservation laws, and wrong answers."""

import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from spectrain.gallery import kepler

DIGITS = 50


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


def state_in_60_digits(r, v, t):
    """The state at time t, mu = 1, by the universal variable from the state itself: no periapsis, no 1 - e in it."""
    with mpmath.workdps(100):  # 60 digits remain where c(k, z) cancels
        r, v = ([mpmath.mpf(float(x)) for x in vector] for vector in (r, v))
        t, far = mpmath.mpf(t), mpmath.sqrt(mpmath.fdot(r, r))
        out, alpha = mpmath.fdot(r, v), 2 / far - mpmath.fdot(v, v)

        def c(k, z):
            if abs(z) < mpmath.mpf("1e-40"):
                return 1 / mpmath.factorial(k) - z / mpmath.factorial(k + 2)
            x = mpmath.sqrt(z)  # imaginary on a hyperbola
            return mpmath.re((1 - mpmath.cos(x)) / z if k == 2 else (x - mpmath.sin(x)) / x**3)

        def late(X):
            z = alpha * X * X
            return out * X * X * c(2, z) + (1 - alpha * far) * X**3 * c(3, z) + far * X - t

        low, high = mpmath.mpf(0), mpmath.sign(t) or mpmath.mpf(1)
        while late(high) * high < 0:
            high *= 2
        for _ in range(200):  # the time rises with X
            X = (low + high) / 2
            low, high = (X, high) if late(X) * high < 0 else (low, X)
        z = alpha * X * X
        f, g = 1 - X * X / far * c(2, z), t - X**3 * c(3, z)
        place = [f * a + g * b for a, b in zip(r, v, strict=True)]
        now = mpmath.sqrt(mpmath.fdot(place, place))
        df, dg = X / far / now * (z * c(3, z) - 1), 1 - X * X / now * c(2, z)
        return [float(x) for x in (*place, *(df * a + dg * b for a, b in zip(r, v, strict=True)))]


NEARLY_RADIAL = {
    f"{name}, across {across:g}": ([1.0, 0.0, 0.0], [along, across, 0.0])
    for name, along in {"at rest": 0.0, "outwards": 0.3, "inwards": -0.5, "parabolic": np.sqrt(2), "fast": 2.0}.items()
    for across in (1e-4, 1e-8, 1e-12)
} | {
    "at rest, across 1e-60": ([1.0, 0.0, 0.0], [0.0, 1e-60, 0.0]),
    "in space": ([1.0, 2.0, 3.0], [-0.1, -0.2, -0.3 + 1e-12]),
}
NEARLY_ANYTHING = {
    "nearly a circle": ([1.0, 0.0, 0.0], [1e-9, 1.0, 0.0]),
    "a circle but for a bit": ([1.0, 0.0, 0.0], [0.0, 1 + 1e-13, 0.0]),
    "a parabola but for a bit": ([1.0, 0.0, 0.0], [0.0, np.sqrt(2), 0.0]),
    "the same, oblique": ([1.0, 0.0, 0.0], [0.5, np.sqrt(1.75), 0.0]),
}
EXTREME = NEARLY_RADIAL | NEARLY_ANYTHING


def errors(position, velocity, r, v, t):
    """Of position and velocity, relative to the larger of the value and 1, the scale of these states."""
    true = np.array(state_in_60_digits(r, v, t)).reshape(2, 3)
    found = np.array([position, velocity])
    return np.abs(found - true).max(axis=1) / np.maximum(np.linalg.norm(true, axis=1), 1)


@pytest.mark.parametrize(("r", "v"), EXTREME.values(), ids=EXTREME)
def test_propagation_keeps_its_digits_on_extreme_orbits(r, v, full):
    for t in (0.0, 1e-9, 0.1, -0.1, 0.7, -0.9, 1.05, 1.2) if full else (0.0, 0.1, -0.9):
        assert np.all(errors(*kepler.propagate(r, v, t), r, v, t) < 1e-14), t


def in_floats(r, v, t):
    """The textbook way: 1 - e from a float e, the place from Kepler's equation of that e."""
    r, v = np.asarray(r), np.asarray(v)
    h = np.cross(r, v)
    axis = np.cross(v, h) - r / np.linalg.norm(r)
    e = np.linalg.norm(axis)
    P, Q = axis / e, np.cross(h / np.linalg.norm(h), axis / e)
    a = h @ h / (1 - e) / (1 + e)
    E = np.arctan2(r @ Q / np.sqrt(1 - e * e), r @ P + a * e)
    E = kepler.eccentric_anomaly(E - e * np.sin(E) + t / a**1.5, e)
    rate = np.sqrt(1 / a) / (1 - e * np.cos(E))
    place = a * (np.cos(E) - e) * P + a * np.sqrt(1 - e * e) * np.sin(E) * Q
    return place, rate * (-np.sin(E) * P + np.sqrt(1 - e * e) * np.cos(E) * Q)


WRONG = {
    "1 - e from floats": in_floats,
    "straight on": lambda r, v, t: (np.add(r, np.multiply(v, t)), np.asarray(v)),
    "an ulp more energy": lambda r, v, t: kepler.propagate(np.multiply(r, 1 + 1e-13), v, t),
    "the other way round": lambda r, v, t: kepler.propagate(r, v, -t),
    "single precision": lambda r, v, t: [x.astype(np.float32) for x in kepler.propagate(r, v, t)],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_motion(wrong):
    r, v = [1.0, 0.0, 0.0], [0.3, 1e-5, 0.0]
    assert np.any(errors(*wrong(r, v, 0.7), r, v, 0.7) > 1e-14)


def test_the_integrals_are_those_of_exact_arithmetic():
    """1 - e of an orbit at its far end, of speed k at distance 1, is k^2; a factor 2 in every unit changes nothing."""
    for k in (1e-3, 1e-8, 1e-20, 1e-70):
        o = kepler.orbit([1, 0, 0], [0, k, 0])
        np.testing.assert_allclose([o.gap, o.periapsis], [k * k, k * k / (2 - k * k)], rtol=1e-14)
        np.testing.assert_allclose(o.energy, k * k / 2 - 1, rtol=1e-15)
        assert o.kind == "ellipse"
    for scale in (1e-150, 1e-30, 1e40, 1e200):
        o = kepler.orbit([scale, 0, 0], [0, np.sqrt(1.5 / scale), 0])
        np.testing.assert_allclose([o.eccentricity, o.periapsis], [0.5, scale], rtol=1e-14)


BOUND = [
    ([1, 0, 0], [0, 1, 0]),
    ([1, 0.2, 0], [0.3, 0.9, 0.4]),
    ([1, 0, 0], [0, 1e-9, 0]),
    ([1, 0, 0], [1.4142135, 1e-4, 0]),
]


@pytest.mark.parametrize("mu", [1.0, 3.0, 1e-200])
@pytest.mark.parametrize(("r", "v"), BOUND, ids=str)
def test_semi_major_axis_and_period_are_those_of_50_digits(r, v, mu):
    v = np.array(v) * np.sqrt(mu)
    with mpmath.workdps(DIGITS):
        far, square = (mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(x)) ** 2 for x in a)) for a in (r, v))
        a = 1 / (2 / far - square**2 / mpmath.mpf(mu))
        truth = [float(a), float(2 * mpmath.pi * a * mpmath.sqrt(a / mpmath.mpf(mu)))]
        rough = [float(a), float(2 * mpmath.pi * a**2 / mpmath.sqrt(mpmath.mpf(mu)))]
    o = kepler.orbit(r, v, mu)
    np.testing.assert_allclose([o.semi_major_axis, o.period], truth, rtol=2e-15)
    assert truth[0] == pytest.approx(1) or not np.allclose(rough, truth, rtol=1e-3)  # the power matters


@pytest.mark.parametrize(("r", "v"), [STATE for STATE in BOUND if STATE[1][1] > 1e-6], ids=str)
def test_the_body_is_back_after_a_period_and_not_after_half_of_it(r, v):
    period = kepler.orbit(r, v).period
    position, _ = kepler.propagate(r, v, np.array([0.5, 1.0]) * period)
    np.testing.assert_allclose(position[1], r, rtol=0, atol=1e-13 + 2 * np.spacing(period) * np.linalg.norm(v))
    assert np.abs(position[0] - r).max() > 0.5


def test_what_never_comes_back_has_no_period():
    parabola, hyperbola = kepler.orbit([2, 0, 0], [0, 1, 0]), kepler.orbit([2, 0, 0], [0, 2, 0])
    assert (parabola.semi_major_axis, parabola.period) == (np.inf, np.inf)
    assert (hyperbola.semi_major_axis, hyperbola.period) == (pytest.approx(-1 / 3, rel=1e-15), np.inf)
    assert kepler.orbit([1e250, 0, 0], [0, 1e-125, 0]).period == np.inf  # 6e375


def test_thin_orbits_have_elements_and_come_back():
    elements = kepler.to_elements([1, 0, 0], [0.3, 1e-8, 0])
    assert 1e-17 < elements.gap < 1e-16
    position, velocity = kepler.to_state(elements)
    np.testing.assert_allclose(position, [1, 0, 0], atol=1e-7)  # the true anomaly has no more digits there
    np.testing.assert_allclose(np.cross(position, velocity), [0, 0, 1e-8], rtol=1e-7, atol=1e-15)


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
    found = kepler.to_elements(*kepler.to_state(elements, 3.0), 3.0)
    np.testing.assert_allclose(found[:6], elements[:6], rtol=1e-13)
    assert abs(found.gap - 0.7) < 1e-15


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
    "a periapsis of 0": (lambda: kepler.perifocal(1.0, 0.0, 0.5), "positive"),
    "a negative e": (lambda: kepler.perifocal(1.0, 1.0, -0.5), "at least 0"),
    "collinear": (lambda: kepler.orbit([1, 2, 3], [2, 4, 6]), "collinear"),
    "no velocity": (lambda: kepler.propagate([1, 0, 0], [0, 0, 0], 1.0), "zero"),
    "NaN in a state": (lambda: kepler.to_elements([1, 0, np.nan], [0, 1, 0]), "finite"),
    "two coordinates": (lambda: kepler.orbit([1, 0], [0, 1]), "3 numbers"),
    "a mu of 0": (lambda: kepler.orbit([1, 0, 0], [0, 1, 0], 0.0), "mu"),
    "a mu of NaN": (lambda: kepler.perifocal(1.0, 1.0, 0.5, np.nan), "mu"),
    "a negative mu": (lambda: kepler.to_state(kepler.Elements(1, 0, 0, 0, 0, 0), -1.0), "mu"),
    "NaN for the inclination": (lambda: kepler.to_state(kepler.Elements(1, 0, np.nan, 0, 0, 0)), "finite"),
    "a gap of another orbit": (lambda: kepler.to_state(kepler.Elements(1, 0.5, 0, 0, 0, 0, 0.2)), "gap"),
    "a distance of 0": (lambda: kepler.vis_viva(0.0, -0.5), "positive"),
    "a negative distance": (lambda: kepler.vis_viva(-1.0, -0.5), "positive"),
    "NaN for the energy": (lambda: kepler.vis_viva(1.0, np.nan), "finite"),
    "a mu of minus 1": (lambda: kepler.vis_viva(1.0, 1.0, -1.0), "mu"),
    "an orbit beyond all floats": (lambda: kepler.orbit([1e-300, 0, 0], [0, 1e300, 0]), "units"),
    "a time of NaN": (lambda: kepler.propagate([1, 0, 0], [0, 1, 0], np.nan), "finite"),
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
