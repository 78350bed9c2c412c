"""What a sharded step will cost, before there is a single process: bytes, operations and balance of every rank."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from spectrain.optim._layout.parts import Sharding
from spectrain.optim._ranks.buckets import Course, Times, timeline, total_phases, work_space
from spectrain.optim._ranks.cost import METHODS, Choice, Load, Machine, Work, load, no_load, phases, seconds
from spectrain.optim._ranks.sharded import Member, share
from spectrain.optim._routing.route import route
from spectrain.optim._step.settings import Settings
from spectrain.optim._step.state import state_dtype


@dataclass(frozen=True)
class ShardPlan:
    """Who orthogonalises which matrix, and what that costs each rank; ``print`` it.

    ``rows`` describe matrices, ``ranks`` the ranks: plain dictionaries, ready for JSON. ``across``: bandwidth and
    latency between copies of a matrix, where they are not those of ``machine``.
    """

    works: list[Work]
    choices: list[Choice]
    course: Course
    sharding: Sharding
    machine: Machine
    across: Machine | None = None

    @property
    def load(self) -> Load:
        """Operations, bytes sent and bytes received of each rank in one step, without AdamW's."""
        total = no_load(len(self.sharding.ranks))
        for work, choice in zip(self.works, self.choices, strict=True):
            total += load(work, choice)
        return total

    @property
    def spread(self) -> Load:
        """Of it what goes from copy to copy."""
        found = [phases(work, choice) for work, choice in zip(self.works, self.choices, strict=True)]
        return total_phases(found, self.works).spread if found else no_load(len(self.sharding.ranks))

    @property
    def times(self) -> Times:
        """Estimated seconds of msign on the slowest rank, of what travels, and of what of it lies beside msign."""
        return timeline(self.works, self.choices, self.course, self.machine, self.across)

    @property
    def seconds(self) -> float:
        """Estimated time until the last rank is done: while a bucket is computed the next and the last one travel."""
        return self.times.total

    @property
    def work_space(self) -> float:
        """Most bytes that a rank holds at once of buckets on their way, and of one that has come and its msign."""
        return work_space(self.works, self.choices, self.course)

    @property
    def balance(self) -> float:
        """Mean over the largest number of operations of a rank; 1 is perfect."""
        flops = self.load.flops
        return float(flops.mean() / flops.max()) if flops.any() else 1.0

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One entry for each logical matrix."""
        return [
            {
                "name": work.name,
                "shape": list(work.shape),
                "method": "local" if not load(work, choice).sent.any() else choice.method,
                "owner": None if choice.owner is None else self.sharding.ranks[choice.owner],
                "flops": work.flops,
                "bytes": float(load(work, choice).sent.sum()),
            }
            for work, choice in zip(self.works, self.choices, strict=True)
        ]

    @property
    def ranks(self) -> list[dict[str, Any]]:
        """One entry for each rank."""
        total = self.load
        spent = total.seconds(self.machine)
        return [
            {
                "rank": rank,
                "matrices": sum(choice.owner == i for choice in self.choices),
                "flops": float(total.flops[i]),
                "sent": float(total.sent[i]),
                "received": float(total.received[i]),
                "seconds": float(spent[i]),
            }
            for i, rank in enumerate(self.sharding.ranks)
        ]

    @property
    def batch(self) -> int:
        """Most entries of matrices from other ranks in one call of msign."""
        every = [batch.numbers for bucket in self.course.buckets for batch in bucket]
        return max((sum(math.prod(self.works[n].shape) for n in numbers) for numbers in every), default=0)

    def alternatives(self) -> dict[str, float]:
        """Seconds of the chosen plan, of the same in one bucket, and of that in which every rank computes everything
        it holds a part of."""
        replicated = [Choice("replicated")] * len(self.works)
        once = self.course._replace(buckets=[[batch for bucket in self.course.buckets for batch in bucket]])
        return {
            "this plan": self.seconds,
            "in one bucket": timeline(self.works, self.choices, once, self.machine, self.across).total,
            "all replicated": seconds(self.works, replicated, self.machine),
        }

    def __str__(self) -> str:
        counts = {name: sum(row["method"] == name for row in self.rows) for name in ("local", *METHODS)}
        ways = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        lines = [
            f"{len(self.works)} matrices on {len(self.sharding.ranks)} ranks: {ways}",
            "rank  owned      GFLOP   MB sent  MB received   ms",
            *(
                f"{r['rank']:4}  {r['matrices']:5}  {r['flops'] / 1e9:9.3f}  {r['sent'] / 1e6:8.3f}  "
                f"{r['received'] / 1e6:11.3f}  {1e3 * r['seconds']:.3f}"
                for r in self.ranks
            ),
            f"balance of operations (mean / largest): {self.balance:.3f}",
            f"buckets: {len(self.course.buckets)}, work space {self.work_space / 1e6:.3f} MB",
            *(f"{name}: {1e3 * time:.3f} ms" for name, time in self.alternatives().items()),
        ]
        return "\n".join(lines)


def plan_shards(
    model: nn.Module,
    *,
    mesh: Sequence[int],
    cuts: Sequence[int | None] | Mapping[str, Sequence[int | None]] | None = None,
    machine: Machine | None = None,
    steps: int = 5,
    compute_dtype: str = "bfloat16",
    rules: Mapping[str, Any] | None = None,
) -> ShardPlan:
    """Return how ``Muon(model)`` would share its matrices over a mesh; nothing is computed and no process started.

    ``mesh``: the numbers of ranks along its dimensions. ``cuts``: the tensor dimension that each of them shards, None
    for copies; by default the last mesh dimension shards dimension 0 and the others hold copies, which is
    ``fully_shard`` on a mesh of one or two dimensions. Where parameters lie differently it is a mapping from patterns
    of their names, of which the first that fits counts. ``machine``: figures of the cost model, by default those of
    ``Machine.typical("cuda")``. The model may be on the meta device. Raises ValueError for a mesh that is none, and for
    a parameter that no pattern fits.

    >>> model = nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 64), nn.Linear(64, 10))
    >>> found = plan_shards(model, mesh=(4,), machine=Machine(flops=1e9, bandwidth=1e9, latency=0.0))
    >>> [(row["name"], row["method"]) for row in found.rows]
    [('0.weight', 'owner'), ('1.weight', 'owner')]
    """
    mesh = tuple(mesh)
    patterns = cuts if isinstance(cuts, Mapping) else {"*": (None,) * (len(mesh) - 1) + (0,) if cuts is None else cuts}
    if not mesh or any(size < 1 for size in mesh) or any(len(places) != len(mesh) for places in patterns.values()):
        raise ValueError(f"plan_shards: mesh needs positive sizes and one cut each, got mesh={mesh}, cuts={cuts}.")
    ranks = tuple(range(torch.Size(mesh).numel()))
    shardings = {pattern: Sharding(ranks, mesh, tuple(places)) for pattern, places in patterns.items()}
    asked = {"steps": steps, "compute_dtype": compute_dtype}
    members = [
        Member(name, p.shape, said, _of(name, shardings), state_dtype(p), torch.device("cpu"))
        for group in route(model, rules=rules)
        if group["algorithm"] == "muon"
        for said in [Settings.of({**group, **asked})]
        for name, p in group["params"]
    ]
    machine = machine or Machine.typical("cuda")
    return ShardPlan(*share(members, machine), next(iter(shardings.values())), machine)


def _of(name: str, shardings: Mapping[str, Sharding]) -> Sharding:
    """How a parameter lies."""
    found = next((sharding for pattern, sharding in shardings.items() if fnmatchcase(name, pattern)), None)
    if found is None:
        raise ValueError(f"plan_shards: cuts says nothing of {name}; its patterns are {', '.join(shardings)}.")
    return found
