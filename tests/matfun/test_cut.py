"""Decisions next to a cut, whatever LAPACK answers: proven against 50 digits, or refused.

Other LAPACKs are simulated: torch's decompositions of the matrix plus a backward error of a few units, which is all
that any of them promises.
"""

import contextlib
import warnings
from unittest import mock

import mpmath
import pytest
import torch

from spectrain import matfun
from spectrain.matfun._proven import cut as _cut
from spectrain.matfun._proven.cut import Cut, exact_zeros
from spectrain.testing import random_orthonormal, with_singular_values

DOUBLE = torch.float64
EPS = torch.finfo(DOUBLE).eps
SVD, EIGH = torch.linalg.svd, torch.linalg.eigh


def other_lapack(units, seed):
    """torch.linalg.svd and eigh of A + E, ||E|| = units eps ||A||."""
    g = torch.Generator().manual_seed(seed)

    def moved(A, symmetric=False):
        E = torch.randn(A.shape, generator=g, dtype=DOUBLE).to(A.dtype)
        E = E + E.mT if symmetric else E
        size = torch.linalg.matrix_norm(A, keepdim=True) / torch.linalg.matrix_norm(E, keepdim=True)
        return A + units * torch.finfo(A.dtype).eps * size * E

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch("torch.linalg.svd", lambda A, **options: SVD(moved(A), **options)))
    stack.enter_context(mock.patch("torch.linalg.eigh", lambda A: EIGH(moved(A, symmetric=True))))
    return stack


def decomposition(X):
    with mpmath.workdps(50):
        return mpmath.svd_r(mpmath.matrix(X.double().tolist()))


def true_values(X):
    return list(decomposition(X)[1])


def true_part(X, counts, values=lambda s: 1):
    """U f(S) V^T over the singular values that count, from 50 digits, in float64."""
    with mpmath.workdps(50):
        U, S, V = decomposition(X)
        middle = mpmath.diag([values(s) if counts(s) else 0 for s in S])
        return torch.tensor((U * middle * V).tolist(), dtype=DOUBLE)


def on_the_edge(seed, last=1.0):
    """The matrix of the report: one singular value within rounding above 1, one at ``last``."""
    D = torch.diag(torch.tensor([2.0, 1.0 + 2**-52, last], dtype=DOUBLE))
    return D[[1, 2, 0]] @ random_orthonormal(3, 3, generator=seed)


def distance(Y, truth):
    return float(torch.linalg.matrix_norm(Y.double() - truth) / torch.linalg.matrix_norm(truth).clamp_min(1e-300))


def refused(call):
    """What a call returns, or None where it refuses with the reason."""
    try:
        return call()
    except ValueError as problem:
        assert "cannot prove" in str(problem)  # noqa: PT017
        return None


@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("last", [1.0, 0.5])
def test_a_singular_value_on_the_threshold_is_refused_by_every_lapack(seed, last):
    X = on_the_edge(seed, last)
    for units in (0.0, 0.5, 1.0, 3.0):
        with other_lapack(units, seed), pytest.raises(ValueError, match="lie within rounding of the threshold"):
            matfun.mstep(X, 1.0, tol=1e-6)
        with other_lapack(units, seed), pytest.warns(RuntimeWarning, match="which side"):
            matfun.mstep(X, 1.0)


def _gap(units):
    return [2.0, 1.0 + units * EPS, 0.5]


@pytest.mark.parametrize("units", [-1e6, -300, -20, -3, -1, 0, 1, 3, 20, 300, 1e6])
def test_what_is_decided_is_right_and_what_is_far_enough_is_decided(units):
    """Singular values at, near and clustered about the cuts 1, rtol * 2 and the noise of float64."""
    for seed in range(3):
        X = with_singular_values(_gap(units), 3, 4, generator=seed)
        noise = 2 * EPS * 12  # eps max(S) (4 + 8)
        small = with_singular_values([2.0, 1.0, noise * max(0.0, 1 + units / 300)], 3, 4, generator=seed)
        calls = {
            "mstep": (lambda X=X: matfun.mstep(X, 1.0, tol=1e-6), X, lambda s: s > 1),
            "msign(rtol=)": (
                lambda X=X: matfun.msign(X, rtol=0.5, tol=1e-6),
                X,
                lambda s, X=X: s > true_values(X)[0] / 2,
            ),
            "msign": (lambda S=small: matfun.msign(S, tol=1e-6), small, lambda s, noise=noise: s > noise),
            "mclip(rtol=)": (lambda X=X: matfun.mclip(X, 0, 9, rtol=0.5, tol=1e-6), X, None),
        }
        for name, (call, A, counts) in calls.items():
            for lapack in (0.0, 2.0):
                with other_lapack(lapack, seed):
                    Y = refused(call)
                if Y is None:
                    assert abs(units) < 100 or (name == "msign" and units > 0), name  # condition 1e15: beyond float64
                elif name == "mclip(rtol=)":
                    truth = true_part(A, calls["msign(rtol=)"][2], values=lambda s: s)
                    assert distance(Y, truth) < 1e-6, name
                else:
                    assert distance(Y, true_part(A, counts)) < 1e-6, name
                if name != "msign" and abs(units) <= 1:
                    assert Y is None, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_rounding_noise_of_narrow_inputs(dtype):
    """The floor is that of the input's dtype in every stage: one matrix has one rank, at every tolerance."""
    for shape in ((6, 6), (6, 40), (40, 64)):
        k = min(shape)
        for factor in (0.5, 0.99, 1.01, 2.0, 30.0):
            s = torch.ones(k, dtype=DOUBLE)
            noise = torch.finfo(dtype).eps / 2 * (k / (shape[0] * shape[1])) ** 0.5 * sum(n**0.5 for n in shape)
            s[-1] = factor * noise
            X = with_singular_values(s, *shape, generator=1)
            X = X if dtype == torch.float32 else X.to(dtype).double()  # bfloat16: what rounding left is the noise
            found = [matfun.polar(X.to(dtype), tol=tol).rank for tol in (0.5, 5e-2, 1e-2)]
            assert len({int(rank) for rank in found}) == 1, (shape, factor)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 5), (8, 8), (40, 24)], ids=str)
