"""sign_schedule: the published figures, optimality by brute force, and what is refused."""

import itertools

import numpy as np
import pytest

from spectrain.approx import Polynomial, Schedule, sign_schedule
from spectrain.approx.curves import step_curves

# Article 10996 (kexue.fm/archives/10996), table before the division by 1.01; its code gives more digits in article
# 11158. One widely copied row prints +1.268; it is negative.
POLAR_EXPRESS = [
    (8.287212018145622, -23.59588651909882, 17.300387312530923),
    (4.107059111542197, -2.9478499167379084, 0.54484310829266),
    (3.9486908534822938, -2.908902115962947, 0.5518191394370131),
    (3.3184196573706055, -2.488488024314878, 0.5100489401237208),
    (2.3006520199548186, -1.6689039845747518, 0.4188073119525678),
    (1.8913014077874002, -1.2679958271945908, 0.37680408948524996),
    (1.875, -1.25, 0.375),
    (1.875, -1.25, 0.375),
]
CUSHION = 0.02407327424182761

# Worst |p - 1| on [1e-3, 1] after T steps of one degree, from an independent solver.
EXACT = {
    3: [0.9948, 0.9866, 0.9657, 0.9140, 0.7956, 0.5681, 0.2651, 0.0537, 2.17e-3],
    5: [0.9915, 0.9646, 0.8598, 0.5459, 0.1134, 9.2e-4],
    7: [0.9882, 0.9327, 0.6730, 0.1372, 1.95e-4],
    9: [0.9849, 0.8922, 0.4496, 9.8e-3],
}


def worst(schedule, low, high=1.0):
    x = np.concatenate([np.geomspace(low, high, 100_001), np.linspace(low, high, 100_001)])
    return np.abs(schedule(x) - 1).max()


def test_the_published_first_quintic():
    schedule = sign_schedule(1e-3, steps=1)
    np.testing.assert_allclose(schedule.polynomials[0].coefficients, (8.4703, -25.1081, 18.6293), atol=5e-5)
    assert schedule.error == pytest.approx(0.9915, abs=5e-5)


def test_the_published_table_with_cushion():
    schedule = sign_schedule(1e-3, steps=8, cushion=CUSHION)
    ours = [p.coefficients for p in schedule.polynomials]
    # The published solver stops at the limit polynomial, within 1e-4, from the seventh step on.
    np.testing.assert_allclose(ours, POLAR_EXPRESS, rtol=2e-6)


def test_the_published_safety_divides_every_step_but_the_last():
    schedule = sign_schedule(1e-3, steps=8, cushion=CUSHION, margin=1.01)
    for t, (p, published) in enumerate(zip(schedule.polynomials, POLAR_EXPRESS, strict=True)):
        factor = 1.01 if t < 7 else 1.0
        expected = [c / factor**n for n, c in zip((1, 3, 5), published, strict=True)]
        np.testing.assert_allclose(p.coefficients, expected, rtol=2e-6)


@pytest.mark.parametrize("degree", EXACT)
def test_errors_of_one_degree_agree_with_the_published_ones(degree):
    for steps, error in enumerate(EXACT[degree], start=1):
        digits = 0.02 if error < 0.01 else 1e-3
        assert sign_schedule(1e-3, steps=steps, degree=degree).error == pytest.approx(error, rel=digits)


@pytest.mark.parametrize("lower", [1e-4, 1e-3, 1e-2, 0.2])
@pytest.mark.parametrize("degree", [3, 5, 7, 9])
def test_the_certified_error_is_the_error_on_a_dense_grid(lower, degree):
    schedule = sign_schedule(lower, steps=3, degree=degree)
    assert worst(schedule, lower) <= schedule.error * (1 + 1e-12) + 1e-15
    assert worst(schedule, lower) >= schedule.error * (1 - 1e-6) - 1e-14


@pytest.mark.parametrize(("products", "error"), [(12, 0.4496), (14, 0.154), (15, 0.0578), (16, 0.00985), (18, 4.3e-5)])
def test_the_best_mix_for_a_number_of_products(products, error):
    assert sign_schedule(1e-3, products=products).error == pytest.approx(error, rel=6e-3)


@pytest.mark.parametrize(("products", "error"), [(9, 0.118), (10, 0.0098), (11, 1.7e-4), (12, 1.4e-7)])
def test_the_best_mix_with_symmetric_products_at_half_price(products, error):
    schedule = sign_schedule(1e-3, products=products, symmetric=True)
    assert schedule.error == pytest.approx(error, rel=0.05)
    assert schedule.products <= products


