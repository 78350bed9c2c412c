"""The interpolative decomposition: all columns (or rows) written by a few of them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypedDict, Unpack, overload

import torch
from torch import Tensor

from spectrain._arrays.generators import Generator
from spectrain._arrays.kinds import Array, Real
from spectrain._arrays.typed import Generic, Held, Ndarray
from spectrain.lowrank._columns.column_id import Choice, coefficients, column_id, widen
from spectrain.lowrank._columns.operator_id import operator_id
from spectrain.lowrank._columns.pivoted_qr import fill_up
from spectrain.lowrank._columns.strong_rrqr import strong_rrqr
from spectrain.lowrank._matrix.error import frobenius, matrix_norm, residual_error
from spectrain.lowrank._matrix.matrix import Matrix, enter
from spectrain.lowrank._matrix.result import Factorization
from spectrain.lowrank._matrix.scale import flatten_batch, rescale, restore_batch, stack, times_two_to, unit_scaled
from spectrain.lowrank._matrix.stops import Norm, Stops, check_stops
from spectrain.lowrank._modes import ColumnRule
from spectrain.lowrank._select_columns import check_rule

Axis: TypeAlias = Literal["columns", "rows", "both"]


class _Columns(NamedTuple, Generic[Held]):
    columns: Held
    Z: Held


class _Rows(NamedTuple, Generic[Held]):
    rows: Held
    Z: Held


class _Both(NamedTuple, Generic[Held]):
    rows: Held
    columns: Held
    X: Held
    Z: Held


class Interpolative(Factorization[Held], _Columns[Held]):
    """A ~ skeleton Z with skeleton = A[:, columns] and Z[:, columns] = I; ``largest`` is max|Z|."""

    skeleton: Held
    largest: Held

    def chain(self) -> Sequence[Array]:
        """Return A[:, columns] and Z."""
        return self.skeleton, self.Z


class RowInterpolative(Factorization[Held], _Rows[Held]):
    """A ~ Z skeleton with skeleton = A[rows] and Z[rows] = I; ``largest`` is max|Z|."""

    skeleton: Held
    largest: Held

    def chain(self) -> Sequence[Array]:
        """Return Z and A[rows]."""
        return self.Z, self.skeleton


class TwoSidedInterpolative(Factorization[Held], _Both[Held]):
    """A ~ X skeleton Z with skeleton = A[rows][:, columns], X[rows] = I, Z[:, columns] = I."""

    skeleton: Held
    largest: Held

    def chain(self) -> Sequence[Array]:
        """Return X, the entries where rows and columns meet, and Z."""
        return self.X, self.skeleton, self.Z


if TYPE_CHECKING:

    class _Options(TypedDict, total=False):
        """What does not change the kind of the result."""

        rank: int | None
        rtol: Real | None
        atol: Real | None
        norm: Norm
        method: ColumnRule
        refine: bool
        bound: Real | None
        oversample: int
        power: int
        block: int
        generator: Generator

    C: TypeAlias = Literal["columns"]
    R: TypeAlias = Literal["rows"]
    B: TypeAlias = Literal["both"]

    class _Door(Protocol):
        """The result by axis, and by the kind of array."""

        @overload
        def __call__(self, A: Tensor, *, axis: C = ..., **options: Unpack[_Options]) -> Interpolative[Tensor]: ...
        @overload
        def __call__(self, A: Ndarray, *, axis: C = ..., **options: Unpack[_Options]) -> Interpolative[Ndarray]: ...
        @overload
        def __call__(self, A: Any, *, axis: C = ..., **options: Unpack[_Options]) -> Interpolative[Any]: ...
        @overload
        def __call__(self, A: Tensor, *, axis: R, **options: Unpack[_Options]) -> RowInterpolative[Tensor]: ...
        @overload
        def __call__(self, A: Ndarray, *, axis: R, **options: Unpack[_Options]) -> RowInterpolative[Ndarray]: ...
        @overload
        def __call__(self, A: Any, *, axis: R, **options: Unpack[_Options]) -> RowInterpolative[Any]: ...
        @overload
        def __call__(self, A: Tensor, *, axis: B, **options: Unpack[_Options]) -> TwoSidedInterpolative[Tensor]: ...
        @overload
        def __call__(self, A: Ndarray, *, axis: B, **options: Unpack[_Options]) -> TwoSidedInterpolative[Ndarray]: ...
        @overload
        def __call__(self, A: Any, *, axis: B, **options: Unpack[_Options]) -> TwoSidedInterpolative[Any]: ...

    def by_axis(function: Callable[..., Any]) -> _Door: ...

else:

    def by_axis(function):
        """Decorate a function whose result is of the kind that ``axis`` says; at run time it is the function."""
        return function


@by_axis
def interpolative(
    A: Array,
    *,
    rank: int | None = None,
    rtol: Real | None = None,
    atol: Real | None = None,
    norm: Norm = "fro",
    axis: Axis = "columns",
    method: ColumnRule = "auto",
    refine: bool = False,
    bound: Real | None = None,
    oversample: int = 10,
    power: int = 0,
    block: int = 16,
    generator: Generator = None,
) -> Interpolative | RowInterpolative | TwoSidedInterpolative:
    """Return columns J and Z with A ~ A[:, J] Z, where Z = pinv(A[:, J]) A is the best there is for J (article 10501).

    ``axis="rows"`` returns rows I and Z with A ~ Z A[I]; ``axis="both"`` returns I, J, X, Z with A ~ X A[I][:, J] Z.

    Stops: ``rank``, ``rtol`` (of ||A||) and ``atol`` in the norm ``norm`` ("fro" or 2), whichever comes first. To a
    tolerance, "pivoted_qr" stops early, and every other rule searches its smallest rank by bisection.
    ``method`` and its options are those of :func:`select_columns`, with the guarantees stated there; "auto" is at most
    sqrt(1 + k) times the best Frobenius error for small matrices, and pivoted QR for large ones.
    ``bound`` (above 1): max|Z| <= bound, by exchanges that may raise the error; ``.largest`` says max|Z| in any case.

    A is m x n, real or complex, dense (with batch dimensions), NumPy, sparse or an operator. Factors have its kind and
    dtype; half precision is computed in float32. ``.error`` bounds ||A - A[:, J] Z|| for the factors as returned; of
    an operator it is false with probability ``.failure``. ``.best`` is the least error of that rank where the matrix is
    small enough to know it. ``.rank`` counts independent columns: where fewer than ``rank`` are independent, and in
    batches to a tolerance, the further columns are unused and have zero rows in Z. Indices carry no gradient, Z does.

    Cost: 2 m n k and O(k n) for pivoted_qr; a few SVDs of A for "auto" up to m n min(m, n) = 2e9.

    Raises ValueError for no stop, rank outside 1..min(m, n), bound <= 1, NaN, unknown axis or method.

    Sources: Cheng, Gimbutas, Martinsson and Rokhlin (2005); Gu and Eisenstat (1996); Osinsky (2023).

    >>> A = torch.tensor([[1.0, 0.0, 1.0, 2.0], [0.0, 1.0, 1.0, 3.0]])
    >>> columns, Z = interpolative(A, rank=2)
    >>> torch.allclose(A[:, columns] @ Z, A, atol=1e-5)
    True
    """
    matrix = enter(A, "interpolative")
    stops = check_stops(matrix.shape, rank=rank, rtol=rtol, atol=atol, norm=norm, name="interpolative")
    if axis not in ("columns", "rows", "both"):
        raise ValueError(f'interpolative: axis must be "columns", "rows" or "both", got {axis!r}')
    if bound is not None and not bound > 1:
        raise ValueError(f"interpolative: bound on |Z| must be above 1, got {bound}; 2 is usual")
    draw = check_rule(method, bound=2.0, oversample=oversample, power=power, block=block, generator=generator)
    how = Choice(method, refine, bound, draw, {"oversample": oversample, "power": power, "block": block})
    with torch.autocast(matrix.device.type, enabled=False):
        if axis == "rows":
            return _of_rows(matrix, stops, how)
        return _of_both(matrix, stops, how) if axis == "both" else _of_columns(matrix, stops, how)


class Decomposed(NamedTuple):
    """Factors of a batch in working precision: C Z approximates the matrix divided by 2**k, ``A``."""

    A: Tensor | None
    k: Tensor
    columns: Tensor
    C: Tensor
    Z: Tensor
    rank: Tensor
    error: Tensor
    best: Tensor | None
    failure: float


@torch.compiler.disable  # chosen by values: a graph breaks here once, and not at each of them
def decompose(matrix: Matrix, stops: Stops, how: Choice) -> Decomposed:
    """Return the column decomposition of each matrix of a batch, padded to the largest rank."""
    batch, device = matrix.shape[:-2], matrix.device
    if matrix.entries is None:
        A, k = None, torch.tensor(matrix.exponent, dtype=torch.int32, device=device)
        done = [operator_id(matrix, stops, how)]
    else:
        A, k = unit_scaled(matrix.entries, "interpolative")
        items = flatten_batch(A)
        size = matrix_norm(A, stops.norm) if stops.by_error else k.double()  # of no use where the rank is the stop
        allowed = flatten_batch(stops.allowance(size, k)[..., None, None]).flatten()
        done = [column_id(X, stops, a, how) for X, a in zip(items, allowed, strict=True)]
        width = max(len(found.columns) for found in done)
        done = [widen(found, X, width) for found, X in zip(done, items, strict=True)]
    rank = restore_batch(torch.tensor([found.rank for found in done], device=device), batch)
    best = stack(done, "best", batch) if done[0].best is not None else None
    return Decomposed(
        A,
        k,
        stack(done, "columns", batch),
        stack(done, "C", batch),
        stack(done, "Z", batch),
        rank,
        stack(done, "error", batch),
        best,
        done[0].failure,
    )


def _of_columns(matrix: Matrix, stops: Stops, how: Choice) -> Interpolative:
    found = decompose(matrix, stops, how)
    Z = found.Z.to(matrix.out_dtype)
    return Interpolative.of(
        matrix.value(found.columns),
        matrix.value(Z),
        skeleton=matrix.factor(times_two_to(found.C, found.k)),
        largest=matrix.value(_largest(Z)),
        **_report(matrix, found, stops, (found.C, Z) if Z.dtype != found.Z.dtype else None),
    )


def _of_rows(matrix: Matrix, stops: Stops, how: Choice) -> RowInterpolative:
    found = decompose(matrix.mH, stops, how)
    Z = found.Z.to(matrix.out_dtype)
    return RowInterpolative.of(
        matrix.value(found.columns),
        matrix.value(Z.mH),
        skeleton=matrix.factor(times_two_to(found.C.mH, found.k)),
        largest=matrix.value(_largest(Z)),
        **_report(matrix, found, stops, (found.C, Z) if Z.dtype != found.Z.dtype else None),
    )


def _of_both(matrix: Matrix, stops: Stops, how: Choice) -> TwoSidedInterpolative:
    """Write the rows of C by as many of them as it has independent columns: exact but for rounding, and |X| <= 2."""
    found = decompose(matrix, stops, how)
    batch = found.C.shape[:-2]
    ranks = found.rank.reshape(-1).tolist() or [0]
    sides = [_rows_of(C, r) for C, r in zip(flatten_batch(found.C), ranks, strict=True)]
    rows, X = (restore_batch(each, batch) for each in zip(*sides, strict=True))
    X = X.to(matrix.out_dtype)
    core, Z = found.C.take_along_dim(rows[..., :, None], -2), found.Z.to(matrix.out_dtype)
    return TwoSidedInterpolative.of(
        matrix.value(rows),
        matrix.value(found.columns),
        matrix.value(X),
        matrix.value(Z),
        skeleton=matrix.factor(times_two_to(core, found.k)),
        largest=matrix.value(torch.maximum(_largest(Z), _largest(X))),
        **_report(matrix, found, stops, (X, core, Z)),
    )


def _rows_of(C: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Return k rows of the m x k matrix C and X with C ~ X C[rows]; only the first r are used."""
    m, k = C.shape
    with torch.no_grad():
        taken = strong_rrqr(C[:, :r].mH, r) if r else torch.empty(0, dtype=torch.long, device=C.device)
    return fill_up(taken, k, m), torch.cat([coefficients(C[:, :r].mH, taken).mH, C.new_zeros(m, k - r)], 1)


