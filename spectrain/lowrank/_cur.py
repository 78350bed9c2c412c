"""The CUR decomposition: real columns, real rows, and a small core between them."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from spectrain._arrays.generators import Generator
from spectrain._arrays.kinds import Array, Real
from spectrain._arrays.typed import Generic, Held, Ndarray, results
from spectrain.lowrank._columns.column_id import Choice, column_id, smallest
from spectrain.lowrank._columns.core import CoreOf, cross_core, crossing_rows, floors, optimal_core
from spectrain.lowrank._columns.operator_id import operator_id
from spectrain.lowrank._columns.pivoted_qr import fill_up
from spectrain.lowrank._columns.rules import EXACT_WORK
from spectrain.lowrank._matrix.error import frobenius, matrix_norm, residual_error
from spectrain.lowrank._matrix.matrix import Matrix, enter
from spectrain.lowrank._matrix.probes import COUNT, FAILURE, Probes, quantile
from spectrain.lowrank._matrix.result import Factorization
from spectrain.lowrank._matrix.scale import (
    as_returned,
    flatten_batch,
    in_range,
    rescale,
    restore_batch,
    stack,
    times_two_to,
    unit_scaled,
)
from spectrain.lowrank._matrix.stops import Norm, Stops, check_stops, tail_errors
from spectrain.lowrank._modes import ColumnRule
from spectrain.lowrank._select_columns import check_rule

Core: TypeAlias = Literal["optimal", "cross"]
Judge: TypeAlias = Callable[["Parts", CoreOf], "Parts"]  # of rows and columns and a core for any floor
Side: TypeAlias = Any  # an int, or indices as a sequence, an array or a tensor


class _Letters(NamedTuple, Generic[Held]):
    C: Held
    U: Held
    R: Held


class CUR(Factorization[Held], _Letters[Held]):
    """A ~ C U R with C = A[:, columns] and R = A[rows].

    ``evaluated`` counts the entries that were looked at: all of a matrix, fewer where rows and columns are called for.
    """

    rows: Held
    columns: Held
    evaluated: int

    def chain(self) -> Sequence[Array]:
        """Return C, U and R."""
        return self.C, self.U, self.R


class Parts(NamedTuple):
    """The decomposition of one matrix in working precision: indices, core, independent columns, error."""

    rows: Tensor
    columns: Tensor
    C: Tensor
    U: Tensor
    R: Tensor
    rank: int
    error: Tensor
    steady: bool = False  # rounding is less than half of the error: no other floor can gain much


@results(CUR[Tensor], CUR[Ndarray], CUR[Any])
def cur(
    A: Array,
    *,
    rank: int | None = None,
    rtol: Real | None = None,
    atol: Real | None = None,
    norm: Norm = "fro",
    rows: Side = None,
    columns: Side = None,
    core: Core = "optimal",
    epsilon: Real | None = None,
    method: ColumnRule = "auto",
    refine: bool = False,
    oversample: int = 10,
    power: int = 0,
    block: int = 16,
    generator: Generator = None,
) -> CUR:
    """Return C, U, R with A ~ C U R: C are columns of A, R rows of A, U a core of their sizes (article 10662).

    ``core="optimal"``: U = pinv(C) A pinv(R), the least Frobenius error for these C and R, by the QR of both and never
    by normal equations. With columns and rows that are within sqrt(1 + k) of the best each (``method="auto"`` and
    "osinsky"), the error is at most sqrt(2 + 2 k) times the best of rank k.

    ``core="cross"``: U = pinv(A[rows, columns]), which needs C and R alone: exact on them if A has their rank. Rows are
    then chosen among those of C, for volume; more rows than columns make it backward stable (Park and Nakatsukasa,
    arXiv 2405.06375).

    Singular values of C and R, or of the intersection, below ``epsilon`` times the largest count as zero; None: the
    rounding level of the dtype, or up to sqrt(eps), where the error is less so. For U is as large as one over the
    smallest of them, and so is its rounding: no core gives C U R to better than about sqrt(eps) ||A|| where the
    values of A fall that far. A tolerance that is missed for that reason is told by a RuntimeWarning; an
    interpolative decomposition keeps it.

    ``rank`` is the number of columns and of rows. ``rows`` and ``columns`` are counts of their own, or indices given by
    the caller. ``rtol``, ``atol`` in the norm ``norm`` find the numbers: with the optimal core each side gets its half
    of the squared error, with the cross core the rank grows until the error, measured, is small enough.

    A may be dense (with batch dimensions), NumPy, and for the optimal core sparse or an operator. ``.error`` bounds
    ||A - C U R|| for the factors as returned, ``.best`` is the least error of that rank where the matrix is small. U
    may be large where columns are nearly dependent; the error includes what that costs. Options of ``method`` are those
    of :func:`select_columns`. :func:`cross` does the same from single rows and columns.

    Raises ValueError for no stop, counts outside 1..n or 1..m, indices out of range or repeated, NaN, and where U is
    above the largest number of the dtype.

    >>> A = torch.outer(torch.arange(1.0, 5.0), torch.arange(1.0, 4.0)) + torch.eye(4, 3)
    >>> C, U, R = cur(A, rank=3)
    >>> torch.allclose(C @ U @ R, A, atol=1e-4)
    True
    """
    matrix = enter(A, "cur")
    given = rows is not None or columns is not None
    stops = check_stops(matrix.shape, rank=rank, rtol=rtol, atol=atol, norm=norm, name="cur", required=not given)
    if core not in ("optimal", "cross"):
        raise ValueError(f'cur: core must be "optimal" or "cross", got {core!r}')
    if given and (stops.by_error or (rank is None and (rows is None or columns is None))):
        raise ValueError("cur: rows= and columns= are counts or indices: give both, or one and rank=, and no tolerance")
    if epsilon is not None and not 0 <= epsilon < 1:
        raise ValueError(f"cur: epsilon must be in [0, 1), got {epsilon}")
    sides = _Sides(_side(rows, matrix.shape[-2], "rows", matrix), _side(columns, matrix.shape[-1], "columns", matrix))
    draw = check_rule(method, bound=2.0, oversample=oversample, power=power, block=block, generator=generator)
    how = Choice(method, refine, None, draw, {"oversample": oversample, "power": power, "block": block})
    levels = floors(matrix.dtype, matrix.out_dtype, max(matrix.shape[-2:])) if epsilon is None else [epsilon]
    with torch.autocast(matrix.device.type, enabled=False):
        if matrix.entries is None:
            return _of_operator(matrix, stops, sides, how, levels, core)
        return _of_entries(matrix, stops, sides, how, levels, core)


class _Sides(NamedTuple):
    """What the caller says of rows and columns: a count, indices, or nothing."""

    rows: int | Tensor | None
    columns: int | Tensor | None

    def counts(self, k: int) -> tuple[int, int]:
        """Return the numbers of rows and columns, k where nothing is said."""
        numbers = [k if side is None else side if isinstance(side, int) else len(side) for side in self]
        return numbers[0], numbers[1]


def _side(value: Side, most: int, name: str, matrix: Matrix) -> int | Tensor | None:
    """Return a count or indices after checking them."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= most:
            raise ValueError(f"cur: {name} must be between 1 and {most}, got {value}")
        return value
    index = torch.as_tensor(value, device=matrix.device)
    if index.ndim != 1 or index.dtype.is_floating_point or index.dtype == torch.bool or not len(index):
        raise ValueError(f"cur: {name} must be a count or a list of indices, got {value!r}")
    if int(index.min()) < 0 or int(index.max()) >= most or len(index.unique()) < len(index):
        raise ValueError(f"cur: {name} must be different indices from 0 to {most - 1}, got {index.tolist()}")
    return index.long()


