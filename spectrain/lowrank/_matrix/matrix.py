"""What a factorization accepts, and a matrix as the algorithms see it: products with it and with its adjoint."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spectrain._arrays.finite import all_finite, refusal
from spectrain._arrays.kinds import Array, same, tensor_of, to_numpy, way_out
from spectrain.lowrank._matrix.accepted import WORKING, check_matrix
from spectrain.lowrank._matrix.operator import products_of
from spectrain.lowrank._matrix.scale import scale_by
from spectrain.lowrank._matrix.skinny import adjoint_times, times


def gaussian(*shape: int, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Tensor:
    """Return independent standard normal numbers (complex: E|z|^2 = 1), drawn on the generator's device."""
    return torch.randn(*shape, dtype=dtype, device=generator.device, generator=generator).to(device)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix (or a batch of them) in its working dtype, by its entries or by its products alone.

    ``entries`` is the dense tensor, or None for sparse matrices and operators. ``squared_norm`` is ||A||_F^2 where it
    is known without products (dense and sparse matrices), else None; where ``exponent`` is not 0, it is that of
    A / 2**exponent: see :meth:`unit`. ``stored`` are the entries of a sparse matrix, in coordinates.
    """

    shape: torch.Size
    dtype: torch.dtype  # of the computation: float32 for half precision, else that of the input
    out_dtype: torch.dtype
    device: torch.device
    entries: Tensor | None
    times: Callable[[Tensor], Tensor]
    adjoint_times: Callable[[Tensor], Tensor]
    squared_norm: Tensor | None
    exponent: int
    leave: Callable[[Tensor], Array]
    stored: Tensor | None = None

    def __matmul__(self, X: Tensor) -> Tensor:
        return self.times(X)

    @property
    def mH(self) -> "Matrix":  # noqa: N802 - torch's name for the adjoint
        """The adjoint, as a matrix."""
        entries = None if self.entries is None else self.entries.mH
        shape = torch.Size((*self.shape[:-2], self.shape[-1], self.shape[-2]))
        return replace(self, shape=shape, entries=entries, times=self.adjoint_times, adjoint_times=self.times)

    def unit(self) -> tuple["Matrix", int]:
        """Return A / 2**k, near 1, and k, of a matrix that is known by its products; k = 0 where A is near 1 itself."""
        k = self.exponent
        if not k:
            return self, 0
        times, adjoint_times = self.times, self.adjoint_times
        scaled = replace(
            self,
            exponent=0,
            times=lambda X: scale_by(times(X), -k),
            adjoint_times=lambda Y: scale_by(adjoint_times(Y), -k),
        )
        return scaled, k

    def dense(self) -> Tensor:
        """Return the entries; an operator is multiplied by the identity for them."""
        if self.entries is not None:
            return self.entries
        return self.times(torch.eye(self.shape[-1], dtype=self.dtype, device=self.device))

    def columns(self, index: Tensor) -> Tensor:
        """Return A[:, index] of one matrix: entries, or products with columns of the identity."""
        if self.entries is not None:
            return self.entries[..., index]
        unit = torch.zeros(self.shape[-1], len(index), dtype=self.dtype, device=self.device)
        unit[index, torch.arange(len(index), device=self.device)] = 1
        return self.times(unit)

    def dtype_of(self, X: Tensor) -> torch.dtype:
        """Return the dtype in which a factor goes out: that of the input, its real counterpart for real factors."""
        return self.out_dtype.to_real() if self.out_dtype.is_complex and not X.is_complex() else self.out_dtype

    def factor(self, X: Tensor) -> Array:
        """Return a factor in its output dtype, as the caller's kind of array."""
        return self.leave(X.to(self.dtype_of(X)))

    def value(self, X: Tensor) -> Array:
        """Return a number, an error or indices as the caller's kind of array, in the dtype they have."""
        return self.leave(X)


def enter(A: Array, name: str) -> Matrix:
    """Return A as a checked matrix in its working dtype, with what turns results into the kind of array A was.

    Dense tensors and NumPy arrays (other arrays by DLPack) may have batch dimensions; torch sparse and SciPy sparse
    matrices and operators are single. An operator has ``shape``, ``dtype`` (a torch dtype: it is multiplied with
    tensors, a NumPy dtype: with arrays), ``@``, and an adjoint: ``.mH``, ``.H``, ``.adjoint()``, ``rmatmat`` or
    ``rmatvec``. TypeError and ValueError for everything else, and for entries that are NaN or infinite.
    """
    if isinstance(A, Tensor) and hasattr(A, "full_tensor"):
        raise TypeError(f"{name}: a DTensor is not supported here, only by lowrank.svd; pass A.full_tensor()")
    dense, leave = tensor_of(A, name), way_out(A, name)
    if dense is None or dense.layout != torch.strided:
        found = products_of(A, name)
        check_matrix(found.shape, found.dtype, name)
        return Matrix(
            shape=torch.Size(found.shape),
            dtype=WORKING[found.dtype],
            out_dtype=found.dtype,
            device=found.device,
            entries=None,
            times=found.times,
            adjoint_times=found.adjoint_times,
            squared_norm=found.squared_norm,
            exponent=found.exponent,
            leave=to_numpy if found.numpy else same,
            stored=found.stored,
        )
    check_matrix(dense.shape, dense.dtype, name)
    return of_entries(dense, name, leave)


def of_entries(A: Tensor, name: str, leave: Callable[[Tensor], Array] | None = None) -> Matrix:
    """Return a dense tensor of supported dtype as a matrix; ValueError where an entry is NaN or infinite."""
    X = A.to(WORKING[A.dtype])
    if not torch.compiler.is_compiling() and not all_finite(X):
        raise refusal(A, name)
    return Matrix(
        shape=X.shape,
        dtype=X.dtype,
        out_dtype=A.dtype,
        device=X.device,
        entries=X,
        times=lambda Y: times(X, Y),
        adjoint_times=lambda Y: adjoint_times(X, Y),
        squared_norm=None,
        exponent=0,
        leave=leave or same,
    )
