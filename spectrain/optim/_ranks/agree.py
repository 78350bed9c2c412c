"""Agreement of ranks before a step: one reduction of six integers, and words for what differs."""

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from spectrain.optim._layout.spread import Team, local
from spectrain.optim._step.settings import Settings

SHOWN = 5  # differences that a message lists
SETTINGS = tuple(field.name for field in fields(Settings) if field.name != "matrix")


class Facts(NamedTuple):
    """What a rank says of a team: words for each parameter in order, for each setting, and for all together."""

    parameters: list[str]
    settings: dict[str, str]

    @property
    def digest(self) -> int:
        """62 bits of a hash of everything."""
        text = repr((self.parameters, sorted(self.settings.items())))
        # 62 bits: it is sent with its negative, and both have to be integers of 64.
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2


def settings_in_words(group: dict[str, Any], settings: Settings | None) -> dict[str, str]:
    """What of a group has to be the same on all ranks, as text; equal numbers have equal text.

    Of the dictionary as it stands, since ``settings`` is None where it makes no sense on this rank. What names and
    counts parameters is compared by itself, and keys of the caller's own are not.
    """
    found = {name: _text(group[name]) for name in SETTINGS if name in group}
    return found | {"matrix": str(group.get("matrix") if settings is None else settings.matrix)}


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_text, value))})"
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return repr(float(value)) if plain else str(value)


def agree(team: Team, facts: Facts, missing: Sequence[str], *, trouble: str, new: bool) -> tuple[str, bool]:
    """Return what keeps these ranks from a step, in words that are the same on all of them ("": nothing).

    ``missing``: the parameters without gradient here. ``trouble``: what this rank would raise. Also whether ``new`` was
    said on any rank. Cost: one reduction of six integers, read once; more travels only where something is wrong.
    Without it a rank that raises, or has other parameters or settings than the rest, would leave the others waiting
    for ever, or give and take parts of the wrong matrices.
    """
    # The largest x and the largest -x of all ranks: x is the same everywhere where one is minus the other. So that one
    # reduction answers all three questions. All ranks see the same six numbers and take the same branch below, where
    # further collective calls are made.
    gaps = Facts(list(missing), {}).digest
    said = [facts.digest, -facts.digest, gaps, -gaps, int(bool(trouble)), int(new)]
    device = team.device
    top = team.reduce(torch.tensor(said, dtype=torch.int64, device=device), "max").tolist()
    if top[0] != -top[1]:
        return _difference(team, facts), False
    if top[4]:
        return _troubles(team, trouble), False
    if top[2] != -top[3]:
        return _gaps(team, missing), False
    return "", bool(top[5])


def agreed_trouble(team: Team, trouble: str) -> str:
    """Return what any rank of a team has against going on, in words that are the same on all; empty: nothing."""
    said = torch.tensor([int(bool(trouble))], dtype=torch.int64, device=team.device)
    return _troubles(team, trouble) if bool(team.reduce(said, "max")) else ""


def _everyones(team: Team, own: Any) -> dict[int, Any]:
    """What every rank says, by rank."""
    found: list[Any] = [None] * len(team.ranks)
    dist.all_gather_object(found, own, group=team.group)
    ranks = dist.get_process_group_ranks(team.group)
    return dict(sorted(zip(ranks, found, strict=True)))


def _difference(team: Team, facts: Facts) -> str:
    """The first parameters that differ, else the first settings."""
    said = _everyones(team, facts)
    longest = max(len(other.parameters) for other in said.values())
    lines = [
        _line(f"parameter {i}", {rank: _at(other.parameters, i) for rank, other in said.items()})
        for i in range(longest)
    ]
    if not any(lines):
        keys = dict.fromkeys(key for other in said.values() for key in other.settings)
        lines = [_line(key, {rank: other.settings.get(key, "none") for rank, other in said.items()}) for key in keys]
    lines = [line for line in lines if line]
    more = [f"... {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return (
        "Muon: the ranks do not do the same. Nothing was changed. Give every rank the same parameters in the same "
        "order and the same settings:\n  " + "\n  ".join(lines[:SHOWN] + more)
    )


def _at(items: Sequence[str], i: int) -> str:
    return items[i] if i < len(items) else "none"


def _line(what: str, said: dict[int, str]) -> str:
    """``what: 0.1 on rank 0, 0.2 on ranks 1, 2``; empty where all say the same."""
    values = dict.fromkeys(said.values())
    if len(values) == 1:
        return ""
    return f"{what}: " + "; ".join(f"{_short(value)} {_which_ranks(said, value)}" for value in values)


def _short(value: str) -> str:
    """Long texts, as of schedules and tables, by their hash."""
    return value if len(value) <= 200 else f"{value[:40]}... ({hashlib.sha256(value.encode()).hexdigest()[:12]})"


def _which_ranks(said: dict[int, Any], value: Any) -> str:
    ranks = [str(rank) for rank, other in said.items() if other == value]
    return f"on rank{'s' if len(ranks) > 1 else ''} {', '.join(ranks)}"


def _troubles(team: Team, trouble: str) -> str:
    said = {rank: text for rank, text in _everyones(team, trouble).items() if text}
    return "\n".join(f"{text} ({_which_ranks(said, text)})" for text in dict.fromkeys(said.values()))


def _gaps(team: Team, missing: Sequence[str]) -> str:
    said = _everyones(team, list(missing))
    names = dict.fromkeys(name for other in said.values() for name in other)
    lines = [_line(name, {rank: "none" if name in other else "one" for rank, other in said.items()}) for name in names]
    split = [line for line in lines if line]
    return (
        f"Muon: a gradient on some ranks and none on others: {', '.join(split[:SHOWN])}. Nothing was changed. Let "
        "every rank use the same parameters in a step (multiply what is unused by zero)."
    )


def check_copies(team: Team, names: Sequence[str], params: Sequence[Tensor]) -> str:
    """Words for parameters that every rank should hold a copy of, and holds another one; or another gradient.

    The bits of the weights have to be equal, the largest entries of the gradients to rounding. Two reductions of two
    numbers a parameter.
    """
    if not params:
        return ""
    bits = torch.stack([_bits(p) for p in params]).to(team.device)
    spread = team.reduce(torch.stack([bits, -bits]), "max").sum(0)
    other = [name for name, gap in zip(names, spread.tolist(), strict=True) if gap]
    if other:
        return (
            f"Muon: ranks hold other weights of {', '.join(other[:SHOWN])}. Nothing was changed. process_group= is for "
            "ranks that hold the same parameters, in the same order: load or broadcast the weights first."
        )
    sizes = torch.stack([_largest(p) for p in params]).to(team.device)
    top, bottom = team.reduce(torch.stack([sizes, -sizes]), "max")
    slack = [4 * torch.finfo(p.dtype).eps for p in params]
    apart = (top + bottom > top * torch.tensor(slack, dtype=top.dtype, device=top.device)).tolist()
    other = [name for name, far in zip(names, apart, strict=True) if far]
    if not other:
        return ""
    return (
        f"Muon: ranks have other gradients of {', '.join(other[:SHOWN])}. Nothing was changed. Average them over the "
        "ranks before the step, as DistributedDataParallel does."
    )


def _bits(p: Tensor) -> Tensor:
    """The sum of a tensor's entries read as integers."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[p.element_size()]
    return local(p.detach()).contiguous().view(whole).sum(dtype=torch.int64)


def _largest(p: Tensor) -> Tensor:
    """The largest entry of the gradient, 0 without one."""
    if p.grad is None:
        return torch.zeros((), dtype=torch.float64, device=p.device)
    return local(p.grad).abs().amax().to(torch.float64)
