"""The factor of routed experts next to shared ones, which a layer computes for its own shape."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch

from spectrain.nn._experts.router import activate
from spectrain.nn._modes import Activation

CHUNK = 4096


class Estimate(NamedTuple):
    """A mean and its standard error."""

    value: float
    error: float


@lru_cache(maxsize=64)
def scaling_factor(
    experts: int,
    *,
    active: int,
    shared: int,
    activation: Activation = "softmax",
    renormalise: bool = False,
    rtol: float = 1e-3,
    seed: int = 0,
) -> Estimate:
    """The factor that makes routed and shared experts equally long at initialisation.

    ``sqrt(shared) * E[1 / |p|]``, p the gates of the ``active - shared`` best of ``experts - shared`` routed experts
    with standard normal logits, experts taken as orthogonal and of equal length. ``experts`` and ``active`` count the
    shared ones. Draws until the standard error is at most ``rtol`` of the value. With relu p is zero now and then and
    that mean infinite: there it is ``sqrt(shared / E[|p|^2])``. Source: article 10945 (kexue.fm/archives/10945).

    >>> value, error = scaling_factor(257, active=9, shared=1, activation="sigmoid", renormalise=True)
    >>> round(value, 2), error <= 1e-3 * value                       # DeepSeek-V3 ships 2.5
    (2.83, True)
    """
    if not 1 <= shared < active <= experts:
        raise ValueError(
            f"scaling_factor needs 1 <= shared < active <= experts, got shared {shared}, active {active} and "
            f"experts {experts}; active and experts count the shared ones."
        )
    if not 0 < rtol < 1:
        raise ValueError(f"scaling_factor: rtol must be between 0 and 1, got {rtol}.")
    generator = torch.Generator().manual_seed(seed)
    count, mean, spread = 0, 0.0, 0.0
    while True:
        logits = torch.randn(CHUNK, experts - shared, generator=generator, dtype=torch.float64, device="cpu")
        gates = activate(logits, activation).topk(active - shared, dim=1).values
        if renormalise:
            gates = gates / gates.sum(dim=1, keepdim=True).clamp_min(torch.finfo(gates.dtype).tiny)
        power = gates.square().sum(dim=1)
        sample = power if activation == "relu" else (shared / power).sqrt()
        total, before = count + CHUNK, mean
        mean += (sample.mean().item() - before) * CHUNK / total
        spread += ((sample - sample.mean()).square().sum()).item()
        spread += (sample.mean().item() - before) ** 2 * count * CHUNK / total
        count = total
        error = math.sqrt(spread / (count - 1) / count)
        if activation == "relu":
            value = math.sqrt(shared / mean)
            error *= value / (2 * mean)
        else:
            value = mean
        if error <= rtol * value:
            return Estimate(value, error)
