"""Jacobi: the sign of matrices whose rows differ in size by any factor, and a proof that counts by rows."""

import mpmath
import pytest
import torch

from spectrain import matfun
from spectrain.matfun._proven.costs import SHIPPED
from spectrain.matfun._proven.cut import Cut
from spectrain.matfun._proven.decomposition import by_eigh, by_svd
from spectrain.matfun._proven.halley import by_qdwh
from spectrain.matfun._proven.jacobi import _rounds, by_jacobi, row_proof
from spectrain.testing import WRONG_MSIGN, exact_msign, relative_error, zoo

DOUBLE = torch.float64
SHAPES = [(1, 4), (2, 2), (3, 3), (4, 7), (7, 7), (6, 40)]


def graded(decades, k, length, seed=0):
    """Normal rows, scaled by 1 to 10^-decades in random order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(k, generator=generator)
    sizes = torch.logspace(0, -decades, k, dtype=DOUBLE)[order, None]
    return sizes * torch.randn(k, length, dtype=DOUBLE, generator=generator)


def true_sign(X):
    """(X X^T)^(-1/2) X in 160 digits."""
    with mpmath.workdps(160):
        A = mpmath.matrix(X.tolist())
        values, Q = mpmath.eigsy(A * A.T)
        Y = Q * mpmath.diag([1 / mpmath.sqrt(value) for value in values]) * Q.T * A
        return torch.tensor([[float(Y[i, j]) for j in range(A.cols)] for i in range(A.rows)], dtype=DOUBLE)


def distance(Y, X):
    return float(torch.linalg.matrix_norm(Y - true_sign(X))) / X.shape[0] ** 0.5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("decades", [0, 6, 12, 60])
def test_rows_of_any_size_cost_no_digits_and_the_bound_holds(shape, decades):
    X = graded(decades, *shape)
    found = by_jacobi(X[None], Cut(DOUBLE, 0.0))
    assert distance(found.Y[0], X) <= float(found.error[0]) + 1e-16
    assert float(found.error[0]) < 1e-12


@pytest.mark.parametrize("other", [by_svd, by_eigh, by_qdwh], ids=lambda f: f.__name__)
def test_no_other_algorithm_proves_that(other):
    X = graded(12, 4, 7)
    found = other(X[None], Cut(DOUBLE, 1e-15))
    assert not (float(found.error[0]) < 1e-10 and float(found.undecided[0]) == 0)


def test_msign_gives_what_it_refuses_otherwise():
    X = graded(12, 5, 8)
    with pytest.raises(ValueError, match="cannot prove"):
        matfun.msign(X, tol=1e-10)
    for matrix in (X, X.mT.contiguous()):
        Y = matfun.msign(matrix, tol=1e-10, method="jacobi")
        assert distance(Y if matrix is X else Y.mT, X) < 1e-14


def test_sizes_of_columns_do_cost_digits_and_are_refused():
    with pytest.raises(ValueError, match="cannot prove"):
        matfun.msign(graded(12, 8, 5).mT.contiguous(), tol=1e-10, method="jacobi")


def _of_largest_row(X):
    """A sign that is right but for roundings of the largest row in every row."""
    noise = torch.randn(X.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))
    return true_sign(X + 1e-14 * X.norm() * noise / noise.norm())


_SKEW = torch.ones(7, 7, dtype=DOUBLE).triu() - torch.ones(7, 7, dtype=DOUBLE).tril()
WRONG = {
    **WRONG_MSIGN,
    "rounded relative to the largest row": _of_largest_row,
    "the sign of the rows at length 1": lambda X: exact_msign(X / X.norm(dim=-1, keepdim=True)),
    "one row turned": lambda X: true_sign(X) * torch.tensor([1.0, -1, 1, 1], dtype=DOUBLE)[:, None],
    "two rows exchanged": lambda X: true_sign(X)[[1, 0, 2, 3]],
    "LAPACK's": lambda X: by_svd(X[None], Cut(DOUBLE, 0.0)).Y[0],
    "a nearby rotation": lambda X: true_sign(X) @ torch.linalg.matrix_exp(1e-8 * _SKEW),
}
MAY_BE_RIGHT = ("rounded relative to the largest row", "LAPACK's")


@pytest.mark.parametrize("decades", [3, 8, 12])
@pytest.mark.parametrize("wrong", WRONG)
def test_the_proof_rejects_wrong_signs(wrong, decades):
    """Whatever is offered as the sign, the bound is not below its distance from the true one."""
    X = graded(decades, 4, 7, seed=3)
    Y = WRONG[wrong](X)
    assert distance(Y, X) > 1e-14 or wrong in MAY_BE_RIGHT
    assert float(row_proof(X[None], Y[None]).error[0]) / 2 >= distance(Y, X)


def test_the_proof_accepts_the_true_sign():
    for decades in (0, 3, 8, 12, 60):
        X = graded(decades, 4, 7, seed=3)
        assert float(row_proof(X[None], true_sign(X)[None]).error[0]) < 1e-13


def test_the_least_singular_value_is_bounded_from_below():
    for decades in (0, 3, 6):
        X = torch.stack([graded(decades, 5, 8, seed=seed) for seed in range(20)])
        least = torch.linalg.svdvals(X)[:, -1]
        proven = by_jacobi(X, Cut(DOUBLE)).smallest * torch.linalg.matrix_norm(X, 2)
        assert (proven <= least).all()
        assert (proven > 0.02 * least).all()


def test_nothing_is_claimed_where_the_rank_is_in_doubt():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(4, 6, 9, dtype=DOUBLE, generator=generator)
    X[1, 3] = X[1, 4]  # rank 5
    X[2, 3] = 0
    X[3, 3] = X[3, 4] + 1e-15 * X[3, 5]  # rank 6 of the entries, 5 of what rounding leaves
    assert by_jacobi(X, Cut(DOUBLE)).error.isfinite().tolist() == [True, False, False, False]
    Y = matfun.msign(X, method="jacobi", tol=1e-8)
    assert [round(float(torch.linalg.matrix_norm(Z) ** 2)) for Z in Y] == [6, 5, 5, 5]
    assert by_jacobi(torch.zeros(1, 3, 5, dtype=DOUBLE), Cut(DOUBLE)).error == torch.inf
    assert not matfun.msign(torch.zeros(3, 5), method="jacobi").any()
    small = graded(12, 4, 7)[None]
    assert by_jacobi(small, Cut(DOUBLE, 1e-9)).error == torch.inf  # a row that the caller calls zero


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, DOUBLE], ids=str)
def test_as_a_method_of_msign_it_keeps_the_contract(dtype):
    matrices = [X.to(dtype) for shape in ((6, 9), (9, 6)) for X in zoo(*shape, generator=1).values()]
    matrices = [X for X in matrices if X.isfinite().all()]
    tol = 1e-3 if dtype == DOUBLE else None  # some of the zoo are too ill conditioned for the default of float64
    results = matfun.msign(matrices, method="jacobi", tol=tol)
    for X, Y in zip(matrices, results, strict=True):
        assert Y.shape == X.shape
        assert Y.dtype == dtype
        assert relative_error(Y, exact_msign(X)) < (0.05 if dtype.itemsize == 2 else 1e-3)


@pytest.mark.parametrize("power", [-900, -60, 60, 900])
def test_scale_changes_no_bit(power):
    X = graded(12, 4, 7)
    assert torch.equal(matfun.msign(X * 2.0**power, method="jacobi"), matfun.msign(X, method="jacobi"))


def test_complex_matrices_have_their_unitary_factor():
    X = torch.complex(graded(10, 4, 4), graded(10, 4, 4, seed=1)) * 1e3
    Y = matfun.msign(X, method="jacobi", tol=1e-10)
    H = X @ Y.mH
    assert torch.linalg.matrix_norm(Y @ Y.mH - torch.eye(4)) < 1e-13
    assert torch.linalg.matrix_norm(H - H.mH) < 1e-13 * torch.linalg.matrix_norm(X)
    size = torch.linalg.vector_norm(X, dim=-1).sqrt()
    assert torch.linalg.eigvalsh(H / size / size[:, None]).min() > 0.01  # definite, row by row


@pytest.mark.parametrize("k", range(1, 9))
def test_every_pair_meets_once_in_rounds_of_disjoint_pairs(k):
    rounds = [torch.stack(pair).T.tolist() for pair in _rounds(k, torch.device("cpu"))]
    assert sorted(sorted(pair) for pairs in rounds for pair in pairs) == [
        [i, j] for i in range(k) for j in range(i + 1, k)
    ]
    assert all(len({i for pair in pairs for i in pair}) == 2 * len(pairs) for pairs in rounds)
    assert len(rounds) == (k - 1 + k % 2 if k > 1 else 0)


def test_its_price_keeps_it_out_of_plans():
    for k in (1, 2, 3, 8, 64, 512):
        for dtype in (torch.bfloat16, DOUBLE):
            assert "jacobi float64" not in matfun.plan((k, 2 * k), dtype, costs=SHIPPED).stages
