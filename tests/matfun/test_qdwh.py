"""QDWH: the steps, the bound, and where the plan takes it."""

import dataclasses

import mpmath
import pytest
import torch

from spectrain import matfun
from spectrain.matfun._proven.costs import SHIPPED
from spectrain.matfun._proven.cut import Cut
from spectrain.matfun._proven.halley import by_qdwh, halley, step_by_cholesky, step_by_qr, weights
from spectrain.testing import exact_msign, polar_error, relative_error, with_singular_values, zoo

DOUBLE = torch.float64


def unit(decades, *shape, seed=0):
    X = with_singular_values(torch.logspace(0, -decades, min(shape), dtype=DOUBLE), *shape, generator=seed)
    return X[None] / X.norm()


def image(x, a, b, c):
    return x * (a + b * x**2) / (1 + c * x**2)


WRONG_WEIGHTS = {
    "Halley without weights": lambda a, b, c: (3.0, 1.0, 3.0),
    "a too large": lambda a, b, c: (1.1 * a, b, c),
    "c of another lower end": lambda a, b, c: (a, b, 0.9 * c),
    "inverse Newton": lambda a, b, c: (0.5, 0.5, 0.0),
}


def zolotarev(lower):
    """Least over largest value on [lower, 1] of Zolotarev's x (x^2 + c_2) / (x^2 + c_1), by elliptic functions."""
    m = 1 - mpmath.mpf(lower) ** 2
    K = mpmath.ellipk(m)
    c = [lower**2 * (mpmath.ellipfun("sn", i * K / 3, m) / mpmath.ellipfun("cn", i * K / 3, m)) ** 2 for i in (1, 2)]
    x = torch.logspace(float(mpmath.log10(lower)), 0, 20_001, dtype=DOUBLE)
    y = x * (x**2 + float(c[1])) / (x**2 + float(c[0]))
    return float(y.min() / y.max())


def optimal(lower, a, b, c):
    """Whether the image of [lower, 1] lies below 1 and reaches down no further than that of Zolotarev's function."""
    y = image(torch.logspace(float(mpmath.log10(lower)), 0, 20_001, dtype=DOUBLE), a, b, c)
    return float(y.max()) < 1 + 1e-9 and float(y.min()) > zolotarev(lower) * (1 - 1e-4)


@pytest.mark.parametrize("lower", [0.5, 1e-2, 1e-5])
def test_the_weights_are_the_best_and_others_are_not(lower):
    """No rational function of this type does better than Zolotarev's, and no wrong weights do as well."""
    a, b, c, _ = (float(w) for w in weights(torch.tensor([lower], dtype=DOUBLE)))
    assert optimal(lower, a, b, c)
    for name, wrong in WRONG_WEIGHTS.items():
        assert not optimal(lower, *wrong(a, b, c)), name


def test_six_steps_are_enough_for_every_condition():
    lower = torch.logspace(0, -16, 33, dtype=DOUBLE)
    for _ in range(6):
        lower = weights(lower).lower
    assert (1 - lower).max() < 1e-15


@pytest.mark.parametrize("shape", [(16, 16), (16, 40)], ids=str)
@pytest.mark.parametrize("decades", [0, 1, 3, 6, 9])
def test_the_error_is_bounded_and_that_of_a_stable_method(shape, decades):
    X = unit(decades, *shape)
    found = by_qdwh(X, Cut(DOUBLE))
    true = float(polar_error(found.Y[0], X[0]))
    assert true <= float(found.error[0]) + 1e-15
    assert float(found.error[0]) < 1e-14 * 10**decades
    assert torch.linalg.matrix_norm(found.Y[0] @ found.Y[0].mT - torch.eye(16, dtype=DOUBLE)) < 1e-13


def test_cholesky_in_place_of_qr_loses_the_digits_that_qr_keeps():
    X = unit(8, 24, 24)
    lower = torch.linalg.svdvals(X)[:, -1]
    w = weights(lower)[:3]
    exact = with_singular_values(image(torch.logspace(0, -8, 24, dtype=DOUBLE) / _norm(8), *map(float, w)), 24, 24)
    assert torch.linalg.matrix_norm(step_by_qr(X, *w)[0] - exact) < 1e-8
    assert not torch.linalg.matrix_norm(step_by_cholesky(X, *w)[0] - exact) < 1e-8
    mild = weights(torch.tensor([0.1], dtype=DOUBLE))[:3]
    torch.testing.assert_close(step_by_cholesky(X, *mild), step_by_qr(X, *mild), rtol=0, atol=1e-13)


def _norm(decades):
    return float(torch.logspace(0, -decades, 24, dtype=DOUBLE).norm())


def test_nothing_is_claimed_where_the_rank_is_in_doubt():
    X = torch.stack([unit(1, 12, 20)[0], unit(1, 12, 20)[0]])
    X[1, 3] = X[1, 4]  # rank 11
    found = by_qdwh(X, Cut(DOUBLE))
    assert found.error.isfinite().tolist() == [True, False]
    Y = matfun.msign(X, method="qdwh")
    assert [round(float(torch.linalg.matrix_norm(Z) ** 2)) for Z in Y] == [12, 11]
    assert by_qdwh(torch.zeros(1, 3, 5, dtype=DOUBLE), Cut(DOUBLE)).error == torch.inf
    assert not matfun.msign(torch.zeros(3, 5), method="qdwh").any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, DOUBLE], ids=str)
def test_as_a_method_of_msign_it_keeps_the_contract(dtype):
    matrices = [X.to(dtype) for shape in ((20, 32), (32, 20)) for X in zoo(*shape, generator=1).values()]
    tol = 1e-3 if dtype == DOUBLE else None  # some of the zoo are too ill conditioned for the default of float64
    results = matfun.msign(matrices, method="qdwh", tol=tol)
    for X, Y in zip(matrices, results, strict=True):
        assert Y.shape == X.shape
        assert Y.dtype == dtype
        assert relative_error(Y, exact_msign(X)) < (0.05 if dtype == torch.bfloat16 else 1e-3)
    X = matrices[0]
    assert torch.equal(matfun.msign(X * 2.0**40, method="qdwh"), matfun.msign(X, method="qdwh"))


def test_the_plan_takes_it_where_its_factorizations_are_cheap():
    fast = {name: tuple(0.1 * v for v in getattr(SHIPPED, name)) for name in ("qr_float64", "halley_float64")}
    table = dataclasses.replace(SHIPPED, **fast)
    decision = matfun.plan((512, 512), torch.float64, costs=table)
    assert decision.stages[0] == "qdwh float64"
    assert "Halley" in str(decision)
    assert decision.stages[-1] == "svd float64"
    assert "qdwh float64" not in matfun.plan((512, 512), torch.float64, costs=SHIPPED).stages


def test_square_factors_by_halley_alone():
    X = unit(2, 8, 8)[0]
    Y = halley(X[None] / torch.linalg.matrix_norm(X, 2), torch.tensor([0.9e-2], dtype=DOUBLE))[0]
    assert polar_error(Y, X) < 1e-12
