"""softmax(q k^T) v by torch's scaled_dot_product_attention, for any number of key heads."""

import torch
import torch.nn.functional as F
from torch import Tensor

from spectrain.nn._capture.tap import Tap
from spectrain.nn._visibility import Visibility

_FOLD = 1024


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Visibility, *, scale: float, maps: Tap) -> Tensor:
    """``(batch, heads, length, dim)`` queries on ``(batch, kv_heads, stored, dim)`` keys and values."""
    group = q.shape[1] // k.shape[1]
    k, v = k.to(q.dtype), v.to(q.dtype)  # under autocast what was normalised last may be wider
    if maps.watched:
        return _with_maps(q, k, v, visible, group, scale, maps)
    # A plain bool: of a length that torch.compile keeps symbolic the comparison is a symbol, which torch refuses.
    causal = visible.mask is None and (True if visible.length > 1 else False)  # noqa: SIM210
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


def _with_maps(q: Tensor, k: Tensor, v: Tensor, visible: Visibility, group: int, scale: float, maps: Tap) -> Tensor:
    """The definition, for those who want to see the weights or change them: ``(batch, heads, length, stored)``."""
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    mask = visible.mask
    if mask is None:
        mask = torch.ones(visible.length, visible.stored, dtype=torch.bool, device=q.device)
        mask = mask.tril(diagonal=visible.stored - visible.length)
    wide = torch.promote_types(q.dtype, torch.float32)  # as torch's own attention: products of halves overflow
    with torch.autocast(q.device.type, enabled=False):
        scores = (q.to(wide) @ k.to(wide).mT * scale).masked_fill(~mask, -torch.inf)
        return maps(scores.softmax(dim=-1).to(q.dtype)) @ v
