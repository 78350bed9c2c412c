"""Symmetric products by block columns are the products, and exactly symmetric."""

import pytest
import torch

from spectrain import matfun
from spectrain._arrays import products
from spectrain._arrays.products import baddbmm, bmm, symmetric_baddbmm, symmetric_bmm
from spectrain.testing import exact_msign, relative_error

SIDES = (96, 130, 161)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(products, "_LEAST_SIDE", 64)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def test_the_sides_of_this_file_go_by_blocks(monkeypatch):
    A = drawn(1, min(SIDES), 96)
    monkeypatch.setattr(torch, "mm", None)
    with pytest.raises(TypeError, match="not callable"):
        symmetric_bmm(A, A.mT)


@pytest.mark.parametrize("k", SIDES)
@pytest.mark.parametrize("tall", [False, True])
def test_a_gram_matrix_is_the_product(k, tall):
    X = drawn(2, 200, k) if tall else drawn(2, k, 200)
    A, B = (X.mT, X) if tall else (X, X.mT)
    G = symmetric_bmm(A, B)
    exact = A.double() @ B.double()
    assert torch.equal(G, G.mT)
    limit = 2.0**-8 * exact.abs() + 1e-3
    assert bool(((G.double() - exact).abs() <= limit).all())
    wrong = {"upper part forgotten": G.tril(), "one block twice": G.roll(32, -1), "in halves": G / 2}
    for value in wrong.values():
        assert not bool(((value.double() - exact).abs() <= limit).all())


@pytest.mark.parametrize("k", SIDES)
def test_with_a_sum_it_is_what_one_product_gives(k):
    X = drawn(2, k, 3 * k) / (3 * k) ** 0.5
    G = bmm(X, X.mT)
    M = symmetric_baddbmm(G, G, G, beta=1.5, alpha=-0.5)
    exact = 1.5 * G.double() - 0.5 * G.double() @ G.double()
    assert torch.equal(M, M.mT)
    assert (M.double() - exact).abs().max() <= 2 * (baddbmm(G, G, G, beta=1.5, alpha=-0.5).double() - exact).abs().max()
    assert (G.double() - exact).abs().max() > 0.1


@pytest.mark.parametrize("form", ["plain", "gram"])
@pytest.mark.parametrize("shape", [(128, 128), (96, 400), (400, 96)])
def test_msign_is_as_accurate_with_it(form, shape, monkeypatch):
    X = drawn(*shape, seed=3)
    truth = exact_msign(X)
    run = lambda: matfun.msign(X, schedule=_schedule(), method=form, out_dtype=torch.float32)  # noqa: E731
    blocks = float(relative_error(run(), truth))
    monkeypatch.setattr(products, "_LEAST_SIDE", 10_000)
    whole = float(relative_error(run(), truth))
    assert blocks <= 1.25 * whole + 2e-3
    assert blocks < 0.5


def _schedule():
    from spectrain import approx

    return approx.sign_schedule(0.02, steps=4, dtype="bfloat16")


def test_other_dtypes_and_graphs_take_the_whole_product(monkeypatch):
    A = drawn(1, 96, 96)
    assert torch.equal(symmetric_bmm(A.float(), A.float().mT), bmm(A.float(), A.float().mT))
    monkeypatch.setattr(products, "recording", lambda: True)
    monkeypatch.setattr(torch, "mm", None)
    assert torch.equal(symmetric_bmm(A, A.mT), bmm(A, A.mT))
