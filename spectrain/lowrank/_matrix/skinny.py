"""Products of a matrix with few columns, along its rows in memory and by the faster of torch's float32 libraries."""

import torch
from torch import Tensor

from spectrain._arrays.products import onednn_is_faster
from spectrain.lowrank._derivatives import carries_derivative

_LEAST = 16  # rows and columns of the matrix, from where the choice matters


def times(A: Tensor, X: Tensor) -> Tensor:
    """Return A X.

    On AMD processors MKL reads A at a small part of the memory's speed when X has few columns, and oneDNN, which torch
    ships too, does not: 2 to 20 times the speed for 16 to 110 columns. The choice is a rule, the same in every run on a
    machine.
    """
    if _by_onednn(A, X):
        return _linear(A, X.mT)
    return _along(A, X)


def adjoint_times(A: Tensor, Y: Tensor) -> Tensor:
    """Return A^H Y, also where the caller holds A by rows: then as (Y^H A)^H."""
    if _by_onednn(A, Y):
        return _linear(Y.mT, A.mT).mT
    return _along(A.mH, Y)


def _along(A: Tensor, X: Tensor) -> Tensor:
    """Return A X, for an A that is held by columns as (X^T A^T)^T: half the time of MKL's own way for few columns."""
    if A.ndim == 2 and not A.is_contiguous() and A.mT.is_contiguous():
        return (X.mT @ A.mT).mT
    return A @ X


def _by_onednn(A: Tensor, X: Tensor) -> bool:
    if torch.compiler.is_compiling() or A.ndim != 2 or A.dtype != torch.float32 or A.device.type != "cpu":
        return False
    if carries_derivative(A) or carries_derivative(X):
        return False
    return min(A.shape) >= _LEAST and A.is_contiguous() and X.dtype == A.dtype and onednn_is_faster()


def _linear(A: Tensor, B: Tensor) -> Tensor:
    """Return A B^T by the linear layer of oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(A, B, None, "none", [], "")
