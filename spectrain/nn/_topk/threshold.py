"""Smooth top-k by a threshold: f(z - t) with t such that the sum is k. Three increasing functions f.

Everything here is float64, the scores in the last dimension, ``k`` and ``temperature`` with a last dimension of one.
Scores are measured from a score near the threshold *before* they are divided by the temperature: that difference is
exact, so that temperatures of 1e-12 cost no digits. What lies further than ``_FAR`` temperatures away is 0 or 1 to
every bit and is moved to that distance, which takes infinite scores along.

The sort is of values without their indices: on a CPU numpy's, which has nothing else to carry, is many times faster.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_FAR = 4000.0
"""exp(-_FAR / 2) is zero in float64, and so is every derivative that far from the threshold."""
_NEAR = 200.0
"""The threshold lies within log n + log(1 / distance of k from an integer) < 60 of the scores around rank k."""


@torch.library.custom_op("spectrain::sort_values", mutates_args=())
def sort_values(x: Tensor) -> Tensor:
    """The last dimension in rising order, NaN last. No derivative: of sorted values one takes what stays constant.

    An operator of its own, so that torch.compile and vmap see one node and not the inside of numpy.

    >>> sort_values(torch.tensor([3.0, 1.0, 2.0])).tolist()
    [1.0, 2.0, 3.0]
    """
    if x.device.type != "cpu" or x.dtype == torch.bfloat16:
        return x.sort(dim=-1).values.clone()
    return torch.from_numpy(np.sort(x.numpy(), axis=-1))


@sort_values.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
    return sort_values(x.movedim(in_dims[0], 0)), 0


sort_values.register_vmap(_vmap)


class Ranks(NamedTuple):
    """Scores in falling order, and those around the threshold: of rank ceil(k) and, for integer k, k + 1."""

    falling: Tensor
    high: Tensor
    low: Tensor


class Threshold(NamedTuple):
    """Scores as ``scale(x, origin, temperature)``, and the threshold among them."""

    z: Tensor
    t: Tensor
    origin: Tensor


def ranks(x: Tensor, k: Tensor) -> Ranks:
    """Sort; the only step that costs more than n."""
    falling = sort_values(x).flip(-1)
    rank = k.ceil().clamp(1, x.shape[-1]).long()
    low = (rank - (rank != k).long()).clamp(max=x.shape[-1] - 1)
    return Ranks(falling, falling.gather(-1, rank - 1), falling.gather(-1, low))


def scale(x: Tensor, origin: Tensor, temperature: Tensor, far: float = _FAR) -> Tensor:
    """(x - origin) / temperature, no further out than ``far``."""
    reach = far * temperature.detach()
    return (x - origin).clamp(-reach, reach) / temperature


def laplace(x: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """f(u) = e^u / 2 below 0, 1 - e^-u / 2 above."""
    z, t, _ = laplace_threshold(x, k, temperature)
    above, sign = _sides(z >= t)
    return torch.addcmul(above, sign, (sign * (z - t)).exp(), value=0.5)


def _sides(above: Tensor) -> tuple[Tensor, Tensor]:
    """1 and 0, -1 and 1 for above and below. Products with them replace ``where``, three times as dear as ``exp``.

    Nor is it sign(u) and |u|, whose derivatives at 0, where symmetric scores put u, would be taken for 0.
    """
    ones = above.double()
    return ones, 1 - 2 * ones


def laplace_threshold(x: Tensor, k: Tensor, temperature: Tensor) -> Threshold:
    """z and t with sum f(z - t) = k: article 10373's closed form as an asinh.

    With m scores above the threshold t, A = sum e^-z over them and B = sum e^z over the others,

        t = (log B - log A) / 2 - asinh((k - m) / sqrt(A B)).

    A and B are taken relative to the two scores between which t lies, so that neither over- nor underflows.
    """
    with torch.no_grad():
        order = ranks(x.detach(), k.detach())
        above, upper, lower = _laplace_partition(x.detach(), k.detach(), temperature.detach(), order)
        ones, sign = _sides(above)
    z = scale(x, order.high, temperature)
    upper, lower = scale(upper, order.high, temperature), scale(lower, order.high, temperature)
    e = (sign * (z - torch.addcmul(lower, ones, upper - lower))).exp()
    tiny = torch.finfo(e.dtype).tiny
    log_a = (ones * e).sum(-1, keepdim=True).clamp(min=tiny).log() - upper
    log_b = ((1 - ones) * e).sum(-1, keepdim=True).clamp(min=tiny).log() + lower
    excess = k - ones.sum(-1, keepdim=True)
    size = torch.where(excess == 0, 1, excess.abs())
    between = (log_b - log_a) / 2 - torch.asinh(excess * torch.exp((-(log_a + log_b) / 2).clamp(max=350)))
    one_sided = torch.where(excess > 0, log_b - (2 * size).log(), (2 * size).log() - log_a)
    # Where AB is nothing beside (k - m)^2, the asinh is a logarithm and one of A and B drops out.
    alone = (excess != 0) & (log_a + log_b < 2 * size.log() - 80)
    return Threshold(z, torch.where(alone, one_sided, between), order.high)


def _laplace_partition(x: Tensor, k: Tensor, temperature: Tensor, order: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Which scores lie above the threshold, the lowest of them and the highest of the others."""
    n = x.shape[-1]
    e = torch.exp(scale(order.falling, order.high, temperature, _NEAR))
    rank = torch.arange(0.5, n, dtype=x.dtype, device=x.device)
    sums = rank + (_sums_from_here(e) / e - (1 / e).cumsum(-1) * e) / 2  # sum f(z - t) for t = each score in turn
    m = (sums <= k).sum(-1, keepdim=True)
    lower = order.falling.gather(-1, m.clamp(max=n - 1))
    above = (x > lower) | (m == n)
    upper = order.falling.gather(-1, (above.sum(-1, keepdim=True) - 1).clamp(min=0))  # ties may have moved m
    return above, upper, lower


