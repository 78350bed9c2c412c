"""What other layers of this package take from behind this door: the same polynomials over ranks, and prices.

Semi-public: it may change. Users find what they need at the door. Names here load on first use, like those.
"""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.matfun._iteration.bounded import growth_by_gram as growth_by_gram
    from spectrain.matfun._iteration.bounded import kept_within as kept_within
    from spectrain.matfun._iteration.design import able_dtype as able_dtype
    from spectrain.matfun._iteration.design import safe_schedule as safe_schedule
    from spectrain.matfun._iteration.design import schedule_for_steps as schedule_for_steps
    from spectrain.matfun._iteration.gram import coefficients as coefficients
    from spectrain.matfun._iteration.gram import gram_cuts as gram_cuts
    from spectrain.matfun._iteration.gram import gram_products as gram_products
    from spectrain.matfun._iteration.gram import multiplier as multiplier
    from spectrain.matfun._iteration.gram import plain_products as plain_products
    from spectrain.matfun._iteration.gram import safe_cuts as safe_cuts
    from spectrain.matfun._proven.costs import SHIPPED as SHIPPED
    from spectrain.matfun._proven.costs import CostTable as CostTable
    from spectrain.matfun._proven.costs import costs as costs
    from spectrain.matfun._proven.costs import replaying as replaying

__getattr__, __dir__ = door(__name__)
