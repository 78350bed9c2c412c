"""What a grid misses, what balls cannot follow, what has no bound: each with its value from a closed form."""

import math
import warnings

import numpy as np
import pytest

from spectrain.approx import minimax


def hat(slope, at=0.1234567):
    return lambda x: np.maximum(0, 1 - slope * abs(x - at))


@pytest.mark.parametrize("slope", [33, 100, 1e3, 1e6])
def test_narrow_hats_are_seen(slope):
    # On a hat of half width 1 / slope p = 1/2 errs by 1/2; a better p has its top and feet 1 / slope apart, where
    # a polynomial of degree 5 bounded by 1/2 moves by at most 25 / (2 slope) * 1.01 (Bernstein; far from the ends).
    best = minimax(hat(slope), 5, (-1, 1))
    assert best.status == "alternation"
    assert best.proven
    assert best.gap <= 1e-12
    assert 0.5 - 6 / slope <= best.lower <= best.upper <= 0.5


def test_a_spike_on_a_smooth_function_is_seen():
    best = minimax(lambda x: np.exp(x) + hat(1e3)(x), 5, (-1, 1))
    smooth = minimax(np.exp, 5, (-1, 1)).upper
    assert best.proven
    assert best.gap <= 1e-12
    # Within the error of exp of the best for the hat alone.
    assert abs(best.error - minimax(hat(1e3), 5, (-1, 1)).error) <= smooth


@pytest.mark.parametrize(
    ("f", "limit"), [(lambda x: np.arctan(1e6 * x), math.pi / 2), (lambda x: np.tanh(1e4 * x), 1.0)]
)
def test_steep_steps_close_the_gap(f, limit):
    # A jump from -limit to limit has E = limit, at every degree; the step itself a little less.
    best = minimax(f, 5, (-1, 1))
    assert best.status == "alternation"
    assert best.proven
    assert best.gap <= 1e-12
    assert 0.99 * limit < best.error < limit


def test_what_vanishes_at_even_samples_is_no_zero():
    # 64 waves against degree 5: it alternates 128 times at height 1, so p = 0 is best.
    best = minimax(lambda x: np.sin(64 * np.pi * x), 5, (0, 1))
    assert best.error == pytest.approx(1.0, rel=1e-14)
    assert best.gap <= 1e-12


def reference_of_degree_two(f, low):
    """E of degree 2 for log on [low, 1] by Newton in plain doubles on its two stationary points, from article 10972's
    theorem: four alternating errors."""
    x = np.array([low, 0.05, 0.6, 1.0])
    for _ in range(100):
        rows = np.column_stack([x[:, None] ** np.arange(3), (-1.0) ** np.arange(4)])
        c = np.linalg.solve(rows, f(x))
        # 1 / x = c1 + 2 c2 x
        roots = np.sort(np.roots([2 * c[2], c[1], -1]).real)
        x = np.array([low, roots[0], roots[1], 1.0])
    return abs(c[3])


@pytest.mark.parametrize("low", [1e-16, 1e-50])
def test_a_logarithm_from_almost_zero(low):
    best = minimax(np.log, 2, (low, 1))
    assert best.error == pytest.approx(reference_of_degree_two(np.log, low), rel=1e-12)
    assert best.gap <= 1e-12
    assert best.proven
    if low == 1e-16:
        assert best.error == pytest.approx(15.45857, abs=1e-5)


def test_a_cube_root_from_zero_in_closed_form():
    # Degree 0 on (0, 1): 1/2. Degree 1: the chord is p = x, the error x^(1/3) - x has its top at 3^(-3/2).
    assert minimax(np.cbrt, 0, (0, 1)).error == pytest.approx(0.5, rel=1e-14)
    best = minimax(np.cbrt, 1, (0, 1))
    assert best.error == pytest.approx((3**-0.5 - 3**-1.5) / 2, rel=1e-13)
    assert best.proven
    assert best.gap <= 1e-12


