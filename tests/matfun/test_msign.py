"""msign against float64 SVD, on everything in the zoo, for every dtype, shape and scale."""

import math

import pytest
import torch

from spectrain import approx, matfun
from spectrain.matfun._iteration.design import design_lower
from spectrain.testing import (
    WRONG_MSIGN,
    exact_msign,
    noise_floor,
    polar_error,
    relative_error,
    with_singular_values,
    zoo,
)

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
TOL = {torch.bfloat16: 5e-2, torch.float16: 5e-2, torch.float32: 1e-4, torch.float64: 1e-10}
SHAPES = ((24, 40), (40, 24), (32, 32))

BEYOND_FLOAT64 = {"decades_6", "decades_12", "one_small", "graded", "momentum"}  # condition near 1e5 and above


@pytest.mark.parametrize("name", sorted(BEYOND_FLOAT64))
def test_what_float64_cannot_prove_is_said(name):
    X = zoo(32, 32, generator=1)[name]
    with pytest.raises(ValueError, match="cannot prove a relative error of 1e-13"):
        matfun.msign(X, tol=1e-13)
    if name in ("decades_6", "decades_12"):
        with pytest.warns(RuntimeWarning, match="cannot prove a relative error of 1e-10"):
            matfun.msign(X)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_default_tolerance_is_honoured_on_the_whole_zoo(dtype, shape):
    for name, X in zoo(*shape, generator=1).items():
        if dtype == torch.float64 and name in BEYOND_FLOAT64:
            continue
        X = X.to(dtype)
        Y = matfun.msign(X)
        assert Y.dtype == dtype
        assert Y.shape == X.shape
        assert polar_error(Y, X) <= TOL[dtype], name


@pytest.mark.parametrize("name", WRONG_MSIGN)
def test_the_check_rejects_wrong_answers(name):
    """Every wrong answer is caught by some animal of the zoo, at the loosest tolerance."""
    errors = [polar_error(WRONG_MSIGN[name](X.float()), X.float()) for X in zoo(24, 40, generator=1).values()]
    assert max(errors) > 1.9 * TOL[torch.bfloat16]


