"""msoftclip, mthreshold, mpsd and the absolute value against closed forms and the properties that define them."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from spectrain import matfun
from spectrain.testing import random_orthonormal, relative_error, spectral_function, with_singular_values, zoo

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

DTYPES = (torch.bfloat16, torch.float32, torch.float64)
TOL = {torch.bfloat16: 5e-2, torch.float32: 1e-4, torch.float64: 1e-10}


def distance(Y, truth, size):
    return float(
        torch.linalg.matrix_norm(Y.double() - truth) / torch.linalg.matrix_norm(size.double()).clamp_min(1e-300)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(12, 20), (20, 12)], ids=str)
def test_on_the_whole_zoo_whatever_the_condition(shape, dtype):
    for name, X in zoo(*shape, generator=0).items():
        X = X.to(dtype)
        c = 0.3 * float(torch.linalg.matrix_norm(X.double(), 2)) or 1.0
        soft = spectral_function(lambda s, c=c: s / (1 + (s / c) ** 2).sqrt(), X)
        assert distance(matfun.msoftclip(X, c), soft, soft) <= TOL[dtype], name
        thresholded = spectral_function(lambda s, c=c: (s - c).clamp(min=0), X)
        assert distance(matfun.mthreshold(X, c), thresholded, X) <= TOL[dtype], name
        A = X.double() @ torch.randn(shape[1], shape[0], generator=torch.Generator().manual_seed(1)).double()
        A = (A / torch.linalg.matrix_norm(A).clamp_min(1e-300)).to(dtype)
        L, V = torch.linalg.eigh((A.double() + A.double().mT) / 2)
        assert distance(matfun.mpsd(A), (V * L.clamp(min=0)) @ V.mT, A) <= TOL[dtype], name


WRONG = {
    "mthreshold": {
        "hard threshold": lambda X: spectral_function(lambda s: torch.where(s > 1, s, 0.0), X),
        "clip": lambda X: matfun.mclip(X, 0, 1),
        "of the entries": lambda X: X.sign() * (X.abs() - 1).clamp(min=0),
    },
    "msoftclip": {
        "hard clip": lambda X: matfun.mclip(X, 0, 1),
        "tanh": lambda X: matfun.mapply(torch.tanh, X),
        "of the entries": lambda X: X / (1 + X**2).sqrt(),
    },
}


@pytest.mark.parametrize(("function", "name"), [(f, name) for f, table in WRONG.items() for name in table])
def test_the_check_rejects_wrong_answers(function, name):
    X = with_singular_values([4.0, 2.0, 0.8, 0.5], 6, 8, generator=1)
    assert relative_error(WRONG[function][name](X), getattr(matfun, function)(X, 1.0)) > 0.02


def test_thresholding_is_the_proximal_map_of_the_nuclear_norm():
    """0 is in Y - X + t (subdifferential of the nuclear norm at Y): X - Y = t (msign(Y) + W), W orthogonal to Y."""
    X = with_singular_values([4.0, 2.0, 0.8, 0.5], 6, 8, generator=1)
    Y = matfun.mthreshold(X, 1.0)
    W = X - Y - matfun.msign(Y, rtol=1e-9)
    assert torch.linalg.matrix_norm(W, 2) <= 1
    assert (W @ Y.mT).abs().max() < 1e-12
    assert not matfun.mthreshold(X, 5.0).any()
    torch.testing.assert_close(matfun.mthreshold(X, 0), X, rtol=0, atol=1e-14)


WRONG_PSD = {
    "absolute value": lambda A: matfun.polar(A).H,
    "zero the negative entries": lambda A: A.clamp(min=0),
    "shifted by the smallest eigenvalue": lambda A: A - torch.linalg.eigvalsh(A)[0] * torch.eye(len(A), dtype=A.dtype),
    "zero": torch.zeros_like,
}


def is_nearest(Y, A):
    """The conditions of the projection on the cone: Y >= 0, Y - A >= 0, <Y, Y - A> = 0."""
    lowest = min(float(torch.linalg.eigvalsh(M).min()) for M in (Y, Y - A))
    return lowest > -1e-12 and abs(float((Y * (Y - A)).sum())) < 1e-12


def test_the_psd_projection_is_nearest():
    V = random_orthonormal(6, 6, generator=2)
    A = (V * torch.tensor([2.0, 1.0, 0.5, -0.1, -1.0, -3.0], dtype=torch.float64)) @ V.mT
    assert is_nearest(matfun.mpsd(A), A)
    assert not any(is_nearest(wrong(A), A) for wrong in WRONG_PSD.values())
    skew = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(matfun.mpsd(A + skew - skew.mT), matfun.mpsd(A), rtol=0, atol=1e-13)
    assert not matfun.mpsd(-A @ A).any()
    absolute = (V * torch.tensor([2.0, 1.0, 0.5, 0.1, 1.0, 3.0], dtype=torch.float64)) @ V.mT
    torch.testing.assert_close(matfun.polar(A).H, absolute, rtol=0, atol=1e-13)


def test_scale_batch_and_complex():
    A = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for function in (matfun.mpsd, lambda A: matfun.mthreshold(A, 0.0)):
        scaled = function(A * 2.0**300)
        assert torch.equal(scaled * 2.0**-300, function(A))
    C = torch.complex(A, A.flip(-1))
    L, V = torch.linalg.eigh((C + C.mH) / 2)
    torch.testing.assert_close(matfun.mpsd(C), (V * L.clamp(min=0)[..., None, :]) @ V.mH, rtol=0, atol=1e-12)
    U, S, Vh = torch.linalg.svd(C)
    truth = (U * (S - 1).clamp(min=0)[..., None, :]) @ Vh
    torch.testing.assert_close(matfun.mthreshold(C, 1.0), truth, rtol=0, atol=1e-12)
    truth = (U * (S / (1 + S**2).sqrt())[..., None, :]) @ Vh
    torch.testing.assert_close(matfun.msoftclip(C, 1.0), truth, rtol=0, atol=1e-12)


SHAPES = [(3, 5), (5, 3), (2, 4, 4)]


def matrix(shape):
    batch = [
        with_singular_values(torch.linspace(0.4, 1.6, min(shape[-2:])), *shape[-2:], generator=i)
        for i in range(math.prod(shape[:-2]))
    ]
    return torch.stack(batch).reshape(shape).requires_grad_()


DIFFERENTIABLE = {
    "msoftclip": lambda X: matfun.msoftclip(X, 0.8),
    "mthreshold": lambda X: matfun.mthreshold(X, 0.9),
    "mpsd": lambda X: matfun.mpsd(X @ X.mT - 0.7 * torch.eye(X.shape[-2], dtype=X.dtype)),
    "mapply": lambda X: matfun.mapply(torch.exp, X),
    "complex mapply": lambda X: torch.view_as_real(matfun.mapply(torch.exp, torch.complex(X, X.flip(-1) / 3))),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives(name, shape):
    assert gradcheck(DIFFERENTIABLE[name], matrix(shape), check_forward_ad=True, fast_mode=True)


def test_derivatives_at_ties_and_zeros():
    """At the identity all singular values are equal; a soft clip is smooth at zero too, with slope 1."""
    X = torch.eye(3, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda X: matfun.msoftclip(X, 2.0), X, fast_mode=True)
    zero = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(matfun.msoftclip(zero, 2.0)[1, 2], zero)
    assert slope[1, 2] == 1
    assert slope.abs().sum() == 1


def test_what_cannot_be_differentiated_says_so():
    X = matrix((3, 4))
    with pytest.raises(ValueError, match="each singular value by itself"):
        matfun.mapply(lambda s: s / s.sum(-1, keepdim=True), X).sum().backward()
    (slope,) = torch.autograd.grad(matfun.mapply(torch.exp, X).sum(), X, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        slope.sum().backward()
    assert gradgradcheck(DIFFERENTIABLE["mthreshold"], X, fast_mode=True)


def test_bad_requests():
    X = torch.ones(2, 3)
    for bad, match in (
        (lambda: matfun.msoftclip(X, 0.0), "positive"),
        (lambda: matfun.mthreshold(X, -1.0), "negative"),
        (lambda: matfun.mpsd(X), "square"),
        (lambda: matfun.mpsd(torch.full((2, 2), math.nan)), "NaN"),
        (lambda: matfun.mthreshold(X, 1.0, tol=1e-9), "out_dtype"),
    ):
        with pytest.raises(ValueError, match=match):
            bad()
