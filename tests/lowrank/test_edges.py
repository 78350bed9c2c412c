"""Inputs at the edges: nothing crashes inside, and no bound is below the truth."""

import pytest
import torch

from spectrain import lowrank


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
