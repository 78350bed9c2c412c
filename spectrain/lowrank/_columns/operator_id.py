"""Columns of a matrix that is known by its products only: chosen on a sketch, judged by probes."""

from dataclasses import replace

import torch
from torch import Tensor

from spectrain.lowrank._columns.column_id import Choice, ColumnID, independent_columns, smallest
from spectrain.lowrank._columns.random import sketch_of
from spectrain.lowrank._columns.rules import Task, choose_by
from spectrain.lowrank._columns.strong_rrqr import bound_coefficients
from spectrain.lowrank._matrix.error import frobenius
from spectrain.lowrank._matrix.matrix import Matrix
from spectrain.lowrank._matrix.probes import FAILURE, Probes, spectral_bound
from spectrain.lowrank._matrix.stops import Stops
from spectrain.lowrank._subspace.krylov import rounding_slack


def operator_id(A: Matrix, stops: Stops, how: Choice) -> ColumnID:
    """Return the decomposition of a sparse matrix or an operator from products with it and with its adjoint.

    Columns come from a sketch of twice their number of rows. A[:, J] = Q T is formed, Z = inv(T) (A^H Q)^H. The error
    of a sparse matrix is ||A||^2 - ||Q^H A||^2 where enough digits are left; else, and for operators, a bound by 16
    Gaussian probes that is false with a probability below 1e-9 for each rank that was tried. C and the error are those
    of A / 2**A.exponent.
    """
    A, k = A.unit()
    probes = Probes.of(A, how.draw)
    size = (probes.mean_square() if A.squared_norm is None else A.squared_norm).sqrt().double()
    allowed = stops.allowance(size, torch.tensor(k, dtype=torch.int32, device=A.device))
    looks = [0]

    def made(k: int) -> Tensor:
        if not k:
            return torch.empty(0, dtype=torch.long, device=A.device)
        rows = min(*A.shape, max(2 * k, k + how.options["oversample"]))
        Y = sketch_of(A, rows, how.options["power"], how.draw)
        return choose_by(how.method, Task(Y, k, how.draw, **how.options), refine=how.refine)

    def error(J: Tensor) -> Tensor:
        looks[0] += 1
        return _fit(A, J, probes, stops, how).error

    with torch.no_grad():
        J = smallest(made, error, allowed, 0, stops) if stops.by_error else made(stops.limit)
        return _fit(A, J, probes, stops, how)._replace(failure=FAILURE * (looks[0] + 1))


def _fit(A: Matrix, J: Tensor, probes: Probes, stops: Stops, how: Choice) -> ColumnID:
    """Return the coefficients for columns J with their error; the columns are formed once."""
    C = A.columns(J)
    order, r = independent_columns(C, torch.arange(len(J), device=J.device))
    J, C = J[order], C[:, order]
    Q, T = torch.linalg.qr(C[:, :r])
    B = A.adjoint_times(Q).mH
    Z = torch.zeros(len(J), A.shape[1], dtype=A.dtype, device=A.device)
    Z[:r] = torch.linalg.solve_triangular(T, B, upper=True)
    Z[:r, J[:r]] = torch.eye(r, dtype=A.dtype, device=A.device)
    if how.limit is not None and bool((now := bound_coefficients(B, J[:r], bound=how.limit)).ne(J[:r]).any()):
        return _fit(A, torch.cat([now, J[r:]]), probes, stops, replace(how, limit=None))
    rounding = torch.finfo(A.dtype).eps * (r**0.5 + 1) * frobenius(C) * (1 + frobenius(Z))
    return ColumnID(J, C, Z, r, _outside(A, Q, B, probes, stops, how) + rounding, None)


def _outside(A: Matrix, Q: Tensor, B: Tensor, probes: Probes, stops: Stops, how: Choice) -> Tensor:
    """Return a bound on ||A - Q B|| with B = Q^H A: by the norm of A where it is known, else by probes."""
    if stops.norm == 2:
        return spectral_bound(A, Q, how.draw, FAILURE).double()
    if A.squared_norm is not None and A.dtype in (torch.float64, torch.complex128):
        rest = A.squared_norm - frobenius(B).square()
        slack = rounding_slack(A, Q) * A.squared_norm
        if bool(slack <= 0.02 * rest):
            return (rest + slack).sqrt()
    return probes.bound(Q, FAILURE).double()
