"""The lines of a matrix that NorMuon makes equal: rows where out >= in, columns where out < in."""

from collections.abc import Sequence

from torch import Tensor

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
    return view.square().sum(run_along(view.shape[0], view.shape[1]))


def scale_lines(view: Tensor, rates: Tensor) -> None:
    """Multiply each line of a whole matrix, out x in, in place."""
    view.mul_(rates.unsqueeze(run_along(view.shape[0], view.shape[1])))


def run_along(out: int, in_: int) -> int:
    """The dimension that a line runs along."""
    return 0 if out < in_ else 1
