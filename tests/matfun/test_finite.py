"""NaN and infinite entries are refused at the index that they have in what was passed."""

import numpy as np
import pytest
import torch

from spectrain import matfun

FUNCTIONS = {
    "msign": lambda X: matfun.msign(X),
    "msign of steps": lambda X: matfun.msign(X, steps=5),
    "msign in bfloat16": lambda X: matfun.msign(X, steps=5, dtype=torch.bfloat16),
    "msign of a measured interval": lambda X: matfun.msign(X, steps=5, lower="measured"),
    "msign by keyword": lambda X: matfun.msign(tol=1e-3, X=X),
    "polar": lambda X: matfun.polar(X),
    "mclip": lambda X: matfun.mclip(X, 0.2, 0.9),
    "mclip of steps": lambda X: matfun.mclip(X, 0, 1, steps=8),
    "msoftclip": lambda X: matfun.msoftclip(X, 1.0),
    "mthreshold": lambda X: matfun.mthreshold(X, 0.5),
    "mstep": lambda X: matfun.mstep(X),
    "mpsd": lambda X: matfun.mpsd(X),
    "mroot": lambda X: matfun.mroot(X, 2),
    "mroot of steps": lambda X: matfun.mroot(X, 2, steps=8),
    "mapply": lambda X: matfun.mapply(torch.tanh, X),
    "spectral_norm": lambda X: matfun.spectral_norm(X),
    "effective_rank": lambda X: matfun.effective_rank(X),
}


def bad(shape, where, value):
    X = torch.eye(shape[-1]).expand(shape).clone()
    X[where] = value
    return X


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
@pytest.mark.parametrize(("shape", "where"), [((4, 4), (2, 3)), ((2, 3, 4, 4), (1, 2, 3, 0)), ((3, 4, 4), (0, 1, 2))])
def test_the_index_is_that_of_the_argument(function, shape, where, value):
    X, name = bad(shape, where, value), function.split(" ")[0]
    for given in (X, X.numpy(), X.clone().requires_grad_()):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            FUNCTIONS[function](given)
        assert f"{name}: 1 of {X.numel()} entries are NaN or infinite, the first at index {where}." in str(error.value)


def test_of_a_transposed_and_of_a_complex_matrix():
    with pytest.raises(ValueError, match=r"1 of 20 entries are NaN or infinite, the first at index \(3, 2\)"):
        matfun.msign(torch.zeros(4, 5).index_put((torch.tensor(2), torch.tensor(3)), torch.tensor(torch.nan)).mT)
    Z = np.eye(4, dtype=np.complex128)
    Z[2, 1] = 1j * np.inf
    with pytest.raises(ValueError, match=r"1 of 16 entries are NaN or infinite, the first at index \(2, 1\)"):
        matfun.msign(Z)


@pytest.mark.parametrize("settings", [{"steps": 5}, {"tol": 1e-3}, {"steps": 5, "lower": "measured"}])
def test_of_a_list_the_matrix_is_named(settings):
    """Gathered by shape and dtype, so that places inside have nothing to do with those in the list."""
    matrices = [torch.eye(3), torch.eye(4), torch.eye(4).double(), bad((2, 4, 4), (1, 2, 0), torch.nan), torch.eye(4)]
    with pytest.raises(ValueError, match=r"1 of 32 entries of matrix 3 of the list .* at index \(1, 2, 0\)"):
        matfun.msign(matrices, **settings)
