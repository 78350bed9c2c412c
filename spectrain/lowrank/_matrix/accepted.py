"""Which arrays are matrices of numbers here; every other kind is refused in one place, by the name of the door."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrain.matfun._entry.input import refuse_mask

WORKING = {
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.complex64: torch.complex64,
    torch.complex128: torch.complex128,
}
_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def as_dense(A: Any, name: str) -> Tensor | None:
    """Return dense tensors, NumPy arrays and what has DLPack as a tensor, and None for what is known by products.

    TypeError for arrays that hold no numbers, or not all of them: on the meta device, nested, packed for another
    library, masked, or of a dtype that torch has not.
    """
    if isinstance(A, Tensor):
        check_tensor(A, name)
        return A if A.layout == torch.strided else None
    if isinstance(A, np.ndarray):
        return from_numpy(A, name)
    if not hasattr(A, "__dlpack__"):
        return None
    try:
        return torch.from_dlpack(A)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name}: {type(A).__name__} fails in DLPack: {error}; pass a NumPy array") from error


def check_tensor(A: Tensor, name: str) -> None:
    """Raise TypeError for a tensor without entries that can be read; sparse ones are no fault here."""
    if A.device.type == "meta":
        raise TypeError(f"{name}: a tensor on the meta device has no entries; pass one that holds numbers")
    if A.is_nested or A.layout not in (torch.strided, *_SPARSE):
        kind = "nested" if A.is_nested else str(A.layout).removeprefix("torch.")
        raise TypeError(f"{name}: needs a dense or a sparse tensor, got a {kind} one; see .to_dense()")


def from_numpy(A: np.ndarray, name: str) -> Tensor:
    """Return a NumPy array as a tensor, its memory shared where it can be."""
    refuse_mask(A, name)
    try:
        return torch.from_numpy(np.require(A, requirements=["C", "W"]))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: an ndarray of dtype {A.dtype!r} has no counterpart in torch; convert with .astype(numpy.float64)"
        ) from error


def check_matrix(shape: tuple[int, ...], dtype: torch.dtype, name: str) -> None:
    """Raise TypeError for a dtype that is not computed with, ValueError for a shape that is no matrix or empty."""
    if dtype not in WORKING:
        raise TypeError(f"{name}: needs a real or complex floating dtype, got {dtype}; convert with .double()")
    if len(shape) < 2:
        raise ValueError(
            f"{name}: needs a matrix (two or more dimensions, the last two are rows and columns), got shape "
            f"{tuple(shape)}; a vector v is the matrix v[:, None]"
        )
    if 0 in shape[-2:]:
        raise ValueError(f"{name}: needs at least one row and one column, got shape {tuple(shape)}")
