"""Exact answers: functions of singular values by LAPACK's SVD in float64."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def noise_floor(X: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch"]:
    """Return u rms(X) (sqrt(m) + sqrt(n)): the singular values that rounding X to its dtype can create.

    Rounding moves each entry by at most u times its size, u the unit roundoff of the dtype of X; a random
    matrix with entries of that size has spectral norm close to the value returned (Davidson and Szarek 2001).

    >>> float(noise_floor(torch.ones(4, 4))) == 4 * torch.finfo(torch.float32).eps / 2
    True
    """
    m, n = X.shape[-2:]
    if X.numel() == 0:
        return torch.zeros(X.shape[:-2], dtype=torch.float64)
    rms = X.double().square().mean((-2, -1)).sqrt()
    return torch.finfo(X.dtype).eps / 2 * rms * (m**0.5 + n**0.5)


def spectral_function(f: Callable[[Tensor], Tensor], X: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m n"]:
    """Return U f(S) V^T in float64 for X = U S V^T; f maps a tensor of singular values to one of its shape.

    >>> X = torch.tensor([[0.0, 2.0], [-3.0, 0.0]])
    >>> spectral_function(lambda s: s.clamp(max=1), X).tolist()
    [[0.0, 1.0], [-1.0, 0.0]]
    """
    U, S, Vh = torch.linalg.svd(X.double(), full_matrices=False)
    return (U * f(S)[..., None, :]) @ Vh


def exact_msign(X: Float[Tensor, "*batch m n"], *, rtol: float | None = None) -> Float[Tensor, "*batch m n"]:
    """Return U V^T over the singular values of X above the floor, in float64.

    The floor is rtol times the largest singular value, or :func:`noise_floor` of X in the dtype it came in; never
    below what a float64 decomposition can tell from zero, eps max(m, n) times the largest.

    >>> exact_msign(torch.tensor([[0.0, 2.0], [0.0, 0.0]])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    if X.numel() == 0:
        return X.double()
    unit = _to_unit_size(X)
    U, S, Vh = torch.linalg.svd(unit, full_matrices=False)
    largest = S.amax(-1)
    eps = torch.finfo(torch.float64).eps
    noise = torch.maximum(noise_floor(unit) * torch.finfo(X.dtype).eps / eps, eps * largest * max(X.shape[-2:]))
    floor = noise if rtol is None else rtol * largest
    return (U * (floor[..., None] < S)[..., None, :]) @ Vh


def _to_unit_size(X: Tensor) -> Tensor:
    """Bring X to float64 with largest entry in [1/2, 1) by an exact power of two: no square overflows."""
    X = X.double()
    _, exponent = torch.frexp(X.abs().amax((-2, -1), keepdim=True))
    half = exponent.div(2, rounding_mode="floor")
    return torch.ldexp(torch.ldexp(X, -half), half - exponent)


def relative_error(Y: Float[Tensor, "*batch m n"], truth: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch"]:
    """Return ||Y - truth||_F / ||truth||_F in float64; for a zero truth, ||Y||_F. Not finite counts as inf.

    >>> float(relative_error(torch.ones(2, 2), torch.full((2, 2), 2.0)))
    0.5
    """
    size = torch.linalg.matrix_norm(truth.double())
    gap = torch.linalg.matrix_norm(Y.double() - truth.double())
    return torch.nan_to_num(gap / torch.where(size > 0, size, 1.0), nan=float("inf"))


def polar_error(
    Y: Float[Tensor, "*batch m n"], X: Float[Tensor, "*batch m n"], *, rtol: float | None = None
) -> Float[Tensor, "*batch"]:
    """Return the relative Frobenius distance of Y from the exact msign(X).

    This is the error that matters. Orthogonality, ||Y Y^T - I||, is zero for any orthogonal matrix.

    >>> X = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(polar_error(X.flip(-1), X)), 12), round(float(polar_error(X, 5 * X)), 12)
    (1.414213562373, 0.0)
    """
    return relative_error(Y, exact_msign(X, rtol=rtol))
