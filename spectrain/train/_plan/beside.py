"""What a step costs beside operations, bytes and messages: measured on a model of almost nothing, divided alike."""

import datetime
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from spectrain import optim
from spectrain.train._jobs.model import build_model
from spectrain.train._jobs.samples import likelihood, likelihood_of_logits
from spectrain.train._mesh.divide import divide
from spectrain.train._mesh.join import mesh_of
from spectrain.train._mesh.layout import Layout
from spectrain.train._mesh.ranks import Ranks
from spectrain.train._plan.cluster import Beside, Cluster
from spectrain.train._plan.pieces import BYTES
from spectrain.train._plan.plan import UPDATE, before_muon, complete, settled
from spectrain.train._plan.traffic import SMALL
from spectrain.train.config import TrainConfig

DEPTHS = (1, 3)
STEPS = 12
_MATRICES = 7
"""Of a block: query, key, value and output; gate, up and down."""


class _Pace(NamedTuple):
    """Seconds of a step: gradients with what travels for them, and the update."""

    gradient: float
    update: float


def measure_beside(
    ranks: Ranks, cluster: Cluster, *, device: torch.device, clock: Callable[[], float]
) -> dict[str, Beside]:
    """Return for each way to divide a model what a step takes beyond its price in ``cluster``.

    Steps of two depths are timed: what the deeper one has more, less what the plan says of it, is the price of a block
    and of a matrix; what is left of the shallow one is the price of all else. Hooks of ``fully_shard``, views of
    DTensors, the loop over parameters, and that ranks which share cores wait for each other at every meeting: all that
    is in it, and nothing that grows with the size of a matrix.
    """
    world = ranks.world
    stands = {"shards": Layout(1, world), "replicas": Layout(world, 1), "tensor": Layout(1, 1, world)}
    return {
        name: _beyond(ranks, cluster, stand, device, clock)
        for name, stand in ({"alone": Layout()} if ranks.alone else stands).items()
    }


def _beyond(ranks: Ranks, cluster: Cluster, stand: Layout, device: torch.device, clock: Callable[[], float]) -> Beside:
    few, many = (_residual(ranks, cluster, stand, depth, device, clock) for depth in DEPTHS)
    more = DEPTHS[1] - DEPTHS[0]
    block = max(0.0, (many.gradient - few.gradient) / more)
    matrix = max(0.0, (many.update - few.update) / more / _MATRICES)
    return Beside(
        block=block,
        rest=max(0.0, few.gradient - DEPTHS[0] * block),
        matrix=matrix,
        update=max(0.0, few.update - DEPTHS[0] * _MATRICES * matrix),
    )


def _residual(
    ranks: Ranks, cluster: Cluster, stand: Layout, depth: int, device: torch.device, clock: Callable[[], float]
) -> _Pace:
    """Seconds that a step of this depth takes, less those that the plan has for it."""
    heads = stand.tensor if stand.tensor > 1 else 2
    tiny = TrainConfig(
        depth=depth, width=8 * heads, heads=heads, kv_heads=heads, hidden=8 * heads, block=8, tokenizer="bytes",
        batch_size=stand.parts, micro_batch_size=1, autocast="off", muon_dtype="float32",
    )  # fmt: skip
    config = settled(tiny, cluster)
    plan = complete(before_muon(config, cluster, stand))
    said, found = plan.seconds, _timed(ranks, config, stand, device, clock)
    meetings = said["agreement"] * 2 / SMALL  # of the small ones of a step two each are in what is timed
    update = sum(said.get(name, 0.0) for name in UPDATE)
    gradient = plan.step_seconds - update - said["agreement"]
    return _Pace(found.gradient - gradient - meetings, found.update - update - meetings)


def _timed(ranks: Ranks, config: TrainConfig, stand: Layout, device: torch.device, clock: Callable[[], float]) -> _Pace:
    """The means over ranks of the medians of some steps."""
    model = build_model(config, vocabulary=BYTES, generator=0).to(device)
    score: Any = likelihood
    if not ranks.alone:
        sizes = {"replicas": stand.replicas, "shards": stand.shards, "tensor": stand.tensor}
        divide(model, model.blocks, mesh_of(sizes, device.type, datetime.timedelta(minutes=10)))
        score = likelihood_of_logits
    optimizer = optim.Muon(model, lr=1e-3, compute_dtype="float32")
    tokens = torch.zeros(1, config.block, dtype=torch.long, device=device)
    taken: list[_Pace] = []
    for _ in range(STEPS):
        start = clock()
        optimizer.zero_grad(set_to_none=True)
        score(model, tokens, tokens).backward()
        optim.clip_grad_norm_(optimizer, 1.0).total.item()
        between = clock()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(_Pace(between - start, clock() - between))
    own = [statistics.median(part) for part in zip(*taken[STEPS // 4 :], strict=True)]
    return _Pace(*(statistics.fmean(part) for part in zip(*ranks.gather(own), strict=True)))