def _choose(A: Tensor, side: int | Tensor | None, stops: Stops, allowed: Tensor, how: Choice) -> tuple[Tensor, int]:
    """Return the columns of A, given or chosen, and how many are independent."""
    if isinstance(side, Tensor):
        return side, int(torch.linalg.matrix_rank(A.detach()[:, side]))
    fixed = Stops(min(side, *A.shape), min(A.shape), None, None, stops.norm) if side is not None else stops
    found = column_id(A.detach(), fixed, allowed, how)
    J = found.columns
    if isinstance(side, int):  # more of them than the matrix has rows: the further ones add nothing to the span
        J = fill_up(J, side, A.shape[1])
    return J, found.rank


def _steadiest(core: CoreOf, judge: Callable[[Tensor, int], Parts], levels: list[float]) -> Parts:
    """Return the judged parts of the floor with the least error; the first where its rounding does not matter."""
    best = judge(*core(levels[0]))
    for floor in levels[1:]:
        if best.steady:
            break
        trial = judge(*core(floor))
        worse = not bool(torch.isfinite(best.error))  # a core overflowed its dtype: any other
        best = trial if worse or bool(trial.error < best.error) else best
    return best


def _optimal(A: Tensor, stops: Stops, sides: _Sides, allowed: Tensor, how: Choice, judge: Judge) -> Parts:
    half = allowed / math.sqrt(2) if stops.by_error else allowed
    J, r = _choose(A, sides.columns, stops, half, how)
    rows, s = _choose(A.mH, sides.rows, stops, half, how)
    if stops.by_error:  # as many of both: what the smaller side gains can only lower the error
        J, rows = (fill_up(index, max(len(J), len(rows)), n) for index, n in ((J, A.shape[1]), (rows, A.shape[0])))
        r = s = len(J)
    C, R = A[:, J], A[rows]
    return judge(Parts(rows, J, C, R[:0], R, min(r, s), torch.zeros(())), optimal_core(A, C, R))


