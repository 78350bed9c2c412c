"""The matrices that ranks share: what is to be done for each, by whom and in which order, and where its parts are."""

import functools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain.approx import Schedule
from spectrain.matfun.internal import coefficients, gram_cuts, gram_products, plain_products, schedule_for_steps
from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._layout.parts import Part, Sharding, local_views, parts
from spectrain.optim._layout.spread import Team
from spectrain.optim._ranks.buckets import Course, course
from spectrain.optim._ranks.cost import Choice, Machine, Work, assign, computers
from spectrain.optim._ranks.gram import Slab, cuts
from spectrain.optim._step.settings import STEPS, Settings
from spectrain.optim._step.update import dtype_of


class Member(NamedTuple):
    """One parameter of a team: its full shape, the settings of its group, and how it lies."""

    name: str
    shape: torch.Size
    settings: Settings
    sharding: Sharding
    dtype: torch.dtype
    device: torch.device


class Site(NamedTuple):
    """Where one logical matrix is: which member, which of its matrices."""

    member: int
    piece: int


def works_of(member: Member) -> list[Work]:
    """Return what is to be done for each logical matrix of a parameter; from shapes alone."""
    # Only what all ranks have agreed on goes in: shapes, settings, the mesh. A price that were measured here would send
    # ranks different ways, each waiting for what no other sends.
    layout = member.settings.matrix
    held, copies = _held(layout, member.shape, member.sharding)
    dtype, schedule = _sent_dtype(member), _schedule(member)
    shapes = layout.shapes(member.shape)
    again = None if schedule is None else cuts(schedule, dtype)
    return [
        Work(
            member.name if len(shapes) == 1 else f"{member.name}[{i}]",
            (in_, out) if layout.transposed else (out, in_),
            held[i],
            copies,
            _flops(schedule, dtype, out, in_),
            0 if schedule is None else len(schedule.polynomials),
            0 if again is None else len(again) + 1,
            dtype.itemsize,
        )
        for i, (out, in_) in enumerate(shapes)
    ]


@functools.lru_cache(maxsize=64)
def _held(layout: Matrix, shape: torch.Size, sharding: Sharding) -> tuple[list[tuple[Part, ...]], tuple[int, ...]]:
    """Of each logical matrix the part of every rank, and the copy that each rank belongs to."""
    boxes = sharding.boxes(shape)
    return list(zip(*(parts(layout, shape, box) for box in boxes), strict=True)), tuple(sharding.copies())


def _flops(schedule: Schedule | None, dtype: torch.dtype, out: int, in_: int) -> float:
    """Operations of one msign: those of the iteration that matfun takes; by tolerance of an SVD, 6 l k^2 + 20 k^3."""
    k, long = sorted((out, in_))
    if schedule is None:
        return 6.0 * long * k * k + 20.0 * k**3
    steps, cuts = coefficients(schedule), gram_cuts(schedule, dtype, (out, in_))
    if cuts is None:
        return 2.0 * k**3 * plain_products(steps, long / k)
    return 2.0 * k**3 * gram_products(steps, cuts, long / k)


def _schedule(member: Member) -> Schedule | None:
    """The polynomials that msign would apply; None by tolerance."""
    settings = member.settings
    if settings.tol is not None:
        return None
    return settings.schedule or schedule_for_steps(settings.steps or STEPS, _sent_dtype(member))


def _sent_dtype(member: Member) -> torch.dtype:
    """Momentum travels in the dtype that msign would round it to."""
    like = torch.empty(0, dtype=member.dtype, device=member.device)
    return dtype_of(member.settings, like)


class Sharing(NamedTuple):
    """Works of some members, who does each, and the order."""

    works: list[Work]
    choices: list[Choice]
    course: Course


def share(members: Sequence[Member], machine: Machine) -> Sharing:
    """Return who does what and when, from what all ranks have agreed on."""
    found = [(work, _kind(member)) for member in members for work in works_of(member)]
    works, kinds = [work for work, _ in found], [kind for _, kind in found]
    choices = assign(works, machine)
    return Sharing(works, choices, course(works, choices, kinds, machine))


def _kind(member: Member) -> Hashable:
    """What matrices of one call of msign have in common, beside their short side."""
    return (member.settings.exactness, member.dtype, _sent_dtype(member))


