"""Causal attention over short rows in bfloat16, whose gradient is products of whole matrices."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spectrain.nn._attention.fused import fused
from spectrain.nn._eager import by_formula

LONGEST = 512
"""Tokens of a row up to which this is faster: above, what torch leaves out above the diagonal is worth more."""
MOST = 16.0
"""Logits that bfloat16 holds to 1/32: the gradient computes them once more, and rounds them."""
_TOGETHER = 4  # key heads whose maps are in memory at once


def is_short(q: Tensor, k: Tensor, v: Tensor, *, most: float) -> bool:
    """Whether :func:`attend_short` serves. ``most``: a bound on the scaled logits, inf where there is none."""
    narrow = q.dtype == torch.bfloat16 and q.shape[2] <= LONGEST and most <= MOST
    return narrow and q.requires_grad and by_formula(q, k, v)


def attend_short(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """softmax(scale q k^T) v, of ``(batch, heads, length, dim)`` queries on as many or fewer key heads, as torch does.

    Torch's gradient on a processor goes block by block through products too small for one. Here it is five products a
    key head, all queries that share it below each other: with P the map and D the gradient of the output,

    .. math:: dV = P^T D, \\quad dS = P \\circ (D V^T - (P \\circ D V^T) 1 1^T), \\quad dQ = dS K, \\quad dK = dS^T Q.

    Cost: the operations of full attention, in 0.3 to 0.7 of the time up to 512 tokens. The map is computed again, of
    logits that are rounded to bfloat16. The second derivative is not defined, as torch's is not.
    """
    out: Tensor = _Short.apply(q, k, v, scale)
    return out


class _Short(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        return fused(q, k, v, causal=True, scale=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        each, length = k.shape[0] * k.shape[1], k.shape[2]
        with torch.autocast("cpu", enabled=False):
            rows, slopes = (x.reshape(each, -1, x.shape[-1]) for x in (q * ctx.scale, gradient[0]))
            keys, values = (x.reshape(each, length, x.shape[-1]) for x in (k, v))
            of_q, of_k, of_v = (torch.empty_like(x) for x in (rows, keys, values))
            later = torch.full((length, length), -torch.inf, dtype=q.dtype).triu_(1)
            later = later.repeat(rows.shape[1] // max(1, length), 1)
            for i in range(0, each, _TOGETHER):
                at = slice(i, i + _TOGETHER)
                p = torch.softmax(torch.baddbmm(later, rows[at], keys[at].mT), -1)
                slope = torch._softmax_backward_data(slopes[at] @ values[at].mT, p, -1, q.dtype)
                of_q[at], of_k[at], of_v[at] = slope @ keys[at], slope.mT @ rows[at], p.mT @ slopes[at]
            return of_q.mul_(ctx.scale).view(q.shape), of_k.view(k.shape), of_v.view(v.shape), None
