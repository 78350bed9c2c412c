"""The derivative of the pseudo-inverse, which exists where the rank does not change."""

from typing import Any

import torch
from torch import Tensor

from spectrain.lowrank._derivatives import differentiated, transformed
from spectrain.lowrank._matrix.scale import unit_scaled
from spectrain.lowrank._stacked import times_two_to


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
    """Return P = A^+ as a differentiable function of A, at constant rank, in every mode of torch.

    dP = -P dA P + P P^H dA^H (I - A P) + (I - P A) dA^H P^H P (Golub and Pereyra 1973). No division by differences of
    singular values: equal ones are no obstacle. Cost of a derivative by a graph: ten products. Dual numbers and
    transforms of torch.func, nested or not, go through :func:`_restored`.
    """
    if not differentiated(A):
        return P
    return _restored(A, P) if transformed(A) else _Attached.apply(A, P)


def _restored(A: Tensor, P: Tensor) -> Tensor:
    """Return P by a polynomial in A and P of which A^+ is the limit; P itself is a constant.

    G = (P A)^H P (A P)^H has the rows and columns of A^+ exactly, and is off by O(||P - A^+||); 2 G - G A G by its
    square. So one turn makes derivatives right to the first order, three to the seventh. A is brought to unit size
    first, for the squares of P.
    """
    A, k = unit_scaled(A, "pinv")
    fixed = P = times_two_to(P.detach(), k)
    for _ in range(3):
        G = (P @ A).mH @ P @ (A @ P).mH
        P = 2 * G - G @ A @ G
    return times_two_to(P + (fixed - P).detach(), -k)
