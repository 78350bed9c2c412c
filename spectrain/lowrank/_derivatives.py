"""Whether somebody differentiates, and the refusal where there is no derivative."""

import torch
from torch import Tensor


def carries_derivative(X: Tensor) -> bool:
    """Whether X carries a derivative: a graph, dual numbers, or a transform of torch.func.

    ``requires_grad`` alone does not see forward mode.
    """
    return (X.requires_grad and torch.is_grad_enabled()) or is_transformed(X)


def is_transformed(X: Tensor) -> bool:
    """Whether X is a dual number or inside a transform of torch.func, which may be nested."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.is_functorch_wrapped_tensor(X) or torch.autograd.forward_ad.unpack_dual(X)[1] is not None


def refuse_derivative(X: Tensor, name: str, instead: str) -> None:
    """Raise ValueError where X carries a derivative that would be lost: zero would be wrong."""
    if carries_derivative(X):
        raise ValueError(f"{name}: this has no derivative, but the input asks for one; {instead}")
