"""spectral_norm encloses the largest singular value, tightly, at every scale."""

import pytest
import torch

from spectrain import matfun
from spectrain.testing import with_singular_values, zoo


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
