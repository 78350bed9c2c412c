"""The change of msign by the matrix sign of a block matrix, and by eigenvectors, against a solve in 60 digits."""

import mpmath
import numpy as np
import pytest
import torch

from spectrain import matfun
from spectrain.matfun._derivative import sign
from spectrain.matfun._derivative.block_sign import _doublings, by_block_sign
from spectrain.matfun._derivative.sign import by_eigenvectors, certified, change_of_sign, in_parts
from spectrain.testing import with_singular_values

DIGITS = 60


def problem(m, n, condition, seed=0):
    """A wide matrix of that condition, its polar factor by SVD in float64, and a direction; batch of one."""
    g = torch.Generator().manual_seed(seed)
    X = with_singular_values(torch.logspace(0, -np.log10(condition), m).double(), m, n, generator=g)[None]
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    return X, U @ Vh, torch.randn(1, m, n, dtype=torch.float64, generator=g)


def in_60_digits(X, Y, D):
    """K Y + H^-1 (D - C Y) with H K + K H = C - C^T as k^2 linear equations, H = sym(X Y^T), in mpmath."""
    with mpmath.workdps(DIGITS):
        X, Y, D = (mpmath.matrix(A[0].tolist()) for A in (X, Y, D))
        T, C, k = X * Y.T, D * Y.T, X.rows
        H, S = (T + T.T) / 2, C - C.T
        M, b = mpmath.zeros(k * k), mpmath.zeros(k * k, 1)
        for i in range(k):
            for j in range(k):
                b[i * k + j] = S[i, j]
                for q in range(k):
                    M[i * k + j, q * k + j] += H[i, q]
                    M[i * k + j, i * k + q] += H[q, j]
        flat = mpmath.lu_solve(M, b)
        K = mpmath.matrix(k, k)
        for i in range(k):
            for j in range(k):
                K[i, j] = flat[i * k + j]
        found = K * Y + mpmath.inverse(H) * (D - C * Y)
        return torch.tensor([[float(v) for v in row] for row in found.tolist()], dtype=torch.float64)


def off(found, truth):
    return float(torch.linalg.norm(found - truth) / torch.linalg.norm(truth))


@pytest.mark.parametrize("shape", [(4, 4), (4, 7), (1, 3)], ids=str)
@pytest.mark.parametrize("condition", [1.0, 30.0, 1e4, 1e7])
def test_both_ways_are_right_and_the_bound_holds(shape, condition):
    X, Y, D = problem(*shape, condition)
    truth = in_60_digits(X, Y, D)
    floor = 1e-15 * condition + 1e-14
    assert off(by_eigenvectors(X, Y, D)[0], truth) < floor
    assert off(in_parts(X, Y, D)[0], truth) < floor
    for tol in (5e-2, 1e-4, 1e-10):
        found, bound = by_block_sign(X, Y, D, tol=tol)
        assert off(found[0], truth) <= float(bound)
        assert float(bound) < max(tol, 1e-12 * condition)


