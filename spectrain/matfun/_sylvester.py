"""Sylvester equations and pseudo-inverses of symmetric matrices, differentiable any number of times.

Both go by eigenvectors in the dtype given (float64 where derivatives are taken), and keep only their arguments and
results for a backward pass. Denominators at rounding level give zero: those directions have no slope.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def _inverted(D: Float[Tensor, "b k l"]) -> Float[Tensor, "b k l"]:
    """Return 1 / D, and zero where D is below max(k, l) eps of the largest."""
    cut = max(D.shape[-2:]) * torch.finfo(D.dtype).eps * D.abs().amax((-2, -1), keepdim=True)
    large = cut < D.abs()
    return torch.where(large, 1 / torch.where(large, D, 1.0), 0.0)


def sylvester(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Return K with A K + K B = C, A (b, k, k) and B (b, l, l) symmetric, C (b, k, l)."""
    return _Sylvester.apply(A, B, C)


def inverse(H: Tensor) -> Tensor:
    """Return the pseudo-inverse of symmetric H (b, k, k), differentiable among matrices of constant rank."""
    return _Inverse.apply(H)


class _Sylvester(torch.autograd.Function):
    @staticmethod
    def forward(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        a, U = torch.linalg.eigh(A)
        b, V = (a, U) if B is A else torch.linalg.eigh(B)
        return U @ ((U.mT @ C @ V) * _inverted(a[:, :, None] + b[:, None, :])) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.same = inputs[0] is inputs[1]
        ctx.save_for_backward(*inputs[:2], output)
        ctx.save_for_forward(*inputs[:2], output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        A, B, K = ctx.saved_tensors
        gC = _Sylvester.apply(A, A if ctx.same else B, g)
        return -gC @ K.mT, -K.mT @ gC, gC

    @staticmethod
    def jvp(ctx: Any, dA: Tensor | None, dB: Tensor | None, dC: Tensor | None) -> Tensor:
        A, B, K = ctx.saved_tensors
        change = torch.zeros_like(K) if dC is None else dC
        change = change if dA is None else change - dA @ K
        change = change if dB is None else change - K @ dB
        return _Sylvester.apply(A, A if ctx.same else B, change)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, int]:
        A, B, C = (_folded(info, d, T) for d, T in zip(in_dims, (A, B, C), strict=True))
        return _Sylvester.apply(A, B, C).unflatten(0, (info.batch_size, -1)), 0


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(H: Tensor) -> Tensor:
        L, V = torch.linalg.eigh(H)
        return (V * _inverted(L[:, None, :])) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        H, N = ctx.saved_tensors
        return _change_of_inverse(H, N, g)

    @staticmethod
    def jvp(ctx: Any, dH: Tensor) -> Tensor:
        H, N = ctx.saved_tensors
        return _change_of_inverse(H, N, dH)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, H: Tensor) -> tuple[Tensor, int]:
        return _Inverse.apply(_folded(info, in_dims[0], H)).unflatten(0, (info.batch_size, -1)), 0


def _change_of_inverse(H: Tensor, N: Tensor, D: Tensor) -> Tensor:
    """Return -N D N and, where H is singular, what turns its range (Golub and Pereyra, SINUM 10, 1973)."""
    E = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device) - H @ N
    turned = N @ N @ D @ E
    return turned + E.mT @ D @ N @ N - N @ D @ N


def _folded(info: Any, dim: int | None, T: Tensor) -> Tensor:
    """Return T with the mapped dimension, repeated where there is none, folded into the batch."""
    wide = T.expand(info.batch_size, *T.shape) if dim is None else T.movedim(dim, 0)
    return wide.flatten(0, 1)
