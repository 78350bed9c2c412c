"""Columns to a rank or to a tolerance, and the coefficients that write all columns by them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Int, Num
from torch import Tensor

from spectrain._arrays.kinds import Real
from spectrain.lowrank._columns.pivoted_qr import PivotedQR, fill_up, pivoted_qr
from spectrain.lowrank._columns.rules import EXACT_WORK, Task, choose_by
from spectrain.lowrank._columns.strong_rrqr import bound_coefficients
from spectrain.lowrank._derivatives import carries_derivative
from spectrain.lowrank._matrix.error import frobenius, product_noise, residual_error
from spectrain.lowrank._matrix.stops import Norm, Stops, tail_errors

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Choice:
    """How columns are chosen: the rule and its options, exchanges, and a bound on |Z|."""

    method: str
    refine: bool
    limit: Real | None  # on |Z|
    draw: torch.Generator
    options: dict


class ColumnID(NamedTuple):
    """A ~ A[:, columns] Z in working precision; the first ``rank`` columns are independent, the rest unused."""

    columns: Int[Tensor, " k"]
    C: Num[Tensor, "m k"]
    Z: Num[Tensor, "k n"]
    rank: int
    error: Tensor
    best: Tensor | None
    failure: float = 0.0


def column_id(A: Num[Tensor, "m n"], stops: Stops, allowed: Tensor, how: Choice) -> ColumnID:
    """Return the decomposition of one dense matrix that is scaled to unit size; ``allowed`` is the error to stop at."""
    X = A.detach()
    noise = 2 * product_noise(X, min(X.shape)).to(allowed.dtype) if stops.by_error else 0.0
    target = (allowed - noise).clamp_min(0.0)
    cheap = min(X.shape) * X.numel() <= EXACT_WORK
    plain = how.method == "pivoted_qr" or (how.method == "auto" and not cheap)
    best = tail_errors(torch.linalg.svdvals(X), norm=stops.norm) if cheap else None
    if plain and not how.refine and how.limit is None:
        found = pivoted_qr(X, stops.limit, stop=target if stops.by_error else 0.0)
        k = int(found.rank) if stops.by_error else stops.limit
        J, r = found.columns[:k], int(found.rank)
        if not carries_derivative(A):
            return _from_factor(A, found, k, stops.norm, best)
    else:
        J = _to_tolerance(X, stops, target, how) if stops.by_error else _of_rank(X, stops.limit, how)
        J, r = independent_columns(X, J)
    C = A[:, J]
    Z = torch.zeros(len(J), A.shape[1], dtype=A.dtype, device=A.device)
    Z = torch.cat([coefficients(A, J[:r]), Z[r:]])
    error = residual_error(X, (C.detach(), Z.detach()), norm=stops.norm) + rounding(C, Z)
    return ColumnID(J, C, Z, r, error, None if best is None else best[len(J)])


def coefficients(A: Num[Tensor, "m n"], J: Int[Tensor, " k"]) -> Num[Tensor, "k n"]:
    """Return pinv(A[:, J]) A through QR, the identity in the chosen columns; differentiable in A."""
    if not len(J):
        return A.new_zeros(0, A.shape[1])
    Q, T = torch.linalg.qr(A[:, J])
    Z = torch.linalg.solve_triangular(T, Q.mH @ A, upper=True)
    return Z.index_copy(1, J, torch.eye(len(J), dtype=A.dtype, device=A.device))


def _from_factor(A: Tensor, found: PivotedQR, k: int, norm: Norm, best: Tensor | None) -> ColumnID:
    """Return the decomposition that pivoted QR already holds: Z = inv(R_11) R."""
    J, r = found.columns[:k], int(found.rank)
    R = found.R[:r]
    Z = torch.zeros(k, A.shape[1], dtype=A.dtype, device=A.device)
    Z[:r] = torch.linalg.solve_triangular(R[:, J[:r]], R, upper=True)
    Z[:r, J[:r]] = torch.eye(r, dtype=A.dtype, device=A.device)
    C = A[:, J]
    error = _by_pythagoras(A, found, C, Z, r) if norm == "fro" else None
    if error is None:
        error = residual_error(A, (C, Z), norm=norm) + rounding(C, Z)
    return ColumnID(J, C, Z, r, error, None if best is None else best[len(J)])


def _by_pythagoras(A: Tensor, found: PivotedQR, C: Tensor, Z: Tensor, r: int) -> Tensor | None:
    """Return a bound on ||A - C Z||_F from ||A||^2 - ||R||^2, or None where too many digits cancel.

    With Q^H Q = I + D and R = Q^H A to rounding, ||A - Q R||^2 <= ||A||^2 - ||R||^2 + ||D|| ||R||^2 + rounding, all of
    it computed here from Q and R as they are; C Z differs from Q R by the rounding of the triangular solve.
    """
    if A.dtype not in (torch.float64, torch.complex128):
        return None
    Q, R, u = found.Q[:, :r], found.R[:r], torch.finfo(A.dtype).eps / 2
    square, explained = found.left[0].square(), frobenius(R).square()
    defect = torch.linalg.vector_norm(Q.mH @ Q - torch.eye(r, dtype=A.dtype, device=A.device))
    slack = (defect + 4 * u * (len(A) ** 0.5 + 1)) * square
    rest = square - explained
    if not bool(rest > 1e6 * slack):
        return None
    return (rest + slack).sqrt() + rounding(C, Z)


def rounding(C: Tensor, Z: Tensor) -> Tensor:
    """Return u (sqrt(k) + 1) ||C||_F ||Z||_F: what multiplying C and Z costs by rounding, whatever their product."""
    k = C.shape[-1]
    return torch.finfo(C.dtype).eps / 2 * (k**0.5 + 1) * frobenius(C) * frobenius(Z)


def _of_rank(X: Tensor, k: int, how: Choice) -> Tensor:
    J = choose_by(how.method, Task(X, k, how.draw, **how.options), refine=how.refine)
    if how.limit is None:
        return J
    J, r = independent_columns(X, J)
    return torch.cat([bound_coefficients(X, J[:r], bound=how.limit), J[r:]])


def widen(found: ColumnID, A: Num[Tensor, "m n"], width: int) -> ColumnID:
    """Return the decomposition with unused columns appended, so that it holds ``width`` of them."""
    k = len(found.columns)
    if k == width:
        return found
    J = fill_up(found.columns, width, A.shape[1])
    Z = torch.cat([found.Z, found.Z.new_zeros(width - k, A.shape[1])])
    return found._replace(columns=J, C=A[:, J], Z=Z)


def independent_columns(X: Tensor, J: Tensor) -> tuple[Tensor, int]:
    """Return J with independent columns first, and how many they are; in the order given where all are."""
    if not len(J):
        return J, 0
    T = torch.linalg.qr(X[:, J], mode="r").R.diagonal().abs()
    if bool(T.min() > torch.finfo(T.dtype).eps * max(X.shape) * torch.linalg.vector_norm(X)):
        return J, len(J)
    found = pivoted_qr(X[:, J], min(len(J), len(X)))
    order = found.columns
    rest = torch.ones(len(J), dtype=torch.bool, device=J.device)
    rest[order] = False
    return J[torch.cat([order, rest.nonzero()[:, 0]])], int(found.rank)


def _to_tolerance(X: Tensor, stops: Stops, target: Tensor, how: Choice) -> Tensor:
    """Return the fewest columns of the rule that bring the error to the target, found by bisection.

    No rank below that of the singular values can do; ranks are doubled from there until one does. With rules that
    draw, each rank draws again.
    """

    def error(J: Tensor) -> Tensor:
        J, r = independent_columns(X, J)
        return residual_error(X, (X[:, J[:r]], coefficients(X, J[:r])), norm=stops.norm).to(target.dtype)

    least = int(stops.ranks(torch.linalg.svdvals(X), target))
    return smallest(
        lambda k: _of_rank(X, k, how) if k else X.new_zeros(0, dtype=torch.long), error, target, least, stops
    )


def smallest(
    make: Callable[[int], Found], error: Callable[[Found], Tensor], target: Tensor, least: int, stops: Stops
) -> Found:
    """Return make(k) for the smallest k in least..limit found to have an error within the target, or make(limit)."""
    low, high, gap = least - 1, least, 1
    found = make(high)
    while high < stops.limit and bool(error(found) > target):
        low, high, gap = high, min(stops.limit, high + gap), 2 * gap
        found = make(high)
    while high - low > 1:
        middle = math.floor((low + high) / 2)
        trial = make(middle)
        if bool(error(trial) <= target):
            high, found = middle, trial
        else:
            low = middle
    return found