class Sharded:
    """The matrices that one team shares: who does what, and this rank's parts of them."""

    def __init__(self, team: Team, members: Sequence[Member], machine: Machine) -> None:
        self.team, self.members = team, list(members)
        self.works, self.choices, self.course = share(members, machine)
        self._layouts = [member.settings.matrix for member in members]
        self.sites = [
            Site(m, i)
            for m, (layout, member) in enumerate(zip(self._layouts, members, strict=True))
            for i in range(len(layout.shapes(member.shape)))
        ]
        self._boxes = [member.sharding.boxes(member.shape)[team.position] for member in members]
        self.rates = [r for m in members for r in m.settings.factors(m.shape)]
        self._flipped = [layout.transposed for layout in self._layouts]
        me = team.position
        self._copies = [member.sharding.copy_of(me) for member in members]
        self._twins = [member.sharding.twins(me) for member in members]
        self.mine = [n for n, (w, c) in enumerate(zip(self.works, self.choices, strict=True)) if me in computers(w, c)]

    def member(self, n: int) -> Member:
        """The parameter of a matrix."""
        return self.members[self.sites[n].member]

    def dtype(self, n: int) -> torch.dtype:
        """The dtype in which a matrix travels."""
        return _sent_dtype(self.member(n))

    def copy_of(self, n: int) -> tuple[int, ...]:
        """The positions of this rank's copy of a matrix."""
        return self._copies[self.sites[n].member]

    def twins(self, n: int) -> tuple[int, ...]:
        """The positions that hold the same part of a matrix as this rank, by copy."""
        return self._twins[self.sites[n].member]

    def logical_shapes(self, m: int) -> list[tuple[int, int]]:
        """(out, in) of the matrices of one member."""
        shapes = [work.shape for work, site in zip(self.works, self.sites, strict=True) if site.member == m]
        return [(out, in_) for in_, out in shapes] if self._flipped[m] else shapes

    def leading_parts(self, weights: Sequence[Tensor], *, iterations: int = 8) -> list[Tensor]:
        """Return this rank's part of about sigma_1 u_1 v_1^T, by the power iteration of ``leading_part``.

        Two reductions of one vector a matrix in each iteration.
        """
        views = self.cut(weights)
        v = self._longest_rows(views)
        # A fixed number of iterations: a test of convergence would end them on one rank before another.
        for _ in range(iterations + 1):
            v = [torch.nn.functional.normalize(x, dim=0, eps=torch.finfo(x.dtype).tiny) for x in v]
            u = self._product(views, v)
            v, direction = self._product(views, u, transposed=True), v
        found = [torch.zeros_like(w) for w in weights]
        for n, target in enumerate(self.cut(found)):
            if target.numel():
                out, in_ = self.sides(n)
                top = torch.outer(u[n][out], direction[n][in_])
                target.copy_(top.mT if self.transposed(n) else top)
        return found

    def _longest_rows(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The longest row of each logical matrix."""
        shapes = [shape for m in range(len(self.members)) for shape in self.logical_shapes(m)]
        ones = [view.new_ones(in_) for view, (_, in_) in zip(views, shapes, strict=True)]
        longest = [int(s.argmax()) for s in self._product([view.square() for view in views], ones)]
        picks = [view.new_zeros(out) for view, (out, _) in zip(views, shapes, strict=True)]
        for pick, row in zip(picks, longest, strict=True):
            pick[row] = 1
        return self._product(views, picks, transposed=True)

    def _product(self, views: Sequence[Tensor], vectors: Sequence[Tensor], *, transposed: bool = False) -> list[Tensor]:
        """W x, or W^T x, of every logical matrix; whole, on every rank."""
        results = []
        for n, (view, x) in enumerate(zip(views, vectors, strict=True)):
            out, in_ = self.sides(n)
            shape = self.works[n].shape
            result = view.new_zeros(shape[1 if self.transposed(n) != transposed else 0])
            if view.numel() and self.works[n].copies[self.team.position] == 0:
                W = view.mT if self.transposed(n) else view
                if transposed:
                    result[in_] = W.mT @ x[out]
                else:
                    result[out] = W @ x[in_]
            results.append(result)
        return list(self.team.reduce(torch.cat(results), "sum").split([len(result) for result in results]))

    def sides(self, n: int) -> tuple[slice, slice]:
        """This rank's interval of the outputs and of the inputs of a logical matrix."""
        rows, columns = (slice(*interval) for interval in self.works[n].parts[self.team.position])
        return (columns, rows) if self.transposed(n) else (rows, columns)

    def turn(self, n: int, matrix: Tensor) -> Tensor:
        """A stored matrix as out x in, or back."""
        return matrix.mT if self.transposed(n) else matrix

    def transposed(self, n: int) -> bool:
        return self._flipped[self.sites[n].member]

    def slab(self, n: int, part: Tensor) -> Slab:
        """This rank's part of a matrix whose Gram matrix travels instead of itself."""
        work, schedule = self.works[n], _schedule(self.member(n))
        assert schedule is not None
        counts = work.copies[self.team.position] == 0
        return Slab(part, min(work.shape), work.shape[0] > work.shape[1], counts, schedule)

    def cut(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Views of the local part of every logical matrix."""
        return self.views(range(len(self.members)), tensors)

    def views(self, members: Sequence[int], tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return views of this rank's part of every matrix of some members, as stored."""
        found = []
        for m, tensor in zip(members, tensors, strict=True):
            found += local_views(self._layouts[m], self.members[m].shape, self._boxes[m], tensor)
        return found
