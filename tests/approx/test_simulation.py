"""What decides between designs for a rounding: cuts that lose nothing, against every candidate on every spectrum."""

import itertools
import math
import random
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

from spectrain.approx import Polynomial, sign_schedule
from spectrain.approx._polynomial import _times_power
from spectrain.approx._schedules import simulation
from spectrain.approx._schedules.frozen import SETTINGS
from spectrain.approx._schedules.reference import in_doubles
from spectrain.approx._schedules.robust import _among_finalists, _near_best, _quintics, _safe
from spectrain.approx._schedules.simulation import ALL, round_to, simulate
from spectrain.approx._schedules.widened import are_safe, is_safe, odd_coefficients, widened_top
from spectrain.approx._setting import Setting
from spectrain.approx.tables import TABLES


def bits_of(count=200_000):
    """float32 of all sizes, with many ties and carries among them."""
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2**32, count, dtype=np.uint64).astype(np.uint32)
    ties = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    x = np.concatenate([bits, ties, bits | np.uint32(0xFFFF)]).view(np.float32)
    return x[np.isfinite(x) & (np.abs(x) < 1e38)]


CASTS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def away_from_zero(x, dtype):
    return ((x.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def cut_off(x, dtype):
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.mark.parametrize("dtype", CASTS)
def test_rounding_is_that_of_torch(dtype):
    x = bits_of()
    truth = torch.from_numpy(x.copy()).to(CASTS[dtype]).float().numpy()
    assert np.array_equal(round_to(x, dtype), truth)
    for wrong in (away_from_zero, cut_off):
        assert not np.array_equal(wrong(x, dtype), truth)


def test_rounding_to_tfloat32_is_to_eleven_bits():
    x = bits_of(20_000)
    x = x[np.abs(x) > 1e-30].astype(np.float64)
    fraction, exponent = np.frexp(x)
    truth = np.ldexp(np.round(fraction * 2**11), exponent - 11)  # NumPy rounds halves to even
    assert np.array_equal(round_to(x.astype(np.float32), "tfloat32").astype(np.float64), truth)


SETTING = Setting(lower=1e-2, steps=4, dtype="bfloat16")
CANDIDATES = _safe(_quintics(SETTING, 4), 1.0, 2.0**-8)[:24]


def brute_force(spectra=ALL, **said):
    return simulate(CANDIDATES, 1e-2, 1.0, "bfloat16", spectra=[spectra] * len(CANDIDATES), **said)


def test_cuts_leave_the_same_finalists_with_the_same_errors():
    every = sorted(brute_force(), key=lambda trial: trial.error)
    few = sorted(simulate(CANDIDATES, 1e-2, 1.0, "bfloat16", limit=_among_finalists), key=lambda trial: trial.error)
    assert len(CANDIDATES) == len(every) > len(few)
    assert [trial[:2] for trial in few[:6]] == [trial[:2] for trial in every[:6]]
    assert few[0].lost == every[0].lost
    halved = simulate(CANDIDATES, 1e-2, 1.0, "bfloat16", limit=lambda found: 0.5 * _among_finalists(found))
    assert [trial.steps for trial in halved[:6]] != [trial.steps for trial in every[:6]]


@pytest.mark.parametrize("tie", [1.0, 1.2])
def test_cuts_leave_every_candidate_near_the_best(tie):
    every = brute_force()
    best = min(trial.error for trial in every)
    near = [trial[:2] for trial in every if trial.error <= tie * best]
    few = simulate(CANDIDATES, 1e-2, 1.0, "bfloat16", limit=lambda found: _near_best(found, tie))
    assert [trial[:2] for trial in few if trial.error <= tie * best] == near


def test_a_candidate_given_twice_counts_twice():
    found = simulate([CANDIDATES[3], CANDIDATES[1], CANDIDATES[3]], 1e-2, 1.0, "bfloat16")
    assert found[0] is found[2]
    assert [trial.steps for trial in found] == [CANDIDATES[3], CANDIDATES[1], CANDIDATES[3]]


def test_what_grows_without_bound_has_an_infinite_error():
    wild = (Polynomial.odd(3.0, 4.0, 5.0),) * 9
    (found,) = simulate([wild], 1e-2, 1.0, "bfloat16")
    assert math.isinf(found.error)


def emulated(steps, low, size, seed):
    """The worst relative distance with torch's own bfloat16, on the matrices of the suite."""
    X, polar = (torch.from_numpy(a[0].copy()) for a in simulation._suite(low, "bfloat16", size, (seed,)).matrices(ALL))
    for p in steps:
        a, b, c = (float(torch.tensor(v, dtype=torch.float32)) for v in p.coefficients)
        A = (X @ X.mT).bfloat16().float()
        B = (b * A + c * (A @ A).bfloat16().float()).bfloat16().float()
        X = (a * X + B @ X).bfloat16().float()
    return float(torch.linalg.matrix_norm(X.double() - polar).max()) / size**0.5


def test_the_simulation_is_that_of_torch_in_bfloat16():
    for candidate in CANDIDATES[:2]:
        (found,) = simulate([candidate], 1e-2, 1.0, "bfloat16")
        assert found.error == pytest.approx(emulated(candidate, 1e-2, 48, 2025), rel=0.01)  # sums in another order
        one_less = emulated(candidate[:-1], 1e-2, 48, 2025)
        assert found.error != pytest.approx(one_less, rel=0.01)


def test_polar_factors_are_those_of_the_rounded_matrices():
    X, polar = simulation._suite(0.1, "bfloat16", 16, (5,)).matrices((0, 7))
    for x, p in zip(X[0], polar[0], strict=True):
        assert np.allclose(p @ p.T, np.eye(16), atol=1e-12)
        symmetric = p.T @ x.astype(np.float64)
        assert np.allclose(symmetric, symmetric.T, atol=1e-12)
        assert np.linalg.eigvalsh(symmetric).min() > 0


def test_matrices_do_not_depend_on_which_were_asked_for_first():
    some, all_ = (simulation._Suite(0.1, "bfloat16", 16, (5, 6)) for _ in range(2))
    for part in zip(some.matrices((7, 2)), all_.matrices(ALL), strict=True):
        assert np.array_equal(part[0], part[1][:, (7, 2)])


OFTEN = [s for s in SETTINGS if s.rounded and s.steps in (3, 5)][:4]
ROUNDED = [pytest.param(s, marks=() if s in OFTEN else pytest.mark.full, id=str(s)) for s in SETTINGS if s.rounded]


@pytest.mark.parametrize("setting", ROUNDED)
def test_what_is_left_out_of_the_last_simulation_changes_nothing(setting):
    """``reached`` is the largest over the spectra that tell: here over all."""
    schedule = TABLES[setting]
    low = max(setting.lower, 2.0**-20) if setting.dtype == "float32" else setting.lower
    (found,) = simulate([schedule.polynomials], low, 1.0, setting.dtype, size=96, seeds=(1, 2, 3))
    assert found.error == pytest.approx(schedule.reached, rel=1e-4)
    (small,) = simulate([schedule.polynomials], low, 1.0, setting.dtype)
    assert max(found.lost, key=found.lost.get) in small.telling


def drawn_steps(count=40):
    generator = random.Random(1)
    for _ in range(count):
        low, degrees = 10 ** -generator.uniform(0.5, 3), [generator.choice((3, 5, 9)) for _ in range(3)]
        yield odd_coefficients(sign_schedule(low, degree=degrees, margin=generator.choice((1.0, 1.02))).polynomials)


@pytest.mark.parametrize("u", [2.0**-8, 2.0**-11, 2.0**-24])
def test_many_compositions_are_judged_as_each_by_itself(u):
    many = list(drawn_steps())
    safe = are_safe(many, 1.0, u)
    assert safe == [is_safe(steps, 1.0, u) for steps in many]
    assert are_safe([], 1.0, u) == []
    assert u < 1e-5 or (any(safe) and not all(safe))


def by_words(c, high, u, first):
    """The bound of the module's docstring, term by term, on a grid four times as fine."""
    x = np.linspace(0, high, 2049)
    g = x * x
    b = sum(cj * g**j for j, cj in enumerate(c) if j)
    slope = sum(j * cj * g ** (j - 1) for j, cj in enumerate(c) if j)
    p = x * (c[0] + b)
    added = x * np.abs(slope) * high**2 + x * np.abs(b).max() + np.abs(p).max()
    apart = (first + 2 * (len(c) > 3)) * x * sum(abs(cj) * high ** (2 * j) for j, cj in enumerate(c) if j > 1)
    return float((np.abs(p) + u * (added + apart)).max())


@pytest.mark.parametrize("u", [2.0**-8, 2.0**-11])
def test_a_rounded_top_is_that_of_its_formula(u):
    for steps, first in itertools.product(drawn_steps(12), (True, False)):
        for c in steps:
            assert widened_top(c, 1.0, u, first=first) == pytest.approx(by_words(c, 1.0, u, first), rel=2e-5)
            assert (
                widened_top(c, 1.0, u, first=first) != pytest.approx(by_words(c, 1.0, u, not first), rel=2e-5)
                or len(c) < 3
            )


def off(y, low, terms):
    """How far, relatively, the zeros of p' are from these points, p the level at them, in 40 digits."""
    with mpmath.workdps(40):
        points = [mpmath.mpf(low) ** 2, *map(mpmath.mpf, y), mpmath.mpf(1)]
        rows = [[mpmath.sqrt(v) * v**j for j in range(terms)] + [(-1) ** i] for i, v in enumerate(points)]
        c = list(mpmath.lu_solve(mpmath.matrix(rows), mpmath.matrix([1] * (terms + 1))))[:terms]
        slope = [(1 + 2 * j) * cj for j, cj in enumerate(c)][::-1]
        return max(abs(mpmath.findroot(lambda v: mpmath.polyval(slope, v), v) / v - 1) for v in points[1:-1])


@pytest.mark.parametrize("terms", [3, 5, 7])
@pytest.mark.parametrize("low", [1e-3, 0.03, 0.5])
def test_points_found_in_doubles_are_where_the_slope_is_zero(terms, low):
    y = in_doubles(low, terms, 2)
    assert off(y, low, terms) < 1e-10
    centre, half = (1 + low**2) / 2, (1 - low**2) / 2
    chebyshev = [centre - half * math.cos(math.pi * k / terms) for k in range(1, terms)]
    for wrong in (chebyshev, [v * (1 + 1e-6) for v in y], [v**0.5 for v in y]):
        assert off(wrong, low, terms) > 1e-8


@pytest.mark.parametrize(("low", "terms"), [(0.1, 2), (0.1, 9), (0.95, 3), (1 - 1e-12, 5)])
def test_doubles_say_where_they_are_no_help(low, terms):
    assert in_doubles(low, terms, 2) is None


def test_a_coefficient_times_a_power_is_rounded_once():
    generator = random.Random(2)
    factors = (1 / 1.01, 3, 0.3, 1.0, 2.0**-40, 1e-160)
    for factor, n in itertools.product(factors, (0, 1, 3, 5, 41, 200)):
        for _ in range(20):
            c = generator.choice([generator.gauss(0, 1) * 10 ** generator.uniform(-3, 3), 0.0, 5e-324, 7])
            try:
                truth = float(Fraction(c) * Fraction(factor) ** n)
            except OverflowError:
                continue
            assert _times_power(c, factor, n) == truth
    # The wrong way rounds the power first: it differs somewhere.
    assert any(c * (1 / 1.01) ** 5 != _times_power(c, 1 / 1.01, 5) for c in (1.1, 2.3, 3.7, 4.9, 5.3))
