"""The ranks of a run: who speaks, what all of them know, and which part of the work is whose."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int64
from torch.distributed.device_mesh import DeviceMesh

from spectrain.train._mesh.failing import Elsewhere, exit_code, of_rank, shared
from spectrain.train._mesh.layout import Layout

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

Value = TypeVar("Value")
Batch = tuple[torch.Tensor, torch.Tensor]
IGNORED = -100


class Ranks:
    """One rank among ``world``, in the group ``group``. Of one process nothing is ever sent.

    What is gathered comes in the order of the ranks, and sums are rounded once: all ranks have the same bits, and the
    same number of ranks has them again.
    """

    def __init__(
        self,
        rank: int = 0,
        layout: Layout | None = None,
        *,
        group: Any = None,
        mesh: DeviceMesh | None = None,
        experts: DeviceMesh | None = None,
    ) -> None:
        self.rank, self.layout, self.group = rank, layout or Layout(), group
        self.mesh, self.experts = mesh, experts
        self.aside: Ranks = self
        """The same ranks on a group of its own: what is sent there may cross what is sent here."""

    @property
    def world(self) -> int:
        """How many there are."""
        return self.layout.ranks

    @property
    def alone(self) -> bool:
        """Whether this process is the whole run."""
        return self.world == 1

    @property
    def first(self) -> bool:
        """Whether this rank writes, prints and reports."""
        return self.rank == 0

    @property
    def part(self) -> int:
        """Which part of a batch is this rank's; those that share matrices have the same one."""
        return self.rank // self.layout.tensor

    def gather(self, own: Value) -> list[Value]:
        """What every rank says, by rank."""
        if self.alone:
            return [own]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, own, group=self.group)
        return found

    def tell(self, own: Value) -> Value:
        """What rank 0 says."""
        if self.alone:
            return own
        said = [own]
        dist.broadcast_object_list(said, src=0, group=self.group)
        return said[0]

    def by_first(self, call: Callable[[], Value]) -> Value:
        """What ``call`` gives on rank 0, on every rank; where it raises there, all ranks end."""
        if self.alone:
            return call()
        if not self.first:
            said: Any = self.tell(None)
            if said[1]:
                raise Elsewhere(said[1])
            return said[0]
        try:
            answer = (call(), 0)
        except Exception as error:
            self.tell((None, exit_code(error)))
            raise shared(error) from None
        return self.tell(answer)[0]

    def by_all(self, call: Callable[[], Value]) -> Value:
        """What ``call`` gives here; where it raises on any rank, all ranks end, and the first of those says why."""
        if self.alone:
            return call()
        try:
            found, failed = [call()], None
        except Exception as error:  # whatever it is, the others have to know before anybody leaves
            found, failed = [], error
        codes = self.gather(0 if failed is None else exit_code(failed))
        speaker = next((rank for rank, code in enumerate(codes) if code), None)
        if speaker is None:
            return found[0]
        if failed is None or self.rank != speaker:
            raise Elsewhere(codes[speaker])
        raise shared(failed) if all(codes) else of_rank(self.rank, failed)

    def same(self, what: str, own: str, *, cure: str) -> None:
        """Refuse to go on where ``own`` differs between ranks: a ``ValueError`` that says which are apart."""
        said = self.gather(own)
        if len({*said}) > 1:
            values = {value: [rank for rank, other in enumerate(said) if other == value] for value in said}
            words = "; ".join(f"{value} on {name_ranks(ranks)}" for value, ranks in values.items())
            raise shared(ValueError(f"the ranks have different {what}: {words}. {cure}"))

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds on some rank."""
        return flag if self.alone else bool(self._table([float(flag)]).any())

    def sums(self, *own: float | int) -> list[float | int]:
        """The sums over the parts of a batch, each rounded once."""
        if self.alone:
            return list(own)
        return [math.fsum(column) for column in self._table(own)[:: self.layout.tensor].T.tolist()]

    def add(self, *counts: torch.Tensor) -> None:
        """Put the sums over the parts of a batch into some counts."""
        if not self.alone:
            assert self.layout.tensor == 1
            for count in counts:
                dist.all_reduce(count, group=self.group)

    def most(self, own: torch.Tensor) -> torch.Tensor:
        """The largest of each number over the parts of a batch, a row for each rank of those that share matrices."""
        if self.alone:
            return own[None]
        table = self._table(own.tolist()).view(self.layout.parts, self.layout.tensor, -1)
        return table.amax(0).to(own.dtype)

    def _table(self, own: Iterable[float | int]) -> torch.Tensor:
        """Numbers of every rank, a row each."""
        mine = torch.tensor([*own], dtype=torch.float64)
        if self.alone:
            return mine[None]
        table = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(table, mine, group=self.group)
        return torch.stack(table)

    def share(self, numbers: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " part"]:
        """This rank's of the rows of a batch."""
        size = len(numbers) // self.layout.parts
        return numbers[self.part * size : (self.part + 1) * size]

    def deal(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """This rank's of some batches, one after the other; a rank that gets none has one that does not count.

        A forward pass of a sharded model is a meeting of all ranks: everyone has to make as many.
        """
        hand: list[Batch] = []
        for batch in batches:
            hand.append(batch)
            if len(hand) == self.layout.parts:
                yield hand[self.part]
                hand.clear()
        if hand:
            inputs, targets = hand[min(self.part, len(hand) - 1)]
            yield inputs, targets if self.part < len(hand) else torch.full_like(targets, IGNORED)


ALONE = Ranks()
"""One process."""


def meets(model: torch.nn.Module, *, now: bool) -> None:
    """Whether the next backward pass sums gradients over the ranks: only the last of a step has to."""
    for module in _divided([model]):
        module.set_requires_gradient_sync(now)


def let_go(model: torch.nn.Module) -> None:
    """Keep this rank's shards only: what a pass without a way back has gathered is no longer what they hold."""
    for module in _divided(model.modules()):
        module.reshard()


def _divided(modules: Iterable[torch.nn.Module]) -> "Iterator[FSDPModule]":
    """Those that FSDP2 has divided. Where no ranks are connected there are none, and it is not loaded."""
    if dist.is_initialized():
        from torch.distributed.fsdp import FSDPModule

        yield from (module for module in modules if isinstance(module, FSDPModule))


def name_ranks(ranks: list[int]) -> str:
    """``rank 1``, ``ranks 0, 2``."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
