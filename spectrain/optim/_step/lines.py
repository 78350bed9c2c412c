"""The lines of a matrix that NorMuon makes equal: rows where out >= in, columns where out < in."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrain.optim._ranks.sharded import Sharded

Shape = tuple[int, int]  # (out, in)


def lines(shapes: Sequence[Shape]) -> list[int]:
    """Return the number of lines of each matrix: those that cross the short side, of which there are max(out, in).

    The lines along the long side are orthonormal in an exact msign, and have nothing to make equal.

    >>> lines([(6, 4), (4, 6), (5, 5)])
    [6, 6, 5]
    """
    return [max(shape) for shape in shapes]


def line_squares(view: Tensor) -> Tensor:
    """Return the sum of squares of each line of a whole matrix, out x in."""
    return view.square().sum(_across(view.shape[0], view.shape[1]))


def scale_lines(view: Tensor, rates: Tensor) -> None:
    """Multiply each line of a whole matrix, out x in, in place."""
    view.mul_(rates.unsqueeze(_across(view.shape[0], view.shape[1])))


def _across(out: int, in_: int) -> int:
    """The dimension that a line runs along."""
    return 0 if out < in_ else 1


def line_squares_over(plan: Sharded, updates: Sequence[Tensor]) -> list[Tensor]:
    """Return for each parameter of a plan the sums of squares of all lines of its matrices, on every rank."""
    sums = []
    for n, (view, across) in enumerate(zip(plan._cut(updates), _ways(plan), strict=True)):
        work, position = plan.works[n], plan.team.position
        whole = view.new_zeros(max(work.shape))
        if view.numel() and work.copies[position] == 0:
            whole[plan._sides(n)[1 - across]] = _as_used(plan, n, view).square().sum(across)
        sums.append(whole)
    total = plan.team.reduce(torch.cat(sums), "sum").split([len(whole) for whole in sums])
    return [torch.cat(found) for found in plan._by_member(total)]


def scale_lines_over(plan: Sharded, updates: Sequence[Tensor], rates: Sequence[Tensor]) -> None:
    """Multiply this rank's part of each line by its factor, in place; ``rates`` are whole, one tensor a parameter."""
    per_matrix = [r for m, rate in enumerate(rates) for r in rate.split(lines(plan.logical_shapes(m)))]
    for n, (view, rate, across) in enumerate(zip(plan._cut(updates), per_matrix, _ways(plan), strict=True)):
        if view.numel():
            own = rate[plan._sides(n)[1 - across]]
            _as_used(plan, n, view).mul_(own.unsqueeze(across))


def _ways(plan: Sharded) -> list[int]:
    """The dimension that the lines of each matrix of a plan run along."""
    return [_across(*shape) for m in range(len(plan.members)) for shape in plan.logical_shapes(m)]


def _as_used(plan: Sharded, n: int, view: Tensor) -> Tensor:
    """A stored part as out x in."""
    return view.mT if plan._transposed(n) else view
