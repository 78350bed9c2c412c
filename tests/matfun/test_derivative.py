"""Derivatives against finite differences, twice for msign, and against the closed form of a 2 x 2 rotation."""

import math

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from spectrain import approx, matfun
from spectrain.testing import with_singular_values

# torch's own forward mode still scripts its decompositions
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SHAPES = [(3, 5), (5, 3), (4, 4), (2, 3, 4)]


def matrix(shape, seed=0):
    """Singular values between 0.4 and 1.6: a finite difference of 1e-6 stays away from rank changes."""
    batch = [
        with_singular_values(torch.linspace(0.4, 1.6, min(shape[-2:])), *shape[-2:], generator=seed + i)
        for i in range(math.prod(shape[:-2]))
    ]
    return torch.stack(batch).reshape(shape).requires_grad_()


FUNCTIONS = {
    "msign": matfun.msign,
    "msign(schedule=)": lambda X: matfun.msign(X, schedule=approx.sign_schedule(0.1, steps=6)),
    "polar.U": lambda X: matfun.polar(X).U,
    "polar.H": lambda X: matfun.polar(X).H,
    "mclip above": lambda X: matfun.mclip(X, 0, 0.9),
    "mclip both": lambda X: matfun.mclip(X, 0.7, 0.9),
    "mclip below": lambda X: matfun.mclip(X, 0.7, math.inf),
    "mclip(rtol=)": lambda X: matfun.mclip(X, 0.9, 1.19, rtol=0.4),
    "mclip(steps=)": lambda X: matfun.mclip(X, 0, 0.9, steps=12),
    "mstep": lambda X: matfun.mstep(X, 0.9),
    "complex msign": lambda X: torch.view_as_real(matfun.msign(torch.complex(X, 0.3 * X.flip(-1)))),
    "complex mclip": lambda X: torch.view_as_real(matfun.mclip(torch.complex(X, 0.3 * X.flip(-1)), 0.1, 0.9)),
}
BY_SIGNS = ("msign(schedule=)", "mclip(steps=)")  # values within 1e-10 and 1e-2 of the exact ones, derivative exact


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_first_derivatives_forward_and_backward(name, shape):
    assert gradcheck(FUNCTIONS[name], matrix(shape), check_forward_ad=True, eps=1e-6, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"msign(schedule=)", "mclip(steps=)"}))
def test_second_derivatives(name, shape):
    X = matrix(shape)
    assert gradgradcheck(FUNCTIONS[name], X, check_fwd_over_rev=True, eps=1e-6, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("name", ["msign", "mclip both", "mstep"])
def test_third_derivatives(name):
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def slope(X):
        return torch.autograd.grad((FUNCTIONS[name](X) * weights).sum(), X, create_graph=True)[0]

    assert gradgradcheck(slope, matrix((3, 4)), eps=1e-6, atol=1e-4, fast_mode=True)


def test_the_check_rejects_a_wrong_derivative():
    """Passing the gradient straight through, and dropping the part outside the row space."""
    X = matrix((3, 5))
    straight = lambda X: X + (matfun.msign(X) - X).detach()  # noqa: E731
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(straight, X, eps=1e-6, atol=1e-5)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradcheck(lambda X: matfun.msign(X) @ (matfun.msign(X).mT @ matfun.msign(X)).detach(), X, eps=1e-6, atol=1e-5)


def test_a_rotation_turns_as_it_should():
    """msign of [[1, -t], [t, 1]] is the rotation by atan t: at t = 0 the derivative is the generator."""
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    J = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    Y = matfun.msign(torch.eye(2, dtype=torch.float64) + t * J)
    (slope,) = torch.autograd.grad(Y[1, 0], t)
    assert float(slope) == pytest.approx(1.0, abs=1e-14)


def test_at_rank_deficiency_the_derivative_is_finite_and_right_within_the_rank():
    A = with_singular_values([1.0, 0.5], 4, 6, generator=0).requires_grad_()
    matfun.msign(A).sum().backward()
    assert A.grad.isfinite().all()
    zero = torch.zeros(3, 4, requires_grad=True)
    matfun.msign(zero).sum().backward()
    assert not zero.grad.any()
    small = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    g = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (truth,) = torch.autograd.grad(matfun.msign(small), small, g)
    padded = torch.nn.functional.pad(small.detach(), (0, 2, 0, 2)).requires_grad_()
    (found,) = torch.autograd.grad(matfun.msign(padded)[:2, :3], padded, g)
    torch.testing.assert_close(found[:2, :3], truth, rtol=1e-10, atol=1e-12)


LISTS = {
    "a list": lambda X: sum(Y.sum(0) for Y in matfun.msign([X, 2 * X.flip(0) + 1])),
    "a list(steps=)": lambda X: sum(Y.sum(0) for Y in matfun.msign([X, 2 * X.flip(0) + 1], steps=14)),
    "shapes(steps=)": lambda X: sum(Y.sum(0)[:3] for Y in matfun.msign([X, X[:3], X[:, :4]], steps=14)),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS) + sorted(LISTS) + ["mthreshold"])
