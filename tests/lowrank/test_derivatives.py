"""Derivatives of every kind torch has, against differences of values in float64."""

import pytest
import torch
from torch.func import grad, jvp, vjp

from spectrain import lowrank

# torch scripts its own rules of forward mode on their first use, and warns of that.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")

G = torch.Generator().manual_seed(0)
X, D = (torch.randn(5, 3, dtype=torch.float64, generator=G) for _ in range(2))
B = torch.randn(5, 2, dtype=torch.float64, generator=G)

FUNCTIONS = {
    "pinv": lowrank.pinv,
    "pinv by products": lambda A: lowrank.pinv(A, method="iteration", rtol=1e-3),
    "pinv_factors dense": lambda A: lowrank.pinv_factors(A).dense(),
    "pinv_factors @ b": lambda A: lowrank.pinv_factors(A) @ B,
    "interpolative Z": lambda A: lowrank.interpolative(A.mT, rank=2).Z,
    "interpolative Z, pivoted_qr": lambda A: lowrank.interpolative(A.mT, rank=2, method="pivoted_qr").Z,
    "interpolative X": lambda A: lowrank.interpolative(A.mT, rank=2, axis="both", method="pivoted_qr").X,
    "interpolative rows": lambda A: lowrank.interpolative(A, rank=2, axis="rows", method="pivoted_qr").Z,
    "cur": lambda A: lowrank.cur(A, rank=2).dense(),
    "cur cross": lambda A: lowrank.cur(A, rank=2, core="cross").U,
    "svd": lambda A: lowrank.svd(A, rank=2).dense(),
    "svd S": lambda A: lowrank.svd(A, rank=2).S,
    "svd krylov": lambda A: lowrank.svd(A, rank=1, method="krylov", block=2).dense(),
}


def by_graph(f, W):
    Y = X.clone().requires_grad_()
    (found,) = torch.autograd.grad((f(Y) * W).sum(), Y)
    return (found * D).sum()


def by_graph_twice(f, W):
    Y = X.clone().requires_grad_()
    (first,) = torch.autograd.grad((f(Y) * W).sum(), Y, create_graph=True)
    return (torch.autograd.grad((first * D).sum(), Y)[0] * D).sum()


def weighed(f, W):
    return lambda Y: (f(Y) * W).sum()


def along(f):
    return lambda Y: jvp(f, (Y,), (D,))[1]


FIRST = {
    "jvp": lambda f, W: (along(f)(X) * W).sum(),
    "vjp": lambda f, W: (vjp(f, X)[1](W)[0] * D).sum(),
    "grad": lambda f, W: (grad(weighed(f, W))(X) * D).sum(),
    "backward": by_graph,
}
SECOND = {
    "jvp of jvp": lambda f, W: (along(along(f))(X) * W).sum(),
    "jvp of grad": lambda f, W: (jvp(grad(weighed(f, W)), (X,), (D,))[1] * D).sum(),
    "grad of jvp": lambda f, W: (grad(weighed(along(f), W))(X) * D).sum(),
    "backward twice": by_graph_twice,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_slopes(name):
    f = FUNCTIONS[name]
    W = torch.randn(f(X).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h = 1e-5
    slope = ((f(X + h * D) - f(X - h * D)) * W).sum() / (2 * h)
    assert slope.abs() > 1e-2
    for way, derivative in FIRST.items():
        assert (derivative(f, W) - slope).abs() < 1e-6 * (1 + slope.abs()), way
        assert (2 * derivative(f, W) - slope).abs() > 1e-6 * (1 + slope.abs()), way
    h = 1e-4
    bend = ((f(X + h * D) - 2 * f(X) + f(X - h * D)) * W).sum() / h**2
    for way, derivative in SECOND.items():
        assert (derivative(f, W) - bend).abs() < 1e-4 * (1 + bend.abs()), way


def test_transforms_at_tied_and_dropped_singular_values():
    """(diag(s) + h D)^+ along diagonal D: -1 / s^2 where s is kept, by hand."""
    A = torch.diag(torch.tensor([2.0, 2.0, 1e-20], dtype=torch.float64))
    step = torch.diag(torch.tensor([1.0, 3.0, 0.0], dtype=torch.float64))
    right = torch.diag(torch.tensor([-0.25, -0.75, 0.0], dtype=torch.float64))
    torch.testing.assert_close(jvp(lowrank.pinv, (A,), (step,))[1], right)


REFUSED = {
    "nystrom": lambda A: lowrank.nystrom(A.mT @ A, rank=2).F,
    "nystrom of points": lambda A: lowrank.nystrom(lambda P, Q: P @ Q.mT, points=A, rank=2).F,
    "svd of a sparse matrix": lambda A: lowrank.svd(A.to_sparse(), rank=2).S,
    "svd of rows": lambda A: lowrank.svd(lowrank.RowBlocks(lambda: iter([A])), rank=2).S,
    "cross": lambda A: lowrank.cross(lambda i: A[i], lambda j: A[:, j], (5, 3), rank=2).U,
}


@pytest.mark.parametrize("name", REFUSED)
def test_where_there_is_no_derivative_none_is_given(name):
    f = REFUSED[name]
    with pytest.raises(ValueError, match="no derivative"):
        f(X.clone().requires_grad_())
    if "sparse" not in name:
        with pytest.raises(ValueError, match="no derivative"):
            jvp(f, (X,), (D,))
    with torch.no_grad():
        assert torch.isfinite(f(X.clone().requires_grad_())).all()
