"""Inputs at the edges: nothing crashes inside, and no bound is below the truth."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch

from spectrain import lowrank
from spectrain.testing import with_singular_values


@pytest.mark.parametrize("K", [[[0.0, 1.0], [1.0, 0.0]], [[1.0, 2.0], [2.0, 1.0]], [[1.0, 1e-3], [1e-3, 0.0]]])
def test_matrices_that_are_not_semidefinite_are_refused(K):
    with pytest.raises(ValueError, match="not positive semidefinite"):
        lowrank.nystrom(torch.tensor(K), rank=2)


def test_the_spectral_error_of_krylov_in_single_precision():
    ones = torch.ones(200, 200)
    found = lowrank.svd(ones, rank=1, norm=2, method="krylov")
    product = found.U.double() * found.S.double() @ found.Vh.double()
    assert torch.linalg.matrix_norm(ones.double() - product, 2) <= found.error


def test_no_matrices_give_no_results():
    A = torch.zeros(0, 3, 4)
    assert lowrank.pinv(A).shape == (0, 4, 3)
    assert lowrank.pinv_factors(A).dense().shape == (0, 4, 3)
    assert lowrank.svd(A, rank=2).U.shape == (0, 3, 2)
    assert lowrank.svd(A, rtol=0.1).dense().shape == (0, 3, 4)


@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
@pytest.mark.parametrize("kind", [torch.zeros, np.zeros], ids=["torch", "numpy"])
def test_no_matrices_give_no_results_of_the_right_shapes(batch, kind):
    A, B = kind((*batch, 3, 4)), kind((*batch, 4, 2))
    for axis, shapes in {
        "columns": [(2,), (2, 4)],
        "rows": [(2,), (3, 2)],
        "both": [(2,), (2,), (3, 2), (2, 4)],
    }.items():
        found = lowrank.interpolative(A, rank=2, axis=axis)
        assert [tuple(F.shape) for F in found] == [(*batch, *shape) for shape in shapes]
        assert tuple(found.error.shape) == tuple(found.rank.shape) == batch
        assert tuple(found.dense().shape) == (*batch, 3, 4)
        assert tuple(lowrank.interpolative(A, rtol=0.1, axis=axis).dense().shape) == (*batch, 3, 4)
    for core in ("optimal", "cross"):
        found = lowrank.cur(A, rank=2, core=core)
        assert [tuple(F.shape) for F in found] == [(*batch, 3, 2), (*batch, 2, 2), (*batch, 2, 4)]
        assert tuple(lowrank.cur(A, atol=0.1, core=core).dense().shape) == (*batch, 3, 4)
    for core in ("diagonal", "full"):
        found = lowrank.cr(A, B, count=2, core=core)
        assert tuple(found.indices.shape) == (*batch, 2)
        assert tuple(found.dense().shape) == (*batch, 3, 2)
    for method in ("sampling", "norms", "subset"):
        product = lowrank.approx_matmul(A, B, count=2, method=method)
        assert isinstance(product, type(A))
        assert tuple(product.shape) == (*batch, 3, 2)
    for method in ("auto", "pivoted_qr", "uniform"):
        assert tuple(lowrank.select_columns(A, 2, method=method).shape) == (*batch, 2)


DOORS = {
    "svd": lambda A: lowrank.svd(A, rank=1),
    "interpolative": lambda A: lowrank.interpolative(A, rank=1),
    "cur": lambda A: lowrank.cur(A, rank=1),
    "select_columns": lambda A: lowrank.select_columns(A, 1),
    "pinv": lowrank.pinv,
    "pinv_factors": lowrank.pinv_factors,
    "nystrom": lambda A: lowrank.nystrom(A, rank=1),
    "cr": lambda A: lowrank.cr(A, A, count=1),
    "approx_matmul": lambda A: lowrank.approx_matmul(A, A, count=1),
}
NO_MATRIX = {
    "no rows": (lambda: torch.zeros(0, 3), ValueError, "at least one row"),
    "no columns": (lambda: np.zeros((2, 3, 0)), ValueError, "at least one row"),
    "sparse without columns": (lambda: torch.zeros(3, 0).to_sparse(), ValueError, "at least one row"),
    "integers": (lambda: torch.ones(3, 3, dtype=torch.int64), TypeError, "floating"),
    "booleans": (lambda: np.ones((3, 3), dtype=bool), TypeError, "floating"),
    "sparse integers": (lambda: scipy.sparse.eye_array(3, dtype=int).tocsr(), TypeError, "floating"),
    "eight bits": (lambda: torch.ones(3, 3).to(torch.float8_e4m3fn), TypeError, "floating"),
    "long doubles": (lambda: np.ones((3, 3), dtype=np.longdouble), TypeError, "counterpart"),
    "sparse long doubles": (lambda: scipy.sparse.eye_array(3, dtype=np.longdouble).tocsr(), TypeError, "counterpart"),
    "the other byte order": (lambda: np.ones((3, 3), dtype=np.dtype("f8").newbyteorder()), TypeError, "counterpart"),
    "words": (lambda: np.array([["a"]]), TypeError, "counterpart"),
    "masked": (lambda: np.ma.array(np.eye(3), mask=np.eye(3)), TypeError, "mask"),
    "meta": (lambda: torch.zeros(3, 3, device="meta"), TypeError, "meta"),
    "nested": (lambda: torch.nested.nested_tensor([torch.eye(3), torch.eye(2)]), TypeError, "nested"),
    "packed": (lambda: torch.eye(3).to_mkldnn(), TypeError, "mkldnn"),
    "a sparse vector": (lambda: scipy.sparse.coo_array(np.ones(3)), (TypeError, ValueError), "needs a matrix"),
    "a sparse batch": (lambda: torch.eye(3).expand(2, 3, 3).to_sparse(), ValueError, "single"),
    "a list": (lambda: [[1.0]], TypeError, "list"),
    "nothing": (lambda: None, TypeError, "NoneType"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("case", NO_MATRIX)
@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_matrix_of_numbers_is_refused_by_the_name_of_the_door(door, case):
    make, kind, words = NO_MATRIX[case]
    with pytest.raises(kind, match=f"{door}: .*{words}"):
        DOORS[door](make())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("case", NO_MATRIX)
def test_rows_on_disk_are_refused_alike(case):
    with pytest.raises((TypeError, ValueError), match=r"RowBlocks: |svd: "):
        lowrank.svd(lowrank.RowBlocks(NO_MATRIX[case][0]()), rank=1)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_sparse_matrices_are_refused_in_words_where_entries_are_taken():
    for A in (torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr(), scipy.sparse.eye_array(3).tocsr()):
        for door, words in {"cr": "to_dense", "approx_matmul": "to_dense"}.items():
            with pytest.raises(TypeError, match=f"{door}: .*{words}"):
                DOORS[door](A)
        with pytest.raises(TypeError, match="takes a sparse matrix as it is"):
            lowrank.RowBlocks(A)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [3, 40])
def test_the_pseudo_inverse_near_both_ends_of_the_dtype(dtype, n):
    """A = 2**e ones: A^+ = 2**-e ones / n^2, exactly representable or above the largest number."""
    largest = math.frexp(torch.finfo(dtype).max)[1]
    for e in range(-largest - 4, -largest + 12):
        A = torch.full((n, n), 2.0 ** (e // 2), dtype=torch.float64) * 2.0 ** (e - e // 2)
        A = A.to(dtype)
        if not float(A[0, 0]):
            continue
        truth = math.log2(1 / n**2) - e  # of each entry
        if truth < largest - 1e-9:
            found = lowrank.pinv_factors(A)
            for P in (lowrank.pinv(A), found.dense(), found @ torch.eye(n).to(dtype)):
                near = P.double() * 2.0 ** (-int(truth) // 2) * 2.0 ** (-int(truth) - -int(truth) // 2)
                assert float((near.log2() - (truth - int(truth))).abs().max()) < 4 * torch.finfo(dtype).eps + 1e-9
            assert all(bool(torch.isfinite(F).all()) for F in found)
        else:
            for door in (lowrank.pinv, lambda A: lowrank.pinv_factors(A).dense()):
                with pytest.raises(ValueError, match="above the largest number"):
                    door(A)


def test_a_factor_above_the_largest_number_is_refused():
    top, low = torch.full((4, 4), 3e38), torch.eye(4) * 1e-39
    for method in ("exact", "krylov"):
        with pytest.raises(ValueError, match="svd: a singular value is above"):
            lowrank.svd(top, rank=1, method=method)
    with pytest.raises(ValueError, match="svd: a singular value is above"):
        lowrank.svd(lowrank.RowBlocks(top), rank=1)
    for core in ("optimal", "cross"):
        for A in (low, low.to_sparse()):
            with pytest.raises(ValueError, match="cur: an entry of the core U"):
                lowrank.cur(A, rank=2, core=core)
    assert bool(torch.isfinite(lowrank.interpolative(low, rank=2).dense()).all())


def test_the_error_counts_what_is_lost_below_the_smallest_normal_number():
    """U of a matrix near 3e38 is near 1e-38: bfloat16 keeps few digits of it."""
    A = (with_singular_values([1.0, 0.8, 0.5], 12, 10, generator=0) * 2.0**127).bfloat16()
    for core in ("optimal", "cross"):
        found = lowrank.cur(A, rank=3, core=core)
        C, U, R = (F.double() for F in found)
        left = A.double() * 2.0**-127 - (C * 2.0**-127) @ (U * 2.0**127) @ (R * 2.0**-127)
        assert 1e-3 < float(torch.linalg.norm(left)) <= float(found.error) * 2.0**-127 * (1 + 1e-9)


@pytest.mark.parametrize("name", ["pinv", "pinv_factors", "svd", "cur", "interpolative", "nystrom"])
def test_the_meta_device_is_refused_by_name(name):
    stops = {} if name.startswith("pinv") else {"rank": 1}
    with pytest.raises(TypeError, match=f"{name}: a tensor on the meta device"):
        getattr(lowrank, name)(torch.zeros(4, 4, device="meta"), **stops)


def test_the_error_of_cr_is_that_of_its_rounded_weights():
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        X, Y = torch.randn(6, 8, generator=g).bfloat16(), torch.randn(8, 5, generator=g).bfloat16()
        for core in ("diagonal", "full"):
            found = lowrank.cr(X, Y, count=5, core=core)
            C, W, R = found.columns.double(), found.weights.double(), found.rows.double()
            product = (C @ W if core == "full" else C * W) @ R
            assert torch.linalg.matrix_norm(X.double() @ Y.double() - product) <= found.error