def test_forward_mode_of_every_kind_against_finite_differences(name):
    """torch's forward mode of a forward mode is zero for a custom function, without a word; a list lost its graph."""
    f = {**FUNCTIONS, **LISTS, "mthreshold": lambda X: matfun.mthreshold(X, 0.9)}[name]
    X, step = matrix((4, 5)).detach(), 1e-5
    D, E = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def slope(X):
        return torch.func.jvp(f, (X,), (D,))[1]

    first = (f(X + step * D) - f(X - step * D)) / (2 * step)
    for found in (slope(X), torch.vmap(slope)(X[None])[0], torch.no_grad()(slope)(X), torch.func.vjp(f, X)[1]):
        if callable(found):
            W = torch.ones_like(first)
            assert float((found(W)[0] * D).sum()) == pytest.approx(float((W * first).sum()), rel=1e-4, abs=1e-4)
        else:
            torch.testing.assert_close(found, first, rtol=1e-4, atol=1e-5)
    second = (slope(X + step * E) - slope(X - step * E)) / (2 * step)
    torch.testing.assert_close(torch.func.jvp(slope, (X,), (E,))[1], second, rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="not differentiated again"):
        torch.func.jvp(lambda X: torch.func.jvp(slope, (X,), (E,))[1], (X,), (D,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("function", ["msign", "mstep"])
def test_rounding_of_the_result_is_not_divided_by_noise(function, dtype):
    """At a low rank the derivative of a narrow dtype is that of float64: it was 1e7 in bfloat16."""
    call = {"msign": matfun.msign, "mstep": lambda X: matfun.mstep(X, 0.1)}[function]
    for seed in range(4):
        for shape in ((4, 6), (9, 5), (12, 12)):
            A, B = (torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)).sign() for n in shape)
            X = (A @ B.mT + 2 * A[:, :1] @ B[:, :1].mT).to(dtype)  # integers, exact in every dtype
            g = torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).bfloat16()
            slopes = []
            for kind in (dtype, torch.float64):
                Z = X.to(kind).requires_grad_()
                slopes.append(torch.autograd.grad(call(Z), Z, g.to(kind))[0].double())
            gap = torch.linalg.matrix_norm(slopes[0] - slopes[1]) / torch.linalg.matrix_norm(slopes[1])
            assert gap < 8 * torch.finfo(dtype).eps, (seed, shape)


def test_memory_does_not_depend_on_the_steps():
    saved = []
    X = matrix((4, 6))
    for steps in (2, 12):
        count = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, c=count: c.append(t.numel()) or t, lambda t: t):
            matfun.msign(X, steps=steps)
        saved.append(sum(count))
    assert saved[0] == saved[1] == 2 * X.numel()


def test_vmap_and_lists():
    X = matrix((3, 4, 5)).detach()
    torch.testing.assert_close(torch.vmap(matfun.msign)(X), matfun.msign(X), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.vmap(matfun.msign, in_dims=1)(X), matfun.msign(X.movedim(1, 0)), rtol=0, atol=1e-12
    )
    clipped = torch.vmap(lambda A: matfun.mclip(A, 0, 0.9))(X)
    torch.testing.assert_close(clipped, matfun.mclip(X, 0, 0.9), rtol=0, atol=1e-12)
    A, B = matrix((3, 5)), matrix((4, 4))
    sum(Y.sum() for Y in matfun.msign([A, B])).backward()
    (alone,) = torch.autograd.grad(matfun.msign(A).sum(), A)
    torch.testing.assert_close(A.grad, alone, rtol=0, atol=1e-12)


def test_half_precision_and_forward_mode():
    X = matrix((3, 5)).detach().bfloat16().requires_grad_()
    matfun.msign(X).sum().backward()
    assert X.grad.dtype == torch.bfloat16
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X.detach().float(), torch.ones(3, 5))
        assert forward_ad.unpack_dual(matfun.msign(dual)).tangent.dtype == torch.float32
