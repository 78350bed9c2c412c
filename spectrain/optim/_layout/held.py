"""Lines of logical matrices that lie whole on this rank or spread over several: their sizes, and what scales them."""

import abc
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from spectrain.optim._layout.matrix import Matrix

Shape = tuple[int, int]  # (out, in)
Along = Callable[[int, int], int]


def crossing(out: int, in_: int) -> int:
    """The dimension along which lines run that cross the short side, of which there are max(out, in).

    The lines along the long side are orthonormal in an exact msign, and have nothing to make equal.

    >>> crossing(6, 4), crossing(4, 6), crossing(5, 5)
    (1, 0, 1)
    """
    return 0 if out < in_ else 1


def rows(out: int, in_: int) -> int:
    """The dimension along which rows run, whatever the shape."""
    return 1


def count(shapes: Sequence[Shape], along: Along) -> list[int]:
    """Return the number of lines of each matrix.

    >>> count([(6, 4), (4, 6), (5, 5)], crossing), count([(6, 4), (4, 6)], rows)
    ([6, 6, 5], [6, 4])
    """
    return [shape[1 - along(*shape)] for shape in shapes]


class AbstractHeld(abc.ABC):
    """The logical matrices of some parameters, as far as this rank holds them.

    Tensors are this rank's parts, contiguous, one a parameter.
    A line is a row or a column of a logical matrix; ``along`` gives the dimension that it runs along. What is
    said of lines is one tensor a parameter, its matrices one after the other, whole and the same on every rank. Over
    ranks the first two are collective: every rank calls them, in one order, also one that holds nothing.
    """

    @property
    @abc.abstractmethod
    def shapes(self) -> list[list[Shape]]:
        """(out, in) of each matrix of each parameter."""

    @abc.abstractmethod
    def squares(self, tensors: Sequence[Tensor], along: Along) -> list[Tensor]:
        """Return the sums of squares of all lines."""

    @abc.abstractmethod
    def tops(self, tensors: Sequence[Tensor], along: Along) -> list[Tensor]:
        """Return the largest absolute values of all lines."""

    @abc.abstractmethod
    def pieces(
        self, tensors: Sequence[Tensor], values: Sequence[Tensor], along: Along
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a view of this rank's part of each matrix, out x in, and the values of its lines, to broadcast."""

    def norms(self, tensors: Sequence[Tensor], along: Along) -> list[Tensor]:
        """Return the norms of all lines; of entries whose squares the dtype holds."""
        return [squares.sqrt() for squares in self.squares(tensors, along)]


class Here(AbstractHeld):
    """Matrices that lie whole on this rank."""

    def __init__(self, layouts: Sequence[Matrix], sizes: Sequence[torch.Size]) -> None:
        self._layouts, self._sizes = list(layouts), list(sizes)

    @property
    def shapes(self) -> list[list[Shape]]:
        """(out, in) of each matrix of each parameter."""
        return [layout.shapes(size) for layout, size in zip(self._layouts, self._sizes, strict=True)]

    def squares(self, tensors: Sequence[Tensor], along: Along) -> list[Tensor]:
        """Return the sums of squares of all lines."""
        return [torch.cat([v.square().sum(along(*v.shape)) for v in views]) for views in self._views(tensors)]

    def tops(self, tensors: Sequence[Tensor], along: Along) -> list[Tensor]:
        """Return the largest absolute values of all lines."""
        return [torch.cat([v.abs().amax(along(*v.shape)) for v in views]) for views in self._views(tensors)]

    def norms(self, tensors: Sequence[Tensor], along: Along) -> list[Tensor]:
        """Return the norms of all lines."""
        norm = torch.linalg.vector_norm
        return [torch.cat([norm(v, dim=along(*v.shape)) for v in views]) for views in self._views(tensors)]

    def pieces(
        self, tensors: Sequence[Tensor], values: Sequence[Tensor], along: Along
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each matrix, out x in, and the values of its lines."""
        for views, of_lines in zip(self._views(tensors), values, strict=True):
            counts = count([(v.shape[0], v.shape[1]) for v in views], along)
            for view, own in zip(views, of_lines.split(counts), strict=True):
                yield view, own.unsqueeze(along(*view.shape))

    def _views(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        return [layout.views(tensor) for layout, tensor in zip(self._layouts, tensors, strict=True)]


def unit_rows(held: AbstractHeld, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return each row of each matrix divided by its norm; zero stays zero, and nothing is written to.

    First by its largest entry: the squares of tiny and of huge entries are zero and infinite, and so is one over a
    subnormal one.
    """
    found = [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]
    for sizes in (held.tops, held.norms):
        for view, size in held.pieces(found, sizes(found, rows), rows):
            view.div_(torch.where(size == 0, 1, size))
    return found
