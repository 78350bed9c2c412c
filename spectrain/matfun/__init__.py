"""Functions of singular values and of definite matrices, each with a stated error."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.matfun import planning as planning
    from spectrain.matfun._apply import mapply as mapply
    from spectrain.matfun._apply import mpsd as mpsd
    from spectrain.matfun._clip import mclip as mclip
    from spectrain.matfun._clip import msoftclip as msoftclip
    from spectrain.matfun._clip import mthreshold as mthreshold
    from spectrain.matfun._msign import msign as msign
    from spectrain.matfun._norms import effective_rank as effective_rank
    from spectrain.matfun._norms import spectral_norm as spectral_norm
    from spectrain.matfun._polar import mstep as mstep
    from spectrain.matfun._polar import polar as polar
    from spectrain.matfun._proven.plan import plan as plan
    from spectrain.matfun._root import mroot as mroot

# Old names, which warn and work for one release, and where they are now.
_MOVED = {
    "calibrate": "planning.calibrate",
    "design": "planning.design",
    "tries": "planning.tries",
}

if TYPE_CHECKING:  # old names are types, too
    from spectrain.matfun._iteration.bounded import tries as tries
    from spectrain.matfun._iteration.design import design as design
    from spectrain.matfun._proven.costs import calibrate as calibrate

__getattr__, __dir__ = door(__name__, moved=_MOVED)