def _largest(Z: Tensor) -> Tensor:
    """Return max|Z| of each matrix, 0 where it is empty."""
    return Z.detach().abs().flatten(-2).amax(-1) if Z.numel() else torch.zeros(Z.shape[:-2], device=Z.device)


def _report(matrix: Matrix, found: Decomposed, stops: Stops, factors: tuple[Tensor, ...] | None) -> dict:
    """Return rank, error and best; of factors that were rounded or went through a core the error is taken afresh."""
    error = found.error
    if factors is not None:
        wide = [F.detach().to(found.C.dtype) for F in factors]
        fresh = found.A is not None
        error = _error_of(found, wide, stops.norm) if fresh else error + _rounding(matrix, found)
    return {
        "rank": matrix.value(found.rank),
        "error": matrix.value(rescale(error, found.k)),
        "best": None if found.best is None else matrix.value(rescale(found.best.to(error.dtype), found.k)),
        "norm": stops.norm,
        "failure": found.failure,
    }


def _error_of(found: Decomposed, factors: list[Tensor], norm: Norm) -> Tensor:
    return residual_error(torch.as_tensor(found.A).detach(), factors, norm=norm)


def _rounding(matrix: Matrix, found: Decomposed) -> Tensor:
    """Return what rounding the factors of an operator, or passing through a core, can add to the error."""
    k = found.Z.shape[-2]
    return 4 * torch.finfo(matrix.out_dtype).eps * (k + 1) * frobenius(found.C) * (1 + frobenius(found.Z))
