"""Lines of logical matrices of which this rank holds parts: what is said of them is summed over the ranks."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from spectrain.optim._layout.held import AbstractHeld, Along, Shape, count
from spectrain.optim._ranks.sharded import Sharded


class Shared(AbstractHeld):
    """The matrices of some members of a plan; every rank of its team makes the same calls in the same order."""

    def __init__(self, plan: Sharded, members: Sequence[int]) -> None:
        self.plan, self.members = plan, list(members)
        self._numbers = [n for m in members for n, site in enumerate(plan.sites) if site.member == m]

    @property
    def shapes(self) -> list[list[Shape]]:
        """(out, in) of each matrix of each parameter."""
        return [self.plan.logical_shapes(m) for m in self.members]

    def squares(self, tensors: Sequence[Tensor], along: Along) -> list[Tensor]:
        """Return the sums of squares of all lines; one reduction."""
        return self._reduce(tensors, along, lambda view, dim: view.square().sum(dim), "sum")

    def tops(self, tensors: Sequence[Tensor], along: Along) -> list[Tensor]:
        """Return the largest absolute values of all lines; one reduction."""
        return self._reduce(tensors, along, lambda view, dim: view.abs().amax(dim), "max")

    def pieces(
        self, tensors: Sequence[Tensor], values: Sequence[Tensor], along: Along
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's part of each matrix, out x in, and the values of the lines that pass through it."""
        splits = [v.split(count(shapes, along)) for v, shapes in zip(values, self.shapes, strict=True)]
        flat = [value for split in splits for value in split]
        for (n, view, dim, _), value in zip(self._parts(tensors, along), flat, strict=True):
            if view.numel():
                yield view, value[self.plan.sides(n)[1 - dim]].unsqueeze(dim)

    def _reduce(
        self, tensors: Sequence[Tensor], along: Along, said: Callable[[Tensor, int], Tensor], how: str
    ) -> list[Tensor]:
        found = []
        for n, view, dim, lines in self._parts(tensors, along):
            whole = view.new_zeros(lines)
            # Of several copies one counts: a sum over all would be a multiple. Whoever holds nothing adds zeros, since
            # a rank that stayed away from the reduction would leave the others waiting for ever.
            if view.numel() and self.plan.works[n].copies[self.plan.team.position] == 0:
                whole[self.plan.sides(n)[1 - dim]] = said(view, dim)
            found.append(whole)
        total = self.plan.team.reduce(torch.cat(found), how).split([len(whole) for whole in found])
        answers = iter(whole.to(own.dtype) for whole, own in zip(total, found, strict=True))
        return [torch.cat([next(answers) for _ in shapes]) for shapes in self.shapes]

    def _parts(self, tensors: Sequence[Tensor], along: Along) -> Iterator[tuple[int, Tensor, int, int]]:
        """Of each matrix its number, this rank's part, out x in, the dimension its lines run along, and their count."""
        shapes = [shape for found in self.shapes for shape in found]
        views = self.plan.views(self.members, tensors)
        for n, view, shape in zip(self._numbers, views, shapes, strict=True):
            dim = along(*shape)
            yield n, view.mT if self.plan.transposed(n) else view, dim, shape[1 - dim]
