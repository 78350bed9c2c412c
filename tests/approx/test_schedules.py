"""Recipes, roots, clip and step, code and enclosures."""

import math

import mpmath
import numpy as np
import pytest
import torch

from spectrain.approx import as_code, clip_schedule, enclose, root_schedule, sign_schedule, step_schedule
from spectrain.approx.recipes import RECIPES, certify, certify_root

# Errors on [l, 1] published with the recipes or computed elsewhere, two or three digits.
KNOWN = {
    "jordan": {1e-3: 0.529, 1e-2: 0.318},
    "you": {1e-3: 0.525, 3e-3: 0.145, 1e-2: 0.032},
    "cans": {1e-3: 0.120},
    "polar-express-5": {1e-3: 0.124},
    "polar-express-5/1.01-all": {1e-3: 0.154, 1e-1: 0.130},
    "polar-express-5/1.05": {1e-3: 0.271, 1e-2: 0.154},
    "polar-express-5-safer": {1e-3: 0.153, 1e-2: 0.141},
    "polar-express-8/1.01-all": {1e-3: 2.4e-6},
    "deepseek-8+2": {1e-3: 5.4e-4},
    "pade-10": {1e-3: 0.50},
}


@pytest.mark.parametrize("name", KNOWN)
def test_certified_errors_of_recipes_agree_with_the_known_ones(name):
    for low, error in KNOWN[name].items():
        assert certify(name, low).error == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_beats_ours_at_equal_products(name):
    recipe = RECIPES[name]
    ours = sign_schedule(1e-3, products=recipe.products)
    assert ours.products <= recipe.products
    assert ours.error <= certify(name, 1e-3).error + 4e-16


# Article 10922's own tables, typed in from the page once more: steps of (a, b, c), and what they are over.
OF_10922 = {
    "su-5": (1, "3.3748 -4.6969 2.1433 " * 5),
    "you-6": (1024, "3955 -8306 5008 3735 -6681 3463 3799 -6499 3211 4019 -6385 2906 2677 -3029 1162 2172 -1833 682"),
    "su-6-x": (1024, "4140 -7553 3571 3892 -6637 2973 3668 -6456 3021 3248 -6211 3292 2792 -5759 3796 3176 -5507 4048"),
    "su-6-x2": (
        1024,
        "4059 -7178 3279 3809 -6501 2925 3488 -6308 3063 2924 -5982 3514 2439 -5439 4261 3148 -5464 4095",
    ),
    "su-5-x3": (
        1,
        """4.6182 -12.9582 9.3299 3.8496 -7.9585 4.3052 3.5204 -7.2918 4.0606
        3.2067 -6.8243 4.2802 3.2978 -5.7848 3.8917""",
    ),
}


@pytest.mark.parametrize("name", OF_10922)
def test_the_tables_of_article_10922_have_the_error_that_a_dense_scan_finds(name):
    over, words = OF_10922[name]
    x = np.unique(np.concatenate([np.geomspace(1e-3, 1, 200_001), np.linspace(1e-3, 1, 200_001)]))
    for a, b, c in (np.array(words.split(), float) / over).reshape(-1, 3):
        x = a * x + b * x**3 + c * x**5
    error = np.abs(x - 1).max()
    assert certify(name, 1e-3).error == pytest.approx(error, rel=1e-4)
    assert certify(name, 1e-3).error >= error - 1e-15


def test_six_steps_of_ours_err_27_times_less_than_the_best_of_article_10922():
    """Ours-X is the best of its three there; what ours reaches is known from Polar Express: 9.16e-4 on [0.001, 1]."""
    best = min(certify(name, 1e-3).error for name in ("you-6", "su-6-x", "su-6-x2"))
    assert best == certify("su-6-x", 1e-3).error
    assert 27 < best / sign_schedule(1e-3, steps=6).error < 28


def test_unknown_recipes_are_refused():
    with pytest.raises(ValueError, match="no recipe"):
        certify("newton", 0.1)
    with pytest.raises(ValueError, match="tables were published"):
        certify_root(9)


