"""The biases of a model's experts, moved once a step, and what is told of their loads."""

from collections.abc import Mapping, Sequence

import torch

from spectrain import nn
from spectrain.train._mesh.ranks import Ranks


def move_biases(model: torch.nn.Module, ranks: Ranks, lr_factor: float) -> Mapping[str, object]:
    """Move the biases of every layer of experts, wherever it is; loads, MaxVio of each layer, and the largest.

    By less and less as the rate falls: routers drift in proportion to it, and a gain that follows a drift v through
    the noise of batches has its least error near v^(2/3), where lag^2 = (v / gain)^2 and noise ~ gain balance.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.MoE)]
    for layer in layers:
        ranks.add(*(count for count in (layer.loads, layer.tokens, layer.histogram) if count is not None))
    loads = [layer.update_bias(factor=lr_factor ** (2 / 3)) for layer in layers]
    return {**violations(loads), "moe_loads": [each.counts.tolist() for each in loads]} if loads else {}


def violations(loads: Sequence[nn.experts.Loads]) -> dict[str, float]:
    """MaxVio of each layer of experts, and the largest; nothing for a dense model."""
    each = [load.max_violation for load in loads]
    return {"moe_max_violation": max(each), **{f"moe_max_violation.{i}": v for i, v in enumerate(each)}} if each else {}
