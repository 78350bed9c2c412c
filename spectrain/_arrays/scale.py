"""Scaling by exact powers of two, which makes every function here independent of the scale of its input."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain._arrays.finite import refusal

_LAYOUT = {torch.float32: (torch.int32, 127, 23), torch.float64: (torch.int64, 1023, 52)}
_SAFE = 2.0**20  # Frobenius norms within this factor of 1 come from squares that neither over- nor underflow


def power_of_two(exponent: Int[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """Return 2**exponent exactly, by writing the exponent's bits; it must be in the normal range of dtype.

    ``torch.exp2`` and ``torch.ldexp`` go through a power function that promises no exact result.
    """
    integer, bias, shift = _LAYOUT[dtype]
    return ((exponent.to(integer) + bias) << shift).view(dtype)


def times_power_of_two(X: Float[Tensor, "*batch m n"], exponent: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch m n"]:
    """Return X * 2**exponent, exactly unless the result is subnormal. X is float32 or float64.

    In two halves: one factor could be out of range when X is near overflow or subnormal.
    """
    half = exponent.div(2, rounding_mode="floor")
    first, second = (power_of_two(k, X.dtype)[..., None, None] for k in (half, exponent - half))
    return (X * first) * second


def to_unit(X: Float[Tensor, "*batch m n"], name: str) -> tuple[Float[Tensor, "*batch m n"], Int[Tensor, "*batch"]]:
    """Return X * 2**-k with Frobenius norm in [1/2, 1), and k (0 for a zero matrix).

    Half precision goes to float32 first, which is exact. ValueError where an entry is NaN or infinite.

    >>> Y, k = to_unit(torch.tensor([[0.0, 3e-41]]), "example")
    >>> bool((Y.norm() >= 0.5) & (Y.norm() < 1))
    True
    """
    if X.dtype not in _LAYOUT:
        X = X.float()
    if X.numel() == 0:
        return X, torch.zeros(X.shape[:-2], dtype=torch.int32, device=X.device)
    norm = torch.linalg.vector_norm(X, dim=(-2, -1))
    if far_from_one(norm):
        return _from_far(X, name)
    k = torch.frexp(norm)[1]
    return times_power_of_two(X, -k), k


def recording() -> bool:
    """Whether a graph is being recorded, by torch.compile or by CUDA: then no value can be read."""
    return torch.compiler.is_compiling() or (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


def far_from_one(norms: Float[Tensor, "*batch"]) -> bool:
    """Whether some norm is zero, NaN, infinite, or outside the range in which its squares could be trusted."""
    if recording():
        return True  # a graph cannot branch on values: always the way that is right for every size
    return not bool(((norms > 1 / _SAFE) & (norms < _SAFE)).all())


def _from_far(X: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Bring the largest entries near 1 before a norm is taken, for matrices whose squares leave the range."""
    largest = X.abs().amax((-2, -1))
    if not recording() and not bool(largest.isfinite().all()):
        raise refusal(X[0] if X.ndim == 3 and len(X) == 1 else X, name)
    first = torch.frexp(largest)[1]
    Y = times_power_of_two(X, -first)
    second = torch.frexp(torch.linalg.vector_norm(Y, dim=(-2, -1)))[1]
    return times_power_of_two(Y, -second), first + second


def rounding_noise(size: Float[Tensor, " b"], shape: tuple[int, ...], dtype: torch.dtype) -> Float[Tensor, " b"]:
    """Return u rms(X) (sqrt(m) + sqrt(n)) for m x n matrices X of Frobenius norm ``size``.

    That is the size of the matrix by which rounding X to ``dtype`` changes it. u is the unit roundoff; the norm of a
    random matrix is that of Davidson and Szarek (2001).
    """
    m, n = shape
    return torch.finfo(dtype).eps / 2 * size * ((m**0.5 + n**0.5) / (m * n) ** 0.5)
