"""What a step shared by several processes will cost."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.optim._ranks.cost import Machine as Machine
    from spectrain.optim._ranks.plan import ShardPlan as ShardPlan
    from spectrain.optim._ranks.plan import plan_shards as plan_shards

__getattr__, __dir__ = door(__name__)
