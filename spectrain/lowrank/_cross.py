"""CUR from single rows and columns, each asked for once: for matrices whose entries are expensive."""

from collections.abc import Callable

import torch
from torch import Tensor

from spectrain._arrays.generators import Generator, repeating_generator
from spectrain._arrays.kinds import Array, Real
from spectrain.lowrank._columns.core import cross_core
from spectrain.lowrank._cur import CUR
from spectrain.lowrank._derivatives import refuse_derivative
from spectrain.lowrank._matrix.stops import Stops, check_stops


def cross(
    row: Callable[[int], Array],
    column: Callable[[int], Array],
    shape: tuple[int, int],
    *,
    rank: int | None = None,
    rtol: Real | None = None,
    atol: Real | None = None,
    checks: int = 4,
    epsilon: Real | None = None,
    generator: Generator = None,
) -> CUR:
    """Return a CUR decomposition of a matrix that is known by its rows and columns, one call each (article 9336).

    ``row(i)`` returns the n entries of row i, ``column(j)`` the m entries of column j: similarities by a model, say,
    where retrieval cannot afford all m n. Adaptive cross approximation with rook pivots (Bebendorf 2000; Tyrtyshnikov
    2000): where most is left of the last row, take that column, the largest entry left in it, the largest of its row,
    until row and column agree or three turns are over; subtract the cross. The core is pinv(A[rows, columns])
    with ``epsilon`` as in :func:`cur`, so the result is exact on its rows and columns when their intersection has full
    rank.

    ``checks`` rows, drawn uniformly, are evaluated besides; they neither steer nor become pivots. The mean square that
    is left of them gives the stop and ``.error``. **It is an estimate and no bound**: entries that nobody looked at may
    be anything, so ``.failure`` is NaN. ``.evaluated`` counts the entries of all rows and columns that were asked for.

    Stops: ``rank``, ``rtol`` (of the estimated norm) and ``atol``. float32, float64 and complex results of the
    callables are computed in their dtype. Cost: about (m + n) rank + checks n entries.

    Raises ValueError for no stop, for rows and columns of another length, and for entries that are not finite.

    >>> A = torch.outer(torch.arange(1.0, 7.0), torch.arange(2.0, 6.0)).double()
    >>> found = cross(lambda i: A[i], lambda j: A[:, j], (6, 4), rank=1, checks=1)
    >>> torch.allclose(found.dense(), A), found.evaluated < 24
    (True, True)
    """
    stops = check_stops(tuple(shape), rank=rank, rtol=rtol, atol=atol, name="cross")
    if isinstance(checks, bool) or not isinstance(checks, int) or not 1 <= checks <= shape[0]:
        raise ValueError(f"cross: checks must be an int between 1 and {shape[0]}, the number of rows, got {checks!r}")
    draw = repeating_generator(generator, "cross")
    asked = Asked(row, column, shape)
    judged = torch.randperm(shape[0], generator=draw)[:checks].tolist()
    first = next(i for i in torch.randperm(shape[0], generator=draw).tolist() if i not in judged or checks == shape[0])
    rows, columns, error = _pursue(asked, judged, first, stops)
    C = torch.stack([asked.column(j) for j in columns], 1) if columns else asked.row(judged[0]).new_zeros(shape[0], 0)
    R = torch.stack([asked.row(i) for i in rows]) if rows else C.new_zeros(0, shape[1])
    floor = torch.finfo(C.dtype).eps * max(shape) if epsilon is None else epsilon
    U, r = cross_core(C[rows], floor)
    left = torch.stack([asked.row(i) for i in judged]) - C[judged] @ U @ R
    return CUR.of(
        C,
        U,
        R,
        rank=torch.tensor(r),
        error=left.abs().square().sum().mul(shape[0] / checks).sqrt() if columns else error,
        failure=float("nan"),
        rows=torch.tensor(rows, dtype=torch.long),
        columns=torch.tensor(columns, dtype=torch.long),
        evaluated=asked.evaluated,
    )