def _cross(A: Tensor, stops: Stops, sides: _Sides, allowed: Tensor, how: Choice, judge: Judge) -> Parts:
    def of_rank(k: int) -> Parts:
        p, q = sides.counts(k)
        J = sides.columns
        if not isinstance(J, Tensor):
            fixed = Stops(min(q, *A.shape), min(A.shape), None, None, stops.norm)
            J = _choose(A, q, fixed, allowed, how)[0] if q else torch.empty(0, dtype=torch.long, device=A.device)
        rows = sides.rows if isinstance(sides.rows, Tensor) else crossing_rows(A.detach()[:, J], p)
        C, R = A[:, J], A[rows]
        parts = Parts(rows, J, C, R[:0], R, min(len(rows), len(J)), torch.zeros(()))
        return judge(parts, lambda floor: cross_core(C[rows], floor))

    if not stops.by_error:
        return of_rank(stops.limit)
    return smallest(of_rank, lambda parts: parts.error, allowed, 0, stops)


@torch.compiler.disable  # chosen by values: a graph breaks here once, and not at each of them
def _of_entries(matrix: Matrix, stops: Stops, sides: _Sides, how: Choice, levels: list[float], core: Core) -> CUR:
    A, k = unit_scaled(matrix.dense(), "cur")
    batch, items = A.shape[:-2], flatten_batch(A)
    allowed = stops.allowance(matrix_norm(A, stops.norm), k)
    make = _optimal if core == "optimal" else _cross
    tolerances, exponents = (flatten_batch(each[..., None, None]).flatten() for each in (allowed, k))
    judge = partial(_judge, matrix=matrix, norm=stops.norm)
    judges = [partial(judge, A=X, k=int(e)) for X, e in zip(items, exponents, strict=True)]
    done = [
        make(X, stops, sides, a, how, partial(_best_of, judged=judged, levels=levels))
        for X, a, judged in zip(items, tolerances, judges, strict=True)
    ]
    p, q = (max(len(indices) for indices in side) for side in zip(*((d.rows, d.columns) for d in done), strict=True))
    done = [judged(_widen(d, X, p, q)) for d, X, judged in zip(done, items, judges, strict=True)]
    rank = restore_batch(torch.tensor([d.rank for d in done], device=A.device), batch)
    error = stack(done, "error", batch)
    stops.warn_of(rescale(error, k), rescale(allowed.double(), k), rank, "cur")
    best = None
    if min(A.shape[-2:]) * A.numel() <= EXACT_WORK:
        tails = tail_errors(torch.linalg.svdvals(A.detach()), norm=stops.norm)
        wanted = torch.full_like(rank, min(p, q)) if not stops.by_error else rank
        best = matrix.value(rescale(tails.take_along_dim(wanted[..., None], -1)[..., 0].double(), k))
    rows, J = stack(done, "rows", batch), stack(done, "columns", batch)
    return CUR.of(
        matrix.factor(matrix.dense().take_along_dim(J[..., None, :], -1)),
        matrix.value(_core_out(times_two_to(stack(done, "U", batch), -k), matrix)),
        matrix.factor(matrix.dense().take_along_dim(rows[..., :, None], -2)),
        rank=matrix.value(rank),
        error=matrix.value(rescale(error, k)),
        best=best,
        norm=stops.norm,
        rows=matrix.value(rows),
        columns=matrix.value(J),
        evaluated=matrix.shape.numel(),
    )


def _best_of(parts: Parts, core: CoreOf, *, judged: Callable[[Parts], Parts], levels: list[float]) -> Parts:
    """Return the parts with the core of least error, and with it."""
    return _steadiest(core, lambda U, rank: judged(parts._replace(U=U, rank=min(parts.rank, rank))), levels)


