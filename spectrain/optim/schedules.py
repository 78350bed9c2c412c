"""Learning rate and decay as functions of the step."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.optim._refined import Refined as Refined
    from spectrain.optim._schedule import Factors as Factors
    from spectrain.optim._schedule import ScheduleLR as ScheduleLR
    from spectrain.optim._schedule import UniformMemory as UniformMemory
    from spectrain.optim._schedule import WarmupDecay as WarmupDecay

__getattr__, __dir__ = door(__name__)
