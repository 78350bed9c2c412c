"""All steps of small matrices in one launch, in the interpreter: one rounding from the polynomials in float64."""

import pytest
import torch

from spectrain import matfun
from spectrain._arrays._triton.judges import quintics_roundings
from spectrain.matfun._iteration.gram import coefficients, safe_cuts
from spectrain.matfun._iteration.plain import plain_iterations

HALF = (torch.bfloat16, torch.float16)
SHAPES = ((1, 3, 1), (2, 16, 100), (2, 100, 16), (1, 32, 70), (1, 17, 17))
SCHEDULE = matfun.planning.design(5, dtype=torch.bfloat16)
STEPS = coefficients(SCHEDULE)


def drawn(b, m, n, dtype):
    """Matrices of norm one whose singular values fill the interval of the schedule."""
    g = torch.Generator().manual_seed(m * n)
    U, _, Vh = torch.linalg.svd(torch.randn(b, m, n, generator=g, dtype=torch.float64), full_matrices=False)
    S = torch.logspace(0, float(torch.tensor(SCHEDULE.interval[0]).log10()), U.shape[-1], dtype=torch.float64)
    return ((U * S) @ Vh).to(dtype)


def exact(X, scales, steps=STEPS):
    U, S, Vh = torch.linalg.svd(X.double(), full_matrices=False)
    S = S * scales.double()[:, None]
    for c0, c1, c2 in steps:
        S = c0 * S + c1 * S**3 + c2 * S**5
    return (U * S[:, None, :]) @ Vh


def roundings(found, truth):
    return float((found.double() - truth).norm() / truth.norm() / (torch.finfo(found.dtype).eps / 2))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_one_rounding_from_the_polynomials_at_the_singular_values(interpreted, dtype, shape):
    X, scales = drawn(*shape, dtype), torch.tensor([1.0, 0.7])[: shape[0]]
    found = interpreted("quintics").odd_quintics(X, STEPS, scales=scales)
    assert found.dtype == dtype
    assert roundings(found, exact(X, scales)) <= 1


def test_it_is_far_better_than_steps_that_round_to_bfloat16(interpreted):
    X, one = drawn(1, 16, 200, torch.bfloat16), torch.ones(1)
    truth = exact(X, one)
    found = interpreted("quintics").odd_quintics(X, STEPS, scales=one)
    assert 4 * roundings(found, truth) <= roundings(plain_iterations([X.clone()], STEPS)[0], truth)


def test_float32_too_and_any_layout(interpreted):
    odd_quintics = interpreted("quintics").odd_quintics
    X, scales = drawn(2, 20, 90, torch.float32), torch.ones(2)
    around = torch.full((4, 90, 170), torch.nan)
    around[1:-1, :20, :90] = X
    plain = odd_quintics(X, STEPS[:3], scales=scales)
    assert float((plain - exact(X, scales, STEPS[:3])).norm()) <= 1e-4
    out = torch.full((4, 60, 170), 7.0)
    for given in (around[1:-1, :20, :90], X.mT.contiguous().mT, X.repeat_interleave(2, -1)[..., ::2]):
        part = out[1:-1, 7:27, :90]
        assert odd_quintics(given, STEPS[:3], scales=scales, out=part) is part
        assert torch.equal(part, plain)
        part.fill_(7.0)
        assert bool((out == 7).all())
    assert odd_quintics(X[:0], STEPS, scales=scales[:0]).shape == (0, 20, 90)


def test_float32_is_where_the_form_of_gram_is_safe_for_what_bfloat16_is_designed_for():
    assert safe_cuts(SCHEDULE, torch.float32) == ()
    assert safe_cuts(SCHEDULE, torch.bfloat16) is None


WRONG = {
    "constant forgotten": ("R = c0 * R + ", "R = R + "),
    "G not updated": ("G = c0 * M + ", "M = c0 * M + "),
    "another product": ("c0 * R + tl.dot(B, R,", "c0 * R + tl.dot(B, B,"),
    "G in bfloat16": ("G = r * r * G", "G = (r * r * G).to(tl.bfloat16).to(tl.float32)"),
    "R in bfloat16": ("R = c0 * R + tl", "R = R.to(tl.bfloat16).to(tl.float32)\n        R = c0 * R + tl"),
    "scale forgotten": ("G = r * r * G", "G = r * G"),
    "scale twice": ("rows[None, :], r, 0.0)", "rows[None, :], r * r, 0.0)"),
    "one matrix for all": ("X += batch * x_batch + rows", "X += rows"),
    "tail not masked": ("mask=inside & (columns < long), other=0.0)\n        G", "mask=inside, other=0.0)\n        G"),
    "padding not masked": ("inside = rows[:, None] < short", "inside = rows[:, None] < SIDE"),
    "first tile alone": ("for begin in range(0, long, TILE):\n        columns = begin + tile[None, :]\n        seen",
                         "for begin in range(0, TILE, TILE):\n        columns = begin + tile[None, :]\n        seen"),
    "one step less": ("range(count)", "range(count - 1)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_kernel_is_found_out(interpreted, case):
    X, *outs = torch.full((3, 2, 64, 200), torch.nan, dtype=torch.bfloat16)[..., :20, :90]  # with room around
    X.copy_(drawn(2, 20, 90, torch.bfloat16))
    X[1] *= 0.9
    scales = torch.tensor([0.8, 0.9])
    right, wrong = (
        interpreted("quintics", *change).odd_quintics(X, STEPS, scales=scales, out=out)
        for out, change in zip(outs, ((), WRONG[case]), strict=True)
    )
    assert roundings(right, exact(X, scales)) <= 1
    assert not roundings(wrong, exact(X, scales)) <= 1


def test_the_judge_agrees_with_the_singular_values():
    for shape in ((2, 16, 40), (2, 40, 16)):
        X = drawn(*shape, torch.bfloat16)
        truth = exact(X, torch.ones(2))
        assert quintics_roundings(truth.bfloat16(), X, STEPS) <= 1
        for wrong in (X, -truth.bfloat16(), truth.bfloat16() * torch.nan, 1.02 * truth.bfloat16()):
            assert not quintics_roundings(wrong, X, STEPS) <= 4
