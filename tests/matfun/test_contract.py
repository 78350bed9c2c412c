"""The contract: what polar says about its error is true, and not much worse than true, on many matrices."""

import itertools

import numpy as np
import pytest
import torch

from benchmarks.matfun import matfun_contract as contract
from spectrain import matfun
from spectrain.matfun._proven.costs import SHIPPED
from spectrain.testing import exact_msign, polar_error, precise_msign, relative_error, with_singular_values, zoo

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_reported_error_is_a_bound_and_a_sharp_one(dtype, full):
    """With --full more than 10,000 matrices a dtype. The error of what is compared with is far below float64."""
    found = contract.judge(list(contract.suite(48 if full else 2)), dtype)
    held, sharp = contract.ratios(found, dtype)
    assert len(held) > (9_500 if full else 500)  # a few are zero, or beyond float16
    assert held.max() <= 1 + 1e-9, found["kind"][int(held.argmax())]
    assert (sharp <= 10).mean() >= 0.95
    assert sharp.max() <= 1000, found["kind"][int(sharp.argmax())]


WRONG_REPORTS = {
    "always 1e-16": lambda found: [1e-16] * len(found["measured"]),
    "u": lambda found: [1.1e-16] * len(found["measured"]),
    "always 2": lambda found: [2.0] * len(found["measured"]),
    "a tenth of the measured": lambda found: [0.1 * value for value in found["measured"]],
    "u condition squared": lambda found: [1.1e-16 * value**2 for value in found["condition"]],
}


@pytest.mark.parametrize("name", WRONG_REPORTS)
def test_the_suite_rejects_wrong_reports(name):
    found = contract.judge(list(contract.suite(1)), torch.float64)
    held, sharp = contract.ratios(found | {"reported": WRONG_REPORTS[name](found)}, torch.float64)
    assert held.max() > 1 or (sharp <= 10).mean() < 0.95 or sharp.max() > 1000


def test_the_measure_has_more_digits_than_float64():
    """[[2, t], [0, 1]] has the skew part t / (2 + 1) to first order: at t = 1e-12 float64 keeps four digits of it."""
    X = torch.tensor([[2.0, 1e-12], [0.0, 1.0]], dtype=torch.float64)
    assert float(precise_msign(X, 2)[0, 1]) == pytest.approx(1e-12 / 3, rel=1e-7)
    rotated = with_singular_values([1.0, 0.3, 1e-7], 3, 5, generator=0)
    Y = precise_msign(rotated, 3)
    assert abs(Y @ Y.T - np.eye(3)).max() < 1e-18
    assert abs(rotated.numpy() @ Y.T - (rotated.numpy() @ Y.T).T).max() < 1e-18
    assert abs((Y - exact_msign(rotated).numpy()).astype(float)).max() > 1e-11  # which float64 alone does not reach


def _cut(s, rank):
    """A relative threshold that keeps exactly ``rank`` of the singular values s."""
    return 0.0 if rank == len(s) else float((s[rank - 1] * s[rank].clamp_min(1e-300)).sqrt() / s[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_factors_are_what_they_are_called(dtype):
    for name, X in zoo(12, 20, generator=2).items():
        if dtype == torch.float64 and name in ("decades_6", "decades_12", "one_small", "graded"):
            continue
        X = X.to(dtype)
        U, H, _, rank = matfun.polar(X)
        assert torch.equal(H, H.mT), name
        assert torch.linalg.eigvalsh(H.double()).min() >= -20 * torch.finfo(dtype).eps * H.double().norm(), name
        assert round(float(torch.linalg.matrix_norm(U.double()).square())) == rank, name
        if rank == 12:
            assert relative_error((U.double() @ H.double()).to(dtype), X) <= max(20 * torch.finfo(dtype).eps, 1e-10), (
                name
            )


WRONG_BOUNDS = {
    "orthogonality alone": lambda U, X: float(torch.linalg.matrix_norm(U @ U.mT - torch.eye(len(U), dtype=U.dtype))),
    "symmetry alone": lambda U, X: float(torch.linalg.matrix_norm(X @ U.mT - U @ X.mT) / torch.linalg.matrix_norm(X)),
    "product alone": lambda U, X: float(relative_error(X @ U.mT @ U, X)),
}
LIES = {
    "orthogonality alone": lambda X: torch.linalg.qr(X.mT)[0].mT,
    "symmetry alone": lambda X: 0.5 * exact_msign(X),
    "product alone": lambda X: torch.linalg.qr(X.mT)[0].mT,
}


@pytest.mark.parametrize("name", WRONG_BOUNDS)
def test_a_single_residual_does_not_bound_the_polar_error(name):
    """Each of the residuals is zero for some matrix that is far from the polar factor: the bound needs all."""
    X = with_singular_values([1.0, 0.5, 0.1], 3, 5, generator=0)
    U = LIES[name](X)
    assert WRONG_BOUNDS[name](U, X) < 1e-12
    assert polar_error(U, X) > 0.3


def test_a_singular_value_on_the_floor_is_not_claimed():
    """One singular value at the rounding noise of bfloat16: whatever rank is reported, the bound is for it."""
    X = with_singular_values([1.0] * 7 + [2**-9], 8, 8, generator=0).bfloat16()
    U, _, error, rank = matfun.polar(X)
    assert polar_error(U, X, rtol=_cut(torch.linalg.svdvals(X.double()), int(rank))) <= error


@pytest.mark.parametrize(("dtype", "tol"), list(itertools.product((torch.float32, torch.float64), (1e-1, 1e-3, 1e-6))))
def test_any_tolerance_is_kept(dtype, tol):
    for name, X in zoo(20, 28, generator=3).items():
        if name == "decades_12":
            continue
        X = X.to(dtype)
        U, _, error, _ = matfun.polar(X, tol=tol)
        assert error <= tol, name
        assert polar_error(U, X) <= error + 1e-7, name
        torch.testing.assert_close(matfun.msign(X, tol=tol), U, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["iterate", "eigh", "svd"])
def test_each_method_alone_keeps_the_contract(method):
    for name in ("gaussian", "decades_2", "clustered"):
        X = zoo(20, 28, generator=3)[name]
        assert polar_error(matfun.msign(X, method=method), X) <= 1e-10


def test_the_plan_says_what_will_be_tried():
    exact = ("eigh float64", "svd float64")
    assert matfun.plan((512, 2048), torch.bfloat16, costs=SHIPPED).stages == ("iterate float32", *exact)
    # a random square one is too near rank
    assert matfun.plan((512, 512), torch.bfloat16, costs=SHIPPED).stages == ("eigh mixed", *exact)
    assert matfun.plan((8, 16), torch.float32, costs=SHIPPED).stages == exact  # deficient, and this one too small
    assert matfun.plan((512, 2048), torch.float64, costs=SHIPPED).stages == exact
    assert matfun.plan((64, 64), torch.float32) == matfun.plan((64, 64), torch.float32, 1e-4)
    prices = matfun.plan((3, 64, 256), torch.float32).seconds
    assert len(prices) >= 2
    assert min(prices) > 0
    with pytest.raises(ValueError, match="shape of a matrix"):
        matfun.plan((64,))
    with pytest.raises(ValueError, match="out_dtype"):
        matfun.plan((64, 64), torch.bfloat16, 1e-6)
