"""Derivatives of msign and mclip from the input and the result alone: no step of the iteration is kept.

With X = H Y, H symmetric on the short side, a change D of X changes Y = msign(X) by K Y + H^+ D (I - Y^T Y), where K
solves H K + K H = D Y^T - Y D^T (article 11025, kexue.fm/archives/11025; Kenney and Laub, SIMAX 12, 1991). The map is
its own adjoint, so it serves forward and backward. Everything runs in float64.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def _inverted(D: Tensor) -> Tensor:
    """Return 1 / D, and zero where D is at rounding level: directions that the rank rule does not see have no slope."""
    cut = D.shape[-1] * torch.finfo(D.dtype).eps * D.flatten(1).amax(-1)[:, None, None]
    return torch.where(cut < D, 1 / torch.where(cut < D, D, 1.0), 0.0)


class _Sylvester(torch.autograd.Function):
    """K with H K + K H = C for positive semidefinite H: differentiable any number of times."""

    @staticmethod
    def forward(H: Tensor, C: Tensor) -> Tensor:
        L, V = torch.linalg.eigh(H)
        weights = _inverted(L[:, :, None] + L[:, None, :])
        return V @ ((V.mT @ C @ V) * weights) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        H, K = ctx.saved_tensors
        gC = _Sylvester.apply(H, g)
        return -(gC @ K.mT + K.mT @ gC), gC

    @staticmethod
    def jvp(ctx: Any, dH: Tensor | None, dC: Tensor | None) -> Tensor:
        H, K = ctx.saved_tensors
        change = torch.zeros_like(K) if dC is None else dC
        return _Sylvester.apply(H, change if dH is None else change - dH @ K - K @ dH)


class _Inverse(torch.autograd.Function):
    """The pseudo-inverse of positive semidefinite H, of constant rank: differentiable any number of times."""

    @staticmethod
    def forward(H: Tensor) -> Tensor:
        L, V = torch.linalg.eigh(H)
        return (V * _inverted(L[:, None, :])) @ V.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (P,) = ctx.saved_tensors
        return -P @ g @ P

    @staticmethod
    def jvp(ctx: Any, dH: Tensor) -> Tensor:
        (P,) = ctx.saved_tensors
        return -P @ dH @ P


def _change_of_sign(X: Tensor, Y: Tensor, D: Tensor) -> Tensor:
    """Return the change of Y = msign(X) when X changes by D, of any shape (b, m, n)."""
    if X.shape[-2] > X.shape[-1]:
        return _change_of_sign(X.mT, Y.mT, D.mT).mT.contiguous()
    X, Y, wide = X.double(), Y.double(), D.double()
    T = X @ Y.mT
    H = 0.5 * (T + T.mT)
    C = wide @ Y.mT
    change = _Sylvester.apply(H, C - C.mT) @ Y + _Inverse.apply(H) @ (wide - C @ Y)
    return change.to(D.dtype)


class SignFunction(torch.autograd.Function):
    """(Y, ...) = compute(X) with Y = msign(X), given the derivative of the exact msign at the computed Y.

    X is (b, m, n). What compute returns beside Y has no derivative.
    """

    @staticmethod
    def forward(X: Tensor, compute: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        return tuple(compute(X.detach()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], output[0])
        ctx.save_for_forward(inputs[0], output[0])
        ctx.others = len(output) - 1

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        X, Y = ctx.saved_tensors
        return _change_of_sign(X, Y, g).to(X.dtype), None

    @staticmethod
    def jvp(ctx: Any, D: Tensor, _: None) -> tuple[Tensor | None, ...]:
        X, Y = ctx.saved_tensors
        return _change_of_sign(X, Y, D).to(Y.dtype), *[None] * ctx.others

    @staticmethod
    def vmap(info: Any, in_dims: tuple, X: Tensor, compute: Callable) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        X = X.movedim(in_dims[0], 0)
        parts = SignFunction.apply(X.flatten(0, 1), compute)
        outputs = tuple(part.unflatten(0, X.shape[:2]) for part in parts)
        return outputs, (0,) * len(outputs)


class ClipFunction(torch.autograd.Function):
    """Y = compute(X) with Y = mclip(X, lower, upper), differentiable once.

    The change is U (A * sym + B * skew) V^T in the singular basis, A and B the divided differences of clip between
    sigma_i and sigma_j and between sigma_i and -sigma_j (Daleckii and Krein), and, times clip(s) / s, the part that
    leaves the span of V.
    """

    @staticmethod
    def forward(X: Tensor, compute: Callable[[Tensor], Tensor], lower: float, upper: float) -> Tensor:
        return compute(X.detach())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])
        ctx.bounds = inputs[2:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (X,) = ctx.saved_tensors
        return _change_of_clip(X, g, *ctx.bounds).to(X.dtype), None, None, None

    @staticmethod
    def jvp(ctx: Any, D: Tensor, *_: None) -> Tensor:
        (X,) = ctx.saved_tensors
        return _change_of_clip(X, D, *ctx.bounds)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, X: Tensor, *rest: Any) -> tuple[Tensor, int]:
        X = X.movedim(in_dims[0], 0)
        return ClipFunction.apply(X.flatten(0, 1), *rest).unflatten(0, X.shape[:2]), 0


def _change_of_clip(X: Tensor, D: Tensor, lower: float, upper: float) -> Tensor:
    """Return the change of mclip(X, lower, upper) when X changes by D."""
    if X.shape[-2] > X.shape[-1]:
        return _change_of_clip(X.mT, D.mT, lower, upper).mT.contiguous()
    U, S, Vh = torch.linalg.svd(X.double(), full_matrices=False)
    change = U.mT @ D.double()
    core = change @ Vh.mT
    sym, skew = 0.5 * (core + core.mT), 0.5 * (core - core.mT)
    same, opposite = _differences(S, lower, upper)
    inside = (same * sym + opposite * skew) @ Vh
    ratio = opposite.diagonal(dim1=-2, dim2=-1)[..., None]
    return (U @ (inside + ratio * (change - core @ Vh))).to(D.dtype)


def _differences(S: Float[Tensor, "b k"], lower: float, upper: float) -> tuple[Tensor, Tensor]:
    """Return (f_i - f_j) / (s_i - s_j), f' on ties, and (f_i + f_j) / (s_i + s_j), f'(0) for 0 / 0."""
    f = torch.where(S > 0, S.clamp(max(lower, 0.0), upper), 0.0)
    slope = ((max(lower, 0.0) < S) & (upper > S)) | ((S == 0) & (lower <= 0))
    gap, total = S[:, :, None] - S[:, None, :], S[:, :, None] + S[:, None, :]
    tied = gap.abs() <= 8 * torch.finfo(S.dtype).eps * total
    same = torch.where(
        tied, slope[:, :, None].to(S.dtype), (f[:, :, None] - f[:, None, :]) / torch.where(tied, 1.0, gap)
    )
    none = total == 0
    return same, torch.where(none, float(lower <= 0), (f[:, :, None] + f[:, None, :]) / torch.where(none, 1.0, total))
