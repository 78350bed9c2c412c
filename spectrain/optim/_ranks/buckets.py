"""Which matrices go through msign together, which of them travel together, and how long one after the other takes."""

from collections.abc import Hashable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from spectrain._arrays.runs import runs
from spectrain.optim._ranks.cost import (
    Choice,
    Load,
    Machine,
    Phases,
    Work,
    computers,
    messages,
    no_load,
    others,
    phases,
)

_MOST = 64  # buckets that are tried, if the bound on the work space does not ask for more
_NEAR = 1.02  # of the shortest step: a bucket has a price on the processor that the model does not know


class Batch(NamedTuple):
    """Matrices that the same positions put through one call of msign."""

    numbers: tuple[int, ...]
    computers: tuple[int, ...]


class Course(NamedTuple):
    """The order of a step: what is done where it lies, what by sums of Gram matrices, and the buckets that travel.

    While a bucket goes through msign, the next one is gathered, the updates of the last one go back to the ranks of
    their copy, and those of the one before go on to the other copies.
    """

    here: list[int]
    gram: list[int]
    buckets: list[list[Batch]]


class Times(NamedTuple):
    """Seconds of a step: msign of the slowest rank, what travels, and how much of it lies beside msign."""

    msign: float
    exchange: float
    hidden: float

    @property
    def total(self) -> float:
        """Seconds until the last rank is done."""
        return self.msign + self.exchange - self.hidden


def course(works: Sequence[Work], choices: Sequence[Choice], kinds: Sequence[Hashable], machine: Machine) -> Course:
    """Return the order of a step, from shapes alone: the same on every rank.

    ``kinds[n]``: what matrices of one call have in common, as exactness and dtype. Of the numbers of buckets 1, 2, 4,
    ... with at most ``machine.bucket`` bytes a rank the smallest is taken whose step is nearly the shortest. A batch is
    never cut and never depends on the buckets, and msign is a function of the batch: so no bit of a result does.
    """
    moved = [phases(work, choice) for work, choice in zip(works, choices, strict=True)]
    gram = [n for n, choice in enumerate(choices) if choice.method == "gram"]
    travelling = [n for n, m in enumerate(moved) if any(load.sent.any() for load in m)]
    here = sorted(set(range(len(works))) - set(gram) - set(travelling))
    found = batches(works, choices, kinds, travelling, machine.batch)
    if not found:
        return Course(here, gram, [])
    of_rank: dict[int, int] = {}
    for batch in found:
        for i in batch.computers:
            of_rank[i] = of_rank.get(i, 0) + _travelling(works, batch)
    most = max(of_rank.values())
    limits = [most / 2**i for i in range(_MOST.bit_length()) if most / 2**i <= machine.bucket] or [machine.bucket]
    plans = [Course(here, gram, buckets(works, found, limit)) for limit in [*limits, min(most, machine.bucket)]]
    times = [timeline(works, choices, plan, machine).total for plan in plans]
    good = [plan for plan, time in zip(plans, times, strict=True) if time <= _NEAR * min(times)]
    return min(good, key=lambda plan: len(plan.buckets))


def batches(
    works: Sequence[Work], choices: Sequence[Choice], kinds: Sequence[Hashable], numbers: Sequence[int], most: int
) -> list[Batch]:
    """Return the matrices by who computes them, kind and short side, in batches of at most ``most`` entries.

    The dearest first, so that what goes back last, beside nothing, is little.
    """
    groups: dict[Hashable, list[int]] = {}
    for n in sorted(numbers, key=lambda n: (-works[n].flops, n)):
        key = (tuple(computers(works[n], choices[n])), kinds[n], min(works[n].shape))
        groups.setdefault(key, []).append(n)
    found = [
        Batch(tuple(chunk), tuple(computers(works[chunk[0]], choices[chunk[0]])))
        for group in groups.values()
        for chunk in (group[some] for some in runs([prod(works[n].shape) for n in group], most))
    ]
    return sorted(found, key=lambda batch: (-works[batch.numbers[0]].flops, batch.numbers))


def buckets(works: Sequence[Work], found: Sequence[Batch], limit: float | int) -> list[list[Batch]]:
    """Return batches in buckets: each in the first in which all that compute it have room for its bytes.

    No position has more than ``limit`` bytes in a bucket, or it has one batch; of several copies of a matrix, to each
    of which the result goes back, all count.
    """
    result: list[list[Batch]] = []
    held: list[dict[int, int]] = []
    for batch in found:
        size = _travelling(works, batch)
        fits = (
            k for k, own in enumerate(held) if all(own.get(i, 0) + size <= max(limit, size) for i in batch.computers)
        )
        k = next(fits, len(held))
        if k == len(held):
            result.append([])
            held.append({})
        result[k].append(batch)
        held[k].update({i: held[k].get(i, 0) + size for i in batch.computers})
    return result


def _travelling(works: Sequence[Work], batch: Batch) -> int:
    return sum(works[n].bytes * (1 + max(works[n].copies)) for n in batch.numbers)


