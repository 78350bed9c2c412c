"""The derivative of the pseudo-inverse, which exists where the rank does not change."""

from typing import Any

import torch
from torch import Tensor


class _Attached(torch.autograd.Function):
    """P = A^+ with its derivative in A; P was computed without one."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, P: Tensor) -> Tensor:
        ctx.save_for_backward(A, P)
        return P.view_as(P)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        A, P = ctx.saved_tensors
        P = attached(A, P.detach())  # so that second derivatives see that P depends on A
        Gh, Ph = grad.mH, P.mH
        inside = -(Ph @ grad @ Ph)
        rows = Gh @ P @ Ph - A @ (P @ (Gh @ (P @ Ph)))
        columns = Ph @ P @ Gh - ((Ph @ P @ Gh) @ P) @ A
        return inside + rows + columns, None


def attached(A: Tensor, P: Tensor) -> Tensor:
    """Return P = A^+ as a differentiable function of A, at constant rank.

    dP = -P dA P + P P^H dA^H (I - A P) + (I - P A) dA^H P^H P (Golub and Pereyra 1973). No division by differences of
    singular values: equal ones are no obstacle. Cost of the derivative: ten products.
    """
    return _Attached.apply(A, P) if A.requires_grad and torch.is_grad_enabled() else P
