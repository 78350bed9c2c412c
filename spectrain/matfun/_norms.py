"""The spectral norm, enclosed: a lower bound by power iteration, an upper bound by powers of the Gram matrix."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._batches import flat
from spectrain.matfun._input import Array, entered
from spectrain.matfun._iterate import gram
from spectrain.matfun._scale import times_power_of_two, to_unit

_SQUARINGS = 5  # of the Gram matrix: the bound is the Schatten norm of order 2 * 2**5 = 64


class NormBounds(NamedTuple):
    """lower <= ||X||_2 <= upper, one pair for each matrix of the batch."""

    lower: Array
    upper: Array


def spectral_norm(X: Array) -> NormBounds:
    """Return bounds on the largest singular value: lower <= sigma_max(X) <= upper.

    ``upper`` is the Schatten norm of order 64, ||(X X^T)^32||_F^(1/32): at most k^(1/64) too large, k = min(m, n),
    10 % for k = 512, and less the fewer singular values are near the largest. ``lower`` is ||X v|| / ||v|| with v the
    largest column of (X X^T)^32, a power iteration of that order. Everything is computed in float64; bounds on its
    rounding errors are included (Higham, Accuracy and Stability of Numerical Algorithms, 3.5), so that both hold
    as stated. They come back in float64 for float64 input, else in float32, rounded outwards.
    A zero matrix gives (0, 0).

    Errors: TypeError and ValueError for what is not a real floating matrix, ValueError for NaN or infinite
    entries. Cost: k^2 max(m, n) + 5 k^3 multiplications.

    >>> lower, upper = spectral_norm(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    >>> bool(lower <= 3) and bool(upper >= 3) and bool(upper / lower < 1.001)
    True
    """
    X, leave = entered(X, "spectral_norm")
    unit, k = to_unit(flat(X).double(), "spectral_norm")
    dtype = torch.float64 if X.dtype == torch.float64 else torch.float32
    lower, upper = (times_power_of_two(b[:, None, None], k).flatten() for b in enclosed_norms(unit))
    down, up = (torch.tensor(sign * torch.inf, dtype=dtype, device=X.device) for sign in (-1, 1))
    lower = torch.where(lower > 0, torch.nextafter(lower.to(dtype), down), 0.0)
    upper = torch.where(upper > 0, torch.nextafter(upper.to(dtype), up), 0.0)
    return NormBounds(leave(lower.clamp_min(0).reshape(X.shape[:-2])), leave(upper.reshape(X.shape[:-2])))


def enclosed_norms(X: Float[Tensor, "b m n"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Return the bounds for float64 matrices of Frobenius norm at most 1."""
    if X.shape[-1] == 0 or X.shape[-2] == 0:
        return X.new_zeros(len(X)), X.new_zeros(len(X))
    unit = torch.finfo(X.dtype).eps
    power, sizes = gram(X), []
    for _ in range(_SQUARINGS):
        sizes.append(torch.linalg.matrix_norm(power))
        power = power / torch.where(sizes[-1] > 0, sizes[-1], 1.0)[:, None, None]
        power = power @ power
    bound = torch.linalg.matrix_norm(power) + power.shape[-1] * unit
    for size in reversed(sizes[1:]):
        bound = (size + power.shape[-1] * unit) * bound.sqrt()
    upper = ((sizes[0] + max(X.shape[-2:]) * unit * (sizes[0] > 0)) * bound.sqrt()).sqrt() * (1 + 16 * unit)
    return _quotient(X, power).clamp(max=upper), upper


def _quotient(X: Float[Tensor, "b m n"], power: Float[Tensor, "b k k"]) -> Float[Tensor, " b"]:
    """Return ||X v|| / ||v|| less its rounding error, v the largest column of ``power``."""
    column = torch.linalg.vector_norm(power, dim=-2).argmax(-1)
    v = power.take_along_dim(column[:, None, None], dim=-1)
    w = X @ v if X.shape[-2] > X.shape[-1] else X.mT @ v
    size = torch.linalg.matrix_norm(v)
    found = torch.linalg.matrix_norm(w) / torch.where(size > 0, size, 1.0)
    return (found - 2 * sum(X.shape[-2:]) * torch.finfo(X.dtype).eps * torch.linalg.matrix_norm(X)).clamp_min(0)
