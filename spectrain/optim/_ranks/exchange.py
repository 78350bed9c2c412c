"""One step's travels of one team: parts of matrices to whoever computes them, and parts of the updates back."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain.optim._layout.spread import Flight, Team
from spectrain.optim._ranks.buckets import Batch
from spectrain.optim._ranks.cost import computers, others
from spectrain.optim._ranks.gram import reduced_signs
from spectrain.optim._ranks.sharded import Sharded

Parts = dict[tuple[int, int], Tensor]


class Route(NamedTuple):
    """So many entries of matrix ``n`` from one position to another."""

    source: int
    target: int
    n: int
    size: int


class Landing(NamedTuple):
    """An all-to-all that was begun, and what of each matrix is expected from each of ``positions``, in order."""

    flight: Flight
    expected: list[list[tuple[int, int]]]
    positions: Sequence[int]

    def wait(self) -> Parts:
        """Return what came in as {(from, matrix): flat part}."""
        return {
            (source, n): part
            for source, sizes, flat in zip(self.positions, self.expected, self.flight.wait(), strict=True)
            for (n, _), part in zip(sizes, flat.split([size for _, size in sizes]), strict=True)
        }


class Exchange:
    """The matrices of a plan in one step, from the local parts of the averages to the local parts of the updates.

    ``bring`` begins to gather a bucket, :func:`landed` waits for it and ``matrices`` puts it together; ``give`` begins
    to take msign back to the ranks of the owner's copy, ``spread`` to pass the parts on from there to the other copies,
    and ``land`` waits for either: so an owner sends its result once, however many copies there are, and each rank of
    its copy a part of it to each of those. What is computed where it lies is ``here`` and goes to ``keep``. ``finish``
    gives the updates, the learning-rate factor included. All ranks of a team make the calls for buckets in one order.
    """

    def __init__(self, plan: Sharded, averages: Sequence[Tensor]) -> None:
        self.plan = plan
        self.updates = [torch.zeros_like(a, memory_format=torch.contiguous_format) for a in averages]
        self._views, self._targets = plan.cut(averages), plan.cut(self.updates)
        self._like = averages[0]

    def mine(self, batch: Batch) -> bool:
        """Whether this rank computes a batch."""
        return self.plan.team.position in batch.computers

    def here(self) -> list[int]:
        """Numbers of the matrices that this rank has whole, and computes without any travel."""
        me, plan = self.plan.team.position, self.plan
        return [n for n in plan.course.here if me in computers(plan.works[n], plan.choices[n])]

    def matrices(self, numbers: Sequence[int], parts: Parts) -> list[Tensor]:
        """Return whole matrices, out x in, of this rank's parts and those that came in."""
        return [self.plan.turn(n, self._assemble(n, parts)) for n in numbers]

    def bring(self, bucket: Sequence[Batch]) -> list[Landing]:
        """Begin to send parts of the matrices of a bucket to whoever computes them."""
        works = self.plan.works
        routes = [
            Route(i, j, n, works[n].parts[i].numel)
            for batch in bucket
            for n in batch.numbers
            for j in batch.computers
            for i in works[n].sources(j)
        ]
        return self._exchange(routes, self.plan.copy_of, lambda n, j: self._views[n])

    def give(self, bucket: Sequence[Batch], done: dict[int, Tensor]) -> list[Landing]:
        """Begin to send parts of msign, of which ``done`` has what this rank stored, to whoever of the owner's copy
        holds them; of a copy that is one rank to the other copies."""
        works, plan = self.plan.works, self.plan
        routes = [
            Route(owner, j, n, works[n].parts[j].numel)
            for n, owner in self._owned(bucket)
            for j in (works[n].sources(owner) if others(works[n]) else works[n].holders)
            if j != owner
        ]
        landings = self._exchange(
            routes,
            lambda n: plan.copy_of(n) if others(works[n]) else plan.twins(n),
            lambda n, j: works[n].parts[j].of(done[n]),
        )
        for n, sign in done.items():
            self._keep_part(n, sign)
        return landings

    def spread(self, bucket: Sequence[Batch]) -> list[Landing]:
        """Begin to pass parts on that have landed in the copies of their owners; nothing where there is one copy."""
        works, plan = self.plan.works, self.plan
        routes = [
            Route(plan.twins(n)[works[n].copies[owner]], j, n, self._targets[n].numel())
            for n, owner in self._owned(bucket)
            if self._targets[n].numel() and others(works[n])
            for j in plan.twins(n)
            if works[n].copies[j] != works[n].copies[owner]
        ]
        return self._exchange(routes, plan.twins, lambda n, j: self._targets[n])

    def _owned(self, bucket: Sequence[Batch]) -> list[tuple[int, int]]:
        """Matrices of a bucket that one position has computed, and which."""
        choices = self.plan.choices
        return [(n, owner) for b in bucket for n in b.numbers for owner in [choices[n].owner] if owner is not None]

    def keep(self, numbers: Sequence[int], signs: Sequence[Tensor]) -> None:
        """Take msign of matrices that lie here."""
        for n, sign in zip(numbers, signs, strict=True):
            self._keep_part(n, self.stored(n, sign))

    def stored(self, n: int, sign: Tensor) -> Tensor:
        """A result, out x in, as it is stored and travels."""
        # What stays is rounded as what travels is, or copies of a parameter would drift apart.
        return self.plan.turn(n, sign.to(self.plan.dtype(n)))

    def land(self, landings: Sequence[Landing]) -> None:
        """Wait for parts of updates."""
        for landing in landings:
            for (_, n), piece in landing.wait().items():
                self._targets[n].copy_(piece.view_as(self._targets[n]))

    def by_gram(self) -> None:
        """The matrices whose Gram matrix travels instead of themselves."""
        numbers = self.plan.course.gram
        slabs = [self.plan.slab(n, self._views[n]) for n in numbers]
        for n, part in zip(numbers, reduced_signs(slabs, self.plan.team.reduce), strict=True):
            if self._targets[n].numel():
                self._targets[n].copy_(part)

    def finish(self) -> list[Tensor]:
        """Return this rank's part of each update."""
        held = [(target, r) for target, r in zip(self._targets, self.plan.rates, strict=True) if target.numel()]
        if held:
            torch._foreach_mul_([target for target, _ in held], [rate for _, rate in held])
        return self.updates

    def _keep_part(self, n: int, sign: Tensor) -> None:
        if self._targets[n].numel():
            self._targets[n].copy_(self.plan.works[n].parts[self.plan.team.position].of(sign))

    def _assemble(self, n: int, received: Parts) -> Tensor:
        """One whole matrix out of this rank's part and those received."""
        work, own, me = self.plan.works[n], self._views[n], self.plan.team.position
        if own.shape == work.shape:
            return own
        matrix = own.new_empty(work.shape)
        if own.numel():
            work.parts[me].of(matrix).copy_(own)
        for source in work.sources(me):
            part = work.parts[source].of(matrix)
            part.copy_(received[source, n].view_as(part))
        return matrix

    def _exchange(
        self,
        routes: Sequence[Route],
        among: Callable[[int], tuple[int, ...]],
        piece: Callable[[int, int], Tensor],
    ) -> list[Landing]:
        """Begin one all-to-all for each dtype, in which all that travels is packed, among the positions that are said
        of each matrix; none where nothing does.

        Both sides know all routes in one order, so that only numbers travel.
        """
        groups: dict[tuple[tuple[int, ...], torch.dtype], list[Route]] = {}
        for route in routes:  # one order on all ranks
            if route.source in among(route.n):
                groups.setdefault((among(route.n), self.plan.dtype(route.n)), []).append(route)
        return [
            begin(self.plan.team.among(of), own, piece, self._like.new_empty(0, dtype=dtype), positions=of)
            for (of, dtype), own in groups.items()
        ]


def begin(
    team: Team,
    routes: Sequence[Route],
    piece: Callable[[int, int], Tensor],
    like: Tensor,
    *,
    positions: Sequence[int] | None = None,
) -> Landing:
    """Begin an all-to-all along ``routes``, which are the same on every rank; ``piece(n, j)`` of matrix n goes to j.

    ``positions``: what routes call the ranks of the team, by default their places in it.
    """
    places = range(len(team.ranks)) if positions is None else positions
    me = places[team.position]
    outgoing = [[piece(r.n, i) for r in routes if r.source == me and r.target == i] for i in places]
    expected = [[(r.n, r.size) for r in routes if r.target == me and r.source == i] for i in places]
    sizes = [sum(size for _, size in own) for own in expected]
    return Landing(team.exchange(outgoing, sizes, like), expected, places)


def landed(landings: Sequence[Landing]) -> Parts:
    """Wait for all that was begun."""
    return dict(itertools.chain.from_iterable(landing.wait().items() for landing in landings))
