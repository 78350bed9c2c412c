"""Half precision: what one step of rounding does, and our schedules beside every published one."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from spectrain.approx import sign_schedule
from spectrain.approx._roundoff import SPECTRAL, UNIT_ROUNDOFF

PATH = Path(__file__).parents[2] / "benchmarks" / "approx_roundoff.py"
SPEC = importlib.util.spec_from_file_location("approx_roundoff", PATH)
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)

POLYNOMIALS = {
    "first step of Polar Express": ((8.28721, -23.5959, 17.3004), 1.0),
    "third step": ((3.94869, -2.9089, 0.551819), 1.9),
    "limit": ((15 / 8, -10 / 8, 3 / 8), 1.0),
    "Jordan": ((3.4445, -4.7750, 2.0315), 1.0),
    "cubic": ((1.5, -0.5), 1.0),
    "degree 9": (sign_schedule(1e-2, degree=(9,)).polynomials[0].coefficients, 1.0),
    "degree 13": (sign_schedule(1e-2, degree=(13,)).polynomials[0].coefficients, 1.0),
}


def noise(c, top, s, m, dtype):
    """Spectral norm of the rounding noise of one step over u M."""
    X = bench.matrix(s * top * 0.99, m, 0).to(dtype).to(torch.float32)
    U, S, Vh = torch.linalg.svd(X.double(), full_matrices=False)
    exact = sum(cj * S ** (2 * j + 1) for j, cj in enumerate(c))
    error = torch.linalg.matrix_norm(bench.step(c, X, dtype).double() - (U * exact) @ Vh, 2)
    mass = sum(abs(cj) * top ** (2 * j + 1) for j, cj in enumerate(c))
    return float(error) / mass


def test_the_noise_of_a_step_is_within_the_model():
    ratios = []
    for c, top in POLYNOMIALS.values():
        for kind, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
            for m in (64, 160):
                ratios += [noise(c, top, s, m, dtype) / UNIT_ROUNDOFF[kind] for s in bench.spectra(64, 1e-2).values()]
    assert len(ratios) > 300
    assert np.quantile(ratios, 0.9) <= SPECTRAL
    assert np.median(ratios) >= SPECTRAL / 10
    # The rest are nearly flat spectra: there the roundings of the diagonal agree.
    assert max(ratios) <= 2 * SPECTRAL


# Differences of a tenth are the luck of one matrix: the simulation that chooses has other matrices than this suite.
@pytest.mark.parametrize(
    ("low", "products", "margin"), [(1e-2, 15, 0.8), (1e-2, 18, 1.1), (1e-1, 15, 0.6), (1e-1, 24, 1.0)]
)
def test_ours_is_about_as_good_as_the_best_published_schedule_or_better(low, products, margin, full):
    shapes = bench.SHAPES if full else ((64, 64),)
    ours = bench.worst(sign_schedule(low, products=products, dtype="bfloat16"), low, "bfloat16", shapes)
    theirs = [bench.worst(s, low, "bfloat16", shapes) for _, cost, s in bench.published(low) if cost == products]
    assert ours <= min(theirs) * margin


@pytest.mark.full
@pytest.mark.parametrize("dtype", bench.DTYPES)
@pytest.mark.parametrize("low", bench.LOWERS)
def test_no_published_schedule_is_better_over_the_suite(low, dtype):
    cell = bench.measured([low], [dtype])[dtype, low]
    for price in {p for _, p in cell}:
        best = min(e for (name, p), e in cell.items() if p == price and name != "ours")
        # A percent for other machines, whose products round elsewhere; the record has none to spare.
        assert cell["ours", price] <= best * 1.01, price


@pytest.mark.parametrize("low", [1e-3, 1e-2])
def test_exact_optimal_quintics_overflow_and_ours_do_not(low):
    exact = sign_schedule(low, steps=6)
    assert bench.worst(exact, low, "bfloat16", ((64, 64),)) > 100
    assert bench.worst(sign_schedule(low, steps=6, dtype="bfloat16"), low, "bfloat16", ((64, 64),)) < 0.4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("low", [1e-2, 0.1, 0.2])
def test_the_expected_error_is_about_the_measured_one(low, dtype):
    schedule = sign_schedule(low, products=15, dtype=dtype)
    measured = bench.worst(schedule, low, dtype, ((64, 64),))
    assert schedule.error <= schedule.reached
    assert measured <= 3 * schedule.reached
    assert measured >= schedule.reached / 20


def test_a_known_spectrum_saves_steps():
    steps = [len(sign_schedule(low, tol=0.02, dtype="float16")) for low in (3e-3, 1e-2, 0.1, 0.2)]
    assert steps[0] - steps[2] >= 2
    assert steps == sorted(steps, reverse=True)


def test_a_tolerance_below_the_rounding_floor_is_refused():
    with pytest.raises(ValueError, match="Rounding sets that floor"):
        sign_schedule(1e-2, tol=1e-4, dtype="bfloat16")


def test_float32_gives_away_little_against_exact_arithmetic():
    for products in (12, 15, 18):
        exact, ours = (sign_schedule(1e-3, products=products, dtype=d).error for d in ("float64", "float32"))
        assert ours <= exact * 1.01 + 1e-5
    assert np.isfinite(ours)