# r: steps, published error of the table, exact optimum (an independent solver).
ROOTS = {
    1: (6, 5.85e-4, 9.3e-7), 2: (5, 2.4e-5, 1.23e-6), 3: (5, 2.45e-8, 1.79e-9), 4: (4, 1.02e-3, 2.27e-4), 5: (4,
    3.13e-4, 7.05e-5),
}  # fmt: skip


@pytest.mark.parametrize("r", ROOTS)
def test_roots_reach_the_optimum_and_the_tables_do_not(r):
    steps, published, optimum = ROOTS[r]
    assert certify_root(r).error == pytest.approx(published, rel=0.01)
    assert root_schedule(r, -1, lower=1e-4, steps=steps).error == pytest.approx(optimum, rel=0.01)


@pytest.mark.parametrize(("r", "s"), [(2, -1), (4, -1), (3, -2), (5, -3)])
def test_the_coupled_iteration_gives_the_power(r, s):
    schedule = root_schedule(r, s, lower=1e-3, tol=1e-9)
    x = np.geomspace(1e-3, 1, 50)
    G, P = np.ones_like(x), x.copy()
    for p in schedule.polynomials:
        W = sum(c * P**j for j, c in enumerate(p.coefficients))
        G, P = G * W ** abs(s), P * W**r
    np.testing.assert_allclose(G, x ** (s / r), rtol=1e-7)


@pytest.mark.parametrize(("r", "terms"), [(24, 5), (48, 3), (48, 8), (100, 3), (200, 8), (10**5, 3)])
@pytest.mark.parametrize("lower", [1e-30, 1e-4, 0.5])
def test_high_roots_converge(r, terms, lower):
    schedule = root_schedule(r, -1, lower=lower, terms=terms)
    assert schedule.error <= 1e-10
    x = np.geomspace(lower, 1, 50) ** (1 / r)
    np.testing.assert_allclose(schedule(np.clip(x, *schedule.interval)), 1, atol=1e-10 + 1e-15 * r)


def test_a_root_of_the_lower_end_is_below_it():
    """(5e-324)^(1/3) in doubles can be above the root by more than an ulp, for 1 / 3 is rounded first."""
    for lower in (5e-324, 1e-300, 1e-30, 1e-4, 0.3, 1 - 2.0**-53):
        for r in (1, 3, 7, 100):
            low = root_schedule(r, -1, lower=lower, steps=1).interval[0]
            with mpmath.workdps(50):
                truth = mpmath.root(mpmath.mpf(lower), r)
                assert truth * (1 - mpmath.mpf(2) ** -51) <= low <= truth


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"r": 0, "lower": 0.1}, "r >= 1"),
        ({"r": 4, "s": 2, "lower": 0.1}, "common factor"),
        ({"r": 2, "lower": 0.0}, "lower must be"),
        ({"r": 2, "lower": 0.1, "steps": 2, "tol": 0.1}, "not both"),
        ({"r": 2, "lower": 0.1, "terms": 1}, "terms"),
    ],
)
def test_bad_roots_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        root_schedule(**arguments)


@pytest.mark.parametrize(("upper", "gap"), [(2.0, 0.1), (10.0, 0.05), (1.2, 0.02)])
def test_step_and_clip_keep_their_promise_outside_the_gap(upper, gap):
    x = np.linspace(0, upper, 20_001)
    outside = (x < 1 - gap) | (x > 1 + gap)
    step, clip = step_schedule(upper, gap=gap, tol=1e-4), clip_schedule(upper, gap=gap, tol=1e-4)
    assert max(step.error, clip.error) <= 1e-4 * (1 + 1e-9)
    assert np.abs(step(x) - (x > 1))[outside].max() <= step.error + 1e-14
    assert np.abs(clip(x) - np.minimum(x, 1))[outside].max() <= clip.error + 1e-14
    assert np.abs(clip(x) - np.minimum(x, 1)).max() <= clip.error + gap


