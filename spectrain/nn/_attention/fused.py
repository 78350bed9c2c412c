"""torch's fused attention, also where a value is not as wide as a key."""

import torch
import torch.nn.functional as F
from torch import Tensor

from spectrain.nn._eager import by_formula

FEW = 16
"""Queries up to which keys by coordinate are multiplied as they lie; for more they are copied."""
LONG = 192
"""Queries from where bfloat16 gains: below, torch's map takes half the time of its fused gradient."""


def fused(q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(scale q k^T) v of ``(batch, heads, length, dim)`` queries on as many or fewer heads of keys and values.

    On a processor torch fuses heads whose keys and values are of one size; of others it makes the map of all pairs,
    and keeps it for the gradient. Here zeros make the narrower as wide: they add nothing to a product, and what they
    make of a value is left out. Cost: a copy of what is widened; memory linear in the length.
    """
    if k.stride(-1) != 1 and k.stride(-2) == 1 and k.is_cpu:  # as a cache holds keys by coordinate
        if q.shape[2] <= FEW and not causal and not torch.is_grad_enabled():
            return _by_products(q, k, v, scale=scale, mask=mask)
        k = k.contiguous()
    size, wide = v.shape[-1], max(k.shape[-1], v.shape[-1])
    widened = k.shape[-1] != size and not _by_map(q)
    if widened:
        q, k, v = (F.pad(x, (0, wide - x.shape[-1])) if x.shape[-1] < wide else x for x in (q, k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=q.shape[1] > k.shape[1]
    )
    return out[..., :size] if widened else out


def _by_products(q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask: Tensor | None) -> Tensor:
    """Two products and the map between them.

    torch's attention multiplies blocks of 512 keys by a query, which its library does at half the memory's pace; here a
    query is multiplied by a matrix whose rows are as long as the cache.
    """
    scores = (q * scale) @ k.mT
    if mask is not None:
        scores = scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores.add_(mask)
    return scores.softmax(-1) @ v


def _by_map(q: Tensor) -> bool:
    """Whether torch is left to itself: on other devices, in transforms of torch.func, for short rows in bfloat16."""
    if not (torch.compiler.is_compiling() or by_formula(q)):
        return True
    return q.device.type != "cpu" or (q.dtype == torch.bfloat16 and q.shape[2] < LONG)
