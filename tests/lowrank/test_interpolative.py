"""Interpolative decompositions: the identity inside, the best coefficients, tolerances, bounds, gradients."""

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.linalg.interpolative
import torch

from spectrain import lowrank
from spectrain.testing import zoo

sys.path.insert(0, str(Path(__file__).parent))
from columns_zoo import best_error, hard_cases, kahan, left_over


def test_the_coefficients_are_the_least_squares_and_hold_the_identity():
    for A, k in hard_cases(48, seed=5):
        columns, Z = lowrank.interpolative(A, rank=k)
        found = lowrank.interpolative(A, rank=k)
        if int(found.rank) < k or np.linalg.cond(A[:, columns]) > 1e7:
            continue
        assert torch.equal(Z[:, columns], torch.eye(k, dtype=A.dtype))
        truth = scipy.linalg.lstsq(A[:, columns].numpy(), A.numpy())[0]
        np.testing.assert_allclose(Z, truth, atol=1e-7 * max(1, abs(truth).max()))
        assert float(found.largest) == float(Z.abs().max())
        noise = 1e-12 * float(torch.linalg.norm(A))
        assert left_over(A, columns) <= float(found.error) * (1 + 1e-9) <= left_over(A, columns) * (1 + 1e-6) + noise
        assert float(found.best) == pytest.approx(best_error(A, k), abs=noise)
        assert float(found.error) <= (1 + k) ** 0.5 * float(found.best) + noise


WRONG = {
    "coefficients of a sketch": lambda C, A: torch.linalg.lstsq((W := torch.randn(9, 20).double()) @ C, W @ A).solution,
    "inner products": lambda C, A: C.mT @ A,
    "nearest column": lambda C, A: torch.eye(4).double()[:, torch.cdist(C.mT, A.mT).argmin(0)],
    "a ridge": lambda C, A: torch.linalg.solve(C.mT @ C + 1e-3 * torch.eye(4).double(), C.mT @ A),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_error_rejects_other_coefficients(wrong):
    torch.manual_seed(0)
    A = zoo(20, 15, generator=0)["decades_6"]
    found = lowrank.interpolative(A, rank=4)
    assert torch.linalg.norm(A - found.skeleton @ wrong(found.skeleton, A)) > float(found.error) * (1 + 1e-6)


@pytest.mark.parametrize("axis", ["columns", "rows", "both"])
def test_each_axis_uses_entries_of_the_matrix(axis):
    A = zoo(18, 13, generator=1)["decades_2"].to(torch.complex128) * (1 + 0.3j)
    found = lowrank.interpolative(A, rank=5, axis=axis)
    if axis == "columns":
        assert torch.equal(found.skeleton, A[:, found.columns])
    elif axis == "rows":
        assert torch.equal(found.skeleton, A[found.rows])
        torch.testing.assert_close(found.Z[found.rows], torch.eye(5, dtype=A.dtype))
    else:
        assert torch.equal(found.skeleton, A[found.rows][:, found.columns])
        torch.testing.assert_close(found.X[found.rows], torch.eye(5, dtype=A.dtype))
        assert found.X.abs().max() <= 2 * (1 + 1e-9)
        one_sided = lowrank.interpolative(A, rank=5)
        assert float(found.error) <= float(one_sided.error) * (1 + 1e-6)
    assert torch.linalg.norm(A - found.dense()) <= float(found.error) * (1 + 1e-9)


def test_a_bound_on_the_coefficients():
    for A, k in ((kahan(60), 59), *hard_cases(24, seed=6)):
        for bound in (1.5, 2.0):
            found = lowrank.interpolative(A, rank=k, bound=bound)
            assert float(found.largest) <= bound * (1 + 1e-6)
            assert torch.linalg.norm(A - found.dense()) <= float(found.error) * (1 + 1e-6)
    plain = lowrank.interpolative(kahan(60), rank=59, method="pivoted_qr")
    assert float(plain.largest) > 1000


def test_a_tolerance_takes_fewer_columns_than_pivoting_and_no_fewer_than_singular_values():
    fewer = 0
    for name, A in zoo(24, 30, generator=2).items():
        for rtol in (0.3, 1e-2, 1e-5):
            norm = float(torch.linalg.norm(A))
            least = next(k for k in range(25) if best_error(A, k) <= rtol * norm)
            ranks = [int(lowrank.interpolative(A, rtol=rtol, method=rule).rank) for rule in ("auto", "pivoted_qr")]
            assert least <= ranks[0] <= ranks[1], (name, rtol)
            fewer += ranks[0] < ranks[1]
    assert fewer >= 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradients_flow_through_the_coefficients(dtype):
    A = zoo(7, 6, generator=3)["gaussian"].to(dtype)
    A = (A + 0.5j * A.roll(1, 0) if dtype.is_complex else A).requires_grad_()

    def approximation(X):
        return lowrank.interpolative(X, rank=3).dense()

    assert torch.autograd.gradcheck(approximation, (A,))


def test_no_larger_an_error_than_scipy():
    for name, A in zoo(40, 30, generator=4).items():
        order, coefficients = scipy.linalg.interpolative.interp_decomp(A.numpy(), 8, rand=False)
        peer = A - A[:, order[:8].copy()] @ torch.tensor(
            scipy.linalg.interpolative.reconstruct_interp_matrix(order, coefficients)
        )
        mine = lowrank.interpolative(A, rank=8)
        noise = 1e-12 * float(torch.linalg.norm(A))
        theirs = torch.nan_to_num(torch.linalg.norm(peer), nan=torch.inf)  # NaN for the matrix of ones (SciPy 1.17)
        assert torch.linalg.norm(A - mine.dense()) <= theirs * (1 + 1e-9) + noise, name


def test_dependent_columns_are_unused():
    A = torch.zeros(6, 8, dtype=torch.float64)
    A[:, [2, 5]] = zoo(6, 2, generator=5)["gaussian"]
    A[:, 6] = A[:, 2] + A[:, 5]
    found = lowrank.interpolative(A, rank=4)
    assert int(found.rank) == 2
    assert len(set(found.columns.tolist())) == 4
    assert not found.Z[2:].any()
    assert torch.linalg.norm(A - found.dense()) < 1e-14


BAD = {
    "no stop": ({}, "needs a stop"),
    "another axis": ({"rank": 2, "axis": "diagonal"}, "axis"),
    "a bound of 1": ({"rank": 2, "bound": 1.0}, "above 1"),
    "an unknown rule": ({"rank": 2, "method": "svd"}, "method must be one of"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_bad_arguments_are_told(arguments, words):
    with pytest.raises(Exception, match=words):
        lowrank.interpolative(torch.eye(4), **arguments)