@pytest.mark.parametrize("upper", [1.0000001, 2**0.5 + 1e-9, 3.3, 1e5])
@pytest.mark.parametrize("gap", [1e-8, 1e-4, 0.3])
def test_the_bound_holds_at_the_ends_of_the_gap_in_fifty_digits(upper, gap):
    """There the sign is worst: at 1 -+ gap as doubles say it, and at upper, whose square must stay in its interval."""
    if 1 + gap >= upper:
        return
    clip, step = (make(upper, gap=gap, tol=1e-3) for make in (clip_schedule, step_schedule))
    assert max(clip.error, step.error) <= 1e-3
    with mpmath.workdps(50):
        for made, target in ((clip, lambda x: min(x, 1)), (step, lambda x: int(x > 1))):
            assert made.gap == (1 - gap, 1 + gap)
            for x in map(mpmath.mpf, (0, *made.gap, upper, upper * (1 - 2.0**-53))):
                inside = (x * x - 1) * (1.0 / made.scale)
                assert made.sign.interval[0] <= abs(inside) <= made.sign.interval[1]
                assert abs(made(x) - target(x)) <= made.error


@pytest.mark.parametrize(("upper", "gap"), [(2.0, 1e-17), (1e200, 0.1)])
def test_gaps_that_doubles_cannot_see_are_refused(upper, gap):
    with pytest.raises(ValueError, match="visible beside 1"):
        clip_schedule(upper, gap=gap)


@pytest.mark.parametrize(("upper", "gap"), [(1.0, 0.1), (2.0, 0.0), (2.0, 1.0), (math.inf, 0.1)])
def test_bad_gaps_are_refused(upper, gap):
    with pytest.raises(ValueError, match="gap"):
        step_schedule(upper, gap=gap)


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4)])
def test_the_printed_code_runs_and_gives_the_polar_factor(shape):
    schedule = sign_schedule(0.05, steps=5)
    U, _, Vh = np.linalg.svd(np.random.default_rng(1).standard_normal(shape), full_matrices=False)
    X = (U * np.linspace(1, 0.05, min(shape))) @ Vh
    for framework, array in (("numpy", X), ("torch", torch.from_numpy(X))):
        space: dict = {}
        exec(as_code(schedule, framework), space)
        np.testing.assert_allclose(np.asarray(space["polar"](array)), U @ Vh, atol=schedule.error + 1e-13)
    compile(as_code(schedule, "jax"), "jax", "exec")
    with pytest.raises(ValueError, match="framework must be"):
        as_code(schedule, "fortran")
    with pytest.raises(ValueError, match="odd schedules"):
        as_code(root_schedule(4, -1, lower=0.1, steps=2), "numpy")


SUPREMA = {
    "sin x - x": (lambda x: np.sin(x) - x, (0, 1), 1 - math.sin(1)),
    "kink": (lambda x: abs(x - 0.3) - 0.1, (-1, 1), 1.2),
    "kink by maximum": (lambda x: np.maximum(x - 0.3, 0) - x / 2, (0, 1), 0.2),
    "branch": (lambda x: np.where(x > 0.3, x - 0.3, 0.0) * 2 - x, (0, 1), 0.4),
    "root": (lambda x: np.sqrt(x) - x, (0, 1), 0.25),
    "pole near": (lambda x: 1 / (1 + 25 * x * x) - 0.5, (-1, 1), 0.5),
    "constant": (lambda x: 0 * x + 0.25, (0, 1), 0.25),
    "zero": (lambda x: x - x, (0, 1), 0.0),
    "pieces": (lambda x: x * x, [(-1, -0.5), (0.25, 2)], 4.0),
}


@pytest.mark.parametrize("case", SUPREMA.values(), ids=SUPREMA)
def test_enclosures_hold_the_supremum_tightly(case):
    f, interval, truth = case
    low, high = enclose(f, interval)
    assert low <= truth * (1 + 4e-16)
    assert high >= truth * (1 - 4e-16)
    assert high - low <= 1e-14


@pytest.mark.parametrize(
    "f", [lambda x: math.exp(x), lambda x: 1 / x, lambda x: np.random.default_rng(0).normal() * math.sin(x)]
)
def test_what_cannot_be_enclosed_is_refused(f):
    with pytest.raises(ValueError, match="no proof"):
        enclose(f, (-1, 1))
