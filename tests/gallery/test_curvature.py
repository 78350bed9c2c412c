"""Curvature, torsion and the way back, against closed forms, a second implementation, and wrong answers."""

from functools import reduce

import numpy as np
import pytest
from scipy.special import erf

from spectrain.gallery import _rigid_motions, curvature
from spectrain.gallery.curvature import (
    ZOO,
    bend,
    closure,
    complex_curvature,
    derivatives,
    reconstruct,
    reconstruct_frames,
    salkowski,
)

T = np.linspace(-1.5, 1.5, 13)


def helix(a, b):
    return lambda t: (a * np.cos(t), a * np.sin(t), b * t)


def ellipse(t):
    return 3 * np.cos(t), 2 * np.sin(t)


def cubic(t):
    return t, t**2, t**3


def cubic_curvature(t):
    return 2 * np.sqrt(9 * t**4 + 9 * t**2 + 1) / (9 * t**4 + 4 * t**2 + 1) ** 1.5


SPACE = {  # curve, curvature, torsion, in closed form
    "helix": (helix(3.0, 4.0), lambda t: 3 / 25 + 0 * t, lambda t: 4 / 25 + 0 * t),
    "left-handed helix": (helix(1.0, -0.5), lambda t: 0.8 + 0 * t, lambda t: -0.4 + 0 * t),
    "twisted cubic": (cubic, cubic_curvature, lambda t: 3 / (9 * t**4 + 9 * t**2 + 1)),
    "Salkowski": (
        lambda t: salkowski(0.4, t),
        lambda t: 1 + 0 * t,
        lambda t: -np.tan(0.4 / np.sqrt(1.16) * t),
    ),
    "circle in space": (
        lambda t: (np.cos(t), np.sin(t) * 0.6, np.sin(t) * 0.8),
        lambda t: 1 + 0 * t,
        lambda t: 0 * t,
    ),
}
PLANE = {
    "circle": (lambda t: (2 * np.cos(t), 2 * np.sin(t)), lambda t: 0.5 + 0 * t),
    "clockwise circle": (lambda t: (2 * np.cos(t), -2 * np.sin(t)), lambda t: -0.5 + 0 * t),
    "ellipse": (ellipse, lambda t: 6 / (9 * np.sin(t) ** 2 + 4 * np.cos(t) ** 2) ** 1.5),
    "parabola": (lambda t: (t, t**2), lambda t: 2 / (1 + 4 * t * t) ** 1.5),
    "logarithmic spiral": (
        lambda t: (np.exp(0.2 * t) * np.cos(t), np.exp(0.2 * t) * np.sin(t)),
        lambda t: np.exp(-0.2 * t) / np.sqrt(1.04),
    ),
    "catenary": (lambda t: (t, np.cosh(t)), lambda t: 1 / np.cosh(t) ** 2),
    "straight line": (lambda t: (2 * t, 1 - t), lambda t: 0 * t),
}


@pytest.mark.parametrize(("curve", "kappa", "tau"), SPACE.values(), ids=SPACE)
def test_space_curves_match_closed_forms(curve, kappa, tau):
    found = bend(curve, T)
    np.testing.assert_allclose(found.curvature, kappa(T), rtol=1e-9)
    np.testing.assert_allclose(found.torsion, tau(T), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.radius, 1 / kappa(T), rtol=1e-9)
    np.testing.assert_allclose(
        found.frame @ found.frame.swapaxes(-1, -2), np.broadcast_to(np.eye(3), (13, 3, 3)), atol=1e-12
    )


