"""Matrices known by their products: torch sparse, SciPy sparse, and whatever has ``@`` and an adjoint."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectrain._arrays.kinds import from_numpy
from spectrain.lowrank._derivatives import refuse_derivative
from spectrain.lowrank._matrix.accepted import check_matrix
from spectrain.lowrank._matrix.scale import exponent_of, scale_by


class Products(NamedTuple):
    """X -> A X and Y -> A^H Y on tensors in the working dtype, and what is known of A besides."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    times: Callable[[Tensor], Tensor]
    adjoint_times: Callable[[Tensor], Tensor]
    squared_norm: Tensor | None  # of A / 2**exponent
    exponent: int  # A / 2**exponent is near 1: then squares of products neither over- nor underflow
    numpy: bool
    stored: Tensor | None = None  # the entries of a sparse matrix, in coordinates and in the order of its rows


def products_of(A: Any, name: str) -> Products:
    """Return the products of a sparse matrix or an operator; TypeError for what has none."""
    if isinstance(A, Tensor):
        return _sparse(A, name, numpy=False)
    if hasattr(A, "tocoo") and hasattr(A, "nnz"):
        coo, values = A.tocoo(), from_numpy(A.tocoo().data.copy(), name)
        check_matrix(coo.shape, values.dtype, name)
        index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
        tensor = torch.sparse_coo_tensor(index, values, coo.shape, check_invariants=False)
        return _sparse(tensor, name, numpy=True)
    return _operator(A, name)


def _sparse(A: Tensor, name: str, *, numpy: bool) -> Products:
    refuse_derivative(A, name, "pass A.to_dense(), or A.detach()")
    check_matrix(A.shape, A.dtype, name)
    dtype = torch.float32 if A.dtype in (torch.float16, torch.bfloat16) else A.dtype
    X = A.to_sparse_coo().coalesce().to(dtype)
    if X.sparse_dim() != 2 or X.dense_dim() != 0:
        raise ValueError(f"{name}: sparse matrices are single, got shape {tuple(A.shape)}; loop over the batch")
    if not bool(torch.isfinite(X.values()).all()):
        raise ValueError(f"{name}: the sparse matrix has entries that are NaN or infinite")
    adjoint = X.t().conj().coalesce() if X.is_complex() else X.t().coalesce()
    wide = X.values().to(torch.complex128 if X.is_complex() else torch.float64)
    exponent = exponent_of(wide)
    return Products(
        shape=tuple(A.shape),
        dtype=A.dtype,
        device=A.device,
        times=lambda Y: torch.sparse.mm(X, Y),
        adjoint_times=lambda Y: torch.sparse.mm(adjoint, Y.resolve_conj()),
        squared_norm=scale_by(wide, -exponent).abs().square().sum(),
        exponent=exponent,
        numpy=numpy,
        stored=X,
    )


def _operator(A: Any, name: str) -> Products:
    adjoint = _adjoint(A)
    if not hasattr(A, "shape") or not hasattr(A, "__matmul__") or adjoint is None:
        raise TypeError(
            f"{name}: needs a tensor, a NumPy array, a sparse matrix, or an operator with shape, dtype, @ and an "
            f"adjoint (.mH, .H, .adjoint(), rmatmat or rmatvec); got {type(A).__name__}"
        )
    dtype = getattr(A, "dtype", None)
    numpy = not isinstance(dtype, torch.dtype)
    if numpy:
        try:
            dtype = torch.from_numpy(np.empty(0, dtype=np.dtype(dtype))).dtype if dtype is not None else None
        except TypeError:
            dtype = None
    if dtype is None:
        raise TypeError(f"{name}: the operator {type(A).__name__} must say its dtype: a torch or a NumPy dtype")
    wrap = _through_numpy if numpy else _through_dtype
    found = Products(
        shape=tuple(A.shape),
        dtype=dtype,
        device=torch.device(getattr(A, "device", "cpu")),
        times=wrap(A.__matmul__, dtype),
        adjoint_times=wrap(adjoint, dtype),
        squared_norm=None,
        exponent=0,
        numpy=numpy,
    )
    return found._replace(exponent=_check_adjoint(found, name))


def _adjoint(A: Any) -> Callable[[Any], Any] | None:
    """Return Y -> A^H Y by the first name for it that A has."""
    names = [key for key in ("mH", "H", "adjoint") if hasattr(A, key)]
    if names:
        found = getattr(A, names[0])
        adjoint = found() if names[0] == "adjoint" else found
        return lambda Y: adjoint @ Y
    if hasattr(A, "rmatmat"):
        return lambda Y: A.rmatmat(Y)
    if hasattr(A, "rmatvec"):
        return lambda Y: np.stack([A.rmatvec(y) for y in Y.T], axis=1)
    return None


def _through_numpy(product: Callable[[Any], Any], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda X: torch.from_numpy(np.ascontiguousarray(product(X.detach().resolve_conj().numpy()))).to(X.dtype)


def _through_dtype(product: Callable[[Any], Any], dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda X: product(X.to(dtype)).to(X.dtype)


def _check_adjoint(A: Products, name: str) -> int:
    """Return the exponent of A; ValueError unless <A x, y> = <x, A^H y> for one random pair, to rounding.

    A wrong adjoint gives wrong factors. Both images are divided by 2**exponent before anything is squared.
    """
    g = torch.Generator().manual_seed(0)
    work = torch.float32 if A.dtype in (torch.float16, torch.bfloat16) else A.dtype
    x, y = (torch.randn(k, 1, dtype=work, generator=g).to(A.device) for k in reversed(A.shape[-2:]))
    Ax, Ay = A.times(x), A.adjoint_times(y)
    if Ax.shape != y.shape or Ay.shape != x.shape:
        raise ValueError(
            f"{name}: for an operator of shape {A.shape}, A @ x must have shape {tuple(y.shape)} and A^H @ y "
            f"{tuple(x.shape)}; got {tuple(Ax.shape)} and {tuple(Ay.shape)}"
        )
    k = max(exponent_of(Ax), exponent_of(Ay)) if bool(torch.isfinite(Ax).all() & torch.isfinite(Ay).all()) else 0
    Ax, Ay = scale_by(Ax, -k), scale_by(Ay, -k)
    left, right = (Ax.conj() * y).sum(), (x.conj() * Ay).sum()
    size = Ax.norm() * y.norm() + x.norm() * Ay.norm()
    if not bool((left - right).abs() <= 1e-2 * size):
        raise ValueError(
            f"{name}: the adjoint of the operator is not its adjoint: <A x, y> = {left.item():.6g} and "
            f"<x, A^H y> = {right.item():.6g} for a random pair, divided by 2**{k}; mind the complex conjugate"
        )
    return k
