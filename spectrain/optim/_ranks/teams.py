"""What an optimizer knows about other ranks: teams, and one plan for each set of matrices that move together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from spectrain._arrays.spread import is_spread
from spectrain.optim._layout.spread import Group, Team, local, sharding_of, team_of
from spectrain.optim._ranks.agree import Facts, agree, check_copies, settings_in_words
from spectrain.optim._ranks.cost import Machine
from spectrain.optim._ranks.sharded import Member, Sharded
from spectrain.optim._step.settings import Settings
from spectrain.optim._step.state import state_dtype
from spectrain.optim._step.update import dtype_of

Ranks = tuple[int, ...]
KEPT = 16


class Entry(NamedTuple):
    """A parameter of a team, and the number of its group."""

    group: int
    name: str
    p: Tensor


class Company:
    """The teams of one optimizer. Made again after a copy or a restart; it holds nothing that must be saved."""

    def __init__(self, machine: Machine | None, group: Group | None) -> None:
        self.machine, self.group = machine, group
        self._teams: dict[Ranks, Team] = {}
        self._plans: dict[Any, Sharded] = {}
        self._described: dict[Ranks, tuple[Any, list[str]]] = {}
        self._verified: set[Ranks] = set()

    def ranks(self, p: Tensor, algorithm: str) -> Ranks | None:
        """The ranks that a parameter shares with others; a plain one is shared for its msign only."""
        if not is_spread(p) and (self.group is None or algorithm != "muon"):
            return None
        sharding = sharding_of(p, self.group)
        return None if sharding is None else sharding.ranks

    def agree(self, groups: Sequence[dict[str, Any]], settings: Sequence[Settings] | None, trouble: str) -> None:
        """Raise ValueError on all ranks alike where they do not do the same, or one has a reason not to step.

        ``trouble`` is this rank's reason, or empty; ``settings`` those of the groups, None where they make no sense.
        Teams in one order everywhere, so that no two wait for each other.
        """
        for ranks, entries in sorted(self._by_team(groups).items()):
            found = self._find_trouble(ranks, entries, groups, settings, trouble)
            trouble = found or trouble
        if trouble:
            raise ValueError(trouble)

    def _by_team(self, groups: Sequence[dict[str, Any]]) -> dict[Ranks, list[Entry]]:
        """The parameters of each team; of a process group all plain ones, since its ranks hold copies of them."""
        shared: dict[Ranks, list[Entry]] = {}
        if self.group is not None:
            shared[tuple(dist.get_process_group_ranks(self.group))] = []
        for i, group in enumerate(groups):
            for name, p in zip(group["param_names"], group["params"], strict=True):
                sharding = sharding_of(p, self.group)
                if sharding is not None:
                    shared.setdefault(sharding.ranks, []).append(Entry(i, name, p))
        return shared

    def _find_trouble(
        self,
        ranks: Ranks,
        entries: list[Entry],
        groups: Sequence[dict[str, Any]],
        settings: Sequence[Settings] | None,
        trouble: str,
    ) -> str:
        """What keeps one team from a step; empty: nothing."""
        team = self.team(ranks, next((entry.p for entry in entries), None))
        key = [(entry.group, entry.name, id(entry.p), entry.p.dtype) for entry in entries]
        known = self._described.get(ranks)
        if known is None or known[0] != key:
            known = self._described[ranks] = (key, [self._words(entry, groups[entry.group]) for entry in entries])
            self._verified.discard(ranks)
        facts = Facts(known[1], self._settings(entries, groups, settings))
        missing = [entry.name for entry in entries if entry.p.grad is None]
        # ``new`` on any rank is new on all: copies are compared by further reductions, and a rank whose optimizer was
        # copied or loaded since does not know that the others have seen it before.
        found, new = agree(team, facts, missing, trouble=trouble, new=ranks not in self._verified)
        if new and not found:
            plain = [entry for entry in entries if not is_spread(entry.p)]
            found = check_copies(team, [entry.name for entry in plain], [entry.p for entry in plain])
        if not found:
            self._verified.add(ranks)
        return found

    def _words(self, entry: Entry, group: dict[str, Any]) -> str:
        """A parameter as all ranks of its team have to see it."""
        sharding = sharding_of(entry.p, self.group)
        assert sharding is not None
        words = f"{entry.name} {tuple(entry.p.shape)} {entry.p.dtype} in group {entry.group}"
        return words if sharding.cuts == (None,) else f"{words}, mesh {sharding.mesh} cuts {sharding.cuts}"

    def _settings(
        self, entries: list[Entry], groups: Sequence[dict[str, Any]], settings: Sequence[Settings] | None
    ) -> dict[str, str]:
        """What the groups of a team say, the dtype in which msign would iterate here, and the machine."""
        found = {"machine": str(self.machine)}
        for i in dict.fromkeys(entry.group for entry in entries):
            first = next(entry for entry in entries if entry.group == i)
            said = None if settings is None else settings[i]
            words = settings_in_words(groups[i], said)
            if said is not None and said.algorithm == "muon":
                like = torch.empty(0, dtype=state_dtype(first.p), device=local(first.p).device)
                words["dtype of msign"] = str(dtype_of(said, like))
            found |= {f"{key} of group {i} ({first.name})": value for key, value in words.items()}
        return found

    def team(self, ranks: Ranks, p: Tensor | None) -> Team:
        """The team of these ranks, of which ``p`` is a parameter; the first call on each of them is collective."""
        if p is None:  # the process group, on a rank without plain parameters
            return Team(ranks, self.group, torch.get_default_device())
        if ranks not in self._teams:
            sharding = sharding_of(p, self.group)
            assert sharding is not None
            self._teams[ranks] = team_of(sharding, p, self.group)
        return self._teams[ranks]

    def plans(
        self, names: Sequence[str], params: Sequence[Tensor], settings: Sequence[Settings]
    ) -> list[tuple[Sharded, list[int]]]:
        """Return the plan of each team with the indices of its parameters; the others are on this rank alone."""
        members: dict[Ranks, list[int]] = {}
        for i, (p, said) in enumerate(zip(params, settings, strict=True)):
            ranks = self.ranks(p, said.algorithm)
            if ranks is not None:
                members.setdefault(ranks, []).append(i)
        return [
            (
                self._plan(ranks, [names[i] for i in found], [params[i] for i in found], [settings[i] for i in found]),
                found,
            )
            for ranks, found in sorted(members.items())  # one order on all ranks
        ]

    def _plan(self, ranks: Ranks, names: list[str], params: list[Tensor], settings: list[Settings]) -> Sharded:
        own = ((id(p), p.shape, p.dtype, p.device) for p in params)  # a freed id may come again
        key = (ranks, *zip(own, ((s.algorithm, s.matrix, s.scale, s.exactness) for s in settings), strict=True))
        if key not in self._plans:
            if len(self._plans) >= KEPT:  # parameters that come and go, as with frozen layers
                self._plans.clear()
            machine = self.machine or Machine.typical(params[0].device.type)
            members = [self._member(*entry) for entry in zip(names, params, settings, strict=True)]
            self._plans[key] = Sharded(self.team(ranks, params[0]), members, machine)
        return self._plans[key]

    def _member(self, name: str, p: Tensor, settings: Settings) -> Member:
        sharding = sharding_of(p, self.group)
        assert sharding is not None
        return Member(name, p.shape, settings, sharding, state_dtype(p), p.device)


def has_ranks(group: Group | None) -> bool:
    """Whether there are other ranks at all; raises ValueError for a group where there are none."""
    running = dist.is_available() and dist.is_initialized()
    if group is not None and not running:
        raise ValueError("Muon: process_group= needs torch.distributed.init_process_group first.")
    return running
