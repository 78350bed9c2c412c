"""Bounds on singular values of matrices that no rank has whole: of each one rank is the owner, and computes.

Before or after the optimizer's step every matrix goes to its owner, which does what ``optim.Muon`` does in one process;
what it changed goes back. A rank sends each entry that it holds once, and twice in the worst case: 4 bytes a weight.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from spectrain.optim.internal import Route, Settings, Team, begin, local, post_clip, pre_decay, sharding_of

Box = tuple[slice, ...]


class Spread(NamedTuple):
    """A matrix, or several in one parameter, and what each rank holds of it."""

    p: Tensor
    settings: Settings
    owner: int
    boxes: dict[int, Box]
    givers: list[int]
    """Ranks that together hold all of it, nobody a part twice."""

    @property
    def holders(self) -> list[int]:
        """Ranks that hold any of it."""
        return [rank for rank, box in self.boxes.items() if _size(box)]


class Bounds:
    """What ``bound`` and ``bound_by`` of ``optim.Muon`` are, for an optimizer of several ranks.

    It acts at each step of the optimizer, whose own settings say nothing of a bound: also not those of a checkpoint of
    one process. The owner has all of its matrices whole at once, a share of them as large as that of any rank.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, bound: float, by: str) -> None:
        self._optimizer, self._bound, self._by = optimizer, bound, by
        self._drop()
        optimizer.register_load_state_dict_post_hook(self._drop)
        if by == "pre-decay":
            optimizer.register_step_pre_hook(self._hold)
        else:
            optimizer.register_step_post_hook(self._hold)

    def _drop(self, *_: object) -> None:
        for group in self._optimizer.param_groups:
            group.pop("bound", None)
            group.pop("bound_by", None)

    @torch.no_grad()
    def _hold(self, *_: object) -> None:
        """Bring all matrices within the bound."""
        matrices = list(self._matrices())
        if not matrices:
            return
        team = Team(tuple(range(dist.get_world_size())), dist.group.WORLD, local(matrices[0].p).device)
        wholes = _brought(matrices, team)
        changed = torch.zeros(len(matrices), dtype=torch.int64, device=team.device)
        for n, W in wholes.items():
            before = W.clone()
            (pre_decay if self._by == "pre-decay" else post_clip)([W], matrices[n].settings)
            changed[n] = not torch.equal(before, W)
        moved = team.reduce(changed, "sum").tolist()
        _taken_back({n: matrix for n, matrix in enumerate(matrices) if moved[n]}, wholes, team)

    def _matrices(self) -> Iterator[Spread]:
        """Those of msign, each to the rank that has least so far, the largest first: the same on every rank."""
        found = [
            (p, dataclasses.replace(Settings.of(group), bound=self._bound, bound_by=self._by))
            for group in self._optimizer.param_groups
            if group.get("algorithm") == "muon"
            for p in group["params"]
        ]
        load = [0] * dist.get_world_size()
        for p, settings in sorted(found, key=lambda pair: -pair[0].numel()):
            owner = min(range(len(load)), key=lambda rank: load[rank])
            load[owner] += p.numel()
            yield _spread(p, settings, owner)


def _spread(p: Tensor, settings: Settings, owner: int) -> Spread:
    lies = sharding_of(p, None)
    assert lies is not None, "a parameter of several ranks is a DTensor"
    boxes = {
        rank: tuple(slice(*interval) for interval in box)
        for rank, box in zip(lies.ranks, lies.boxes(p.shape), strict=True)
    }
    copies = dict(zip(lies.ranks, lies.copies(), strict=True))
    givers = [rank for rank in lies.ranks if copies[rank] == copies[owner] and _size(boxes[rank])]
    return Spread(p, settings, owner, boxes, givers)


def _size(box: Box) -> int:
    size = 1
    for interval in box:
        size *= interval.stop - interval.start
    return size


def _brought(matrices: list[Spread], team: Team) -> dict[int, Tensor]:
    """The whole matrices that this rank owns, by number."""
    routes = [
        Route(giver, matrix.owner, n, _size(matrix.boxes[giver]))
        for n, matrix in enumerate(matrices)
        for giver in matrix.givers
    ]
    landing = begin(team, routes, lambda n, _: local(matrices[n].p), local(matrices[0].p))
    wholes = {n: local(m.p).new_empty(m.p.shape) for n, m in enumerate(matrices) if m.owner == team.position}
    for (giver, n), part in landing.wait().items():
        target = wholes[n][matrices[n].boxes[giver]]
        target.copy_(part.view_as(target))
    return wholes


def _taken_back(matrices: dict[int, Spread], wholes: dict[int, Tensor], team: Team) -> None:
    """Put what the owners have changed into the parts of all ranks."""
    if not matrices:
        return
    routes = [
        Route(matrix.owner, holder, n, _size(matrix.boxes[holder]))
        for n, matrix in matrices.items()
        for holder in matrix.holders
    ]
    like = local(next(iter(matrices.values())).p)
    for (_, n), part in begin(team, routes, lambda n, j: wholes[n][matrices[n].boxes[j]], like).wait().items():
        held = local(matrices[n].p)
        held.copy_(part.view_as(held))
