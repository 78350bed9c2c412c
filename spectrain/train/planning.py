"""What a run will cost, before it runs: memory, bytes and seconds on a mesh, and the figures of machines."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.train._plan.choose import choose_mesh as choose_mesh
    from spectrain.train._plan.cluster import NAMED as NAMED
    from spectrain.train._plan.cluster import Cluster as Cluster
    from spectrain.train._plan.cluster import Link as Link
    from spectrain.train._plan.cluster import read_cluster as read_cluster
    from spectrain.train._plan.cluster import write_cluster as write_cluster
    from spectrain.train._plan.plan import RunPlan as RunPlan
    from spectrain.train._plan.plan import plan_run as plan_run

__getattr__, __dir__ = door(__name__)
