"""Experts divided over ranks: each computes its own for the tokens of all, and what it found is summed.

Tokens are gathered in the group of ranks that divide the experts, whichever experts they chose, and sums are
scattered: shapes depend on no value, and nothing waits for a count. A layer of width d sends each token of a rank to
the N - 1 others, and each of them sends back a part of its sum: with n tokens a rank it sends 8 n d (N - 1) bytes in a
forward pass and as many in a backward pass. What was chosen and how it is weighed are 5 n (N - 1) bytes an expert
there, and 4 back. Sent to its experts alone, a token would travel to at most min(k, N - 1) ranks, k experts being
chosen: as far, where k is not below N - 1.
"""

import functools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from spectrain.nn import MoE
from spectrain.optim.internal import local


def divide_experts(model: nn.Module, mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    """Leave each rank of the dimension ``experts`` its experts of every layer, and of those each shard its own."""
    group, parts = mesh.get_group("experts"), mesh[tuple(n for n in mesh.mesh_dim_names or () if n != "experts")]
    found: list[Any] = [module.experts for module in model.modules() if isinstance(module, MoE)]
    for experts in found:
        for name, p in list(experts.named_parameters()):
            # Every rank has drawn the same weights and keeps a part of them: nothing is sent.
            own = distribute_tensor(p.detach(), mesh["experts"], [Shard(0)], src_data_rank=None)
            experts.register_parameter(name, nn.Parameter(own))
        experts.forward = functools.partial(_for_all, experts, group)
        fully_shard(experts, mesh=parts, mp_policy=policy)


def _for_all(experts: Any, group: Any, x: Tensor, chosen: Tensor, weights: Tensor, **_: object) -> Tensor:
    """This rank's tokens' sums, of which every rank of the group computes the part of its experts."""
    matrices = (local(experts.gate), local(experts.up), local(experts.down))
    count, place = len(matrices[0]), dist.get_rank(group)
    mine = slice(place * count, (place + 1) * count)
    rows, scales = _Gathered.apply(x, group), _Gathered.apply(weights, group)
    taken = _gather(chosen.to(torch.uint8), group).bool()
    out: Tensor = experts.mix(rows, taken[:, mine], scales[:, mine], matrices)
    summed: Tensor = _Summed.apply(out.to(torch.promote_types(out.dtype, torch.float32)), group)
    return summed.to(out.dtype)


class _Gathered(torch.autograd.Function):
    """The rows of all ranks in their order; back comes the sum of what each has to say to a row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _gather(rows, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _scatter(grad, ctx.group), None


class _Summed(torch.autograd.Function):
    """The sums over the ranks, of which each gets those of its rows; back go the gradients of all rows to all."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _scatter(rows, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _gather(grad, ctx.group), None


def _gather(rows: Tensor, group: Any) -> Tensor:
    found = rows.new_empty(len(rows) * dist.get_world_size(group), *rows.shape[1:])
    dist.all_gather_into_tensor(found, rows.contiguous(), group=group)
    return found


def _scatter(rows: Tensor, group: Any) -> Tensor:
    found = rows.new_empty(len(rows) // dist.get_world_size(group), *rows.shape[1:])
    dist.reduce_scatter_tensor(found, rows.contiguous(), group=group)
    return found
