"""Which kinds of arrays hold matrices of numbers: everything else is refused here, in one line that names the door."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Real: TypeAlias = float | int
Array: TypeAlias = Any  # what the doors take: a torch.Tensor, a NumPy array, anything with __dlpack__

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def tensor_of(X: Array, name: str) -> Tensor | None:
    """Return X as a tensor whose entries can be read, its memory shared where it can be; None where X is no array.

    Tensors, sparse ones too, come back as they are; NumPy arrays and whatever else has ``__dlpack__`` become tensors.
    TypeError for arrays that hold no numbers, or not all of them: on the meta device, nested, quantized, packed for
    another library, masked, or of a dtype that torch has not.
    """
    if isinstance(X, Tensor):
        check_readable(X, name)
        return X
    if isinstance(X, np.ndarray):
        return from_numpy(X, name)
    if not hasattr(X, "__dlpack__"):
        return None
    try:
        tensor = torch.from_dlpack(X)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name}: {type(X).__name__} fails in DLPack: {error}; pass a NumPy array") from error
    check_readable(tensor, name)
    return tensor


def from_numpy(X: np.ndarray, name: str) -> Tensor:
    """Return a NumPy array as a tensor, its memory shared where it can be."""
    refuse_mask(X, name)
    if X.dtype.kind not in "fc" or X.itemsize > (16 if X.dtype.kind == "c" else 8) or not X.dtype.isnative:
        raise TypeError(
            f"{name}: needs a floating ndarray, float16, float32, float64, complex64 or complex128 in the byte "
            f"order of this machine, got {X.dtype!r}, without counterpart here; convert with .astype(numpy.float64)"
        )
    return torch.from_numpy(np.require(X, requirements=["C", "W"]))


def refuse_mask(X: np.ndarray, name: str) -> None:
    """Raise TypeError for a masked array, whose mask torch does not take along."""
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError(f"{name}: the mask of a masked array would be ignored; fill it first, with .filled(value)")


def check_readable(X: Tensor, name: str) -> None:
    """Raise TypeError for a tensor without entries that can be read; sparse ones are no fault here."""
    if X.device.type == "meta":
        raise TypeError(f"{name}: a tensor on the meta device has no entries; pass one that holds numbers")
    if X.is_nested or X.is_quantized or X.layout not in (torch.strided, *SPARSE):
        raise TypeError(f"{name}: needs a dense tensor, got a {_kind(X)} one; {_way_out(X)} makes one")


def refuse_sparse(X: Tensor, name: str) -> None:
    """Raise TypeError for a sparse tensor, where all entries are needed."""
    if X.layout != torch.strided:
        raise TypeError(f"{name}: needs a dense tensor, got a {_kind(X)} one; {_way_out(X)} makes one")


def _kind(X: Tensor) -> str:
    return "nested" if X.is_nested else "quantized" if X.is_quantized else str(X.layout).removeprefix("torch.")


def _way_out(X: Tensor) -> str:
    return ".to_padded_tensor(0.0)" if X.is_nested else ".dequantize()" if X.is_quantized else ".to_dense()"


def check_floating(dtype: torch.dtype, name: str) -> None:
    """Raise TypeError for a dtype that is not computed with."""
    if dtype not in FLOATING:
        raise TypeError(
            f"{name}: needs a floating dtype, float16, bfloat16, float32, float64, complex64 or complex128, got "
            f"{dtype}; convert with .double()"
        )


def check_matrix_shape(shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError for a shape without rows and columns."""
    if len(shape) < 2:
        raise ValueError(
            f"{name}: needs a matrix (two or more dimensions, the last two are rows and columns), got shape "
            f"{tuple(shape)}; a vector v is the matrix v[:, None]"
        )


def way_out(X: Array, name: str) -> Callable[[Tensor], Array]:
    """Return what makes of results the kind of array that X is.

    Tensors stay tensors; NumPy's arrays, and those of a library that follows the array API standard, as JAX's, are
    made by that library. What only promises ``__dlpack__`` says no way back: then results are tensors.
    """
    if isinstance(X, np.ndarray):
        return to_numpy
    if isinstance(X, Tensor) or not hasattr(X, "__array_namespace__"):
        return same
    library, dims = X.__array_namespace__(), X.ndim
    return lambda Y: _by_library(Y, library, name, matrix=dims <= Y.ndim)


def _by_library(Y: Tensor, library: Any, name: str, *, matrix: bool) -> Array:
    """Return a tensor as an array of another library; a number that it holds in fewer digits is rounded up.

    JAX has no float64 until it is told so. A bound is still one when it is rounded up; a matrix that was asked for in
    float64 is not what was asked for. TypeError then.
    """
    ready = Y.detach().resolve_conj().contiguous()
    found = library.from_dlpack(ready)
    exact = not (Y.dtype.is_floating_point or Y.is_complex())
    if exact or found.dtype.itemsize == Y.element_size():
        return found
    if matrix:
        raise TypeError(
            f"{name}: the result is of {Y.dtype}, and {library.__name__} made {found.dtype} of it; let it hold 64 bits "
            '(jax.config.update("jax_enable_x64", True)), or pass a tensor'
        )
    narrow = ready.to(torch.float32)
    return library.from_dlpack(
        torch.where(narrow < ready, torch.nextafter(narrow, narrow.new_tensor(torch.inf)), narrow)
    )


def to_numpy(X: Tensor) -> Array:
    """Return a tensor as a NumPy array, conjugate views resolved. TypeError for bfloat16."""
    if X.dtype == torch.bfloat16:
        raise TypeError("NumPy has no bfloat16: for out_dtype=torch.bfloat16 pass a tensor, torch.from_numpy(X)")
    return X.detach().resolve_conj().numpy()


def same(X: Tensor) -> Tensor:
    """Return X: the way out for what came as a tensor."""
    return X
