"""Seconds of operations on a rank."""

from collections.abc import Iterable

from spectrain.train._plan.cluster import Cluster
from spectrain.train._plan.memory import WIDE, Sizes
from spectrain.train._plan.trace import Operation


def seconds(operations: Iterable[Operation], cluster: Cluster) -> float:
    """The time of some operations, one after the other: of each a call, and the longer of computing and moving.

    The roofline of Williams, Waterman & Patterson, Commun. ACM 52(4), 2009, operation by operation.
    """
    return sum((_one(operation, cluster) for operation in operations), 0.0)


def _one(operation: Operation, cluster: Cluster) -> float:
    moved = cluster.move(operation.bytes) if operation.bytes else 0.0
    if not operation.flops:
        return cluster.call + moved
    dtype = operation.dtype if operation.dtype in cluster.products else "float32"
    return cluster.call + max(moved, operation.flops / cluster.rate(dtype, operation.size, fused=operation.fused))


def updates(found: Sizes, cluster: Cluster, *, adamw: bool, averages: int = 0) -> float:
    """Seconds of all that an optimizer reads and writes besides msign, and of so many ``averages`` of the weights.

    Muon passes fifteen times over a matrix: momentum 3, Nesterov's direction 3, to the dtype of msign and back 2,
    factor 2, decay 2, weight 3. AdamW reads and writes seven times (Kingma & Ba; fused), and the norms of gradients are
    one pass. An average is three passes: it is read, the weight too, and it is written.
    """
    matrices, rest = (0, found.own) if adamw else (found.matrices, found.rest)
    moved = WIDE * (15 * matrices + 8 * rest + 3 * averages * found.own)
    return cluster.move(moved) if moved else 0.0
