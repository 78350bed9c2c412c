"""softmax(q k^T) v by torch's scaled_dot_product_attention, for any number of key heads."""

import torch.nn.functional as F
from torch import Tensor

from spectrain.nn._visibility import Visibility

_FOLD = 1024


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Visibility, *, scale: float) -> Tensor:
    """``(batch, heads, length, dim)`` queries on ``(batch, kv_heads, stored, dim)`` keys and values."""
    group = q.shape[1] // k.shape[1]
    k, v = k.to(q.dtype), v.to(q.dtype)  # under autocast what was normalised last may be wider
    causal = visible.mask is None and visible.length > 1
    if group > 1 and not causal and group * visible.length <= _FOLD:
        return _folded(q, k, v, visible.mask, group, scale)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=visible.mask, is_causal=causal, scale=scale, enable_gqa=group > 1
    )


def _folded(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, group: int, scale: float) -> Tensor:
    """Few queries: those that share a key head become rows of one matrix, and no key is repeated."""
    rows = q.unflatten(1, (k.shape[1], group)).flatten(2, 3)
    if mask is not None:
        mask = mask.expand(-1, group, -1, -1).flatten(1, 2).unsqueeze(1)
    out = F.scaled_dot_product_attention(rows, k, v, attn_mask=mask, scale=scale)
    return out.unflatten(2, (group, -1)).flatten(1, 2)
