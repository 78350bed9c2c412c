"""A kernel as Nystrom sees it: entries by index and a diagonal, of a matrix or of a function of two sets of points."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain.lowrank._derivatives import refuse_derivative
from spectrain.lowrank._matrix.matrix import Array, Matrix, enter

Function = Callable[[Array, Array], Array]
_SLICE = 64  # points whose kernel is taken at once for the diagonal


class Source(NamedTuple):
    """Entries of K by index, its diagonal, and the matrix or the points they came from.

    ``rows`` gives all of K, so many rows at once, where its entries are there.
    """

    n: int
    entries: Callable[[Tensor, Tensor], Tensor]
    diagonal: Tensor
    like: Matrix
    rows: Callable[[int], Iterable[Tensor]] | None


def of_matrix(K: Array, points: Array | None) -> Source:
    """Return a kernel that is given by its entries, after checking what a semidefinite matrix must have."""
    matrix = enter(K, "nystrom")
    if points is not None:
        raise ValueError("nystrom: points= belong to a kernel that is a function; K is a matrix here")
    if matrix.stored is not None:
        return of_sparse(matrix, matrix.stored)
    if matrix.entries is None:
        raise TypeError("nystrom: needs the entries of K; for an operator use lowrank.svd")
    X = matrix.entries
    if X.ndim != 2 or X.shape[0] != X.shape[1]:
        raise ValueError(f"nystrom: needs one square matrix, got shape {tuple(X.shape)}")
    gap, size = float((X - X.mH).abs().max()), float(X.abs().max())
    if gap > 100 * torch.finfo(matrix.out_dtype).eps * size:
        raise ValueError(f"nystrom: K is not Hermitian: entries differ from their mirror images by {gap:.3g}")
    pairs = X.diagonal().real.clamp_min(0).sqrt()
    over = float((X.abs() - torch.outer(pairs, pairs)).max())
    if over > torch.finfo(matrix.out_dtype).eps ** 0.5 * size and float(X.diagonal().real.min()) >= 0:
        raise indefinite(f"an entry is {over:.3g} above the geometric mean of the two diagonal entries beside it")
    return Source(len(X), lambda i, j: X[i[:, None], j], X.diagonal().real.clone(), matrix, X.split)


def of_sparse(matrix: Matrix, K: Tensor) -> Source:
    """Return a kernel of few nonzero entries, after the checks of :func:`of_matrix`; rows are dense few at a time."""
    n, (row, column), values = len(K), K.indices(), K.values()
    if tuple(K.shape) != (n, n):
        raise ValueError(f"nystrom: needs one square matrix, got shape {tuple(K.shape)}")
    mirror = K.t().conj().coalesce() if K.is_complex() else K.t().coalesce()
    gap = float((K - mirror).coalesce().values().abs().max()) if len(values) else 0.0
    size, eps = (float(values.abs().max()) if len(values) else 0.0), torch.finfo(matrix.out_dtype).eps
    if gap > 100 * eps * size:
        raise ValueError(f"nystrom: K is not Hermitian: entries differ from their mirror images by {gap:.3g}")
    diagonal = values.real.new_zeros(n).index_put_((row[row == column],), values[row == column].real)
    pairs = diagonal.clamp_min(0).sqrt()
    over = float((values.abs() - pairs[row] * pairs[column]).max()) if len(values) else 0.0
    if over > eps**0.5 * size and float(diagonal.min()) >= 0:
        raise indefinite(f"an entry is {over:.3g} above the geometric mean of the two diagonal entries beside it")
    places = row * n + column  # rising: the entries of a coalesced matrix stand in the order of its rows

    def entries(i: Tensor, j: Tensor) -> Tensor:
        wanted = i[:, None] * n + j
        found = torch.searchsorted(places, wanted).clamp_max(max(len(places) - 1, 0))
        return torch.where(places[found] == wanted, values[found], 0) if len(places) else values.new_zeros(wanted.shape)

    def rows(count: int) -> Iterator[Tensor]:
        ends = torch.searchsorted(row, torch.arange(0, n + count, count, device=row.device).clamp_max(n)).tolist()
        for k, (a, b) in enumerate(pairwise(ends)):
            part = values.new_zeros(min(count, n - k * count), n)
            yield part.index_put_((row[a:b] - k * count, column[a:b]), values[a:b])

    return Source(n, entries, diagonal, matrix, rows)


def indefinite(why: str) -> ValueError:
    """Return the error for a K that is not positive semidefinite."""
    return ValueError(
        f"nystrom: K is not positive semidefinite: {why}. Pass a K that was rounded to a narrower dtype in that dtype; "
        "for another matrix use lowrank.svd or lowrank.cur"
    )


def of_function(K: Function, points: Array | None, block: int | None) -> Source:
    """Return a kernel that is a function; it is called with two sets of points and gives the array of all pairs.

    All that it gives is looked at: shape, numbers, and whether it is the same from both sides and in every call.
    """
    if points is None:
        raise ValueError("nystrom: a kernel that is a function needs points=, one row for each of its arguments")
    matrix = enter(points if getattr(points, "ndim", 2) > 1 else points[:, None], "nystrom")
    probes = _probe(K, points)
    if probes[0].is_complex():
        kind = torch.promote_types(matrix.dtype, torch.complex64)
        matrix = replace(matrix, dtype=kind, out_dtype=kind)

    def entries(i: Tensor, j: Tensor) -> Tensor:
        found = torch.as_tensor(K(_take(points, i), _take(points, j)))
        refuse_derivative(found, "nystrom", "let the kernel return .detach()ed numbers")
        if found.shape != (len(i), len(j)):
            raise ValueError(_shape_error(tuple(found.shape), len(i), len(j)))
        if not bool(torch.isfinite(found).all()):
            raise ValueError("nystrom: the kernel gave entries that are NaN or infinite; it must be finite everywhere")
        return found.to(matrix.dtype)

    slices = torch.arange(len(points), device=matrix.device).split(block or _SLICE)
    diagonal = torch.cat([entries(part, part).diagonal().real for part in slices])
    for corner in probes:  # x beside one other point, not beside a slice of them
        _check_consistent(corner.to(matrix.dtype), diagonal[:1], diagonal.max())

    def checked(i: Tensor, j: Tensor) -> Tensor:
        found = entries(i, j)
        if len(i) == len(diagonal):
            _check_consistent(found[j], diagonal[j], diagonal.max())
        return found

    return Source(len(points), checked, diagonal, matrix, None)


def _take(points: Array, index: Tensor) -> Array:
    return points[index if isinstance(points, Tensor) else index.numpy()]


def _shape_error(got: object, p: int, q: int) -> str:
    return (
        f"nystrom: the kernel must give an array of shape {(p, q)} for {p} and {q} points, got {got}. It is called "
        "with two sets of points; a function k(x, y) of two single points becomes one by "
        "lambda X, Y: numpy.array([[k(x, y) for y in Y] for x in X])"
    )


def _probe(K: Function, points: Array) -> list[Tensor]:
    """Return K(x, x) of the first point out of calls with one point and two, and with two and one.

    ValueError where K takes two single points, before it fails in its own words; both ways round, for x @ y of points
    with one or two coordinates has one of these shapes.
    """
    few, given = min(2, len(points)), []
    for p, q in ((1, few), (few, 1)):
        try:
            found = torch.as_tensor(K(points[:p], points[:q]))
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(_shape_error(f"{type(error).__name__}: {error}", p, q)) from error
        if found.shape != (p, q):
            raise ValueError(_shape_error(tuple(found.shape), p, q))
        given.append(found[:1, :1])
    return given


def _check_consistent(block: Tensor, diagonal: Tensor, size: Tensor) -> None:
    """Raise ValueError where the kernel among some points is not Hermitian, or not the diagonal it had before."""
    allowed = float(torch.finfo(diagonal.dtype).eps ** 0.5 * size)
    gap = float((block - block.mH).abs().max())
    if gap > allowed:
        raise ValueError(f"nystrom: K is not Hermitian: K(x, y) and K(y, x) differ by {gap:.3g} for two of the points")
    gap = float((block.diagonal().real - diagonal).abs().max())
    if gap > allowed:
        raise ValueError(
            f"nystrom: the kernel is no function of two points: K(x, x) differs by {gap:.3g} between two calls with "
            "other points beside x"
        )