@pytest.mark.parametrize("products", [8, 10])
@pytest.mark.parametrize("lower", [1e-2, 0.3])
def test_no_mix_found_by_brute_force_is_better(products, lower, full):
    products += 3 if full else 0
    price = {3: 2, 5: 3, 9: 4, 13: 5}
    mixes = (m for n in range(1, 6) for m in itertools.product(price, repeat=n) if sum(price[d] for d in m) <= products)
    best = min(sign_schedule(lower, degree=m).error for m in mixes)
    assert sign_schedule(lower, products=products).error <= best + 4e-16


def test_a_tolerance_takes_the_fewest_steps():
    schedule = sign_schedule(1e-3, tol=1e-3)
    assert schedule.error <= 1e-3 < sign_schedule(1e-3, steps=len(schedule) - 1).error


@pytest.mark.parametrize("lower", [1e-10, 1e-16, 1e-30])
@pytest.mark.parametrize("degree", [5, 9, 13])
def test_the_upper_end_does_not_run_away(lower, degree):
    """A quintic takes what rounding leaves above its interval 13 times further away: after 12 steps, anywhere."""
    schedule = sign_schedule(lower, degree=degree, tol=1e-10)
    assert schedule.error <= 1e-10
    assert worst(schedule, lower) <= schedule.error + 1e-12


@pytest.mark.parametrize(("arguments", "error"), [
    ({"lower": 0.5, "degree": 21, "steps": 3}, 0.0), ({"lower": 0.89, "degree": 21, "steps": 1}, 0.0),
    ({"lower": 0.89, "degree": 31, "steps": 1}, 0.0), ({"lower": 1e-4, "degree": 41, "steps": 1}, 0.9931187),
])  # fmt: skip
def test_high_degrees(arguments, error):
    """The last error is 1 - 1e-4 times the limit of the slope; by a linear program 0.993119."""
    assert sign_schedule(**arguments).error == pytest.approx(error, abs=2e-8 if error else 1e-14)


@pytest.mark.parametrize("margin", [1.0, 1.001, 1.02, 1.05])
def test_a_tolerance_holds_with_a_margin(margin):
    """Counted without the margin, the steps end at 8e-3 and 3e-2 for the last two."""
    assert sign_schedule(1e-3, tol=1e-3, margin=margin).error <= 1e-3


def test_every_step_equioscillates_on_its_interval():
    for curve in step_curves(sign_schedule(1e-3, steps=4)):
        heights = np.array(curve.heights)
        assert len(heights) == 4
        np.testing.assert_allclose(np.abs(heights), np.abs(heights[0]), rtol=1e-6)
        assert (np.sign(heights[1:]) == -np.sign(heights[:-1])).all()


WRONG = {
    "Newton-Schulz": Polynomial.odd(15 / 8, -10 / 8, 3 / 8),
    "Jordan": Polynomial.odd(3.4445, -4.7750, 2.0315),
    "a slip of sign": Polynomial.odd(8.4703, 25.1081, 18.6293),
    "rounded": Polynomial.odd(8.4, -25.0, 18.6),
}


@pytest.mark.parametrize("p", WRONG.values(), ids=WRONG)
def test_no_other_step_comes_near(p):
    assert worst(p, 1e-3) > sign_schedule(1e-3, steps=1).error + 1e-3


def test_json_keeps_every_bit():
    schedule = sign_schedule(1e-3, steps=5, cushion=CUSHION)
    assert Schedule.from_json(schedule.to_json()) == schedule
    with pytest.raises(ValueError, match="not a schedule"):
        Schedule.from_json('{"steps": 3}')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lower": 0.0}, "0 < lower"),
        ({"lower": 1.0, "upper": 0.5}, "0 < lower"),
        ({"lower": 0.5, "upper": 0.5}, "0 < lower"),
        ({"lower": float("nan")}, "0 < lower"),
        ({"lower": 0.1, "upper": float("inf")}, "0 < lower"),
        ({"lower": 0.1, "steps": 3, "tol": 0.1}, "give one of"),
        ({"lower": 0.1, "steps": 0}, "steps must be"),
        ({"lower": 0.1, "tol": 1e-20}, "tol must be"),
        ({"lower": 0.1, "degree": 4}, "degree must be odd"),
        ({"lower": 0.1, "degree": (5, 6)}, "degree must be odd"),
        ({"lower": 0.1, "degree": (5, 5), "steps": 3}, "disagrees"),
        ({"lower": 0.1, "products": 1}, "cheapest step"),
        ({"lower": 0.1, "aspect": 0.5}, "aspect"),
        ({"lower": 0.1, "dtype": "int8"}, "dtype must be"),
    ],
)
def test_bad_requests_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        sign_schedule(**arguments)