def bucket_phases(works: Sequence[Work], choices: Sequence[Choice], bucket: Sequence[Batch]) -> Phases:
    """What a bucket costs each position."""
    return total_phases([phases(works[n], choices[n]) for batch in bucket for n in batch.numbers], works)


def work_space(works: Sequence[Work], choices: Sequence[Choice], plan: Course) -> float:
    """Return the most bytes that a position holds at once of what travels, beside what one call of msign needs.

    While bucket k is computed: what came of it and its results, what is sent and received of the gather of k + 1 and
    of the way back of k - 1, and of k - 2 the parts that go from copy to copy.
    """
    every = [bucket_phases(works, choices, bucket) for bucket in plan.buckets]
    nothing = total_phases([], works)
    passing = [each.sent + each.received for each in (*[nothing.spread] * 2, *(phases.spread for phases in every))]
    most = max((float(each.max()) for each in passing[-1:] if each.size), default=0.0)
    for k, (last, now, after, bucket) in enumerate(
        zip([nothing, *every], every, [*every[1:], nothing], plan.buckets, strict=False)
    ):
        results, coming = _held(works, bucket), after.gather.sent + after.gather.received
        during = now.gather.received + last.back.sent + last.back.received + passing[k]
        packed = now.back.sent + now.back.received + passing[k + 1]
        most = max(most, float((results + coming + np.maximum(during, packed)).max()))
    return most


def _held(works: Sequence[Work], bucket: Sequence[Batch]) -> Float[np.ndarray, " ranks"]:
    """Bytes of the whole matrices of a bucket that each position computes."""
    held = np.zeros(len(works[0].parts))
    for batch in bucket:
        held[list(batch.computers)] += sum(works[n].bytes for n in batch.numbers)
    return held


def total_phases(moved: Sequence[Phases], works: Sequence[Work]) -> Phases:
    """The sum of some matrices."""
    sums = [no_load(len(work.parts)) for work in works[:1]] * len(Phases._fields)
    for each in moved:
        sums = [total + part for total, part in zip(sums, each, strict=True)]
    return Phases(*sums)


def timeline(
    works: Sequence[Work], choices: Sequence[Choice], plan: Course, machine: Machine, across: Machine | None = None
) -> Times:
    """Return how long a step takes: the buckets are walked through, as ``over.updates_over`` does it.

    Exchanges come one after the other, in the order in which they are begun, and begin when the last rank is there.
    What is done where it lies stands beside the first gather. Gram matrices come last, with nothing beside them.
    ``across``: bandwidth and latency between copies, where they are not those among the ranks of one.
    """
    if not works:
        return Times(0.0, 0.0, 0.0)
    here, gram = (
        total_phases([phases(works[n], choices[n]) for n in numbers], works).compute
        for numbers in (plan.here, plan.gram)
    )
    by_gram = [(works[n], choices[n]) for n in plan.gram]
    summed = _seconds(gram, machine, messages(*zip(*by_gram, strict=True)) * machine.latency if by_gram else 0.0)
    every = [bucket_phases(works, choices, bucket) for bucket in plan.buckets]
    far = across or machine
    waits = machine.latency * max(map(others, works))
    hops = far.latency * (max(work.replicas for work in works) - 1)
    home = (machine, waits) if any(map(others, works)) else (far, hops)
    gathers = [_seconds(each.gather, machine, waits) for each in every]
    backs = [_seconds(each.back, *home) for each in every]
    spreads = [_seconds(each.spread, far, hops) for each in every]
    spent = [each.compute.flops / machine.flops for each in every]
    first, last = here.flops / machine.flops, gram.flops / machine.flops
    msign = float((sum(spent, first) + last).max())
    exchange = summed + sum(gathers) + sum(backs) + sum(spreads)
    total = _walk(first, gathers, spent, backs, spreads) + summed + float(last.max())
    hidden = max(0.0, msign + exchange - total)
    return Times(msign, total - msign + hidden, hidden)


def _seconds(moved: Load, machine: Machine, waits: float = 0.0) -> float:
    """Of what travels alone; no message where nothing does."""
    most = float(max(moved.sent.max(), moved.received.max()))
    return most / machine.bandwidth + waits if most else 0.0


def _walk(
    first: Float[np.ndarray, " ranks"],
    gathers: Sequence[float],
    spent: Sequence[Float[np.ndarray, " ranks"]],
    backs: Sequence[float],
    spreads: Sequence[float],
) -> float:
    """The moment at which the last rank is done; ``now`` is the clock of each, ``free`` that of the links."""
    if not spent:
        return float(first.max())
    now, arrived = first, gathers[0]
    free, returned, everywhere = arrived, 0.0, 0.0
    for k, own in enumerate(spent):
        if k + 1 < len(spent):
            free = max(free, float(now.max())) + gathers[k + 1]
        now, arrived = np.maximum(np.maximum(now, arrived) + own, max(returned, everywhere)), free
        if k and spreads[k - 1]:
            everywhere = free = max(free, float(now.max())) + spreads[k - 1]
        returned = free = max(free, float(now.max())) + backs[k]
    return max(float(now.max()), returned, everywhere) + spreads[-1]