@pytest.mark.parametrize(("curve", "kappa"), PLANE.values(), ids=PLANE)
def test_plane_curves_match_closed_forms_and_the_complex_derivation(curve, kappa):
    np.testing.assert_allclose(bend(curve, T).curvature, kappa(T), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(complex_curvature(curve, T), kappa(T), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(bend(curve, T).torsion, 0, atol=0)


def no_speed(curve, t):
    d = derivatives(curve, t)
    return np.linalg.norm(d[2], axis=0)


def second_order(curve, t):
    h = 1e-4
    f = lambda s: np.stack(np.broadcast_arrays(*curve(s)))  # noqa: E731
    first, second = (f(t + h) - f(t - h)) / (2 * h), (f(t + h) - 2 * f(t) + f(t - h)) / h**2
    return (first[0] * second[1] - first[1] * second[0]) / np.linalg.norm(first, axis=0) ** 3


WRONG = {
    "length of the second derivative": no_speed,
    "no sign": lambda c, t: np.abs(bend(c, t).curvature),
    "the radius": lambda c, t: bend(c, t).radius,
    "differences of second order": second_order,
    "speed squared": lambda c, t: bend(c, t).curvature * np.linalg.norm(derivatives(c, t)[1], axis=0),
    "turned the wrong way": lambda c, t: -bend(c, t).curvature,
    "one place further": lambda c, t: bend(c, t + 1e-6).curvature,
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_answers(wrong):
    fits = [np.all(np.abs(wrong(c, T) - k(T)) <= 1e-9 * np.abs(k(T)) + 1e-11) for c, k in PLANE.values()]
    assert not all(fits)


def test_curvature_does_not_depend_on_the_parameter_or_on_motions():
    R, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    R *= np.sign(np.linalg.det(R))
    s = np.linspace(0.2, 1.0, 9)
    slow = bend(cubic, s**2)
    fast = bend(
        lambda u: np.einsum("ij,j...->i...", R, np.stack(cubic(u**2))) + np.ones((3, *([1] * u.ndim))), s, scale=0.3
    )
    np.testing.assert_allclose(fast.curvature, slow.curvature, rtol=1e-8)
    np.testing.assert_allclose(fast.torsion, slow.torsion, rtol=1e-6)


def test_mirror_images_have_the_opposite_torsion():
    mirror = bend(lambda t: (t, t**2, -(t**3)), T)
    np.testing.assert_allclose(mirror.torsion, -bend(cubic, T).torsion, rtol=1e-7, atol=1e-8)


def test_samples_give_the_same_as_functions():
    t = np.linspace(0, 3, 200)
    found = bend(np.stack(helix(3.0, 4.0)(t), axis=1), t)
    np.testing.assert_allclose(found.curvature[5:-5], 3 / 25, rtol=1e-9)
    np.testing.assert_allclose(found.torsion[5:-5], 4 / 25, rtol=1e-6)


def test_a_straight_line_in_space_has_no_torsion_and_no_normal():
    found = bend(lambda t: (t, 2 * t, 3 * t), T)
    np.testing.assert_allclose(found.curvature, 0, atol=1e-10)
    assert np.isnan(found.torsion).all()
    assert np.isnan(found.frame[:, 1:]).all()
    np.testing.assert_allclose(found.frame[:, 0], np.broadcast_to(np.array([1, 2, 3]) / np.sqrt(14), (13, 3)))
    samples = bend(np.outer(np.arange(20.0), [1, 2, 3]), np.arange(20.0))
    assert np.isnan(samples.torsion).all()


def test_an_inflection_has_no_torsion_and_its_neighbour_has():
    found = bend(lambda t: (t, t**3, t**4), [0.0, 0.5])
    r1, r2, r3 = np.array([1, 0.75, 0.5]), np.array([0, 3, 3]), np.array([0, 6, 12])
    cross = np.cross(r1, r2)
    assert np.isnan(found.torsion[0])
    np.testing.assert_allclose(found.torsion[1], cross @ r3 / (cross @ cross), rtol=1e-8)


def test_a_number_is_a_parameter_too():
    found = bend(helix(3.0, 4.0), 0.5)
    assert found.curvature.shape == found.torsion.shape == ()
    assert found.frame.shape == (3, 3)
    np.testing.assert_allclose([found.curvature, found.torsion], [0.12, 0.16], rtol=1e-8)
    assert bend(helix(3.0, 4.0), np.zeros((2, 3))).frame.shape == (2, 3, 3, 3)


def test_fast_and_slow_parameters_are_no_cusps():
    t = np.array([0.0, 0.1])
    steep = bend(lambda t: (np.exp(40 * t), t), t).curvature
    x1, x2 = 40 * np.exp(40 * t), 1600 * np.exp(40 * t)
    np.testing.assert_allclose(steep, -x2 / (x1 * x1 + 1) ** 1.5, rtol=1e-7)
    np.testing.assert_allclose(bend(lambda t: (t**3, t**4), [1e-3]).curvature, 4e-3 / 9e-9 / (1 + 16e-6 / 9) ** 1.5)


@pytest.mark.parametrize("kappa", [0.01, 0.37, 1.0, 50.0])
def test_in_the_plane_constant_curvature_closes_to_a_circle(kappa):
    assert closure(kappa) < 1e-12
    assert closure(kappa, turns=10) < 1e-12


@pytest.mark.parametrize(("kappa", "tau"), [(1.0, 0.4), (0.3, -2.0), (2.0, 1e-3)])
def test_in_space_constant_torsion_gives_the_helix(kappa, tau):
    s = np.linspace(0, 40, 300)
    a, b = kappa / (kappa**2 + tau**2), tau / (kappa**2 + tau**2)
    w = np.hypot(kappa, tau)
    # The helix (a cos, a sin, b) * (w s), turned so that it starts along the first axis, its normal along the second.
    points = np.stack([a * np.cos(w * s) - a, a * np.sin(w * s), b * w * s], axis=1)
    tangent, normal = np.array([0, a * w, b * w]), np.array([-1.0, 0, 0])
    frame = np.stack([tangent, normal, np.cross(tangent, normal)])
    np.testing.assert_allclose(reconstruct(kappa, tau, s), points @ frame.T, atol=2e-12 * 40)


def test_salkowski_curves_come_back_from_their_torsion():
    t, m = np.linspace(-2, 2, 41), 0.4
    s = np.sin(m / np.sqrt(1 + m * m) * t) / m
    points, frames = reconstruct_frames(1.0, lambda s: -m * s / np.sqrt(1 - (m * s) ** 2), s)
    true = salkowski(m, t).T
    start = bend(lambda t: salkowski(m, t), t).frame
    np.testing.assert_allclose(points, (true - true[0]) @ start[0].T, atol=1e-11)
    np.testing.assert_allclose(frames, start @ start[0].T, atol=1e-9)


def test_clothoids_come_back_from_their_curvature():
    """Curvature s: the point is the integral of exp(i s^2/2), Fresnel's integrals."""
    from scipy.special import fresnel

    s = np.linspace(0, 6, 61)
    S, C = fresnel(s / np.sqrt(np.pi))
    points = reconstruct(lambda s: s, 0.0, s)
    np.testing.assert_allclose(points[:, :2], np.sqrt(np.pi) * np.stack([C, S], axis=1), atol=1e-11)
    np.testing.assert_allclose(points[:, 2], 0, atol=1e-15)


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_has_constant_curvature_and_its_torsion(name):
    s = np.linspace(0, 12, 600)
    points, frames = reconstruct_frames(1.0, ZOO[name], s)
    found, inner = bend(points, s), slice(20, -20)
    torsion = ZOO[name](s) if callable(ZOO[name]) else np.full_like(s, ZOO[name])
    np.testing.assert_allclose(found.curvature[inner], 1.0, rtol=1e-8)
    np.testing.assert_allclose(found.torsion[inner], torsion[inner], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(frames @ frames.transpose(0, 2, 1), np.broadcast_to(np.eye(3), frames.shape), atol=1e-13)


@pytest.mark.parametrize("width", [1e-1, 1e-2, 1e-3, 3e-4, 1e-4])
@pytest.mark.parametrize("at", [0.5012, 0.70711])
def test_a_narrow_bend_is_not_missed(width, at):
    """A bump of curvature that turns the direction by erf of its place: a right angle, if it is far from the ends."""

    def bump(s):
        return np.pi / 2 * np.exp(-(((s - at) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))

    _, frames = reconstruct_frames(bump, 0.0, [0.0, 1.0])
    turn = np.pi / 4 * (erf((1 - at) / width / np.sqrt(2)) + erf(at / width / np.sqrt(2)))
    np.testing.assert_allclose(frames[-1, 0], [np.cos(turn), np.sin(turn), 0], atol=1e-11)


def test_the_narrowest_bend_may_be_named():
    def bump(s):
        return np.where(np.abs(s - 0.3141) < 1e-6, 1e6, 0.0)

    straight = reconstruct(bump, 0.0, [0.3, 0.4])[-1]
    assert abs(straight[0] - 0.1) < 1e-14  # between the first steps: what finest= is for
    _, frames = reconstruct_frames(bump, 0.0, [0.3, 0.4], finest=2e-6, tol=1e-9)
    np.testing.assert_allclose(frames[-1, 0], [np.cos(2), np.sin(2), 0], atol=1e-9)


@pytest.mark.parametrize("place", [0.0, 0.01, 0.05, 0.11, 0.2, 0.5, 0.77, 0.95, 0.999, 1.0])
def test_a_jump_of_curvature_is_a_line_and_an_arc(place):
    """Wherever it lies in one of the first 1024 steps: also next to the step's end, outside of all nodes."""
    at = (300 + place) / 1024
    turn = 5 * (1 - at)
    end = reconstruct(lambda s: np.where(s < at, 0.0, 5.0), 0.0, [0.0, 1.0])[-1]
    np.testing.assert_allclose(end, [at + np.sin(turn) / 5, (1 - np.cos(turn)) / 5, 0], atol=1e-12)


def test_the_integrator_has_order_six():
    s = np.linspace(0, 6, 7)
    exact = reconstruct(1.0, np.cos, s, tol=1e-13)[-1]

    def end(n):
        start = np.arange(6 * n) / n
        motions = _rigid_motions._screw(_rigid_motions._magnus(1.0, np.cos, start, np.full(6 * n, 1 / n)))
        return reduce(np.matmul, motions)[:3, 3]

    errors = [np.abs(end(n) - exact).max() for n in (2, 4, 8)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(orders > 5.5)


def noise(s):
    return np.random.default_rng(0).normal(size=s.shape)


def sampled(curve, count):
    t = np.linspace(-1, 1, count)
    return np.stack(curve(t), axis=1), t


BAD = {
    "a cusp": (lambda: bend(lambda t: (t**2, t**3), [0.0]), "cusp"),
    "a cusp of the cycloid": (lambda: bend(lambda t: (t - np.sin(t), 1 - np.cos(t)), [1.0, 2 * np.pi]), "cusp"),
    "a complex cusp": (lambda: complex_curvature(lambda t: (t**2, t**3), [0.0]), "cusp"),
    "a constant curve": (lambda: bend(lambda t: (1 + 0 * t, 2 + 0 * t), [0.0]), "cusp"),
    "four coordinates": (lambda: bend(lambda t: (t, t, t, t), [0.0]), "coordinates"),
    "NaN around t": (lambda: bend(lambda t: (np.where(t < 0, np.nan, t), t), [0.1]), "finite"),
    "samples of the wrong shape": (lambda: bend(np.zeros((20, 4)), np.arange(20.0)), "shape"),
    "samples with NaN": (lambda: bend(np.full((20, 2), np.nan), np.arange(20.0)), "finite"),
    "arc length that falls": (lambda: reconstruct(1.0, 0.0, [1.0, 0.0]), "rising"),
    "an infinite rate": (lambda: reconstruct(1.0, np.inf, [0.0, 1.0]), "finite"),
    "noise for curvature": (lambda: reconstruct(noise, 0.0, [0.0, 1.0]), "smooth"),
    "a curvature that is not integrable": (lambda: reconstruct(lambda s: 1 / (s + 1e-300), 0.0, [0, 1]), "integrable"),
    "a tolerance below rounding": (lambda: reconstruct(1.0, 0.0, [0.0, 1.0], tol=1e-17), "rounding"),
    "a finest length of 0": (lambda: reconstruct(1.0, 0.0, [0.0, 1.0], finest=0.0), "finest"),
    "too many steps": (lambda: reconstruct(np.cos, 0.0, [0.0, 1.0], finest=1e-9), "too many"),
    "a cusp of higher order": (lambda: bend(lambda t: (t**3, t**4), [0.0]), "cusp"),
    "a cusp of order seven": (lambda: bend(lambda t: (t**7, t**8), [1.0, 0.0]), "cusp"),
    "a complex cusp of higher order": (lambda: complex_curvature(lambda t: (t**3, t**4), [0.0]), "cusp"),
    "a cusp between samples": (lambda: bend(*sampled(lambda t: (t**2, t**3), 40)), "cusp"),
    "a cusp of the cycloid between samples": (
        lambda: bend(*sampled(lambda t: (5 * t - np.sin(5 * t + np.pi), -np.cos(5 * t + np.pi)), 200)),
        "cusp",
    ),
    "a corner": (lambda: bend(lambda t: (t, np.abs(t)), [1.0, 0.0]), "t = 0 .*corner"),
    "near a corner": (lambda: bend(lambda t: (t, np.abs(t)), [1e-3]), "corner"),
    "a jump of curvature": (lambda: bend(lambda t: (t, t * np.abs(t)), [0.0]), "jump"),
    "a corner in samples": (lambda: bend(*sampled(lambda t: (t, np.abs(t)), 41)), "corner"),
    "a corner between samples": (lambda: bend(*sampled(lambda t: (t, np.abs(t)), 40)), "corner"),
    "noise in samples": (lambda: bend(*sampled(lambda t: (t, 1e-3 * noise(t)), 40)), "corner|cusp"),
    "a scale of 0": (lambda: bend(lambda t: (t, t), [0.0], scale=0.0), "scale"),
    "no curvature": (lambda: closure(0.0), "positive"),
    "nothing to draw": (lambda: curvature.Show(length=-1.0)(), "length"),
}


@pytest.mark.parametrize(("call", "word"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_the_picture_is_a_space_curve():
    text, picture = curvature.Show("wave", 20.0)()
    assert picture.spatial
    assert "differs from 1" in text
