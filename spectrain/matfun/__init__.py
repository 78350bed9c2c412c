"""Functions of singular values and of definite matrices, each with a stated error."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.matfun._apply import mapply as mapply
    from spectrain.matfun._clip import mclip as mclip
    from spectrain.matfun._msign import msign as msign
    from spectrain.matfun._norms import spectral_norm as spectral_norm
    from spectrain.matfun._plan import plan as plan
    from spectrain.matfun._polar import polar as polar
    from spectrain.matfun._root import mroot as mroot
    from spectrain.matfun._step import mstep as mstep

__getattr__, __dir__ = door(
    __name__,
    {
        "mapply": "_apply",
        "mclip": "_clip",
        "mroot": "_root",
        "msign": "_msign",
        "mstep": "_step",
        "plan": "_plan",
        "polar": "_polar",
        "spectral_norm": "_norms",
    },
)
