"""What a matrix function accepts: real floating matrices, as tensors, NumPy arrays or by DLPack."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Real: TypeAlias = float | int
Array: TypeAlias = Any  # what the doors take: a torch.Tensor, a NumPy array, anything with __dlpack__

_DEFAULT_TOL = {torch.bfloat16: 5e-2, torch.float16: 5e-2, torch.float32: 1e-4, torch.float64: 1e-10}


def entered(X: Array, name: str) -> tuple[Tensor, Callable[[Tensor], Array]]:
    """Return X as a checked tensor, and what turns a result into the kind of array that X was.

    NumPy arrays come back as NumPy arrays; whatever else has ``__dlpack__`` comes back as a torch.Tensor. Memory is
    shared where that is possible; nothing here writes to it. TypeError for anything else.
    """
    if isinstance(X, Tensor):
        tensor, leave = X, _same
    elif isinstance(X, np.ndarray):
        tensor, leave = torch.from_numpy(np.require(X, requirements=["C", "W"])), _to_numpy
    elif hasattr(X, "__dlpack__"):
        tensor, leave = torch.from_dlpack(X), _same
    else:
        raise TypeError(
            f"{name}: needs a torch.Tensor, a NumPy array or an array with __dlpack__, got {type(X).__name__}; "
            "torch.as_tensor makes a tensor of nested lists"
        )
    _check_matrix(tensor, name)
    return tensor, leave


def _same(X: Tensor) -> Tensor:
    return X


def _to_numpy(X: Tensor) -> Array:
    return X.numpy()


def _check_matrix(X: Tensor, name: str) -> None:
    """Raise TypeError or ValueError unless X is real, floating and of two or more dimensions."""
    if X.is_complex():
        raise TypeError(f"{name}: complex matrices are not supported, got {X.dtype}; use torch.linalg.svd")
    if X.dtype not in _DEFAULT_TOL:
        raise TypeError(f"{name}: needs float16, bfloat16, float32 or float64, got {X.dtype}; convert with .float()")
    if X.ndim < 2:
        raise ValueError(
            f"{name}: needs a matrix (two or more dimensions, the last two are rows and columns), got shape "
            f"{tuple(X.shape)}; a vector v is the matrix v[:, None]"
        )


def default_tolerance(dtype: torch.dtype) -> float:
    """Return the tolerance used when the caller names none: 5e-2, 1e-4 or 1e-10 by dtype."""
    return _DEFAULT_TOL[dtype]


def rounding_floor(dtype: torch.dtype) -> float:
    """Return the unit roundoff of dtype: the relative Frobenius error that storing a result in it can cost."""
    return torch.finfo(dtype).eps / 2


def checked_tolerance(tol: Real | None, out_dtype: torch.dtype, name: str) -> Real:
    """Return tol or the default for the output dtype; ValueError when no result in that dtype can honour it."""
    if tol is None:
        return default_tolerance(out_dtype)
    floor = rounding_floor(out_dtype)
    if not tol >= 2 * floor:
        better = torch.float32 if tol >= 2 * rounding_floor(torch.float32) else torch.float64
        advice = f"pass out_dtype={better}" if tol >= 2 * rounding_floor(better) else "ask for a larger tol"
        raise ValueError(
            f"{name}: tol={tol} is below {2 * floor:.3g}, twice the unit roundoff of the output dtype {out_dtype}: "
            f"rounding the exact answer could already cost that much. Either {advice} or a tol above this floor."
        )
    return tol
