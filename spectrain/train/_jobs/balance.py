"""The biases of a model's experts, moved once a step, and what is told of their loads."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spectrain import nn
from spectrain.train._mesh.ranks import Ranks


def move_biases(model: torch.nn.Module, ranks: Ranks, lr_factor: float) -> Mapping[str, object]:
    """Move the biases of every layer of experts, wherever it is; loads, MaxVio of each layer, and the largest.

    By less and less as the rate falls: routers drift in proportion to it, and a gain that follows a drift v through
    the noise of batches has its least error near v^(2/3), where lag^2 = (v / gain)^2 and noise ~ gain balance.
    """
    layers = experts(model)
    for layer in layers:
        ranks.add(*(count for count in (layer.loads, layer.tokens, layer.histogram) if count is not None))
    loads = [layer.update_bias(factor=lr_factor ** (2 / 3)) for layer in layers]
    counts: dict[str, object] = {"moe_loads": [each.counts.tolist() for each in loads]} if loads else {}
    if any(layer.router.select == "threshold" for layer in layers):
        counts |= {f"moe_experts_a_token.{i}": each.experts_a_token for i, each in enumerate(loads)}
    return {**violations(layers, loads), **counts}


def penalty(model: torch.nn.Module, *, share: float) -> Tensor:
    """The auxiliary loss of the last forward pass, weighed by its ``share`` of the step's tokens.

    The loads in it are those of the step before, so that micro-batches and ranks add up to the whole step's gradient.
    """
    return share * nn.experts.auxiliary_loss(model)


def experts(model: torch.nn.Module) -> list[nn.MoE]:
    """Every layer of experts, in the order of the model."""
    return [module for module in model.modules() if isinstance(module, nn.MoE)]


def violations(layers: Sequence[nn.MoE], loads: Sequence[nn.experts.Loads]) -> dict[str, float]:
    """MaxVio of each layer of experts, against the shares that it is to have, and the largest; nothing for none."""
    each = [
        load.max_violation if layer.balance.target is None else load.violation(layer.balance.target)
        for layer, load in zip(layers, loads, strict=True)
    ]
    return {"moe_max_violation": max(each), **{f"moe_max_violation.{i}": v for i, v in enumerate(each)}} if each else {}
