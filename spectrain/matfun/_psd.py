"""The positive semidefinite matrix nearest to a symmetric one."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from spectrain.matfun._complex import adjoint, unit_size
from spectrain.matfun._derivative.differences import Differential, change_of_symmetric, differences, differentiable_once
from spectrain.matfun._derivative.node import Operator
from spectrain.matfun._entry.batches import flat
from spectrain.matfun._entry.finite import located
from spectrain.matfun._entry.input import Array, Real, checked_tolerance, entered, like, real_dtype, rounded
from spectrain.matfun._entry.scale import times_power_of_two
from spectrain.matfun._refusal import refuse

_norm = torch.linalg.matrix_norm


@located("A")
def mpsd(A: Array, *, tol: Real | None = None, out_dtype: torch.dtype | None = None) -> Array:
    """Return V max(L, 0) V^T for the symmetric part of A, V L V^T: the nearest positive semidefinite matrix.

    Nearest in the Frobenius norm, to A as to its symmetric part (Higham, LAA 103, 1988). The error relative to
    ||A||_F is at most ``tol`` (by output dtype 5e-2, 1e-4, 1e-10): the residual of an eigendecomposition in float64,
    since the projection on a convex set moves no two matrices apart; relative to A, because the result may be zero.
    The matrix absolute value of any A, (A^T A)^(1/2), is ``polar(A).H``.

    Shapes: A (*batch, n, n), real or complex. Differentiable once; at a zero eigenvalue with the slope 0. TypeError and
    ValueError for what is not a finite square matrix. Cost: one eigendecomposition.

    >>> mpsd(torch.tensor([[0.0, 2.0], [2.0, 0.0]])).round(decimals=6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    A, leave = entered(A, "mpsd", embed=False)
    if A.shape[-1] != A.shape[-2]:
        raise ValueError(f"mpsd: needs square matrices, got shape {tuple(A.shape)}; X.mT @ X is square")
    dtype = like(A, out_dtype, "mpsd")
    checked_tolerance(tol, real_dtype(dtype), "mpsd")
    Y, _ = _operator(flat(A), None if tol is None else float(tol), dtype)
    return leave(Y.reshape(A.shape))


def _compute(A: Tensor, tol: float | None, dtype: torch.dtype) -> tuple[Tensor, ...]:
    unit, k = unit_size(A, "mpsd")
    S = 0.5 * (unit + adjoint(unit))
    L, V = torch.linalg.eigh(S)
    Y = torch.bmm(V * L.clamp_min(0)[:, None, :], adjoint(V))
    Y = 0.5 * (Y + adjoint(Y))
    size = _norm(unit)
    delta = _norm(S - torch.bmm(V * L[:, None, :], adjoint(V))) + torch.finfo(S.dtype).eps * A.shape[-1] ** 0.5 * size
    error = torch.where(size > 0, 2 * delta / torch.where(size > 0, size, 1.0), 0.0)
    limit = checked_tolerance(tol, real_dtype(dtype), "mpsd") - torch.finfo(dtype).eps / 2
    if not bool((error <= limit).all()):
        refuse(
            f"mpsd: cannot prove an error of {limit:g} ||A||, the bound is {float(error.max()):.2g}; ask for a larger "
            "tol=",
            asked=tol is not None,
        )
    return rounded(_rescaled(Y, k), dtype, "mpsd"), error


def _rescaled(Y: Tensor, k: Tensor) -> Tensor:
    if not Y.is_complex():
        return times_power_of_two(Y, k)
    return torch.complex(times_power_of_two(Y.real, k), times_power_of_two(Y.imag, k))


def _fake(A: Tensor, tol: float | None, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return A.new_empty(A.shape, dtype=dtype), A.new_empty(len(A), dtype=torch.float64)


def _change(A: Tensor, Y: Tensor, D: Tensor, *_: object) -> Tensor:
    return Differential.apply(A, D, partial(change_of_symmetric, pairs=_pairs), differentiable_once("mpsd"))


def _pairs(L: Float[Tensor, "b n"]) -> Float[Tensor, "b n n"]:
    return differences(L, L.clamp_min(0), (L > 0).to(L.dtype))


_operator = Operator(
    "psd(Tensor A, float? tol, ScalarType dtype) -> (Tensor, Tensor)", compute=_compute, fake=_fake, change=_change
)
