"""CR: the error without the product, best weights, best supports, unbiased sampling; against enumeration and lstsq."""

import itertools

import numpy as np
import pytest
import torch

from spectrain import lowrank

METHODS = ("subset", "greedy", "exhaustive", "norms", "sampling", "tuples", "pivoted_cholesky")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)


def pair(m=9, inner=8, n=7, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    X = torch.randn(m, inner, dtype=torch.complex128, generator=draw) + 0.6
    Y = torch.randn(inner, n, dtype=torch.complex128, generator=draw) * torch.logspace(0, -1, inner)[:, None] - 0.4
    return tuple(Z.to(dtype) if dtype.is_complex else Z.real.to(dtype) for Z in (X, Y))


def wide(X):
    return torch.as_tensor(X).to(torch.complex128 if torch.as_tensor(X).is_complex() else torch.float64)


def measured(X, Y, found):
    core = torch.diag_embed(wide(found.weights)) if found.weights.ndim == found.indices.ndim else wide(found.weights)
    S = torch.as_tensor(found.indices)
    return float(torch.linalg.norm(wide(X) @ wide(Y) - wide(X)[:, S] @ core @ wide(Y)[S]))


def best_on(X, Y, S):
    """The best weights on a support by least squares on the terms written out as vectors, and their error."""
    V = np.stack([np.outer(X[:, i], Y[i]).ravel() for i in range(X.shape[1])], axis=1)
    w, *_ = np.linalg.lstsq(V[:, list(S)], V.sum(1), rcond=None)
    return w, float(np.linalg.norm(V.sum(1) - V[:, list(S)] @ w))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_the_error_is_that_of_the_terms_as_returned(method, dtype):
    X, Y = pair(dtype=dtype)
    for count in (1, 3, 8):
        found = lowrank.cr(X, Y, count=count, method=method, generator=1)
        size = float(torch.linalg.norm(wide(X) @ wide(Y)))
        assert found.indices.shape == found.weights.shape == (count,)
        slack = 4 * torch.finfo(dtype).eps * size if dtype not in (torch.float64, torch.complex128) else 0
        assert measured(X, Y, found) <= float(found.error) + slack
        assert float(found.error) <= measured(X, Y, found) + slack + 2e-6 * size
        assert torch.linalg.norm(wide(found.dense()) - wide(X) @ wide(Y)) <= float(found.error) + 8 * slack + 1e-12


WRONG_ERROR = {
    "independent terms": lambda H, w: ((1 - w).square() * H.diagonal()).sum().sqrt(),
    "of what is kept": lambda H, w: (w @ H @ w).sqrt(),
    "the tail of the norms": lambda H, w: H.diagonal()[w == 0].sqrt().sum(),
    "the trace": lambda H, w: H.diagonal()[w == 0].sum().sqrt(),
}


@pytest.mark.parametrize("wrong", WRONG_ERROR.values(), ids=WRONG_ERROR)
def test_the_check_of_the_error_rejects_wrong_formulas(wrong):
    X, Y = pair()
    found = lowrank.cr(X, Y, count=3)
    w = torch.zeros(8, dtype=torch.float64).index_put((found.indices,), found.weights)
    H = (X.mT @ X) * (Y @ Y.mT)
    assert abs(float(wrong(H, w)) - measured(X, Y, found)) > 0.01 * measured(X, Y, found)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_weights_are_the_best_of_the_support_and_supports_the_best_of_all(dtype):
    near = 0
    for seed in range(12):
        X, Y = pair(dtype=dtype, seed=seed)
        for count in (2, 3, 5):
            truth = min(best_on(X.numpy(), Y.numpy(), S)[1] for S in itertools.combinations(range(8), count))
            exact = lowrank.cr(X, Y, count=count, method="exhaustive")
            assert float(exact.error) == pytest.approx(truth, rel=1e-6)
            found = lowrank.cr(X, Y, count=count)
            w, error = best_on(X.numpy(), Y.numpy(), found.indices.tolist())
            np.testing.assert_allclose(found.weights, w, atol=1e-8)
            assert float(found.error) == pytest.approx(error, rel=1e-6)
            assert float(found.error) <= float(lowrank.cr(X, Y, count=count, method="greedy").error) * (1 + 1e-12)
            near += float(found.error) <= 1.0001 * truth
            for i, j in itertools.product(range(count), set(range(8)) - set(found.indices.tolist())):
                other = [*found.indices.tolist()[:i], j, *found.indices.tolist()[i + 1 :]]
                assert best_on(X.numpy(), Y.numpy(), other)[1] >= error * (1 - 1e-9)
    assert near >= 30


def test_greedy_takes_the_best_next_term_every_time():
    X, Y = pair(seed=3)
    S = lowrank.cr(X, Y, count=5, method="greedy").indices.tolist()
    for t in range(5):
        options = {j: best_on(X.numpy(), Y.numpy(), [*S[:t], j])[1] for j in range(8) if j not in S[:t]}
        assert options[S[t]] <= min(options.values()) * (1 + 1e-9)


def test_tuples_drop_the_smallest_sums():
    X, Y = pair(seed=4)
    V = torch.stack([torch.outer(X[:, i], Y[i]).flatten() for i in range(8)])
    left = list(range(8))
    for _ in range(2):
        drop = min(itertools.combinations(left, 2), key=lambda pair: float(V[list(pair)].sum(0).norm()))
        left = [i for i in left if i not in drop]
    assert lowrank.cr(X, Y, count=4, method="tuples", group=2).indices.tolist() == left
    singles = sorted(lowrank.cr(X, Y, count=4, method="tuples", group=1).indices.tolist())
    assert singles == sorted(lowrank.cr(X, Y, count=4, method="norms").indices.tolist())


def test_sampling_is_unbiased_and_has_the_error_it_says():
    X, Y = pair(seed=5)
    draws, draw = 1500, torch.Generator().manual_seed(0)
    mean, squares = torch.zeros(9, 7, dtype=torch.float64), []
    for _ in range(draws):
        mean += lowrank.approx_matmul(X, Y, count=4, generator=draw) / draws
        squares.append(float(lowrank.cr(X, Y, count=4, method="sampling", generator=draw).error) ** 2)
    expected = float(lowrank.cr(X, Y, count=4).expected)
    assert torch.linalg.norm(mean - X @ Y) < 4 * expected / draws**0.5
    assert np.mean(squares) == pytest.approx(expected**2, rel=5 * np.std(squares) / np.mean(squares) / draws**0.5)
    norms = X.norm(dim=0) * Y.norm(dim=1)
    assert expected**2 == pytest.approx(float(norms.sum() ** 2 - (X @ Y).square().sum()) / 4)
    biased = lowrank.approx_matmul(X, Y, count=4, method="norms")
    assert torch.linalg.norm(biased - X @ Y) > 4 * expected / draws**0.5


def test_a_full_core_is_the_best_middle_factor():
    X, Y = pair(seed=6, dtype=torch.complex128)
    found = lowrank.cr(X, Y, count=4, core="full")
    diagonal = lowrank.cr(X, Y, count=4)
    C, R = X[:, found.indices], Y[found.indices]
    truth = np.linalg.pinv(C.numpy()) @ (X @ Y).numpy() @ np.linalg.pinv(R.numpy())
    np.testing.assert_allclose(found.weights, truth, atol=1e-9)
    assert float(found.error) == pytest.approx(measured(X, Y, found), rel=1e-6)
    assert float(found.error) <= float(diagonal.error)


def test_optimal_weights_for_any_method():
    X, Y = pair(seed=7)
    for method in METHODS:
        own = lowrank.cr(X, Y, count=5, method=method, generator=2)
        best = lowrank.cr(X, Y, count=5, method=method, weights="optimal", generator=2)
        assert torch.equal(own.indices, best.indices)
        assert float(best.error) <= float(own.error) * (1 + 1e-9)
        assert measured(X, Y, best) == pytest.approx(
            best_on(X.numpy(), Y.numpy(), set(best.indices.tolist()))[1], rel=1e-6
        )


def test_terms_that_cancel_are_found_where_norms_see_nothing():
    """Two large terms that cancel, and small ones that make the product: norms keep what does not matter."""
    draw = torch.Generator().manual_seed(0)
    X = torch.randn(20, 6, dtype=torch.float64, generator=draw)
    Y = torch.randn(6, 20, dtype=torch.float64, generator=draw)
    X[:, 1], Y[1], Y[0] = X[:, 0], -1000 * Y[0], 1000 * Y[0]
    size = float(torch.linalg.norm(X @ Y))
    assert float(lowrank.cr(X, Y, count=4).error) < 1e-3 * size
    assert float(lowrank.cr(X, Y, count=2, method="norms", weights="optimal").error) > 0.9 * size


def test_batches_arrays_scales_and_gradients():
    X, Y = pair(seed=8)
    XX, YY = torch.stack([X, X.flip(1)]), torch.stack([Y, 2 * Y.flip(0)])
    found = lowrank.cr(XX, YY, count=3)
    for i in range(2):
        alone = lowrank.cr(XX[i], YY[i], count=3)
        assert torch.equal(found.indices[i], alone.indices)
        torch.testing.assert_close(found.dense()[i], alone.dense())
        torch.testing.assert_close(found.error[i], alone.error)
    mine = lowrank.cr(X.numpy(), Y.numpy(), count=3)
    assert all(isinstance(value, np.ndarray) for value in mine)
    assert isinstance(mine.dense(), np.ndarray)
    big = lowrank.cr(X * 2.0**600, Y * 2.0**300, count=3)
    assert torch.equal(big.indices, lowrank.cr(X, Y, count=3).indices)
    assert float(big.error) == pytest.approx(float(lowrank.cr(X, Y, count=3).error) * 2.0**900)
    for method in METHODS:
        X.requires_grad_()
        approximate = lowrank.approx_matmul(X, Y, count=3, method=method, generator=1)
        (gradient,) = torch.autograd.grad(approximate.sum(), X)
        assert int((gradient.abs().sum(0) > 0).sum()) <= 3
        X = X.detach()


def test_degenerate_products():
    zero = lowrank.cr(torch.zeros(3, 4), torch.zeros(4, 2), count=2)
    assert float(zero.error) == 0
    assert not zero.dense().any()
    for method in METHODS:
        same = lowrank.cr(torch.ones(3, 4), torch.ones(4, 2), count=1, method=method, weights="optimal")
        assert float(same.error) < 1e-6
        assert same.weights.tolist() == pytest.approx([4.0])
        assert float(lowrank.cr(torch.ones(3, 1), torch.ones(1, 2), count=1, method=method).error) < 1e-6


BAD = {
    "count 0": (lambda X, Y: lowrank.cr(X, Y, count=0), "between 1 and 8"),
    "count above": (lambda X, Y: lowrank.cr(X, Y, count=9), "between 1 and 8"),
    "shapes": (lambda X, Y: lowrank.cr(X, Y.T, count=2), r"\(\*batch, m, l\)"),
    "dtypes": (lambda X, Y: lowrank.cr(X, Y.float(), count=2), "one dtype"),
    "NaN": (lambda X, Y: lowrank.cr(X * torch.nan, Y, count=2), "NaN"),
    "method": (lambda X, Y: lowrank.cr(X, Y, count=2, method="top"), "method must be one of"),
    "group": (lambda X, Y: lowrank.cr(X, Y, count=2, method="tuples", group=4), "group must be"),
    "sparse": (lambda X, Y: lowrank.cr(X.to_sparse(), Y, count=2), "dense"),
    "supports": (lambda X, Y: lowrank.cr(X.repeat(1, 9), Y.repeat(9, 1), count=20, method="exhaustive"), "limit"),
    "approx": (lambda X, Y: lowrank.approx_matmul(X, Y, count=0), "approx_matmul: count"),
}


@pytest.mark.parametrize(("call", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_told(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call(*pair())
