"""Muon's step over ranks: matrices travel to whoever the cost model chose, and come back as updates."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectrain.approx import Schedule
from spectrain.matfun.internal import coefficients, gram_cuts, gram_products, plain_products, schedule_for_steps
from spectrain.optim._layout.matrix import Matrix
from spectrain.optim._layout.parts import Part, Sharding, local_views, parts
from spectrain.optim._layout.spread import Team
from spectrain.optim._ranks.cost import Choice, Machine, Work, assign
from spectrain.optim._ranks.gram import Slab, cuts, reduced_signs
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


class Sharded:
    """The matrices that one team shares: who does what, and the two exchanges around msign.

    ``gather`` gives this rank the whole matrices that it has to orthogonalise; ``scatter`` takes their msign and
    gives back this rank's part of every update, the learning-rate factor included.
    """

    def __init__(self, team: Team, members: Sequence[Member], machine: Machine) -> None:
        self.team, self.members = team, list(members)
        works = [works_of(member) for member in members]
        self.sites = [Site(m, i) for m, found in enumerate(works) for i in range(len(found))]
        self.works: list[Work] = [work for found in works for work in found]
        self.choices: list[Choice] = assign(self.works, machine)
        self._views: list[Tensor] = []
        self._layouts = [member.settings.matrix for member in members]
        self._boxes = [member.sharding.boxes(member.shape)[team.position] for member in members]
        self._rates = [r for m in members for r in m.settings.factors(m.shape)]
        self._flipped = [layout.transposed for layout in self._layouts]
        me = team.position
        self.mine = [n for n, (w, c) in enumerate(zip(self.works, self.choices, strict=True)) if me in computers(w, c)]

    def gather(self, averages: Sequence[Tensor]) -> list[Tensor]:
        """Return the whole matrices of ``mine``, out x in, from the local parts of the averages."""
        self._views = self._cut(averages)
        found: dict[int, Tensor] = {}
        for dtype in self._dtypes():  # the same dtypes in the same order on all ranks: each is a collective call
            numbers = [n for n in range(len(self.works)) if self._dtype(n) == dtype]
            received = self._exchange(
                [
                    (i, j, n)
                    for n in numbers
                    for j in computers(self.works[n], self.choices[n])
                    for i in self.works[n].sources(j)
                ],
                lambda n, j: self._views[n].to(self._dtype(n)),
                torch.empty(0, dtype=dtype, device=averages[0].device),
            )
            found |= {n: self._assemble(n, received) for n in numbers if n in self.mine}
        return [self._turn(n, found[n]) for n in self.mine]

    def scatter(self, signs: Sequence[Tensor], averages: Sequence[Tensor]) -> list[Tensor]:
        """Return this rank's part of each update; ``signs`` belong to ``mine``."""
        # What stays is rounded as what travels is, or copies of a parameter would drift apart.
        done = {n: self._turn(n, sign.to(self._dtype(n))) for n, sign in zip(self.mine, signs, strict=True)}
        updates = [torch.zeros_like(a, memory_format=torch.contiguous_format) for a in averages]
        targets = self._cut(updates)
        me, own = self.team.position, range(len(self.works))
        for dtype in self._dtypes():
            numbers = [n for n in own if self.choices[n].owner is not None and self._dtype(n) == dtype]
            received = self._exchange(
                [
                    (self.choices[n].owner, j, n)
                    for n in numbers
                    for j in self.works[n].holders
                    if j != self.choices[n].owner
                ],
                lambda n, j: self.works[n].parts[j].of(done[n]),
                torch.empty(0, dtype=dtype, device=averages[0].device),
            )
            for (_, n), piece in received.items():
                targets[n].copy_(piece.view_as(targets[n]))
        for n, sign in done.items():
            if targets[n].numel():
                targets[n].copy_(self.works[n].parts[me].of(sign))
        self._by_gram(targets)
        self._scale(targets)
        self._views = []  # or the averages would stay in memory until the next step
        return updates

    def logical_shapes(self, m: int) -> list[tuple[int, int]]:
        """(out, in) of the matrices of one member."""
        shapes = [work.shape for work, site in zip(self.works, self.sites, strict=True) if site.member == m]
        return [(out, in_) for in_, out in shapes] if self._flipped[m] else shapes

    def leading_parts(self, weights: Sequence[Tensor], *, iterations: int = 8) -> list[Tensor]:
        """Return this rank's part of about sigma_1 u_1 v_1^T, by the power iteration of ``leading_part``.

        Two reductions of one vector a matrix in each iteration.
        """
        views = self._cut(weights)
        v = self._longest_rows(views)
        # A fixed number of iterations: a test of convergence would end them on one rank before another.
        for _ in range(iterations + 1):
            v = [torch.nn.functional.normalize(x, dim=0, eps=torch.finfo(x.dtype).tiny) for x in v]
            u = self._product(views, v)
            v, direction = self._product(views, u, transposed=True), v
        found = [torch.zeros_like(w) for w in weights]
        for n, target in enumerate(self._cut(found)):
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

    def _turn(self, n: int, matrix: Tensor) -> Tensor:
        """A stored matrix as out x in, or back."""
        return matrix.mT if self.transposed(n) else matrix

    def transposed(self, n: int) -> bool:
        return self._flipped[self.sites[n].member]

    def _by_gram(self, targets: list[Tensor]) -> None:
        """The matrices whose Gram matrix travels instead of themselves."""
        numbers = [n for n, choice in enumerate(self.choices) if choice.method == "gram"]
        slabs = [self._slab(n) for n in numbers]
        for n, part in zip(numbers, reduced_signs(slabs, self.team.reduce), strict=True):
            if targets[n].numel():
                targets[n].copy_(part)

    def _slab(self, n: int) -> Slab:
        work, schedule = self.works[n], _schedule(self.members[self.sites[n].member])
        assert schedule is not None
        counts = work.copies[self.team.position] == 0
        return Slab(self._views[n], min(work.shape), work.shape[0] > work.shape[1], counts, schedule)

    def _scale(self, targets: list[Tensor]) -> None:
        held = [(target, rate) for target, rate in zip(targets, self._rates, strict=True) if target.numel()]
        if held:
            torch._foreach_mul_([target for target, _ in held], [rate for _, rate in held])

    def _cut(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Views of the local part of every logical matrix."""
        return self.views(range(len(self.members)), tensors)

    def views(self, members: Sequence[int], tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return views of this rank's part of every matrix of some members, as stored."""
        found = []
        for m, tensor in zip(members, tensors, strict=True):
            found += local_views(self._layouts[m], self.members[m].shape, self._boxes[m], tensor)
        return found

    def _assemble(self, n: int, received: dict[tuple[int, int], Tensor]) -> Tensor:
        """One whole matrix out of this rank's part and those received."""
        work, own = self.works[n], self._views[n]
        if own.shape == work.shape:
            return own
        matrix = own.new_empty(work.shape)
        if own.numel():
            work.parts[self.team.position].of(matrix).copy_(own)
        for source in work.sources(self.team.position):
            part = work.parts[source].of(matrix)
            part.copy_(received[source, n].view_as(part))
        return matrix

    def _exchange(
        self, routes: Sequence[tuple[Any, int, int]], piece: Any, like: Tensor
    ) -> dict[tuple[int, int], Tensor]:
        """Send along (from, to, matrix); return what came in as {(from, matrix): flat part}.

        Both sides know all routes in one order, so that only numbers travel. Nothing to send anywhere: no call.
        """
        if not routes:
            return {}
        me, ranks = self.team.position, len(self.team.ranks)
        outgoing: list[list[Tensor]] = [[] for _ in range(ranks)]
        expected: list[list[tuple[int, int]]] = [[] for _ in range(ranks)]
        for source, target, n in routes:
            if source == me:
                outgoing[target].append(piece(n, target))
            elif target == me:
                expected[source].append((n, self._travel_size(n, source, target)))
        received = self.team.exchange(outgoing, [sum(size for _, size in sizes) for sizes in expected], like)
        return {
            (source, n): part
            for source, sizes in enumerate(expected)
            for (n, _), part in zip(sizes, received[source].split([size for _, size in sizes]), strict=True)
        }

    def _travel_size(self, n: int, source: int, target: int) -> int:
        """Entries on the way: out to be computed it is the sender's part, on the way back the receiver's."""
        back = self.choices[n].owner == source
        return self.works[n].parts[target if back else source].numel

    def _dtype(self, n: int) -> torch.dtype:
        return _sent_dtype(self.members[self.sites[n].member])

    def _dtypes(self) -> list[torch.dtype]:
        return list(dict.fromkeys(map(_sent_dtype, self.members)))


def computers(work: Work, choice: Choice) -> list[int]:
    """Positions that orthogonalise the whole matrix."""
    if choice.method == "owner":
        assert choice.owner is not None
        return [choice.owner]
    return work.holders if choice.method == "replicated" else []
