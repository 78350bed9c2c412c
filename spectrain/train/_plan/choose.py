"""All meshes of so many ranks, and the one to take."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spectrain.train._mesh.layout import Layout
from spectrain.train._plan.cluster import Cluster
from spectrain.train._plan.plan import RunPlan, before_muon, complete, settled
from spectrain.train.config import TrainConfig


@dataclass(frozen=True)
class Choice:
    """One mesh among all of some ranks: its plan, or why there is none."""

    stand: Layout
    plan: RunPlan | None
    why: str

    def __str__(self) -> str:
        mesh = f"--mesh {self.stand.replicas}x{self.stand.shards}"
        mesh += f" --tensor-parallel {self.stand.tensor}" if self.stand.tensor > 1 else ""
        if self.plan is None:
            return f"{mesh:36} {self.why}"
        size, time = self.plan.bytes / 1e9, 1e3 * self.plan.step_seconds
        return f"{mesh:36} {size:8.2f} GB {time:10.1f} ms{self.why}"


def choose_mesh(config: TrainConfig, cluster: Cluster, *, ranks: int) -> list[Choice]:
    """Return all meshes of so many ranks, first the one to take: of those that fit the one whose step is shortest.

    Meshes whose step is already longer without Muon's exchange than the best one's with it are not planned further.
    Raises ``ValueError`` where no mesh is possible at all, with the reason of the first.
    """
    full = settled(config, cluster)
    refused, bases = [], []
    for stand in layouts(ranks, most=cluster.node):
        try:
            full.check_ranks(stand)
        except ValueError as error:
            refused.append(Choice(stand, None, str(error)))
        else:
            bases.append(before_muon(full, cluster, stand))
    if not bases:
        raise ValueError(f"none of the meshes of {ranks} ranks is possible: {refused[0].why}")
    return [*_ranked(bases), *refused]


def _ranked(bases: Sequence[RunPlan]) -> list[Choice]:
    best, found = math.inf, []
    for base in sorted(bases, key=lambda base: base.step_seconds):
        plan = base if not base.fits or base.step_seconds >= best else complete(base)
        if not plan.fits:
            why, order = "  does not fit", (2, plan.bytes)
        elif plan is not base or plan.config.optimizer == "adamw":
            best, why, order = min(best, plan.step_seconds), "", (0, plan.step_seconds)
        else:
            why, order = "  without Muon, longer already", (1, plan.step_seconds)
        found.append((order, Choice(plan.stand, plan, why)))
    return [choice for _, choice in sorted(found, key=lambda pair: pair[0])]


def layouts(ranks: int, *, most: int) -> Iterator[Layout]:
    """All meshes of so many ranks whose shared matrices stay in one machine of ``most``.

    >>> [stand[:3] for stand in layouts(4, most=2)]
    [(1, 4, 1), (2, 2, 1), (4, 1, 1), (1, 2, 2), (2, 1, 2)]
    """
    for tensor in (t for t in range(1, most + 1) if ranks % t == 0):
        parts = ranks // tensor
        yield from (Layout(r, parts // r, tensor) for r in range(1, parts + 1) if parts % r == 0)
