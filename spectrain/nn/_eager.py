"""Whether a formula written by hand may stand in for torch's own operations."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from spectrain._arrays.spread import is_spread

_elsewhere: ContextVar[bool] = ContextVar("_elsewhere", default=False)


def by_formula(*tensors: Tensor) -> bool:
    """Whether all are values of a processor that torch looks at one operation at a time, and differentiates backwards.

    Not under torch.compile, which fuses torch's own operations, nor in transforms of torch.func and forward mode, nor
    for tensors that are spread over ranks.
    """
    if torch.compiler.is_compiling() or _elsewhere.get():
        return False
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    return all(x.is_cpu and not is_spread(x) for x in tensors)


def may_keep() -> bool:
    """Whether a tensor made here serves later calls as well, if made outside of inference mode: it is of no trace."""
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return not traced and torch._C._len_torch_dispatch_stack() == 0


@contextmanager
def as_elsewhere() -> Iterator[None]:
    """Compute as another device does: for whoever looks here at what is called and kept there.

    >>> with as_elsewhere():
    ...     by_formula(torch.ones(1))
    False
    """
    before = _elsewhere.set(True)
    try:
        yield
    finally:
        _elsewhere.reset(before)
