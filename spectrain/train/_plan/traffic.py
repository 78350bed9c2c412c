"""What travels in a step: bytes of each part on each link, and the seconds that they take."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from spectrain import optim
from spectrain.train._mesh.layout import Layout
from spectrain.train._plan.cluster import Cluster
from spectrain.train._plan.memory import WIDE, Sizes
from spectrain.train.config import TrainConfig

SMALL = 6
"""Collectives of a few numbers in a step: targets and losses, norms, whether all may go on (twice), signals."""


class Circle(NamedTuple):
    """Ranks that meet: how many, and how many of them stand in one machine."""

    ranks: int
    together: int

    @property
    def apart(self) -> bool:
        """Whether they stand in several machines."""
        return self.ranks > self.together


def circle(stand: Layout, which: str, node: int) -> Circle:
    """The ranks along one dimension of a mesh whose neighbours fill one machine after the other; ``all`` of them,
    or those of one ``copy`` of the weights.

    >>> circle(Layout(2, 8, 4), "shards", 8)
    Circle(ranks=8, together=2)
    """
    stride = {"shards": stand.tensor, "replicas": stand.tensor * stand.shards}.get(which, 1)
    whole = {"all": stand.ranks, "copy": stand.tensor * stand.shards}
    ranks = whole[which] if which in whole else getattr(stand, which)
    return Circle(ranks, min(ranks, max(1, node // stride)))


@dataclass(frozen=True)
class Part:
    """One part of what travels: bytes that a rank sends to others of its machine and of other machines, and seconds."""

    name: str
    meetings: int
    inside: float
    between: float
    seconds: float

    def __add__(self, other: "Part") -> "Part":
        """Both, under the first one's name."""
        return Part(self.name, *(getattr(self, key) + getattr(other, key) for key in _FIGURES))

    def row(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


_FIGURES = ("meetings", "inside", "between", "seconds")


def ring(name: str, size: float | int, where: Circle, cluster: Cluster, *, times: int = 1, rounds: int = 1) -> Part:
    r"""All-gather or reduce-scatter of ``size`` bytes (``rounds`` 1), all-reduce (``rounds`` 2), ``times`` in a step.

    In a ring of n ranks each sends (n - 1) / n of the bytes a round, in n - 1 messages (Thakur, Rabenseifner & Gropp,
    Int. J. High Perform. Comput. Appl. 19, 2005). Over machines with g ranks each, g rings side by side cross g ports,
    so that a g-th of a rank's bytes crosses its own; of the messages of a ring one a machine does (NCCL, tuning.cc):

        seconds = c + (n - n / g) latency_in + (n / g - 1) latency_out + max(V / bandwidth_in, V / (g bandwidth_out))
    """
    n, g = where
    if n == 1:
        return Part(name, 0, 0.0, 0.0, 0.0)
    sent = rounds * (n - 1) / n * size
    crossing = sent / g if where.apart else 0.0
    hops = math.ceil(n / g) - 1 if where.apart else 0
    waits = rounds * ((n - 1 - hops) * cluster.inside.latency + hops * cluster.between.latency)
    slow = max(sent / cluster.inside.bandwidth, crossing / cluster.between.bandwidth)
    inside = sent - crossing if g > 1 else 0.0
    return Part(name, times, times * inside, times * crossing, times * (cluster.message + waits + slow))


def tree(name: str, where: Circle, cluster: Cluster, *, times: int) -> Part:
    """All-reduce of a few numbers: up a tree of machines and down, from rank to rank inside each (NCCL, tuning.cc).

    seconds = c + 2 ((g - 1) latency_in + log2(n / g) latency_out)
    """
    n, g = where
    if n == 1:
        return Part(name, 0, 0.0, 0.0, 0.0)
    high = math.ceil(math.log2(math.ceil(n / g)))
    waits = 2 * ((g - 1) * cluster.inside.latency + high * cluster.between.latency)
    return Part(name, times, 0.0, 0.0, times * (cluster.message + waits))


@dataclass(frozen=True)
class Traffic:
    """All that travels in a step."""

    gather_root: Part
    gather_block: Part
    reduce_root: Part
    reduce_block: Part
    tensor: Part
    small: Part


def traffic(
    config: TrainConfig, found: Sizes, stand: Layout, cluster: Cluster, *, rows: int, micro_batches: int
) -> Traffic:
    """What ``fully_shard`` and shared matrices send; parts of blocks are of one block and one pass.

    A block is gathered before it computes on the way there, and again on the way back; what is outside of blocks once a
    micro-batch. Gradients are scattered as sums over the shards, and then summed over the replicas, once a step. Where
    ``tensor`` ranks share the matrices of a block, its output is summed twice on the way there, and the gradient of its
    input once for each of the five matrices that read it on the way back.
    """
    shards, replicas, tensor = (circle(stand, which, cluster.node) for which in ("shards", "replicas", "tensor"))
    width = config.width or 0
    narrow = 2 if config.autocast == "bfloat16" else WIDE
    entries = rows * config.block * width

    def reduce(name: str, numbers: int) -> Part:
        scattered = ring(name, WIDE * numbers, shards, cluster)
        return scattered + ring(name, WIDE * numbers / stand.shards, replicas, cluster, rounds=2)

    passes = config.depth * micro_batches
    there = ring("shared matrices", narrow * entries, tensor, cluster, times=2 * passes, rounds=2)
    back = ring("shared matrices", WIDE * entries, tensor, cluster, times=5 * passes, rounds=2)
    again = dataclasses.replace(there) if config.recompute else ring("", 0.0, Circle(1, 1), cluster)
    return Traffic(
        gather_root=ring("gathered weights", WIDE * found.root, shards, cluster),
        gather_block=ring("gathered weights", WIDE * found.block, shards, cluster),
        reduce_root=reduce("summed gradients", found.root),
        reduce_block=reduce("summed gradients", found.block),
        tensor=there + back + again,
        small=tree("agreement", circle(stand, "all", cluster.node), cluster, times=SMALL),
    )


def repeated(part: Part, times: int) -> Part:
    """A part so many times over."""
    return Part(part.name, *(times * getattr(part, key) for key in _FIGURES))


def exchanging(stand: Layout, cluster: Cluster, flops: float | int) -> tuple[optim.ranks.Machine, optim.ranks.Machine]:
    """The figures of an exchange among the ranks of one copy of the weights, and of one between copies."""
    return _alike(circle(stand, "copy", cluster.node), cluster, flops), _alike(
        circle(stand, "replicas", cluster.node), cluster, flops
    )


def _alike(where: Circle, cluster: Cluster, flops: float | int) -> optim.ranks.Machine:
    """Those of an exchange in which a rank sends to each of the others alike.

    Of what it sends (n - g) / (n - 1) leaves a machine of g of the n ranks, through the rank's own port.
    """
    share = crossing(where)
    rate = min(
        math.inf if share == 1 else cluster.inside.bandwidth / (1 - share),
        math.inf if share == 0 else cluster.between.bandwidth / share,
    )
    latency = cluster.between.latency if where.apart else cluster.inside.latency
    return optim.ranks.Machine(flops=flops, bandwidth=rate, latency=latency)


def crossing(where: Circle) -> float:
    """The share of a rank's messages that leaves its machine."""
    return (where.ranks - where.together) / max(1, where.ranks - 1)
