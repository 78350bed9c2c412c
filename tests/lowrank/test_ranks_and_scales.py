"""What counts as rank, columns orthonormal whatever the spectrum, and answers that do not hang on the scale."""

import numpy as np
import pytest
import scipy.sparse
import torch

from spectrain import lowrank
from spectrain.testing import with_singular_values

SPECTRA = {"rank 2": [1.0, 0.5], "fifteen decades": list(10.0 ** -np.arange(0, 16, 0.5))}
SCALES = (2.0**-1000, 2.0**-548, 2.0**-73, 1.0, 2.0**530, 2.0**1000)


class Products:
    """A matrix that is known by its products alone."""

    def __init__(self, A):
        self.A, self.shape, self.dtype = A, A.shape, A.dtype

    def __matmul__(self, X):
        return self.A @ X

    @property
    def mH(self):  # noqa: N802 - torch's name for the adjoint
        return Products(self.A.mH)


def defect(U, rank):
    """||U^H U - D||, D with ``rank`` ones: orthonormal columns as far as they count, zero ones after them."""
    U = torch.as_tensor(U).to(torch.complex128)
    wanted = torch.diag((torch.arange(U.shape[1]) < rank).to(U.dtype))
    return float((U.mH @ U - wanted).abs().max())


def left(A, found):
    """||A - U diag(S) Vh||_F, all of it in double precision."""
    A, U, S, Vh = (torch.as_tensor(X).to(torch.complex128) for X in (A, *found))
    return float(torch.linalg.norm(A - (U * S) @ Vh))


@pytest.mark.parametrize("kind", [lambda A: A, torch.Tensor.float, torch.Tensor.to_sparse, Products])
def test_krylov_counts_the_directions_there_are(kind):
    A = with_singular_values([1.0, 0.5], 300, 200, generator=0)
    found = lowrank.svd(kind(A), rank=6, method="krylov")
    assert int(found.rank) == 2
    assert max(defect(found.U, 2), defect(found.Vh.mH, 2)) < 1e-5
    torch.testing.assert_close(found.S[:2].double(), torch.tensor([1.0, 0.5]).double(), rtol=1e-5, atol=0)
    assert defect(found.U, 6) > 0.5  # the same check rejects the rank that was asked for
    batch = torch.stack([A, with_singular_values([1.0, 0.9, 0.8], 300, 200, generator=1)])
    assert lowrank.svd(batch, rank=6, method="krylov").rank.tolist() == [2, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("method", [None, "gram", "tsqr", "once"])
def test_columns_of_rows_on_disk_are_orthonormal(name, dtype, method):
    A = with_singular_values(SPECTRA[name], 500, 40, generator=0)
    A = (A * (0.6 + 0.8j)).to(dtype) if dtype.is_complex else A.to(dtype)
    for rank in (6, 40):
        blocks = iter(A.split(64)) if method == "once" else lambda: iter(A.split(64))
        found = lowrank.svd(lowrank.RowBlocks(blocks), rank=rank, method=None if method == "once" else method)
        unit = 1e-9 if method == "once" and dtype == torch.float64 else 80 * torch.finfo(dtype).eps
        assert max(defect(found.U, int(found.rank)), defect(found.Vh.mH, int(found.rank))) < unit
        assert left(A, found) <= float(found.error) * (1 + 1e-6)
        seen = torch.as_tensor(SPECTRA[name])
        assert int(found.rank) >= min(rank, int((seen > 1e-5).sum()))


def test_u_on_disk_is_made_orthonormal_there(tmp_path):
    A = with_singular_values(SPECTRA["fifteen decades"], 500, 40, generator=0)
    out = np.memmap(tmp_path / "U", dtype=np.float64, mode="w+", shape=(500, 40))
    found = lowrank.svd(lowrank.RowBlocks(A.numpy(), rows=64), rank=40, out=out)
    assert found.U is out
    assert defect(np.array(out), int(found.rank)) < 1e-14
    assert left(A, found) <= float(found.error) * (1 + 1e-6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method", [None, "gram", "tsqr", "once"])
def test_rows_on_disk_have_any_scale(scale, method):
    """A power of two changes no digit: factors are the same, values and errors are multiplied by it."""
    A = with_singular_values(list(10.0 ** -np.arange(0, 4, 0.25)), 100, 16, generator=0)
    small = torch.cat([A[:30] * 1e-30, A[30:]])  # a first block that says nothing about the scale of the rest
    for X in (A, small):
        blocks = lambda c: iter((X * c).split(30)) if method == "once" else lambda: iter((X * c).split(30))  # noqa: B023, E731
        how = {"rank": 5, "method": None if method == "once" else method}
        plain, found = (lowrank.svd(lowrank.RowBlocks(blocks(c)), **how) for c in (1.0, scale))
        truth = torch.linalg.svdvals(X)
        torch.testing.assert_close(found.S / scale, truth[:5], rtol=1e-3 if method == "once" else 1e-9, atol=0)
        torch.testing.assert_close(found.U @ found.Vh, plain.U @ plain.Vh, rtol=0, atol=1e-7)
        rest = torch.linalg.norm(X - (found.U * (found.S / scale)) @ found.Vh)
        assert float(rest) <= float(found.error) / scale <= 1.2 * float(truth[5:].norm()) + 1e-6
        assert float(found.best) / scale == pytest.approx(float(truth[5:].norm()), rel=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_sparse_matrices_have_any_scale(scale):
    A = scipy.sparse.random(160, 130, 0.05, random_state=0, format="csr")
    X, B = A.toarray(), A * scale
    best = np.linalg.norm(np.linalg.svd(X)[1][4:])
    U, S, Vh = found = lowrank.svd(B, rank=4, method="krylov")
    assert np.linalg.norm(X - (U * (S / scale)) @ Vh) <= float(found.error) / scale <= 1.05 * best
    columns = lowrank.interpolative(B, rank=4)
    rest = np.linalg.norm(X - columns.skeleton / scale @ columns.Z)
    assert rest <= float(columns.error) / scale <= 3 * best
    cut = lowrank.cur(B, rank=4)
    rest = np.linalg.norm(X - (cut.C / scale) @ (cut.U * scale) @ (cut.R / scale))
    assert rest <= float(cut.error) / scale <= 6 * best
    told = lowrank.interpolative(B, atol=0.7 * best * scale)
    assert float(told.error) / scale <= 0.7 * best


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e-22, 1.0, 1e20, 1e34])
def test_operators_in_single_precision_have_any_scale(scale):
    A = with_singular_values([1.0, 0.5, 0.25], 300, 200, generator=0).float()
    for norm in ("fro", 2):
        found = lowrank.svd(Products(A * scale), rank=2, method="krylov", norm=norm)
        torch.testing.assert_close((found.S.double() / scale).float(), torch.tensor([1.0, 0.5]), rtol=1e-4, atol=0)
        assert 0.2499 <= float(found.error) / scale <= 1.0

    class Wrong(Products):
        """The transpose of another matrix."""

        @property
        def mH(self):  # noqa: N802 - torch's name for the adjoint
            return Products(-self.A.mH)

    with pytest.raises(ValueError, match="adjoint"):
        lowrank.svd(Wrong(A * scale), rank=2, method="krylov")
