"""softmax(q k^T) v by torch's fused attention, for any number of key heads and any rule of visibility."""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spectrain.nn._attention.fused import fused
from spectrain.nn._attention.short import attend_short, is_short
from spectrain.nn._attention.visibility import Visibility
from spectrain.nn._capture.tap import Tap

Look: TypeAlias = Callable[[Tensor, Tensor, Visibility, float], None]

_FOLD = 1024
"""Rows of one product that the queries of a key head may become; more are left to torch."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, visible: Visibility, *, scale: float, maps: Tap, look: Look, most: float = math.inf
) -> Tensor:
    """``(batch, heads, length, dim)`` queries on ``(batch, kv_heads, stored, dim)`` keys and values.

    ``look`` sees queries and keys as they are multiplied, and which of them meet. No scaled logit is above ``most``.
    """
    group = q.shape[1] // k.shape[1]
    # Under autocast what was normalised last may be wider.
    k, v = (x if x.dtype == q.dtype else x.to(q.dtype) for x in (k, v))
    look(q, k, visible, scale)
    if maps.watched:
        return _attend_with_maps(q, k, v, visible, group, scale, maps)
    if not visible.whole:
        return _by_blocks(q, k, v, visible, group, scale)
    # A plain bool: of a length that torch.compile keeps symbolic the comparison is a symbol, which torch refuses.
    causal = True if visible.length > 1 else False  # noqa: SIM210
    if group > 1 and not causal:
        return _masked(q, k, v, None, group, scale)
    if causal and is_short(q, k, v, most=most):
        return attend_short(q, k, v, scale=scale)
    return fused(q, k, v, causal=causal, scale=scale)


def _by_blocks(q: Tensor, k: Tensor, v: Tensor, visible: Visibility, group: int, scale: float) -> Tensor:
    """A block of queries at a time, on the keys that it may see: the others are not multiplied, and no mask is whole.

    Of a window all blocks but the first share one mask. Where documents differ, each block has its own, which torch
    would keep for the backward pass, all keys wide: there it is made again, and the block with it.
    """
    blocks = visible.blocks()
    if len(blocks) == 1:
        first, last = visible.keys(0, visible.length)
        alone = visible.length == 1 and visible.repeats  # it sees all of its window
        mask = None if alone else visible.mask(0, visible.length, first, last)
        return _masked(q, k[:, :, first:last], v[:, :, first:last], mask, group, scale)
    shared: dict[tuple[int, ...], Tensor] = {}
    parts = []
    for start, stop in blocks:
        first, last = visible.keys(start, stop)
        part = (q[:, :, start:stop], k[:, :, first:last], v[:, :, first:last])
        made = partial(visible.mask, start, stop, first, last)
        if not visible.repeats and not visible.narrow and torch.is_grad_enabled():
            here = partial(_masked, mask=made, group=group, scale=scale)
            parts.append(checkpoint(here, *part, use_reentrant=False, preserve_rng_state=False))
            continue
        place = (stop - start, last - first, start - first)
        if not visible.repeats or place not in shared:
            shared[place] = _bias(made(), q.dtype)
        parts.append(_masked(*part, shared[place], group, scale))
    return torch.cat(parts, dim=2)


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to logits: torch makes and keeps it for each call that is handed a mask of bools."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)


def _masked(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | Callable[[], Tensor] | None, group: int, scale: float
) -> Tensor:
    """Attention under a mask, that is there or made here.

    Few queries: those that share a key head become rows of one matrix, and no key is repeated.
    """
    mask = mask() if callable(mask) else mask
    if group == 1 or group * q.shape[2] > _FOLD:
        return fused(q, k, v, mask=mask, scale=scale)
    rows = q.reshape(q.shape[0], k.shape[1], group * q.shape[2], q.shape[3])
    if mask is not None:
        mask = mask.expand(-1, group, -1, -1).flatten(1, 2).unsqueeze(1)
    out = fused(rows, k, v, mask=mask, scale=scale)
    return out.reshape(*q.shape[:3], out.shape[-1])


def _attend_with_maps(
    q: Tensor, k: Tensor, v: Tensor, visible: Visibility, group: int, scale: float, maps: Tap
) -> Tensor:
    """The definition, for those who want to see the weights or change them: ``(batch, heads, length, stored)``."""
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    mask = visible.mask(0, visible.length, 0, visible.stored)
    wide = torch.promote_types(q.dtype, torch.float32)  # as torch's own attention: products of halves overflow
    with torch.autocast(q.device.type, enabled=False):
        scores = (q.to(wide) @ k.to(wide).mT * scale).masked_fill(~mask, -torch.inf)
        return maps(scores.softmax(dim=-1).to(q.dtype)) @ v
