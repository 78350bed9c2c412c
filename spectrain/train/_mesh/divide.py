"""A model over ranks: fully sharded block by block, by torch's FSDP2; matrices shared by heads, by torch's DTensor."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.checkpoint import checkpoint

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


def let_go(model: nn.Module) -> None:
    """Keep this rank's shards only: what a pass without a way back has gathered is no longer what they hold."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def recompute(blocks: nn.ModuleList) -> None:
    """Let blocks forget what is inside of them on the way there, and compute it again on the way back."""
    for block in blocks:
        block.forward = functools.partial(_again, block.forward)


def compile_blocks(blocks: nn.ModuleList) -> None:
    """Let blocks compute by one graph of Inductor, in whose calls weights are gathered already: before ``divide``.

    What is around them, the embedding, the head and what meets other ranks, stays outside of graphs.
    """
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False, fullgraph=True)


def _again(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():  # nothing comes back
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, **options)
