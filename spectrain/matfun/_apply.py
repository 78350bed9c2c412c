"""Any function of the singular values, exactly: U f(S) V^T by SVD in float64."""

from collections.abc import Callable

import torch
from torch import Tensor

from spectrain.matfun._batches import flat
from spectrain.matfun._input import Array, Real, entered
from spectrain.matfun._scale import times_power_of_two, to_unit


def mapply(f: Callable[[Tensor], Tensor], X: Array, *, rtol: Real = 0.0, out_dtype: torch.dtype | None = None) -> Array:
    """Return U f(S) V^T for X = U diag(S) V^T, by SVD in float64.

    ``f`` maps a float64 tensor of singular values, falling along the last dimension, to one of the same shape.
    Singular values at or below rtol times the largest, and exact zeros, give zero whatever f says: where S is zero
    U and V are arbitrary. Examples: ``lambda s: s**p`` for U S^p V^T, ``lambda s: (s - t).clamp(min=0)`` for
    singular value thresholding, ``torch.tanh`` for a soft clip. Output dtype that of X unless ``out_dtype`` says.

    The result is that of a matrix within about 1e-15 ||X|| of X; how far that carries depends on f: at most the
    largest divided difference of f, continued as an odd function, between the singular values. Errors: TypeError
    and ValueError for what is not a real finite matrix, ValueError where f changes the shape. Cost: one SVD.

    >>> X = torch.tensor([[0.0, 4.0], [-9.0, 0.0]])
    >>> mapply(torch.sqrt, X).tolist()
    [[0.0, 2.0], [-3.0, 0.0]]
    """
    X, leave = entered(X, "mapply")
    unit, k = to_unit(flat(X).double(), "mapply")
    U, S, Vh = torch.linalg.svd(unit, full_matrices=False)
    true = times_power_of_two(S[..., None], k)[..., 0]
    image = f(true)
    if image.shape != S.shape:
        raise ValueError(
            f"mapply: f must keep the shape {tuple(S.shape)} of the singular values, got {tuple(image.shape)}"
        )
    kept = (rtol * S[..., :1] < S) & (S > 0)
    Y = torch.bmm(U * torch.where(kept, image, 0.0)[..., None, :], Vh)
    return leave(Y.to(out_dtype or X.dtype).reshape(X.shape))
