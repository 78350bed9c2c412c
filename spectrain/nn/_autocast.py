"""What several maps of one tensor would each do to it under autocast, done once."""

import torch
from torch import Tensor


def narrowed(x: Tensor) -> Tensor:
    """``x`` in the dtype in which autocast computes products; ``x`` itself without autocast.

    Each map that reads ``x`` would round it for itself, and widen its gradient to be added to that of the others. For
    three maps that is six passes over memory and two, here one and one; the values of the products are the same.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     narrowed(torch.ones(2)).dtype
    torch.bfloat16
    """
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or x.dtype != torch.float32:
        return x
    return x.to(torch.get_autocast_dtype(kind))
