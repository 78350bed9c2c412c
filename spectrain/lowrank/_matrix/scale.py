"""Scaling by an exact power of two, so that no square of an entry over- or underflows.

Results of single matrices back to a batch, and exact powers of two back into factors.

Canonical signs and phases: singular vectors are unique up to a unit factor, and this picks it.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Int, Num
from torch import Tensor

from spectrain._arrays.scale import far_from_one, times_power_of_two, to_unit


def canonical(U: Tensor, Vh: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same pairs with the largest entry of each column of U (the first of several) real and positive.

    U diag(S) Vh does not change: column j of U is multiplied by a unit number and row j of Vh by its conjugate. The
    factor is differentiable, so that gradients of complex factors are those of a well defined function.

    >>> U, Vh = canonical(torch.tensor([[-0.8], [0.6]]), torch.tensor([[1.0, 0.0]]))
    >>> U[:, 0].tolist(), Vh[0].tolist()
    ([0.800000011920929, -0.6000000238418579], [-1.0, -0.0])
    """
    where = U.detach().abs().argmax(dim=-2, keepdim=True)
    phase = torch.sgn(U.gather(-2, where)).conj()
    phase = torch.where(phase == 0, torch.ones_like(phase), phase)
    return U * phase, Vh * phase.conj().mT


def unit_scaled(X: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return X * 2**-k and k, one for each matrix; k = 0 for all where every norm is within a factor 2**20 of 1."""
    flat = torch.view_as_real(X.resolve_conj()).flatten(-2) if X.is_complex() else X
    norm = torch.linalg.vector_norm(flat.detach(), dim=(-2, -1))
    if not far_from_one(norm):
        return X, torch.zeros_like(norm, dtype=torch.int32)
    scaled, k = to_unit(flat, name)
    return (join_parts(scaled.unflatten(-1, (-1, 2))) if X.is_complex() else scaled), k


def rescale(S: Tensor, k: Tensor) -> Tensor:
    """Return S * 2**k for numbers S (*batch) or singular values (*batch, r)."""
    shape = S.shape
    if not S.numel():
        return S
    return times_power_of_two(S.reshape(*k.shape, 1, -1), k).reshape(shape)


def exponent_of(X: Tensor) -> int:
    """Return k with entries of X / 2**k at most 1 in size; 0 where they are within a factor 2**20 of 1, or zero."""
    parts = torch.view_as_real(X.detach().resolve_conj()) if X.is_complex() else X.detach()
    largest = float(parts.abs().max()) if parts.numel() else 0.0
    k = math.frexp(largest)[1]
    return k if largest and abs(k) > 20 else 0


def scale_by(X: Tensor, k: int) -> Tensor:
    """Return X * 2**k, real or complex, exactly but for underflow; X itself for k = 0."""
    if not k:
        return X
    if X.is_complex():
        return join_parts(scale_by(torch.view_as_real(X.resolve_conj()), k))
    return times_power_of_two(X.reshape(1, -1), torch.tensor(k, device=X.device)).reshape(X.shape)


def join_parts(parts: Tensor) -> Tensor:
    """Return complex numbers (*shape) from their real and imaginary parts (*shape, 2).

    Not by ``view_as_complex``: torch.compile (2.13) refuses a complex view into real numbers of another shape.
    """
    return torch.complex(*parts.unbind(-1))


def as_returned(X: Tensor, k: int, dtype: torch.dtype) -> Tensor:
    """Return X as rounding leaves it where X * 2**k goes out in ``dtype``, with its smallest and largest number."""
    return scale_by(scale_by(X, k).to(dtype).to(X.dtype), -k)


def in_range(X: Tensor, name: str, what: str) -> Tensor:
    """Return a factor as it goes out; ValueError where it overflowed: A itself is in the range of its dtype."""
    if not torch.compiler.is_compiling() and not bool(torch.isfinite(X.detach()).all()):
        raise ValueError(
            f"{name}: {what} is above the largest number of {X.dtype}, {torch.finfo(X.dtype).max:.3g}; pass A times a "
            "power of two that brings it near 1, or in a wider dtype"
        )
    return X


def round_up(X: Tensor) -> Tensor:
    """Return the next number above positive X, and 0 for 0: a bound that was rounded to nearest is one again."""
    return torch.where(X > 0, torch.nextafter(X, torch.full_like(X, torch.inf)), X)


def flatten_batch(A: Num[Tensor, "*batch m n"]) -> Num[Tensor, "items m n"]:
    """Return a batch as a list of matrices; in the place of no matrices one of zeros, that tells shapes of results."""
    flat = A.reshape(A.shape[:-2].numel(), *A.shape[-2:])
    return flat if len(flat) else flat.new_zeros(1, *A.shape[-2:])


def restore_batch(values: Sequence[Tensor] | Tensor, batch: torch.Size) -> Tensor:
    """Return the results of :func:`flatten_batch` matrices, equal in shape, with the dimensions of the batch."""
    flat = values if isinstance(values, Tensor) else torch.stack(list(values))
    return flat[: batch.numel()].reshape((*batch, *flat.shape[1:]))


def stack(done: Sequence[object], key: str, batch: torch.Size) -> Tensor:
    """Return the attribute ``key`` of all results as one tensor with these batch dimensions."""
    return restore_batch([getattr(found, key) for found in done], batch)


def times_two_to(X: Num[Tensor, "*batch m n"], k: Int[Tensor, "*batch"]) -> Num[Tensor, "*batch m n"]:
    """Return X times 2**k, exactly."""
    if not bool(k.any()):
        return X
    parts = torch.view_as_real(X.resolve_conj()).flatten(-2) if X.is_complex() else X
    whole = rescale(parts.flatten(-2), k).reshape(parts.shape)
    return join_parts(whole.unflatten(-1, (-1, 2))) if X.is_complex() else whole
