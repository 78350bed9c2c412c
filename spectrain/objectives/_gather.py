"""Embeddings of all ranks, and the scale that makes reduced gradients those of the whole batch."""

import torch
import torch.distributed as dist
from torch import Tensor


def gather(own: Tensor, *, group: dist.ProcessGroup | None) -> tuple[Tensor, int]:
    """Concatenate a tensor over the ranks of ``group`` along its first dimension; also where our part begins.

    Ranks may hold different numbers of rows. No gradient flows: the caller differentiates its own part.
    """
    world, rank = dist.get_world_size(group), dist.get_rank(group)
    sizes = [torch.zeros(1, dtype=torch.long, device=own.device) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor([len(own)], device=own.device), group=group)
    counts = [int(size) for size in sizes]
    padded = own.new_zeros((max(counts), *own.shape[1:]))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]), sum(counts[:rank])