def test_a_jump_has_its_error_and_an_honest_bound():
    # No continuous function errs by less than 1 on either side of the jump, and p = 0 errs by 1.
    best = minimax(np.sign, 5, (-1, 1))
    assert best.lower <= 1 <= best.upper <= 1 + 1e-14
    assert (best.status, best.proven) == ("alternation", True)
    steps = minimax(lambda x: np.where(x > 0.3, 2.0, np.where(x < -0.5, -1.0, 0.0)), 4, (-1, 1))
    assert steps.lower <= 1 <= steps.upper <= 1 + 1e-14
    assert steps.status == "alternation"
    kinked = minimax(lambda x: np.sign(x) * x**2, 5, (-1, 1))
    assert kinked.proven
    assert kinked.gap <= 1e-12
    assert kinked.error == pytest.approx(minimax(lambda x: x * abs(x), 5, (-1, 1)).error, rel=1e-12)


def entropy(x):
    return np.where(x > 0, -x * np.log(np.where(x > 0, x, 1)), 0)


GUARDS = {
    "x == 0": (lambda x: np.where(x == 0, 1.0, np.sin(x) / np.where(x == 0, 1, x)), (-1, 1)),
    "if": (lambda x: 1.0 if x == 0 else math.sin(x) / x, (-1, 1)),
    "max": (lambda x: max(x, 0.3), (-1, 1)),
    "sinc": (np.sinc, (-1, 1)),
    "entropy": (entropy, (0, 1)),
}


@pytest.mark.parametrize("name", GUARDS)
def test_guards_are_sampled_or_followed(name):
    f, interval = GUARDS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = minimax(f, 4, interval)
        x = np.linspace(*interval, 4001)
        values = np.array([float(f(float(v))) for v in x])
    assert best.status == "alternation"
    error = np.abs(values - np.polynomial.Polynomial(best.coefficients)(x)).max()
    assert best.lower * (1 - 1e-4) <= error <= best.upper * (1 + 1e-9) + 1e-14
    # De la Vallee-Poussin at the reference, in NumPy: no polynomial is better than the least of alternating errors.
    at = np.array(best.reference)
    e = np.array([float(f(float(v))) for v in at]) - np.polynomial.Polynomial(best.coefficients)(at)
    assert (e[1:] * e[:-1] < 0).all()
    assert np.abs(e).min() >= best.error * (1 - 1e-8)


POLES = {
    "inside": (lambda x: 1 / (x - 0.3), (-1, 1)),
    "between doubles": (lambda x: 1 / (x - 0.123456789), (-1, 1)),
    "of a root": (lambda x: 1 / np.sqrt(abs(x - 0.3)), (-1, 1.5)),
    "double": (lambda x: 1 / (x - 1 / 3) ** 2, (-1, 1)),
    "tan": (np.tan, (1, 2)),
    "not followed": (lambda x: math.tan(x), (1, 2)),
}


@pytest.mark.parametrize("case", POLES.values(), ids=POLES)
def test_poles_are_named(case):
    with pytest.raises(ValueError, match=r"no bound near x =|must be finite"):
        minimax(case[0], 5, case[1])


def test_a_high_narrow_peak_is_no_pole():
    # Degree 0: half of the largest less half of the least value.
    best = minimax(lambda x: 1 / (x * x + 1e-12), 0, (-1, 1))
    assert best.error == pytest.approx((1e12 - 1 / (1 + 1e-12)) / 2, rel=1e-12)
    assert best.proven


@pytest.mark.parametrize(
    ("powers", "words"),
    [
        ((0.5, 2.7), "whole numbers"),
        (2.7, "whole numbers"),
        ((0, math.nan), "whole numbers"),
        ((0, math.inf), "whole numbers"),
        (-1, "whole numbers"),
        ((0, 10**6), "at most 2000"),
        (10**9, "at most 2000"),
        ((0, 10**400), "at most 2000, got an integer of 1329 bits"),
    ],
)
def test_powers_are_whole_and_not_huge(powers, words):
    with pytest.raises(ValueError, match=words):
        minimax(np.exp, powers, (0.1, 1))


def test_whole_powers_of_other_types_are_the_same():
    whole = minimax(np.exp, 3, (0.1, 1)).error
    for powers in (3.0, np.int64(3), (0.0, 1.0, 2.0, 3.0), list(np.arange(4))):
        assert minimax(np.exp, powers, (0.1, 1)).error == whole


@pytest.mark.parametrize("f", [lambda x: np.exp(1j * x), lambda x: complex(math.cos(x), 0.0)])
def test_complex_values_are_refused(f):
    with pytest.raises(ValueError, match="must be real"):
        minimax(f, 3, (-1, 1))