def _sums_from_here(e: Tensor) -> Tensor:
    return e.flip(-1).cumsum(-1).flip(-1)


def clipped_exponential(x: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """f(u) = min(1, e^u): t = log sum e^z - log(k - m), the sum over all but the m highest scores."""
    with torch.no_grad():
        n = x.shape[-1]
        order = ranks(x.detach(), k.detach())
        e = torch.exp(scale(order.falling, order.high, temperature.detach(), _NEAR))
        rank = torch.arange(n, dtype=x.dtype, device=x.device)
        m = (rank + _sums_from_here(e) / e <= k).sum(-1, keepdim=True)
        m = torch.minimum(m, k.ceil().long() - 1).clamp(min=0)  # m < k, which rounding cannot be trusted with
        lower = order.falling.gather(-1, m)
        above = (x > lower).double()
    e = (1 - above) * scale(x, lower, temperature).clamp(max=0).exp()
    left = k - above.sum(-1, keepdim=True)
    return above + (e * (left / e.sum(-1, keepdim=True))).clamp(max=1)


def sigmoid(x: Tensor, k: Tensor, temperature: Tensor) -> Tensor:
    """f(u) = 1 / (1 + e^-u)."""
    z, t, _ = sigmoid_threshold(x, k, temperature)
    return (z - t).sigmoid()


def sigmoid_threshold(x: Tensor, k: Tensor, temperature: Tensor) -> Threshold:
    """z and t with sum sigmoid(z - t) = k, by Newton's method.

    f(u - log 2) <= sigmoid(u) <= f(u + log 2) for Laplace's f, so its threshold is wrong by at most log 2. Since
    |sigmoid''| <= sigmoid', an error e becomes at most e^2 exp(e) / 2: 0.69, 0.48, 0.19, 0.021, 2.2e-4, 2.5e-8,
    3.2e-16. So six steps are enough for every input, and there are seven. The last two keep the graph: Newton's step
    squares the error, also as a function of x, k and temperature, so that derivatives up to the third are exact.
    """
    with torch.no_grad():
        z, t, origin = laplace_threshold(x.detach(), k.detach(), temperature.detach())
        for _ in range(5):
            t = t + _newton_step(z - t, k.detach())
    z = scale(x, origin, temperature)
    for _ in range(2):
        t = t + _newton_step(z - t, k)
    return Threshold(z, t, origin)


def _newton_step(u: Tensor, k: Tensor) -> Tensor:
    """(sum sigmoid(u) - k) / sum sigmoid'(u), the ones taken out of the sum so that no digit is lost."""
    above, sign = _sides(u > 0)
    tail = (sign * u).sigmoid()
    excess = (sign * tail).sum(-1, keepdim=True) + (above.sum(-1, keepdim=True) - k)
    slope = (tail * (1 - tail)).sum(-1, keepdim=True)
    flat = slope < torch.finfo(u.dtype).tiny ** 0.25  # all 0 or 1 to every bit: there is nothing to correct
    return torch.where(flat, 0, excess / torch.where(flat, 1, slope))
