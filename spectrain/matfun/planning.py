"""Which algorithm runs and why: prices, plans, the design of a fixed number of steps and what became of it."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.matfun._iteration.bounded import tries as tries
    from spectrain.matfun._iteration.design import design as design
    from spectrain.matfun._proven.costs import calibrate as calibrate
    from spectrain.matfun._proven.plan import plan as plan

__getattr__, __dir__ = door(__name__)
