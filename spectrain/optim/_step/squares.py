"""Adam's second moment averages squares: gradients whose squares its dtype does not hold are named, or kept below."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spectrain._arrays.scale import recording
from spectrain.optim._step.settings import Settings
from spectrain.optim._step.state import state_dtype

_MARGIN = 0.99  # for the roundings of a square in sixteen bits


def largest_entry(settings: Settings, p: Tensor) -> float:
    """Return the largest entry that a gradient of ``p`` may have; infinity where nothing is squared."""
    if settings.algorithm == "adamw":
        return _largest(p.dtype)
    return _largest(state_dtype(p)) if settings.rule.squares else math.inf


def limit_squares(grads: Sequence[Tensor], settings: Settings) -> list[Tensor]:
    """Return gradients in the dtype of their moments, of which no finite entry has a square that overflows.

    Where gradients are checked they have been refused by name before. Where not, an entry beyond is taken as the
    largest whose square fits. Adam's ratio of moments does not see such a scale; an infinite second moment would stop
    the entry for good. Infinite entries stay what they are. On a processor one norm tells that there is nothing to do;
    in a graph it is one more operation of its loop over entries, and no value is read.
    """
    if settings.check_finite:
        return list(grads)
    may_read = not recording() and not settings.capturable and all(g.device.type == "cpu" for g in grads)
    if may_read and all(float(g.norm()) <= _largest(g.dtype) for g in grads):
        return list(grads)
    ends = [_largest(g.dtype) for g in grads]
    return [torch.where(g.isinf(), g, g.clamp(-end, end)) for g, end in zip(grads, ends, strict=True)]


def norms(tensors: Sequence[Tensor]) -> list[float]:
    """Return the Frobenius norms: one pass over the tensors, and one value read from each device and dtype."""
    found = list(torch._foreach_norm(list(tensors)))
    first = found[0]
    if any(norm.dtype != first.dtype or norm.device != first.device for norm in found):
        found = [norm.to(first.device, torch.float64) for norm in found]
    sizes: list[float] = torch.stack(found).tolist()
    return sizes


def _largest(dtype: torch.dtype) -> float:
    return _MARGIN * math.sqrt(torch.finfo(dtype).max)