@pytest.mark.parametrize("options", [{}, {"steps": 3}, {"steps": 5, "dtype": torch.bfloat16}], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_power_of_two_changes_no_bit(dtype, options):
    X = torch.randn(12, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    base = matfun.msign(X, **options)
    limits = torch.finfo(dtype)
    low = math.log2(limits.tiny) - math.log2(X[X != 0].abs().min())
    high = math.log2(limits.max) - math.log2(X.abs().max())
    for k in (int(low) + 2, -40, -7, -1, 1, 3, 40, int(high)):
        scaled = torch.ldexp(X.double(), torch.tensor(k)).to(dtype)
        if torch.equal(torch.ldexp(scaled.double(), torch.tensor(-k)), X.double()):
            assert torch.equal(matfun.msign(scaled, **options), base), k


def test_subnormal_and_nearly_overflowing_matrices_have_a_sign():
    X = torch.tensor([[0.0, 1e-44], [3e-45, 0.0]])
    assert matfun.msign(X, rtol=0).tolist() == [[0, 1], [1, 0]]
    X = torch.full((3, 3), 3e38).triu()
    assert polar_error(matfun.msign(X), X) < 1e-6


def test_directions_without_signal_are_not_invented():
    """Rank 32 in 256 x 512, stored in bfloat16: rounding noise must not become singular values of size 1."""
    exact = with_singular_values(torch.logspace(0, -1, 32), 256, 512, generator=0)
    X = exact.bfloat16()
    Y = matfun.msign(X)
    U, _, Vh = torch.linalg.svd(exact, full_matrices=False)
    assert relative_error(Y, U[:, :32] @ Vh[:32]) < 5e-2
    assert relative_error(WRONG_MSIGN["invents directions"](X), U[:, :32] @ Vh[:32]) > 1


def test_rtol_sets_the_rank():
    X = with_singular_values([1.0, 0.5, 1e-3, 1e-5], 6, 9, generator=0)
    for rtol, rank in ((1e-9, 4), (1e-4, 3), (1e-2, 2), (0.9, 1)):
        assert round(float(torch.linalg.matrix_norm(matfun.msign(X, rtol=rtol, tol=1e-6)).square())) == rank


def test_a_list_equals_one_by_one_and_keeps_order_shape_and_dtype():
    g = torch.Generator().manual_seed(0)
    shapes = [(8, 12), (12, 8), (8, 12), (3, 8, 12), (5, 5), (0, 4), (8, 12), (1, 1)]
    matrices = [torch.randn(s, generator=g) for s in shapes] + [torch.randn(8, 12, generator=g).bfloat16()]
    for options in ({}, {"steps": 4}):
        together = matfun.msign(matrices, **options)
        assert isinstance(together, list)
        for X, Y in zip(matrices, together, strict=True):
            assert Y.dtype == X.dtype
            assert Y.shape == X.shape
            torch.testing.assert_close(
                Y, matfun.msign(X, **options), rtol=0, atol=3e-5 if X.dtype == torch.float32 else 0.05
            )
    assert matfun.msign([]) == []


@pytest.mark.parametrize("steps", range(1, 8))
def test_steps_reach_the_error_of_their_schedule(steps):
    lower = design_lower(steps)
    s = torch.linspace(lower * 1.4, 1, 16, dtype=torch.float64)  # the Schatten norm is at most 16**(1/8) too large
    X = with_singular_values(s, 16, 24, generator=steps)
    promised = approx.sign_schedule(lower, steps=steps).error
    assert polar_error(matfun.msign(X, steps=steps), X) <= promised + 1e-11
    assert polar_error(matfun.msign(X, steps=max(1, steps - 1)), X) > promised or steps == 1


def test_inputs_are_left_alone():
    X = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    for options in ({}, {"steps": 3}):
        before = X.clone()
        matfun.msign([X, X.mT.contiguous()], **options)
        assert torch.equal(X, before)


@pytest.mark.parametrize("options", [{}, {"steps": 2}], ids=str)
def test_bad_input_is_refused_by_name(options):
    for bad in (float("nan"), float("inf"), -float("inf")):
        batch = torch.ones(2, 3, 4)
        batch[0, 1, 2] = bad
        with pytest.raises(ValueError, match=r"NaN or infinite.*\(0, 1, 2\)"):
            matfun.msign(batch, **options)
    with pytest.raises(ValueError, match=r"matrix.*shape \(3,\)"):
        matfun.msign(torch.ones(3), **options)
    with pytest.raises(TypeError, match="int64"):
        matfun.msign(torch.ones(3, 3, dtype=torch.int64), **options)
    with pytest.raises(TypeError, match=r"NumPy array.*got int"):
        matfun.msign(3, **options)


def test_impossible_requests_are_refused():
    X = torch.ones(3, 4)
    with pytest.raises(ValueError, match="at most one"):
        matfun.msign(X, tol=1e-2, steps=3)
    with pytest.raises(ValueError, match=r"out_dtype=torch\.float32"):
        matfun.msign(X.bfloat16(), tol=1e-4)
    with pytest.raises(ValueError, match=r"out_dtype=torch\.float64"):
        matfun.msign(X, tol=1e-9)
    assert matfun.msign(X, tol=1e-9, out_dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match="steps must be at least 1"):
        matfun.msign(X, steps=0)
    with pytest.raises(ValueError, match="method must be one of"):
        matfun.msign(X, method="magic")
    with pytest.raises(ValueError, match="rtol"):
        matfun.msign(X, rtol=1e-3, steps=3)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3), (0, 2, 3), (1, 1), (1, 5), (5, 1)], ids=str)
def test_small_and_empty_shapes(shape):
    X = torch.full(shape, -2.0)
    for options in ({}, {"steps": 6}):
        Y = matfun.msign(X, **options)
        assert Y.shape == shape
        if X.numel():
            torch.testing.assert_close(Y.double(), exact_msign(X), rtol=0, atol=0.05)


def test_the_floor_is_that_of_the_input_dtype():
    X = torch.ones(4, 4)
    for dtype in DTYPES:
        assert noise_floor(X.to(dtype)) == 4 * torch.finfo(dtype).eps / 2