@pytest.mark.parametrize(
    ("scale", "degree"),
    [
        (2.0**-100, 9),
        *(pytest.param(1.0, n, marks=pytest.mark.full) for n in (130, 150, 158)),
    ],
)
def test_an_error_below_the_range_of_doubles_is_not_called_exact(scale, degree):
    # (least, largest) (n + 1)th derivative / (2^n (n + 1)!) enclose E (Bernstein), here as logarithms.
    best = minimax(lambda x: np.exp(scale * x), degree, (-1, 1))
    about = (degree + 1) * math.log(scale) - degree * math.log(2) - math.lgamma(degree + 2)
    assert best.proven
    assert best.lower == 0 or about - 1.01 < math.log(best.lower)
    assert best.error == 0 or about - 1.01 < math.log(best.error) < about + 1.01
    assert best.upper > 0
    if about > -960 * math.log(2):
        assert (best.status, best.gap <= 1e-12) == ("alternation", True)
        return
    assert (best.status, best.gap) == ("rounding", 0)
    assert best.upper < 2.0**-900
    assert "below the rounding of float64" in str(best)
    assert "exact" not in str(best)


def test_values_whose_error_is_no_normal_double_have_bounds():
    # 1e-285 exp(x) by degree 20: 1e-285 times E of exp, within the spacing of doubles there.
    best = minimax(lambda x: 1e-285 * np.exp(x), 20, (0, 1))
    whole = minimax(np.exp, 20, (0, 1)).error
    assert best.status == "alternation"
    assert best.error == pytest.approx(whole * 1e-285, abs=1e-323)
    assert best.lower <= whole * 1e-285 + 1e-323
    assert whole * 1e-285 <= best.upper + 1e-323


def chebyshev(n):
    def value(x):
        before, here = 1 + 0 * x, x
        for _ in range(n - 1):
            before, here = here, 2 * x * here - before
        return here

    return value


@pytest.mark.parametrize("n", [60, pytest.param(100, marks=pytest.mark.full)])
def test_a_recurrence_of_high_degree_is_proven_in_few_pieces(n):
    # n waves, two balls a piece: no more than six pieces a wave, at whatever length of models, and two thirds as much
    # again for single points and the search. The answer keeps its proof.
    asked = 0

    def counted(x):
        nonlocal asked
        asked += len(x) if isinstance(x, np.ndarray) and x.dtype == np.dtype(object) else 0
        return chebyshev(n)(x)

    best = minimax(counted, n // 2, (-1, 1))
    assert best.error == pytest.approx(1.0, rel=1e-13)
    assert best.proven
    assert best.gap <= 1e-12
    assert asked <= 20 * n


def filter_by_transform(n, edge):
    """E of 0 and 1 on [-1, -edge] and [edge, 1] for odd n = 2m + 1: that of sqrt(y) / (2 sqrt(y)) in y = x^2, which
    is half of the error of sign on [edge, 1] by odd powers."""
    return minimax(lambda x: 1 + 0 * x, tuple(range(1, n + 1, 2)), (edge, 1.0)).error / 2


@pytest.mark.parametrize(("n", "edge"), [(31, 0.05), pytest.param(151, 0.02, marks=pytest.mark.full)])
def test_filters_on_two_intervals(n, edge):
    best = minimax(lambda x: np.where(x > 0, 1.0, 0.0), n, [(-1, -edge), (edge, 1)])
    assert best.status == "alternation"
    assert best.proven
    assert best.gap <= 1e-12
    assert best.error == pytest.approx(filter_by_transform(n, edge), rel=1e-11)


WRONG = {"seen at no sample": 1e4, "narrower than a double's step of the grid": 1e7}


@pytest.mark.parametrize("slope", WRONG.values(), ids=WRONG)
def test_a_polynomial_that_misses_the_spike_is_refused(slope):
    # What the search returned before: the best for exp alone, which errs by 1 at the top of the hat.
    missed = minimax(np.exp, 5, (-1, 1))
    error = abs(np.exp(0.1234567) + 1 - missed.polynomial(0.1234567))
    best = minimax(lambda x: np.exp(x) + hat(slope)(x), 5, (-1, 1))
    assert best.lower <= best.upper < error
