"""Forward-mode derivatives through attention and torch's own warnings."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def jvp(f: Callable[..., Tensor], points: tuple[Any, ...], directions: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """``f`` and its derivative along ``directions`` at ``points``.

    Attention runs in its plain form: fused kernels have no forward-mode derivative
    (https://github.com/pytorch/pytorch/issues/165530).
    """
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        # torch 2.13 warns of its own torch.jit when forward-mode decompositions are first loaded.
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        found: tuple[Tensor, Tensor] = torch.func.jvp(f, points, directions)  # type: ignore[assignment]
    return found
