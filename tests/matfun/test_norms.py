"""spectral_norm encloses the largest singular value, tightly, at every scale."""

import pytest
import torch
from torch.autograd import forward_ad

from spectrain import matfun
from spectrain.testing import with_singular_values, zoo

# torch's own forward mode still scripts its decompositions
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (1, 1), (32, 32)], ids=str)
def test_the_bounds_enclose_the_norm_and_are_close(dtype, shape):
    for name, X in zoo(*shape, generator=0).items():
        X = X.to(dtype)
        truth = torch.linalg.matrix_norm(X.double(), 2)
        lower, upper = matfun.spectral_norm(X)
        assert lower.double() <= truth * (1 + 1e-13), name
        assert upper.double() >= truth * (1 - 1e-13), name
        assert upper <= lower * min(shape) ** (1 / 64) * (1 + 1e-5), name


WRONG_UPPER = {
    "power iteration": lambda X: matfun.spectral_norm(X).lower,
    "largest entry": lambda X: X.abs().max(),
    "largest column": lambda X: X.norm(dim=0).max(),
    "Frobenius / sqrt(k)": lambda X: X.norm() / min(X.shape) ** 0.5,
}


@pytest.mark.parametrize("name", WRONG_UPPER)
def test_what_is_not_an_upper_bound_is_rejected(name):
    matrices = [*zoo(12, 20, generator=0).values(), with_singular_values([1.0] * 6 + [0.99] * 6, 12, 20)]
    assert any(WRONG_UPPER[name](X) < torch.linalg.matrix_norm(X, 2) * (1 - 1e-13) for X in matrices)


def test_scale_zero_and_batch():
    X = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = torch.stack([X, 0 * X, X * 2.0**-900, X * 2.0**900])
    lower, upper = matfun.spectral_norm(batch)
    assert lower[1] == 0
    assert upper[1] == 0
    assert lower[2] * 2.0**900 == pytest.approx(float(lower[0]), rel=1e-15)
    assert upper[3] / 2.0**900 == pytest.approx(float(upper[0]), rel=1e-15)
    assert [t.tolist() for t in matfun.spectral_norm(torch.zeros(0, 3))] == [0, 0]
    with pytest.raises(ValueError, match="NaN"):
        matfun.spectral_norm(X * float("nan"))


def test_the_gradient_is_u_vt():
    X = with_singular_values([3.0, 2.0, 1.0], 5, 7, generator=3)
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    truth = U[:, :1] @ Vh[:1]
    for shape in (X, X.mT.contiguous()):
        for side in (0, 1):
            A = shape.clone().requires_grad_()
            (slope,) = torch.autograd.grad(matfun.spectral_norm(A)[side], A)
            expected = truth if shape is X else truth.mT
            torch.testing.assert_close(slope, expected, rtol=0, atol=1e-9)
            assert (slope + expected).norm() > 1.9  # the wrong sign would be seen
    A = torch.stack([X, 5 * X]).float().requires_grad_()
    lower, upper = matfun.spectral_norm(A)
    (lower.sum() + upper.sum()).backward()
    torch.testing.assert_close(A.grad[1].double(), 2 * truth, rtol=0, atol=1e-5)


def test_forward_mode_and_no_silent_second_derivative():
    X = with_singular_values([3.0, 2.0, 1.0], 5, 7, generator=3)
    D = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(X, full_matrices=False)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(matfun.spectral_norm(forward_ad.make_dual(X, D)).lower).tangent
    torch.testing.assert_close(tangent, U[:, 0] @ D @ Vh[0], rtol=0, atol=1e-9)
    A = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(matfun.spectral_norm(A).lower, A, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        slope.sum().backward()


def test_the_lower_bound_uses_the_last_three_vectors():
    """Two values 1e-3 apart: 32 steps of the power method alone stop at the wrong one or between them."""
    X = with_singular_values([1.0, 1 - 1e-3, 0.5], 40, 60, generator=1)
    lower, _ = matfun.spectral_norm(X)
    assert 1 - 1e-12 <= float(lower) <= 1 + 1e-13
    G = torch.linalg.matrix_power(X @ X.mT, 32)
    v = G[:, G.norm(dim=0).argmax()]
    assert float((X.mT @ v).norm() / v.norm()) < 1 - 1e-6


def test_complex_matrices():
    g = torch.Generator().manual_seed(0)
    X = torch.randn(3, 6, 4, generator=g, dtype=torch.complex128)
    truth = torch.linalg.matrix_norm(X, 2)
    lower, upper = matfun.spectral_norm(X)
    assert bool((lower <= truth * (1 + 1e-13)).all())
    assert bool((truth <= upper).all())
    assert bool((upper <= lower * 8 ** (1 / 64) * (1 + 1e-6)).all())
    U, _, Vh = torch.linalg.svd(X)
    A = X.clone().requires_grad_()
    matfun.spectral_norm(A).lower.sum().backward()
    torch.testing.assert_close(A.grad, U[..., :1] @ Vh[..., :1, :], rtol=0, atol=1e-6)


def test_first_derivatives_of_every_kind_and_no_second_one_that_is_wrong():
    """vmap and jacrev of the gradient are there; a second derivative is refused in all four orders."""
    X = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = lambda A: matfun.spectral_norm(A).lower  # noqa: E731
    U, _, Vh = torch.linalg.svd(X)
    truth = U[:, :, :1] @ Vh[:, :1]
    torch.testing.assert_close(torch.vmap(torch.func.grad(norm))(X), truth, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.func.jacrev(norm)(X[0]), truth[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.func.jacfwd(norm)(X[0]), truth[0], rtol=0, atol=1e-5)
    for outer in (torch.func.jacrev, torch.func.jacfwd):
        for inner in (torch.func.jacrev, torch.func.jacfwd):
            with pytest.raises(RuntimeError, match="differentiated once"):
                outer(inner(norm))(X[0])
