"""Both float32 libraries give the same products, and the switch between them is a rule."""

import pytest
import torch

from spectrain import matfun
from spectrain._arrays import products
from spectrain.testing import polar_error

SHAPES = ((1, 200, 210, 220), (3, 192, 400, 192), (2, 64, 300, 300))


@pytest.fixture(params=[False, True], ids=["as torch does", "oneDNN"], autouse=True)
def onednn(request, monkeypatch):
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch was built without oneDNN")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_products(shape):
    b, m, k, n = shape
    g = torch.Generator().manual_seed(0)
    A, B, C = (torch.randn(b, *s, generator=g) for s in ((m, k), (k, n), (m, n)))
    tall = torch.randn(b, n, k, generator=g).mT
    for second in (B, tall):
        exact = A.double() @ second.double()
        bound = 2.0**-20 * k**0.5
        torch.testing.assert_close(products.bmm(A, second).double(), exact, rtol=0, atol=bound * 10)
        out = torch.empty_like(C)
        assert products.bmm(A, second, out=out) is out
        torch.testing.assert_close(out.double(), exact, rtol=0, atol=bound * 10)
        mixed = products.baddbmm(C, A, second, beta=1.5, alpha=-0.25, out=out)
        assert mixed is out
        torch.testing.assert_close(mixed.double(), 1.5 * C.double() - 0.25 * exact, rtol=0, atol=bound * 10)
        wrong = products.baddbmm(C, A, second, beta=-0.25, alpha=1.5)
        assert (wrong.double() - (1.5 * C.double() - 0.25 * exact)).abs().max() > 1


def test_bfloat16_in_name_only_is_refused():
    """What oneDNN computes is float32 and not bfloat16: the error is a thousand times below that of rounding to it."""
    A = torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
    exact = A.double() @ A.double()
    error = torch.linalg.vector_norm(products.bmm(A, A).double() - exact) / exact.norm()
    rounded = A.bfloat16().double() @ A.bfloat16().double()
    assert error < 1e-6 < 1e-3 * torch.linalg.vector_norm(rounded - exact) / exact.norm() * 10


def test_a_batch_equals_one_by_one():
    X = torch.randn(3, 200, 420, generator=torch.Generator().manual_seed(1))
    Y = matfun.msign(X, steps=6)
    for single, alone in zip(Y, X, strict=True):
        torch.testing.assert_close(single, matfun.msign(alone, steps=6), rtol=0, atol=1e-6)
        assert polar_error(single, alone) < 1e-3
