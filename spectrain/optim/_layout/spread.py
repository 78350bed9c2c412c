"""Parameters that are spread over ranks: how they lie, their local tensors, and the ranks that share them."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from spectrain._arrays.spread import is_spread
from spectrain.optim._layout.parts import Interval, Sharding

Group = Any  # a process group


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies on this rank; a plain tensor is its own."""
    return tensor.to_local() if is_spread(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The full tensor, gathered where it is spread; then every rank of its mesh has to call this."""
    return tensor.full_tensor() if is_spread(tensor) else tensor


def gradient(p: Tensor) -> Tensor:
    """The gradient of ``p`` where it is not None, laid out as ``p`` is."""
    assert p.grad is not None
    if is_spread(p) and is_spread(p.grad) and p.grad.placements != p.placements:
        return p.grad.redistribute(p.device_mesh, p.placements)
    return p.grad


def spread_like(value: Tensor, p: Tensor) -> Tensor:
    """``value``, a full tensor, laid out as ``p`` is; each rank keeps its part, and nothing is sent."""
    if not is_spread(p) or is_spread(value) or value.shape != p.shape:
        return value
    found = torch.zeros_like(p, dtype=value.dtype, requires_grad=False)
    local(found).copy_(value[tuple(slice(*interval) for interval in own_box(p))])
    return found


def sharding_of(p: Tensor, group: Group | None) -> Sharding | None:
    """Return how ``p`` lies on its mesh; a plain tensor is on every rank of ``group``, or on this one alone (None)."""
    if is_spread(p):
        return _of_mesh(tuple(p.device_mesh.mesh.flatten().tolist()), tuple(p.device_mesh.shape), p.placements)
    if group is None:
        return None
    ranks = tuple(dist.get_process_group_ranks(group))
    return Sharding(ranks, (len(ranks),), (None,))


@functools.lru_cache(maxsize=256)
def _of_mesh(ranks: tuple[int, ...], shape: tuple[int, ...], placements: tuple[Any, ...]) -> Sharding:
    from torch.distributed.tensor.placement_types import Shard, _StridedShard  # loaded with what lies on a mesh

    cuts = [place.dim if isinstance(place, (Shard, _StridedShard)) else None for place in placements]
    inner = tuple(i for i, place in enumerate(placements) if isinstance(place, _StridedShard))
    return Sharding(ranks, shape, tuple(cuts), inner)


def own_box(p: Tensor) -> tuple[Interval, ...]:
    """The interval of each dimension that lies on this rank; of a plain tensor all of it."""
    sharding = sharding_of(p, None)
    if sharding is None:
        return tuple((0, size) for size in p.shape)
    return sharding.boxes(p.shape)[sharding.ranks.index(dist.get_rank())]


def check_spread(name: str, p: Tensor) -> None:
    """Raise ValueError for a spread parameter whose parts are not what its placements say, or are partial sums."""
    if not is_spread(p):
        return
    if any(place.is_partial() for place in p.placements):
        raise ValueError(f"Muon: {name} is a partial sum over ranks ({p.placements}); redistribute it first.")
    expected = tuple(high - low for low, high in own_box(p))
    held = tuple(p.to_local().shape)
    if held != expected and 0 not in held + expected:
        raise ValueError(f"Muon: {name}: rank {dist.get_rank()} holds {held} where {p.placements} say {expected}.")


FLAT = (
    "Its parts are pieces of one long vector, not rows or columns of a matrix. Use fully_shard (FSDP2), which keeps "
    "matrices, or DistributedDataParallel with process_group=, which shares the work."
)


def refuse_flat_shards(model: nn.Module) -> None:
    """Raise ValueError for a model in FSDP1, whose parameters are pieces of flat vectors."""
    for name, module in model.named_modules():
        if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__):
            raise ValueError(f"Muon: {name or 'the model'} is wrapped in FullyShardedDataParallel (FSDP1). {FLAT}")


def refuse_flat(name: str, p: Tensor) -> None:
    """Raise ValueError for a parameter that FSDP1 has made of several, or that it has cut."""
    if getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False):
        raise ValueError(f"Muon: {name} is a parameter of FullyShardedDataParallel (FSDP1). {FLAT}")


class Team:
    """The ranks that share some parameters, and their process group; positions are those of the mesh."""

    def __init__(
        self, ranks: tuple[int, ...], group: Group, device: torch.device, mesh: DeviceMesh | None = None
    ) -> None:
        self.ranks, self.group, self.device, self.mesh = ranks, group, device, mesh
        self._among: dict[tuple[int, ...], Team] = {}
        self.position = ranks.index(dist.get_rank())
        order = [dist.get_group_rank(group, rank) for rank in ranks]
        self.places = [order.index(i) for i in range(len(ranks))]  # mesh position of each rank of the group

    def reduce(self, tensor: Tensor, how: str) -> Tensor:
        """Combine over the ranks by ``"sum"`` or ``"max"``, in place."""
        if len(self.ranks) > 1 and tensor.numel():
            dist.all_reduce(tensor, dist.ReduceOp.SUM if how == "sum" else dist.ReduceOp.MAX, group=self.group)
        return tensor

    def among(self, positions: tuple[int, ...]) -> "Team":
        """The ranks at some positions, this one among them; the first call on all of them is collective."""
        if len(positions) == len(self.ranks):
            return self
        if positions not in self._among:
            ranks = tuple(self.ranks[i] for i in positions)
            self._among[positions] = Team(ranks, self._group_of(ranks), self.device)
        return self._among[positions]

    def _group_of(self, ranks: tuple[int, ...]) -> Group:
        """A process group of some of the ranks: one of the mesh where it has it."""
        if self.mesh is not None:
            for group in self.mesh.get_all_groups():
                if sorted(dist.get_process_group_ranks(group)) == sorted(ranks):
                    return group
        return dist.new_group(list(ranks), use_local_synchronization=True)

    def exchange(self, outgoing: Sequence[Sequence[Tensor]], incoming: Sequence[int], like: Tensor) -> "Flight":
        """Start to send position i the entries of ``outgoing[i]``, as ``like``, and to take ``incoming[i]`` from it."""
        # Collective, also for a rank that sends and gets nothing here. Sizes are not sent along: both sides know them
        # from the plan. ``places`` because a group numbers its ranks in its own order, and a plan in that of the mesh.
        sizes = [sum(tensor.numel() for tensor in outgoing[i]) for i in self.places]
        pieces = [tensor for i in self.places for tensor in outgoing[i]]
        flat = like.new_empty(sum(sizes))
        if pieces:  # packed and rounded in one go: no piece is there twice
            places = flat.split([tensor.numel() for tensor in pieces])
            torch._foreach_copy_([at.view_as(tensor) for at, tensor in zip(places, pieces, strict=True)], pieces)
        counts = [incoming[i] for i in self.places]
        received = like.new_empty(sum(counts))
        work = dist.all_to_all_single(received, flat, counts, sizes, group=self.group, async_op=True)
        parts = received.split(counts)
        return Flight(work, flat, [parts[self.places.index(i)] for i in range(len(self.ranks))])


class Flight:
    """What is on its way between the ranks of a team; everything it needs stays alive until it is waited for."""

    def __init__(self, work: Any, sent: Tensor, parts: list[Tensor]) -> None:
        self._work, self._sent, self._parts = work, sent, parts

    def wait(self) -> list[Tensor]:
        """Return the entries from each position, flat; on CUDA the current stream waits, and not this process."""
        self._work.wait()
        parts = self._parts
        del self._work, self._sent, self._parts  # a work of gloo holds both buffers, too
        return parts


def team_of(sharding: Sharding, p: Tensor, group: Group | None) -> Team:
    """The team of a parameter; on a mesh of several dimensions its members make a process group of their own."""
    device, mesh = local(p).device, p.device_mesh if is_spread(p) else None
    if set(sharding.ranks) == set(range(dist.get_world_size())):
        return Team(sharding.ranks, dist.group.WORLD, device, mesh)
    if mesh is not None and mesh.ndim == 1:
        return Team(sharding.ranks, mesh.get_group(), device)
    if not is_spread(p):
        return Team(sharding.ranks, group, device)
    # Only members come here. Without local synchronisation all processes of the world would have to call new_group, and
    # those that hold no part of this mesh never do.
    return Team(sharding.ranks, dist.new_group(list(sharding.ranks), use_local_synchronization=True), device, mesh)
