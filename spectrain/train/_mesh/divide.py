"""A model over ranks: fully sharded block by block, by torch's FSDP2; matrices shared by heads, by torch's DTensor."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

REDUCED_IN = torch.float32


def divide(model: nn.Module, blocks: nn.ModuleList, mesh: DeviceMesh) -> None:
    """Leave each rank its shard of every parameter; a block is whole while it computes, on the way there and back.

    Gradients are summed over the ranks, in float32, and not divided: each rank brings its part of the loss of the whole
    batch. Weights travel as they are kept, so that what is computed is what one process computes, under autocast too.
    """
    policy = MixedPrecisionPolicy(reduce_dtype=REDUCED_IN)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)


def recompute(blocks: nn.ModuleList) -> None:
    """Let blocks forget what is inside of them on the way there, and compute it again on the way back."""
    for block in blocks:
        block.forward = functools.partial(_again, block.forward)


def _again(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():  # nothing comes back
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, **options)