def _judge(parts: Parts, *, A: Tensor, matrix: Matrix, norm: Norm, k: int) -> Parts:
    """Return the parts of A / 2**k with their error: the residual of the factors as returned, and rounding of C U R.

    C and R are entries of A, which are returned exactly.
    """
    C, U, R = parts.C.detach(), as_returned(parts.U.detach(), -k, matrix.out_dtype), parts.R.detach()
    u, size = torch.finfo(A.dtype).eps / 2, max(U.shape)
    rounding = 2 * u * (size**0.5 + 1) * frobenius(C) * frobenius(U) * frobenius(R)
    exact = residual_error(A.detach(), (C, U, R), norm=norm)
    error = exact + torch.minimum(rounding, exact.new_tensor(torch.finfo(A.dtype).max))
    return parts._replace(error=error, steady=matrix.out_dtype == matrix.dtype and bool(rounding <= exact))


def _widen(parts: Parts, A: Tensor, p: int, q: int) -> Parts:
    """Return the parts with unused rows and columns appended: zero rows and columns of U."""
    rows, J = parts.rows, parts.columns
    if len(rows) == p and len(J) == q:
        return parts
    rows, J = fill_up(rows, p, A.shape[0]), fill_up(J, q, A.shape[1])
    U = parts.U.new_zeros(q, p)
    U[: parts.U.shape[0], : parts.U.shape[1]] = parts.U
    return parts._replace(rows=rows, columns=J, C=A[:, J], U=U, R=A[rows])


@torch.compiler.disable  # chosen by values: a graph breaks here once, and not at each of them
def _of_operator(matrix: Matrix, stops: Stops, sides: _Sides, how: Choice, levels: list[float], core: Core) -> CUR:
    """Return the decomposition of a sparse matrix or an operator; its error by the norm or by probes."""
    if core == "cross" and stops.by_error:
        raise ValueError("cur: a cross core to a tolerance needs entries; use core='optimal', or rank=")
    unit, exponent = matrix.unit()
    k = torch.tensor(exponent, dtype=torch.int32, device=matrix.device)
    half = Stops(stops.limit, stops.full, _halve(stops.rtol), _halve(stops.atol), stops.norm)
    J = _of_products(matrix, sides.columns, half, how)
    C = unit.columns(J)
    if core == "cross" and not isinstance(sides.rows, Tensor):
        rows = crossing_rows(C, sides.counts(stops.limit)[0])
    else:
        rows = _of_products(matrix.mH, sides.rows, half, how)
    R = unit.mH.columns(rows).mH
    cores = (lambda floor: cross_core(C[rows], floor)) if core == "cross" else optimal_core(unit, C, R)
    probes = Probes.of(unit, how.draw)
    threshold = quantile(COUNT * (2 if C.is_complex() else 1), FAILURE / len(levels))

    def judge(U: Tensor, rank: int) -> Parts:
        U = as_returned(U, -exponent, matrix.out_dtype)
        outside = (probes.image - C @ (U @ (R @ probes.W))).abs().square().sum().double() / COUNT / threshold
        rounding = 4 * torch.finfo(matrix.out_dtype).eps * (len(J) + 1) * frobenius(C) * frobenius(U) * frobenius(R)
        return Parts(rows, J, C, U, R, rank, outside.sqrt() + rounding, steady=bool(rounding <= outside.sqrt()))

    found = _steadiest(cores, judge, levels)
    rank, U = torch.tensor(found.rank), found.U
    size = (probes.mean_square() if unit.squared_norm is None else unit.squared_norm).sqrt().double()
    stops.warn_of(rescale(found.error, k), rescale(stops.allowance(size, k), k), rank, "cur")
    return CUR.of(
        matrix.factor(times_two_to(C, k)),
        matrix.value(_core_out(times_two_to(U, -k), matrix)),
        matrix.factor(times_two_to(R, k)),
        rank=matrix.value(rank),
        error=matrix.value(rescale(found.error, k)),
        norm=stops.norm,
        failure=FAILURE,
        rows=matrix.value(rows),
        columns=matrix.value(J),
        evaluated=matrix.shape.numel(),
    )


def _core_out(U: Tensor, matrix: Matrix) -> Tensor:
    return in_range(U.to(matrix.dtype_of(U)), "cur", "an entry of the core U, which is as large as 1 / A,")


def _halve(tolerance: Real | None) -> Real | None:
    return None if tolerance is None else tolerance / math.sqrt(2)


def _of_products(matrix: Matrix, side: int | Tensor | None, stops: Stops, how: Choice) -> Tensor:
    if isinstance(side, Tensor):
        return side
    if side is not None:
        stops = Stops(min(side, *matrix.shape), min(matrix.shape), None, None, stops.norm)
    return operator_id(matrix, stops, how).columns
