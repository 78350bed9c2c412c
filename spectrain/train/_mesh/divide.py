"""A model over ranks: fully sharded block by block, by torch's FSDP2; matrices shared by heads, by torch's DTensor."""

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from spectrain.train._mesh.exchange import divide_experts

REDUCED_IN = torch.float32
_WRITERS = ("attention.output", "feed_forward.down")


def divide(model: nn.Module, blocks: nn.ModuleList, mesh: DeviceMesh, *, experts: DeviceMesh | None = None) -> None:
    """Leave each rank its shard of every parameter; a block is whole while it computes, on the way there and back.

    Gradients are summed over the ranks, in float32, and not divided: each rank brings its part of the loss of the whole
    batch. Weights travel as they are kept, so that what is computed is what one process computes, under autocast too.
    ``experts``: the mesh on which the experts of a layer are divided, where they are.
    """
    policy = MixedPrecisionPolicy(reduce_dtype=REDUCED_IN)
    names = tuple(name for name in mesh.mesh_dim_names or () if name != "tensor")
    if "tensor" in (mesh.mesh_dim_names or ()):
        for block in blocks:
            _share_matrices(block, mesh["tensor"])
    parts = mesh[names]
    if experts is not None:
        divide_experts(model, experts, policy)
    for block in blocks:
        fully_shard(block, mesh=parts, mp_policy=policy)
    fully_shard(model, mesh=parts, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)


def _share_matrices(block: nn.Module, ranks: DeviceMesh) -> None:
    """Give each rank its heads and its hidden features: what it computes is a part of a sum over the ranks."""
    attention: Any = block.attention
    shape = attention.shape
    readers = {"attention.query", "attention.key", "attention.value", "feed_forward.gate", "feed_forward.up"}
    there = {name for name, _ in block.named_modules()}
    plan = {name: ColwiseParallel() for name in readers & there}
    parallelize_module(block, ranks, {**plan, **dict.fromkeys(_WRITERS, RowwiseParallel())})
    attention.shape = dataclasses.replace(
        shape, heads=shape.heads // ranks.size(), kv_heads=shape.kv_heads // ranks.size()
    )
    attention.peak = attention.peak[: attention.shape.heads].clone()
