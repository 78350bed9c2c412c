"""What a matrix function accepts and returns: which arrays, which tolerances, which dtypes.

What happens where a tolerance cannot be proven: an error where it was asked for, else a warning.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from spectrain._arrays.embedding import as_real, from_real
from spectrain._arrays.kinds import (
    FLOATING,
    Array,
    Real,
    check_floating,
    check_matrix_shape,
    refuse_sparse,
    tensor_of,
    way_out,
)
from spectrain._arrays.scale import recording, to_unit


def unit_size(X: Tensor, name: str) -> tuple[Tensor, Int[Tensor, " b"]]:
    """Return X * 2**-k in float64 or complex128 with Frobenius norm in [1/2, 1), and k, for matrices (b, m, n)."""
    if not X.is_complex():
        return to_unit(X.double(), name)
    both, k = to_unit(torch.cat([X.real, X.imag], -1).double(), name)
    return torch.complex(*both.chunk(2, -1)), k


def refuse(message: str, *, asked: bool) -> None:
    """Raise ValueError for a tolerance that the caller gave; warn for the default one."""
    if asked:
        raise ValueError(message)
    warnings.warn(message, RuntimeWarning, stacklevel=5)


_DEFAULT_TOL = {torch.bfloat16: 5e-2, torch.float16: 5e-2, torch.float32: 1e-4, torch.float64: 1e-10}
_REAL_OF = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def enter(X: Array, name: str, *, embed: bool = True) -> tuple[Tensor, Callable[[Tensor], Array]]:
    """Return X as a checked tensor, and what turns a matrix that results into the kind of array that X was.

    NumPy arrays come back as NumPy arrays and JAX's as JAX's (:func:`way_out`); what has no more than ``__dlpack__``
    comes back as a torch.Tensor. Memory is shared where that is possible; nothing here writes to it. A complex matrix
    becomes the real one of twice the size that stands for it (:func:`as_real`), and what leaves becomes complex again,
    unless ``embed`` is False. TypeError for anything else.
    """
    tensor, leave = tensor_of(X, name), way_out(X, name)
    if tensor is None:
        raise TypeError(
            f"{name}: needs a torch.Tensor, a NumPy array or an array with __dlpack__, got {type(X).__name__}; "
            "torch.as_tensor makes a tensor of nested lists"
        )
    refuse_sparse(tensor, name)
    check_floating(tensor.dtype, name)
    check_matrix_shape(tensor.shape, name)
    if tensor.is_complex() and embed:
        return as_real(tensor), lambda Y: leave(from_real(Y))
    return tensor, leave


def rounding_of_complex(X: Array, out_dtype: torch.dtype) -> float:
    """Return what the way back to a complex matrix adds to a relative error: one rounding, 0 where X is real."""
    return torch.finfo(out_dtype).eps / 2 if is_complex(X) else 0.0


def is_complex(X: Array) -> bool:
    """Whether a matrix at the door is complex."""
    return bool(np.iscomplexobj(X)) if isinstance(X, np.ndarray) else "complex" in str(getattr(X, "dtype", ""))


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the parts of a complex dtype; a real one is returned as it is."""
    return _REAL_OF.get(dtype, dtype)


def check_out_dtype(out_dtype: torch.dtype | None, name: str) -> None:
    """Raise TypeError for a dtype that no result has."""
    if out_dtype is not None and out_dtype not in FLOATING:
        raise TypeError(
            f"{name}: out_dtype must be float16, bfloat16, float32, float64, complex64 or complex128, got {out_dtype}"
        )


def rounded(Y: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Return a finite Y in dtype; ValueError where its entries are larger than the dtype can hold.

    >>> rounded(torch.tensor([1e30], dtype=torch.float64), torch.float32, "example").dtype
    torch.float32
    """
    narrow = Y.to(dtype)
    hidden = recording() or torch._C._are_functorch_transforms_active()  # a graph, or vmap: no value can be read
    if not hidden and not bool(narrow.isfinite().all()):
        raise ValueError(
            f"{name}: the result has entries beyond {torch.finfo(dtype).max:.3g}, the largest number of {dtype}; pass "
            "a wider out_dtype=, or scale the input"
        )
    return narrow


def default_tolerance(dtype: torch.dtype) -> float:
    """Return the tolerance used when the caller names none: 5e-2, 1e-4 or 1e-10 by dtype."""
    return _DEFAULT_TOL[real_dtype(dtype)]


def rounding_floor(dtype: torch.dtype) -> float:
    """Return the unit roundoff of dtype: the relative Frobenius error that storing a result in it can cost."""
    return torch.finfo(dtype).eps / 2


def check_tolerance(tol: Real | None, out_dtype: torch.dtype, name: str) -> Real:
    """Return tol or the default for the output dtype; ValueError when no result in that dtype can honour it."""
    check_out_dtype(out_dtype, name)
    if tol is None:
        return default_tolerance(out_dtype)
    if not tol < float("inf"):
        raise ValueError(f"{name}: tol must be a finite number, got {tol}; a bound of any size is no tolerance")
    floor = rounding_floor(out_dtype)
    if not tol >= 2 * floor:
        better = torch.float32 if tol >= 2 * rounding_floor(torch.float32) else torch.float64
        advice = f"pass out_dtype={better}" if tol >= 2 * rounding_floor(better) else "ask for a larger tol"
        raise ValueError(
            f"{name}: tol={tol} is below {2 * floor:.3g}, twice the unit roundoff of the output dtype {out_dtype}: "
            f"rounding the exact answer could already cost that much. Either {advice} or a tol above this floor."
        )
    return tol


def check_rtol(rtol: Real | None, name: str) -> None:
    """Raise ValueError for a relative size that is none."""
    if rtol is not None and not 0 <= rtol < 1:
        raise ValueError(f"{name}: rtol must be in [0, 1), got {rtol}")


def like(X: Tensor, out_dtype: torch.dtype | None, name: str) -> torch.dtype:
    """Return the output dtype for X: its own, or that asked for, complex where X is complex. Else TypeError."""
    check_out_dtype(out_dtype, name)
    if out_dtype is None or not X.is_complex() or out_dtype.is_complex:
        return out_dtype or X.dtype
    return torch.promote_types(out_dtype, torch.complex64)
