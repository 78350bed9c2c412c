"""The pseudo-inverse: its four conditions, its rank, its derivative, and the solver."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from spectrain import lowrank
from spectrain.testing import with_singular_values, zoo

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64)
norm = torch.linalg.matrix_norm


def exact(A, rtol):
    """By LAPACK in double precision, at the cutoff of the input's dtype."""
    A = A.to(torch.complex128 if A.is_complex() else torch.float64)
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    weights = torch.where(rtol * S[..., :1] < S, 1 / S, 0.0)
    return (Vh.mH * weights[..., None, :].to(A.dtype)) @ U.mH


def default(A):
    return max(A.shape[-2:]) * torch.finfo(A.dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("method", ["svd", "gram", "iteration", None])
def test_it_is_the_pseudo_inverse(method, dtype):
    for shape in ((5, 5), (12, 40), (40, 33), (1, 6), (6, 1)):
        for name in (
            "gaussian",
            "decades_2",
            "rank_deficient",
            "rank_one",
            "zero",
            "constant",
            "one_hot",
            "permutation",
        ):
            A = zoo(*shape, generator=1)[name]
            A = (A * (0.6 + 0.8j)).to(dtype) if dtype.is_complex else A.to(dtype)
            rtol = 3e-4 if method == "iteration" else max(default(A), 1e-6)
            P = lowrank.pinv(A, rtol=rtol, method=method)
            truth = exact(A, rtol)
            assert P.dtype == dtype
            assert norm(P.to(truth.dtype) - truth) <= 3e4 * torch.finfo(dtype).eps * norm(truth), (name, shape)


def penrose(P, A):
    """The largest relative residual of the four conditions."""
    AP, PA = A @ P, P @ A
    return max(
        float(norm(AP @ A - A) / norm(A)),
        float(norm(PA @ P - P) / norm(P).clamp_min(1e-300)),
        float(norm(AP - AP.mH) / norm(AP).clamp_min(1e-300)),
        float(norm(PA - PA.mH) / norm(PA).clamp_min(1e-300)),
    )


def outside(A):
    """The projector on what A maps to zero."""
    return torch.eye(A.shape[1]) - exact(A, 1e-12) @ A


def weights(A):
    return torch.diag(torch.arange(1.0, A.shape[0] + 1))


WRONG = {
    "the adjoint": lambda A: A.mH,
    "one that solves, but not shortest": lambda A: exact(A, 1e-12) + 0.1 * outside(A)[:, :1],
    "another left inverse": lambda A: torch.linalg.solve(A.mH @ weights(A) @ A + 1e-9 * outside(A), A.mH @ weights(A)),
    "regularised": lambda A: torch.linalg.solve(A.mH @ A + 1e-3 * torch.eye(A.shape[1]), A.mH),
    "one direction dropped": lambda A: exact(A, 0.3),
    "zero": lambda A: 0 * A.mH,
    "inverted noise": lambda A: torch.linalg.pinv(A + 1e-9 * zoo(*A.shape, generator=9)["gaussian"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_conditions_reject_wrong_answers(wrong):
    A = with_singular_values([3.0, 2.0, 0.5], 7, 5, generator=0)
    torch.set_default_dtype(torch.float64)
    try:
        P = WRONG[wrong](A)
    finally:
        torch.set_default_dtype(torch.float32)
    unlike = float(norm(P - exact(A, 1e-12)) / norm(exact(A, 1e-12)))
    assert max(penrose(P, A), unlike) > 1e-3
    assert penrose(lowrank.pinv(A), A) < 1e-13


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex64], ids=str
)
def test_the_rank_and_the_error_are_told(dtype, check):
    for method in ("svd", "gram"):
        for name, X in zoo(14, 20, generator=3).items():
            A = (X + 1j * X.flip(0)).to(dtype) if dtype.is_complex else X.to(dtype)
            rtol = max(default(A), 1e-6)
            found = lowrank.pinv_factors(A, rtol=rtol, method=method)
            S = torch.linalg.svdvals(check["wide"](A))
            if found.clear:
                assert int(found.rank) == int((rtol * S[0] < S).sum()), name
            kept = S[: int(found.rank)]
            between = (kept[-1] * S[int(found.rank)]).sqrt() / S[0] if 0 < int(found.rank) < 14 else 0.0
            truth = exact(A, float(between)) if len(kept) else torch.zeros(20, 14, dtype=S.dtype)
            distance = check["distance"](found, truth)
            assert distance <= found.error * (1 + 1e-6), name
            assert not found.clear or not len(kept) or abs(float(found.kept / kept[-1]) - 1) < 1e-2


def test_a_singular_value_on_the_cutoff_is_not_clear():
    A = with_singular_values([1.0, 1e-3], 6, 4, generator=0)
    assert not lowrank.pinv_factors(A, rtol=1e-3).clear
    found = lowrank.pinv_factors(A, rtol=1e-2)
    assert found.clear
    assert int(found.rank) == 1
    assert abs(float(found.kept) - 1) < 1e-12
    assert abs(float(found.dropped) - 1e-3) < 1e-12
    assert abs(float(found.cutoff) - 1e-2) < 1e-12
    assert int(lowrank.pinv_factors(A, atol=5e-4).rank) == 2
    with pytest.raises(ValueError, match="cannot decide"):
        lowrank.pinv(with_singular_values([1.0, 1.2e-3, 0.9e-3], 6, 4, generator=0), rtol=1e-3, method="iteration")


def test_batches_and_scales():
    A = torch.stack([with_singular_values(s, 6, 4, generator=0) for s in ([1.0], [3.0, 2.0], [1.0] * 4)])
    found = lowrank.pinv_factors(A)
    assert found.rank.tolist() == [1, 2, 4]
    assert found.V.shape == (3, 4, 4)
    for i in range(3):
        torch.testing.assert_close(found.dense()[i], lowrank.pinv(A[i]), rtol=0, atol=1e-13)
    for scale in (2.0**-500, 2.0**500):
        torch.testing.assert_close(lowrank.pinv(A * scale) * scale, lowrank.pinv(A), rtol=0, atol=1e-13)
        torch.testing.assert_close(lowrank.pinv_factors(A * scale).dense() * scale, found.dense(), rtol=0, atol=1e-13)


def test_the_solution_of_least_squares_is_the_shortest():
    A = with_singular_values([3.0, 2.0, 0.5], 7, 5, generator=0)
    b = torch.randn(7, 2, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
    expected = np.linalg.lstsq(A.numpy(), b.numpy(), rcond=1e-12)[0]
    np.testing.assert_allclose((lowrank.pinv_factors(A) @ b).numpy(), expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(lowrank.pinv_factors(A.numpy()) @ b.numpy(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_the_gradient_is_that_of_constant_rank(dtype, shape):
    """At full rank, equal singular values included; twice, and through the solver."""
    A = with_singular_values([2.0] * min(shape), *shape, generator=0).to(dtype).requires_grad_()
    b = torch.randn(shape[0], 2, dtype=dtype, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lowrank.pinv, A)
    assert torch.autograd.gradgradcheck(lowrank.pinv, A)
    assert torch.autograd.gradcheck(lambda X: lowrank.pinv_factors(X) @ b, A)


def test_the_gradient_at_lower_rank_is_that_along_the_manifold():
    """B C^H has rank 2 for all B and C: differences along it are the truth; a gradient by SVD would be nan or wrong."""
    g = torch.Generator().manual_seed(0)
    B, C = (torch.randn(n, 2, dtype=torch.float64, generator=g).requires_grad_() for n in (6, 5))
    assert torch.autograd.gradcheck(lambda B, C: lowrank.pinv(B @ C.mT, rtol=1e-8), (B, C))


PROGRAM = """
import torch
from spectrain import lowrank
g = torch.Generator().manual_seed(0)
for dtype in (torch.float32, torch.complex64, torch.complex128):
    for backend in ("aot_eager", "inductor"):
        torch.compiler.reset()
        A = torch.randn(2, 6, 4, dtype=dtype, generator=g)
        compiled = torch.compile(lambda X: lowrank.pinv(X, rtol=1e-5), backend=backend, fullgraph=backend != "inductor")
        torch.testing.assert_close(compiled(A), lowrank.pinv(A, rtol=1e-5), rtol=0, atol=1e-5)
        torch.testing.assert_close(compiled(A), torch.linalg.pinv(A), rtol=0, atol=1e-5)
        print(dtype, backend)
"""


def test_compiled_it_is_the_same_complex_included():
    """In a process of its own: the checks of shapes that pytest adds cannot be traced."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 6


BAD = {
    "iteration below its floor": (torch.ones(2, 2), {"method": "iteration"}, ValueError, "1 / rtol"),
    "NaN": (torch.full((2, 2), torch.nan), {}, ValueError, "NaN"),
    "empty": (torch.ones(0, 3), {}, ValueError, "at least one row"),
    "integers": (torch.ones(2, 2, dtype=torch.int32), {}, TypeError, "double"),
    "rtol": (torch.ones(2, 2), {"rtol": 2.0}, ValueError, "rtol"),
    "method": (torch.ones(2, 2), {"method": "magic"}, (TypeError, ValueError), "method"),
    "gram below its floor": (torch.ones(2, 2).double(), {"method": "gram"}, ValueError, "squares"),
    "iteration with atol": (
        torch.ones(2, 2),
        {"method": "iteration", "rtol": 1e-3, "atol": 1.0},
        ValueError,
        "knows rtol",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(case):
    A, options, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        lowrank.pinv(A, **options)
