"""NumPy in, NumPy out; anything with __dlpack__ in; the input never written to."""

import numpy as np
import pytest
import torch

from spectrain import matfun


class Foreign:
    """An array of some other library: nothing but the DLPack protocol."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


FUNCTIONS = {
    "msign": matfun.msign,
    "msign(steps=3)": lambda X: matfun.msign(X, steps=3),
    "polar": lambda X: matfun.polar(X).H,
    "polar.error": lambda X: matfun.polar(X).error,
    "mclip": lambda X: matfun.mclip(X, 0.5, 1.0),
    "mstep": matfun.mstep,
    "mapply": lambda X: matfun.mapply(torch.sqrt, X),
    "mroot": lambda X: (
        matfun.mroot(X @ X.T if isinstance(X, np.ndarray) else X, 2) if not isinstance(X, Foreign) else 0
    ),
    "spectral_norm": lambda X: matfun.spectral_norm(X).upper,
    "effective_rank": matfun.effective_rank,
    "msoftclip": lambda X: matfun.msoftclip(X, 1.0),
    "mthreshold": lambda X: matfun.mthreshold(X, 0.5),
    "mpsd": matfun.mpsd,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_in_numpy_out(name, dtype):
    X = np.random.default_rng(0).standard_normal((4, 4)).astype(dtype)
    before = X.copy()
    X.flags.writeable = False
    Y = FUNCTIONS[name](X)
    assert isinstance(Y, np.ndarray)
    np.testing.assert_array_equal(X, before)
    square = torch.tensor(X @ X.T) if name == "mroot" else torch.tensor(X)
    np.testing.assert_array_equal(Y, FUNCTIONS[name](square).numpy())


def test_views_lists_and_foreign_arrays():
    X = np.random.default_rng(0).standard_normal((6, 8))
    np.testing.assert_allclose(matfun.msign(X.T[::-1]), matfun.msign(X.T[::-1].copy()), rtol=0, atol=1e-15)
    A, B = matfun.msign([X, torch.tensor(X)])
    assert isinstance(A, np.ndarray)
    assert isinstance(B, torch.Tensor)
    np.testing.assert_allclose(A, B.numpy(), rtol=0, atol=1e-15)
    assert torch.equal(matfun.msign(Foreign(torch.tensor(X))), matfun.msign(torch.tensor(X)))
    with pytest.raises(TypeError, match="NumPy array"):
        matfun.msign("a matrix")
    with pytest.raises(TypeError, match="int64"):
        matfun.mclip(np.ones((2, 2), dtype=np.int64), 0, 1)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("mroot", "polar.error", "spectral_norm")])
def test_complex_numpy_arrays_and_vmap(name):
    g = np.random.default_rng(1)
    X = (g.standard_normal((4, 4)) + 1j * g.standard_normal((4, 4))).astype(np.complex128)
    Y = FUNCTIONS[name](X)
    assert isinstance(Y, np.ndarray)
    np.testing.assert_allclose(Y, FUNCTIONS[name](torch.tensor(X)).numpy(), rtol=0, atol=1e-15)
    batch = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mapped = torch.vmap(FUNCTIONS[name])(batch)
    torch.testing.assert_close(mapped, torch.stack([FUNCTIONS[name](A) for A in batch]), rtol=0, atol=1e-12)


def test_autocast_changes_nothing():
    X = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    for name, function in FUNCTIONS.items():
        P = X @ X.mT if name == "mroot" else X
        plain = function(P)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(function(P), plain), name


def test_numpy_arrays_that_torch_cannot_take():
    for bad in (np.ones((2, 2), dtype=">f8"), np.ones((2, 2), dtype=np.longdouble), np.ones((2, 2), dtype=object)):
        with pytest.raises(TypeError, match=r"astype\(numpy.float64\)"):
            matfun.msign(bad)
    with pytest.raises(TypeError, match="no bfloat16"):
        matfun.msign(np.eye(2, dtype=np.float32), out_dtype=torch.bfloat16)
