"""Whether a tensor is spread over ranks, asked without loading what spreads it: half a second of work."""

from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_PLAIN = (Tensor, nn.Parameter)


def is_spread(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether ``tensor`` is a ``DTensor``. Of a plain tensor that is known by its type alone, and nothing is imported.

    >>> import torch
    >>> is_spread(torch.ones(3)), is_spread(nn.Parameter(torch.ones(3)))
    (False, False)
    """
    if type(tensor) in _PLAIN:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
