"""Whether a formula written by hand may stand in for torch's own operations."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def by_formula(*tensors: Tensor) -> bool:
    """Whether all are values of a processor that torch looks at one operation at a time, and differentiates backwards.

    Not under torch.compile, which fuses torch's own operations, nor in transforms of torch.func and forward mode, nor
    for tensors that are spread over ranks.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    return all(x.device.type == "cpu" and not hasattr(x, "device_mesh") for x in tensors)