WRONG = {
    "not divided by two": lambda X, Y, D: 2 * by_eigenvectors(X, Y, D),
    "H on one side only": lambda X, Y, D: torch.linalg.solve(X @ Y.mT, D @ Y.mT - Y @ D.mT) @ Y,
    "the direction itself": lambda X, Y, D: D,
    "only within the row space": lambda X, Y, D: by_eigenvectors(X, Y, D) @ Y.mT @ Y,
    "no squaring": lambda X, Y, D: (D @ Y.mT - Y @ D.mT) @ Y / 2,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_changes(wrong):
    X, Y, D = problem(4, 7, 30.0)
    assert off(wrong(X, Y, D)[0], in_60_digits(X, Y, D)) > 1e-2


@pytest.mark.parametrize("damage", ["powers", "inverses"])
def test_a_wrong_iteration_is_seen_by_its_bound(damage, monkeypatch):
    """One part in a hundred off, inside of the iteration: the bound says so, and eigenvectors take over."""
    from spectrain.matfun._derivative import block_sign

    class Damaged(block_sign._Squared):
        def __init__(self, *args):
            super().__init__(*args)
            setattr(self, damage, [1.01 * A for A in getattr(self, damage)])

        def apply(self, S):
            return super().apply(S) * (1 if damage == "powers" else 1.2)

    X, Y, D = problem(12, 20, 100.0)
    truth = in_parts(X, Y, D)
    monkeypatch.setattr(block_sign, "_Squared", Damaged)
    monkeypatch.setattr(block_sign, "_ROUNDS", 0)
    found, bound = by_block_sign(X, Y, D, tol=1e-4)
    assert off(found, truth) > 1e-4
    assert float(bound) > 1e-4
    assert off(certified(X, Y, D, tol=1e-4), truth) < 1e-12


def test_what_has_no_proof_goes_by_eigenvectors_and_the_others_do_not():
    hard, easy = problem(6, 9, 1e13), problem(6, 9, 10.0, seed=1)
    low = list(problem(6, 9, 10.0, seed=2))
    low[0] = low[0] * torch.tensor([1.0] * 9).double()
    low[0][0, 3:] = 0.0
    U, S, Vh = torch.linalg.svd(low[0], full_matrices=False)
    low[1] = (U * (S > 1e-10)) @ Vh
    X, Y, D = (torch.cat(parts) for parts in zip(hard, easy, low, strict=True))
    found, bound = by_block_sign(X, Y, D, tol=1e-4)
    assert bound.isinf().tolist() == [True, False, True]
    whole = certified(X, Y, D, tol=1e-4)
    assert torch.equal(whole[1], found[1])
    torch.testing.assert_close(whole[[0, 2]], by_eigenvectors(X[[0, 2]], Y[[0, 2]], D[[0, 2]]), rtol=1e-9, atol=1e-9)
    nothing, bound = by_block_sign(X[1:2], Y[1:2], torch.zeros_like(D[1:2]), tol=1e-4)
    assert not nothing.any()
    assert float(bound) == 0


@pytest.mark.parametrize("condition", [1.5, 100.0, 1e6])
@pytest.mark.parametrize("tol", [1e-2, 1e-8])
def test_two_shifts_and_that_many_squarings_reach_the_tolerance_and_one_less_does_not(condition, tol):
    """The factor g1(x) g2(x) at its largest on [1, condition], by a scan; an entry is off by r^(2^(j+1))."""
    lo, hi = 1.0, condition
    root = (lo * hi) ** 0.5
    total = (2 * root * (lo + hi)) ** 0.5
    p = np.array([total + (total**2 - 4 * root**2) ** 0.5, total - (total**2 - 4 * root**2) ** 0.5]) / 2
    x = np.geomspace(lo, hi, 100_001)
    r = np.abs((x - p[0]) / (x + p[0]) * (x - p[1]) / (x + p[1])).max()
    s = ((lo + hi) / (2 * root)) ** 0.5
    assert r == pytest.approx((s - 1) / (s + 1), rel=1e-6)
    j = _doublings(r, tol)
    assert r ** (2 ** (j + 1)) <= 0.1 * tol
    assert j == 0 or r ** (2**j) > 0.1 * tol


def test_the_first_derivative_takes_one_decomposition_and_further_ones_still_exist(monkeypatch):
    calls = []
    monkeypatch.setattr(sign, "by_eigenvectors", lambda *A, **K: calls.append("fast") or by_eigenvectors(*A, **K))
    monkeypatch.setattr(sign, "in_parts", lambda *A: calls.append("parts") or in_parts(*A))
    X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(matfun.msign(X).sin().sum(), X)
    (kept,) = torch.autograd.grad(matfun.msign(X).sin().sum(), X, create_graph=True)
    assert calls == ["fast", "parts"]
    torch.testing.assert_close(plain, kept.detach(), rtol=1e-10, atol=1e-10)
    assert torch.autograd.grad(kept.square().sum(), X)[0].any()


def test_tall_matrices_are_the_transposed_and_the_dtype_is_that_of_the_direction():
    X, Y, D = problem(4, 7, 30.0)
    truth = in_60_digits(X, Y, D)
    assert off(change_of_sign(X.mT, Y.mT, D.mT)[0].mT, truth) < 1e-13
    narrow = change_of_sign(X.float(), Y.float(), D.float())
    assert narrow.dtype == torch.float32
    assert off(narrow[0].double(), truth) < 1e-5