class Asked:
    """Rows and columns that were asked for, kept, and their entries counted."""

    def __init__(self, row: Callable[[int], Array], column: Callable[[int], Array], shape: tuple[int, int]) -> None:
        self._ask = (row, column)
        self.shape = shape
        self._kept: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})

    def row(self, i: int) -> Tensor:
        """Return row i, asked for once."""
        return self._get(0, i, self.shape[1])

    def column(self, j: int) -> Tensor:
        """Return column j, asked for once."""
        return self._get(1, j, self.shape[0])

    def _get(self, side: int, index: int, length: int) -> Tensor:
        if index not in self._kept[side]:
            values = torch.as_tensor(self._ask[side](index))
            name = ("row", "column")[side]
            refuse_derivative(values, "cross", f"let {name}() return .detach()ed numbers, or use cur")
            if values.shape != (length,):
                raise ValueError(
                    f"cross: {name}({index}) must return {length} entries, got an array of shape {tuple(values.shape)}"
                )
            if not bool(torch.isfinite(values).all()):
                raise ValueError(f"cross: {name}({index}) has entries that are NaN or infinite")
            self._kept[side][index] = values.to(_working_dtype(values.dtype))
        return self._kept[side][index]

    @property
    def evaluated(self) -> int:
        """Entries of all rows and columns; where a row meets a column the entry was evaluated twice, and counts so."""
        return len(self._kept[0]) * self.shape[1] + len(self._kept[1]) * self.shape[0]


def _working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for half precision, float64 for integers, else the dtype itself."""
    if dtype.is_complex or dtype in (torch.float32, torch.float64):
        return dtype
    return torch.float32 if dtype.is_floating_point else torch.float64


def _pursue(asked: Asked, judged: list[int], last: int, stops: Stops) -> tuple[list[int], list[int], Tensor]:
    """Add crosses until a stop; return rows, columns and the estimate of what is left."""
    m, n = asked.shape
    check = torch.stack([asked.row(i) for i in judged])
    size = (check.abs().square().sum() * (m / len(judged))).sqrt()
    allowed, error = stops.allowance(size), size
    left, right = check.new_zeros(m, 0), check.new_zeros(0, n)  # the approximation so far: left @ right
    rows: list[int] = []
    columns: list[int] = []
    while len(rows) < stops.limit and bool(error > allowed):
        at = _rook(asked, _next_column(asked, last, left, right, columns), left, right, [*rows, *judged], columns)
        if at is None:  # nothing is left of that row; then look where most is left of the rows under check
            remaining = check.abs().amax(0)
            remaining[columns] = 0.0
            at = _rook(asked, int(remaining.argmax()), left, right, [*rows, *judged], columns)
        if at is None:
            break
        i, j = at
        c = asked.column(j) - left @ right[:, j]
        r = asked.row(i) - left[i] @ right
        left, right = torch.cat([left, (c / c[i])[:, None]], 1), torch.cat([right, r[None]])
        check = check - torch.outer(left[judged, -1], r)
        last = i
        rows.append(i)
        columns.append(j)
        error = (check.abs().square().sum() * (m / len(judged))).sqrt()
    return rows, columns, error


def _next_column(asked: Asked, i: int, left: Tensor, right: Tensor, columns: list[int]) -> int:
    """Return the unused column with the largest entry left in row i."""
    r = (asked.row(i) - left[i] @ right).abs()
    r[columns] = -1.0
    return int(r.argmax())


def _rook(
    asked: Asked, j: int, left: Tensor, right: Tensor, rows: list[int], columns: list[int]
) -> tuple[int, int] | None:
    """Return a pivot that is the largest left in its column and, after three turns at most, in its row; or None.

    ``rows`` and ``columns`` are not to be taken.
    """
    floor = torch.finfo(left.dtype).eps * max(asked.shape)
    best: tuple[int, int] | None = None
    for _ in range(3):
        whole = asked.column(j)
        c = (whole - left @ right[:, j]).abs()
        c[rows] = 0.0
        i = int(c.argmax())
        if not c[i] > floor * whole.abs().max():
            return best
        best = (i, j)
        r = (asked.row(i) - left[i] @ right).abs()
        r[columns] = 0.0
        largest = int(r.argmax())
        if largest == j:
            return best
        j = largest
    return best
