"""The plan of a run on one mesh: memory of a rank, bytes on links, seconds of a step."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from spectrain import optim
from spectrain.train._jobs.averages import copies
from spectrain.train._jobs.beginning import inherit
from spectrain.train._mesh.layout import Layout
from spectrain.train._plan import memory as _memory
from spectrain.train._plan import price
from spectrain.train._plan.cluster import WAYS, Beside, Cluster, between
from spectrain.train._plan.pieces import Pieces, pieces, whole_model
from spectrain.train._plan.traffic import Part, Traffic, circle, crossing, exchanging, repeated, traffic
from spectrain.train.config import TrainConfig

ITEM = {"float32": 4, "bfloat16": 2}
BLOCKS = "weights and gradients beside a block"
UPDATE = ("Muon's exchange", "msign", "other updates", "bookkeeping")
"""Parts of a step that are the optimizer's."""
BUCKETS = "Muon's exchange beside msign of another bucket"


@dataclass(frozen=True)
class RunPlan:
    """What a step of a run costs a rank; ``print`` it.

    ``moments`` are bytes of a rank by part at each moment of a step that can be the fullest, ``memory`` those of the
    fullest; ``seconds`` are by part, ``links`` what travels. ``beside``: seconds of what travels while something
    is computed, by what lies beside what. ``muon`` says who orthogonalises which matrix.
    """

    config: TrainConfig
    stand: Layout
    cluster: Cluster
    moments: _memory.Moments
    links: list[Part]
    seconds: dict[str, float]
    beside: dict[str, float]
    muon: optim.ranks.ShardPlan | None

    @property
    def hidden(self) -> float:
        """Seconds of all that travels while something is computed."""
        return sum(self.beside.values(), 0.0)

    @property
    def ranks(self) -> int:
        """How many there are."""
        return self.stand.ranks

    @property
    def fullest(self) -> str:
        """The moment of a step at which a rank holds most."""
        return _memory.fullest(self.moments)

    @property
    def memory(self) -> dict[str, float]:
        """Bytes of a rank at the fullest moment, by part."""
        return self.moments[self.fullest]

    @property
    def bytes(self) -> float:
        """Bytes of a rank at the fullest moment."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether a rank has so much."""
        return self.bytes <= self.cluster.memory

    @property
    def step_seconds(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values()) - self.hidden

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the whole batch in a second."""
        return self.config.tokens_per_step / self.step_seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "ranks": self.ranks,
            "mesh": f"{self.stand.replicas}x{self.stand.shards}",
            "tensor_parallel": self.stand.tensor,
            "machine": self.cluster.name,
            "memory": {**self.memory, "at the fullest": self.bytes, "there": self.cluster.memory},
            "fullest": self.fullest,
            "moments": {moment: sum(parts.values()) for moment, parts in self.moments.items()},
            "links": [part.row() for part in self.links],
            "seconds": {**self.seconds, "hidden": self.hidden, "a step": self.step_seconds},
            "beside": self.beside,
            "tokens_per_second": self.tokens_per_second,
        }

    def __str__(self) -> str:
        parts = {**self.memory, "at the fullest": self.bytes}
        fits = "fits" if self.fits else "does NOT fit"
        return "\n".join(
            [
                f"{self.ranks} ranks, {self.stand}, of {self.cluster.name}",
                "memory of a rank          GB",
                *(f"  {name:18} {size / 1e9:8.3f}" for name, size in parts.items()),
                f"  (the fullest moment: {self.fullest}); {fits} into {self.cluster.memory / 1e9:.3g} GB",
                "bytes that a rank sends   MB inside   MB between machines   meetings",
                *(
                    f"  {part.name:18} {part.inside / 1e6:14.3f} {part.between / 1e6:21.3f} {part.meetings:10}"
                    for part in self.links
                ),
                "seconds of a step         ms",
                *(f"  {name:18} {1e3 * time:8.3f}" for name, time in self.seconds.items()),
                f"  {'of it hidden':18} {1e3 * self.hidden:8.3f}",
                *(f"    {1e3 * time:.3f}: {name}" for name, time in self.beside.items()),
                f"  {'a step':18} {1e3 * self.step_seconds:8.3f}",
                f"{self.tokens_per_second:,.0f} tokens a second",
            ]
        )


def plan_run(config: TrainConfig, cluster: Cluster, *, stand: Layout | None = None) -> RunPlan:
    """Return what a step of ``spectrain train`` with this configuration costs each rank; nothing is computed.

    ``stand``: the mesh; by default that of ``--mesh`` and ``--tensor-parallel``, or one process. What ``auto`` leaves
    open is bfloat16 on ``cuda`` and float32 elsewhere. Shape and vocabulary are those of ``--init-from`` and of the
    file of ``--tokenizer``, where they are given; a vocabulary that is trained is as large as it may get. Raises
    ``ValueError`` for a mesh that the run would refuse, for experts, whose work depends on the text, and for bounds and
    logits that are watched, which have no price here.

    >>> from spectrain.train import TrainConfig
    >>> from spectrain.train.planning import NAMED
    >>> found = plan_run(TrainConfig(depth=1, mesh="1x8", batch_size=8), NAMED["h100"])
    >>> found.fits, found.ranks
    (True, 8)
    """
    full, where = settled(config, cluster), stand or _asked(config)
    full.check_ranks(where)
    base = before_muon(full, cluster, where)
    return complete(base)


def _asked(config: TrainConfig) -> Layout:
    replicas, shards = (int(size) for size in (config.mesh or "1x1").split("x"))
    return Layout(replicas, shards, config.tensor_parallel)


def settled(config: TrainConfig, cluster: Cluster) -> TrainConfig:
    """The configuration with everything filled in that a run would measure or derive."""
    if config.moe_experts is not None:
        raise ValueError("--moe-experts must be left out of a plan: what experts do depends on the text.")
    for name in ("bound", "qk_clip"):
        config.require(getattr(config, name) is None, name, "left out of a plan, which has no price for it")
    if config.lora is not None or config.lora_from is not None:
        raise ValueError("--lora must be left out of a plan: it is of models all of whose weights are trained.")
    full, _ = inherit(config).derive()
    fast = cluster.device == "cuda"
    if full.autocast == "auto":
        full = dataclasses.replace(full, autocast="bfloat16" if fast else "off")
    if full.muon_dtype == "auto":
        full = dataclasses.replace(full, muon_dtype="bfloat16" if fast else "float32")
    return full


def before_muon(config: TrainConfig, cluster: Cluster, stand: Layout) -> RunPlan:
    """The plan without Muon's exchange and msign, which are found last: the rest says which meshes are worth it."""
    alone = stand.ranks == 1
    own = config.batch_size // stand.parts
    rows = min(own, config.micro_batch)
    micro_batches = -(-own // rows)
    sizes = _memory.sizes(whole_model(config), stand)
    work = pieces(config, rows=rows, tensor=stand.tensor, alone=alone, device=cluster.device)
    sent = traffic(config, sizes, stand, cluster, rows=rows, micro_batches=micro_batches)
    beside = besides(stand, cluster)
    times = {
        "forward": micro_batches * _there(config, work, cluster),
        "backward": micro_batches * _back(config, work, cluster),
        "gather": micro_batches * (sent.gather_root.seconds + 2 * config.depth * sent.gather_block.seconds),
        "reduce": sent.reduce_root.seconds + config.depth * sent.reduce_block.seconds,
        "shared matrices": sent.tensor.seconds,
        "hooks": micro_batches * (config.depth * beside.block + beside.rest),
        "other updates": price.updates(sizes, cluster, adamw=config.optimizer == "adamw", averages=copies(config)),
        "bookkeeping": beside.update,
        "agreement": sent.small.seconds,
    }
    gathered = repeated(sent.gather_root, micro_batches) + repeated(sent.gather_block, 2 * config.depth * micro_batches)
    summed = sent.reduce_root + repeated(sent.reduce_block, config.depth)
    staged = cluster.device == "cpu"
    moments = _memory.moments(config, sizes, stand, work, micro_batches=micro_batches, staged=staged)
    hidden = {BLOCKS: micro_batches * _hidden(config, work, sent, cluster)} if cluster.overlaps and not alone else {}
    links = [] if alone else [gathered, summed, *([sent.tensor] if stand.tensor > 1 else []), sent.small]
    return RunPlan(config, stand, cluster, moments, links, times, hidden, None)


def besides(stand: Layout, cluster: Cluster) -> Beside:
    """What a step costs beside operations, bytes and messages; of several ways to divide that of the dearest."""
    if stand.ranks == 1:
        return cluster.besides("alone")
    ways = {"tensor": stand.tensor, "shards": stand.shards, "replicas": stand.replicas}
    return cluster.besides(*(way for way, size in ways.items() if size > 1), *WAYS)


def _there(config: TrainConfig, work: Pieces, cluster: Cluster) -> float:
    start, block, finish = (price.seconds(piece.forward, cluster) for piece in work)
    return start + config.depth * block + finish


def _back(config: TrainConfig, work: Pieces, cluster: Cluster) -> float:
    start, block, finish = (price.seconds(piece.backward, cluster) for piece in work)
    again = price.seconds(work.block.forward, cluster) if config.recompute else 0.0
    return start + config.depth * (block + again) + finish


def _hidden(config: TrainConfig, work: Pieces, sent: Traffic, cluster: Cluster) -> float:
    """Seconds of a micro-batch in which weights or gradients travel while a block computes.

    ``fully_shard`` gathers block i + 1 while block i computes, and on the way back scatters gradients of the one before
    as well: of depth blocks all gathers but the first and all sums but the last lie beside depth - 1 blocks' products.
    Matrices that are shared wait for each other with nothing beside them.
    """
    others = config.depth - 1
    there = price.seconds(work.block.forward, cluster)
    back = price.seconds(work.block.backward, cluster) + (there if config.recompute else 0.0)
    gather, reduce = sent.gather_block.seconds, sent.reduce_block.seconds
    return others * (min(there, gather) + min(back, gather + reduce))


def _with_muon(base: RunPlan) -> RunPlan:
    """The plan with Muon's exchange: who computes what is decided by the figures that the run decides by."""
    config, stand, cluster = base.config, base.stand, base.cluster
    shared = stand.tensor > 1
    writers = ("*.attention.output.weight", "*.feed_forward.down.weight")
    cuts: Any = (None, 0, 0) if shared else (None, 0)
    chosen = optim.ranks.plan_shards(
        whole_model(config),
        mesh=stand[:3] if shared else stand[:2],
        cuts={**dict.fromkeys(writers, (None, 0, 1)), "*": cuts} if shared else cuts,
        machine=optim.ranks.Machine.typical(cluster.device),
        steps=config.muon_steps,
        compute_dtype=config.muon_dtype,
    )
    rate = between(cluster.msign[config.muon_dtype], config.width or 1)
    machine, across = exchanging(stand, cluster, rate)
    muon = dataclasses.replace(chosen, machine=machine, across=across)
    exchange = _exchange(muon, stand, cluster)
    space = muon.work_space + 4.0 * ITEM[config.muon_dtype] * muon.batch
    books = base.seconds["bookkeeping"] + len(chosen.works) * besides(stand, cluster).matrix
    times = {"Muon's exchange": exchange.seconds, "msign": muon.times.msign, "bookkeeping": books}
    step = {**base.moments["the step"], "step": base.moments["the step"]["step"] + space}
    return dataclasses.replace(
        base,
        moments={**base.moments, "the step": step},
        links=[*base.links, exchange] if base.ranks > 1 else [],
        seconds={**base.seconds, **times},
        beside={**base.beside, BUCKETS: muon.times.hidden} if cluster.overlaps and base.ranks > 1 else base.beside,
        muon=muon,
    )


def _exchange(muon: optim.ranks.ShardPlan, stand: Layout, cluster: Cluster) -> Part:
    """What travels for Muon: of each bucket two all-to-alls in a copy and one between copies, and all their seconds."""
    sent, far = float(muon.load.sent.mean()), float(muon.spread.sent.mean())
    far = far if stand.shards * stand.tensor > 1 else sent  # where a copy is one rank all of it goes from copy to copy
    near = sent - far
    copy, replicas = (crossing(circle(stand, which, cluster.node)) for which in ("copy", "replicas"))
    outside = near * copy + far * replicas
    meetings = (2 * (stand.shards * stand.tensor > 1) + (stand.replicas > 1)) * len(muon.course.buckets)
    times = muon.times.exchange + meetings * cluster.message
    return Part("Muon's exchange", meetings, near + far - outside, outside, times)


def complete(base: RunPlan) -> RunPlan:
    """The whole plan."""
    return base if base.config.optimizer == "adamw" else _with_muon(base)
