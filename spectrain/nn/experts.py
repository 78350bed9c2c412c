"""Mixtures of experts: the layer, its router's balance, its penalties, and what it counted."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.nn._experts.balance import Balance as Balance
    from spectrain.nn._experts.balance import Loads as Loads
    from spectrain.nn._experts.balance import quantile_bias as quantile_bias
    from spectrain.nn._experts.loads import expert_loads as expert_loads
    from spectrain.nn._experts.moe import MoE as MoE
    from spectrain.nn._experts.moe import auxiliary_loss as auxiliary_loss
    from spectrain.nn._experts.penalty import Penalty as Penalty
    from spectrain.nn._experts.scaling import scaling_factor as scaling_factor
    from spectrain.nn._topk.soft_topk import soft_topk as soft_topk

__getattr__, __dir__ = door(__name__)
