"""What an optimizer knows about other ranks: teams, and one plan for each set of matrices that move together."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from spectrain.optim._cost import Machine
from spectrain.optim._sharded import Member, Sharded
from spectrain.optim._spread import Group, Team, agree, sharding_of, team_of
from spectrain.optim._state import state_dtype

Ranks = tuple[int, ...]
KEPT = 16


class Company:
    """The teams of one optimizer. Made again after a copy or a restart; it holds nothing that must be saved."""

    def __init__(self, machine: Machine | None, group: Group | None) -> None:
        self.machine, self.group = machine, group
        self._teams: dict[Ranks, Team] = {}
        self._plans: dict[Any, Sharded] = {}

    def ranks(self, p: Tensor, algorithm: str) -> Ranks | None:
        """The ranks that a parameter shares with others; a plain one is shared for its msign only."""
        if not isinstance(p, DTensor) and (self.group is None or algorithm != "muon"):
            return None
        sharding = sharding_of(p, self.group)
        return None if sharding is None else sharding.ranks

    def agree(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Raise on all ranks alike where gradients are missing on some of them, or not finite anywhere."""
        shared: dict[Ranks, list[tuple[str, Tensor, bool]]] = {}
        for group in groups:
            for name, p in zip(group["param_names"], group["params"], strict=True):
                ranks = self.ranks(p, group["algorithm"])
                if ranks is not None:
                    shared.setdefault(ranks, []).append((name, p, group["check_finite"]))
        for ranks, entries in shared.items():
            for finite in dict.fromkeys(entry[2] for entry in entries):
                chosen = [(name, p) for name, p, check in entries if check == finite]
                agree(
                    self.team(ranks, chosen[0][1]), *zip(*((n, p.grad) for n, p in chosen), strict=True), finite=finite
                )

    def team(self, ranks: Ranks, p: Tensor) -> Team:
        """The team of these ranks; the first call on each of them is collective."""
        if ranks not in self._teams:
            sharding = sharding_of(p, self.group)
            assert sharding is not None
            self._teams[ranks] = team_of(sharding, p, self.group)
        return self._teams[ranks]

    def plans(
        self, names: Sequence[str], params: Sequence[Tensor], groups: Sequence[dict[str, Any]]
    ) -> list[tuple[Sharded, list[int]]]:
        """Return the plan of each team with the indices of its parameters; the others are on this rank alone."""
        members: dict[Ranks, list[int]] = {}
        for i, (p, group) in enumerate(zip(params, groups, strict=True)):
            ranks = self.ranks(p, group["algorithm"])
            if ranks is not None:
                members.setdefault(ranks, []).append(i)
        return [
            (
                self._plan(ranks, [names[i] for i in found], [params[i] for i in found], [groups[i] for i in found]),
                found,
            )
            for ranks, found in members.items()
        ]

    def _plan(self, ranks: Ranks, names: list[str], params: list[Tensor], groups: list[dict[str, Any]]) -> Sharded:
        key = (ranks, *((id(p), *(str(g.get(k)) for k in _DECIDING)) for p, g in zip(params, groups, strict=True)))
        if key not in self._plans:
            if len(self._plans) >= KEPT:  # parameters that come and go, as with frozen layers
                self._plans.clear()
            machine = self.machine or Machine.typical(params[0].device.type)
            members = [self._member(*entry) for entry in zip(names, params, groups, strict=True)]
            self._plans[key] = Sharded(self.team(ranks, params[0]), members, machine)
        return self._plans[key]

    def _member(self, name: str, p: Tensor, group: dict[str, Any]) -> Member:
        sharding = sharding_of(p, self.group)
        assert sharding is not None
        return Member(name, p.shape, group, sharding, state_dtype(p), p.device)


_DECIDING = ("matrix", "tol", "steps", "schedule", "compute_dtype", "scale", "algorithm")


def distributed(group: Group | None) -> bool:
    """Whether there are other ranks at all; raises ValueError for a group where there are none."""
    running = dist.is_available() and dist.is_initialized()
    if group is not None and not running:
        raise ValueError("Muon: process_group= needs torch.distributed.init_process_group first.")
    return running