def test_deficient_matrices_of_float64_are_not_in_doubt(shape):
    """Zeros that rounding has moved are below the floor for every LAPACK: no warning, and the right rank."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(4):
            g = torch.Generator().manual_seed(seed)
            for rank in {1, (min(shape) + 1) // 2, min(shape)}:
                A = torch.randn(shape[0], rank, generator=g, dtype=DOUBLE)
                X = A @ random_orthonormal(shape[1], rank, generator=seed).mT
                for units in (0.0, 1.0):
                    with other_lapack(units, seed):
                        assert matfun.polar(X).rank == rank
            assert not matfun.mstep(torch.zeros(shape), 0.0).any()


def test_zeros_that_are_exact_are_known():
    """Rows and columns of zeros make singular values that are zero without any rounding, also for rtol=0."""
    X = torch.zeros(5, 7, dtype=DOUBLE)
    X[1:4, 2:6] = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    assert exact_zeros(torch.stack([X, X * 0, X + 1])).tolist() == [2, 5, 0]
    for units in (0.0, 1.0):
        with other_lapack(0.0, 0):
            assert matfun.polar(X, rtol=0.0, tol=1e-9).rank == 3
        with other_lapack(units, 0):
            assert (
                distance(
                    matfun.mclip(X, 0.5, 1.0, tol=1e-9),
                    true_part(X, lambda s: s > 1e-30, lambda s: min(max(s, 0.5), 1)),
                )
                < 1e-9
            )
    hidden = random_orthonormal(5, 5) @ X
    with pytest.raises(ValueError, match="cannot prove"):
        matfun.mclip(hidden, 0.5, 1.0, tol=1e-9)


WRONG_DECISIONS = {
    "by S itself": lambda band, S, keep, delta, most: S.new_zeros(len(S)),
    "kept values alone": lambda band, S, keep, delta, most: (
        (keep & (S - delta[:, None] <= band.high[:, None])).sum(-1).to(S.dtype)
    ),
    "a tenth of the error": lambda band, S, keep, delta, most: RIGHT(band, S, keep, 0.01 * delta, 0.01 * most),
}
RIGHT = _cut.beside


@pytest.mark.parametrize("name", WRONG_DECISIONS)
def test_the_check_rejects_wrong_decisions(name):
    """Some LAPACK makes each of them return a matrix of another rank without a word."""
    wrong = 0
    with mock.patch("spectrain.matfun._proven.decomposition.beside", WRONG_DECISIONS[name]):
        for seed in range(7):
            for last in (1.0, 0.5):
                X = on_the_edge(seed, last)
                truth = true_part(X, lambda s: s > 1)
                for units in (0.0, 1.0, 3.0):
                    with other_lapack(units, seed):
                        Y = refused(lambda X=X: matfun.mstep(X, 1.0, tol=1e-6))
                    wrong += Y is not None and distance(Y, truth) > 1e-6
    assert wrong > 0


def test_the_cut_is_enclosed():
    """The band holds the cut of any singular values within delta, at its ends too."""
    S = torch.tensor([[2.0, 1.0, 0.5]], dtype=DOUBLE)
    shape, delta = torch.Size((3, 4)), torch.tensor([1e-3], dtype=DOUBLE)
    for cut in (Cut(DOUBLE), Cut(torch.bfloat16), Cut(DOUBLE, rtol=0.3), Cut(DOUBLE, threshold=torch.ones(1))):
        low, high = cut.band(S, shape, delta)
        for move in (-1e-3, 0.0, 1e-3):
            moved = S + torch.tensor([[move, 0.0, 0.0]], dtype=DOUBLE)
            assert low <= cut.below(moved, shape) <= high
