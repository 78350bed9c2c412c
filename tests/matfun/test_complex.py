"""Complex matrices against complex SVD and eigendecomposition, and against answers that forget the conjugate."""

import numpy as np
import pytest
import torch

from spectrain import matfun
from spectrain._arrays.embedding import as_real
from spectrain.matfun._proven.stages import certified_sign
from spectrain.testing import relative_error

TOL = {torch.complex64: 1e-4, torch.complex128: 1e-10}


def matrix(m, n, dtype=torch.complex128, seed=0):
    """Singular values 0.2 ... 3 and complex singular vectors."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(m, n, generator=g, dtype=torch.complex128)
    U, _, Vh = torch.linalg.svd(A, full_matrices=False)
    return (U * torch.linspace(3, 0.2, min(m, n), dtype=torch.float64) @ Vh).to(dtype)


def exact(f, X):
    U, S, Vh = torch.linalg.svd(X.to(torch.complex128), full_matrices=False)
    return (U * f(S)) @ Vh


FUNCTIONS = {
    "msign": (matfun.msign, torch.ones_like),
    "polar": (lambda X: matfun.polar(X).U, torch.ones_like),
    "mclip": (lambda X: matfun.mclip(X, 0.5, 1.5), lambda s: s.clamp(0.5, 1.5)),
    "mstep": (matfun.mstep, lambda s: (s > 1).double()),
}


def distance(Y, truth):
    return float(torch.linalg.matrix_norm(Y.to(torch.complex128) - truth) / torch.linalg.matrix_norm(truth))


@pytest.mark.parametrize("dtype", TOL, ids=str)
@pytest.mark.parametrize("shape", [(7, 11), (11, 7), (6, 6)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_singular_values(name, shape, dtype):
    function, scalar = FUNCTIONS[name]
    X = matrix(*shape, dtype)
    Y = function(X)
    assert Y.dtype == dtype
    assert distance(Y, exact(scalar, X)) <= TOL[dtype]


WRONG = {
    "transposed without conjugate": lambda X: (
        X @ torch.linalg.inv(torch.linalg.cholesky((X.mT @ X).real.to(X.dtype) + 9 * torch.eye(6)))
    ),
    "real part": lambda X: matfun.msign(X.real.contiguous()).to(X.dtype),
    "parts apart": lambda X: torch.complex(matfun.msign(X.real.contiguous()), matfun.msign(X.imag.contiguous())),
    "conjugate": lambda X: matfun.msign(X).conj(),
    "signs of the entries": torch.sgn,
}


@pytest.mark.parametrize("name", WRONG)
def test_the_check_rejects_wrong_answers(name):
    X = matrix(6, 6)
    assert distance(WRONG[name](X), exact(torch.ones_like, X)) > 0.1


def test_the_factors_and_their_error():
    X = torch.stack([matrix(5, 8, seed=s) for s in range(3)])
    U, H, error, rank = matfun.polar(X)
    assert distance(U[1] @ H[1], X[1]) < 1e-12
    torch.testing.assert_close(H, H.mH, rtol=0, atol=1e-15)
    assert rank.tolist() == [5, 5, 5]
    truth = torch.stack([exact(torch.ones_like, Y) for Y in X])
    assert all(distance(u, t) <= e for u, t, e in zip(U, truth, error, strict=True))


def test_steps_numpy_and_lists():
    X = matrix(6, 9)
    assert distance(matfun.msign(X, steps=8), exact(torch.ones_like, X)) < 1e-3
    found = matfun.msign(X.numpy())
    assert found.dtype == np.complex128
    np.testing.assert_allclose(found, matfun.msign(X).numpy(), rtol=0, atol=1e-14)
    real, mixed = matfun.msign([X.real.contiguous(), X])
    assert not real.is_complex()
    assert distance(mixed, exact(torch.ones_like, X)) < 1e-10
    assert relative_error(real, matfun.msign(X.real.contiguous())) < 1e-12


def test_the_gradient_is_that_of_complex_arithmetic():
    """Against torch's own derivative of X (X^H X)^(-1/2) by a complex eigendecomposition."""
    X = matrix(7, 4).requires_grad_()
    g = matrix(7, 4, seed=3)
    L, V = torch.linalg.eigh(X.mH @ X)
    (truth,) = torch.autograd.grad(X @ (V * L**-0.5) @ V.mH, X, g)
    (found,) = torch.autograd.grad(matfun.msign(X), X, g)
    assert distance(found, truth) < 1e-12
    assert distance(found.conj(), truth) > 0.1


def test_the_last_rounding_of_a_complex_matrix_is_within_the_tolerance():
    """Averaging the equal blocks rounds once more: a tol that leaves no room for it is not proven, or is kept."""
    X, eps = matrix(12, 20), torch.finfo(torch.float64).eps
    options = {"tol": None, "rtol": None, "method": "svd", "out_dtype": torch.float64, "name": "test"}
    proven = float(certified_sign(as_real(X)[None], **options).error)
    with pytest.raises(ValueError, match="cannot prove"):
        matfun.msign(X, tol=proven + eps / 4, method="svd")
    assert distance(matfun.msign(X, tol=proven + eps, method="svd"), exact(torch.ones_like, X)) <= proven + eps
