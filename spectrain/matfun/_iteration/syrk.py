"""Gram matrices in float64, at half the price where a library knows that a product is symmetric."""

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._iteration.plain import gram

_LEAST_SIZE = 128  # below it a call costs as much as what it saves


def float64_gram(X: Float[Tensor, "b m n"]) -> Float[Tensor, "b k k"]:
    """Return the Gram matrix on the short side; for one large matrix on CPU at half the price, as NumPy knows syrk."""
    if len(X) > 1 or X.device.type != "cpu" or min(X.shape[-2:]) < _LEAST_SIZE:
        return gram(X)
    A = X[0].numpy()
    return torch.from_numpy(A.T @ A if A.shape[0] > A.shape[1] else A @ A.T)[None]
