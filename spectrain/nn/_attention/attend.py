"""softmax(q k^T) v by torch's scaled_dot_product_attention, for any number of key heads.

Beside it the rule of which keys a query sees, and how many: causal, windowed, packed, padded and cached alike.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from spectrain.nn._attention.short import attend_short, is_short
from spectrain.nn._capture.tap import Tap

Look: TypeAlias = Callable[[Tensor, Tensor, "Visibility", float], None]

_FOLD = 1024
"""Rows of one product that the queries of a key head may become; more are left to torch."""


@dataclass(frozen=True)
class Visibility:
    """``length`` queries at the end of ``stored`` keys.

    ``mask`` is True where a query sees a key, ``(batch or 1, 1, length, stored)``; None where all keys up to the
    query's own are seen.
    """

    length: int
    stored: int
    mask: Tensor | None
    window: int | None

    def counts(self, device: torch.device) -> Tensor:
        """Visible keys of each query, ``(batch or 1, 1, length)``."""
        if self.mask is not None:
            return self.mask.sum(-1)
        return torch.arange(self.stored - self.length + 1, self.stored + 1, device=device).view(1, 1, -1)


def visibility(
    length: int, stored: int, *, window: int | None, documents: Tensor | None, device: torch.device
) -> Visibility:
    """A query sees the keys up to its own, no further back than ``window``, of its own document.

    ``documents`` numbers the document of each stored key, ``(batch, stored)``. Padding is a document of its own.
    """
    narrow = window is not None and window < stored
    if documents is None and not narrow and (length == stored or length == 1):
        return Visibility(length, stored, None, window)
    keys = torch.arange(stored, device=device)
    queries = keys[stored - length :, None]
    mask = keys <= queries
    if narrow:
        assert window is not None
        mask &= keys > queries - window
    mask = mask.view(1, 1, length, stored)
    if documents is not None:
        same = documents[:, None, stored - length :, None] == documents[:, None, None, :]
        mask = mask & same
    return Visibility(length, stored, mask, window)


def attend(
    q: Tensor, k: Tensor, v: Tensor, visible: Visibility, *, scale: float, maps: Tap, look: Look, most: float = math.inf
) -> Tensor:
    """``(batch, heads, length, dim)`` queries on ``(batch, kv_heads, stored, dim)`` keys and values.

    ``look`` sees queries and keys as they are multiplied, and which of them meet. No scaled logit is above ``most``.
    """
    group = q.shape[1] // k.shape[1]
    k, v = k.to(q.dtype), v.to(q.dtype)  # under autocast what was normalised last may be wider
    look(q, k, visible, scale)
    if maps.watched:
        return _attend_with_maps(q, k, v, visible, group, scale, maps)
    # is_causal aligns the mask at the top left, which is wrong for queries at the end of more keys: there visibility
    # writes a mask, and a single query sees all.
    # A plain bool: of a length that torch.compile keeps symbolic the comparison is a symbol, which torch refuses.
    causal = visible.mask is None and (True if visible.length > 1 else False)  # noqa: SIM210
    if group > 1 and not causal and group * visible.length <= _FOLD:
        return _fold_queries(q, k, v, visible.mask, group, scale)
    if causal and visible.length == visible.stored and is_short(q, k, v, most=most):
        return attend_short(q, k, v, scale=scale)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=visible.mask, is_causal=causal, scale=scale, enable_gqa=group > 1
    )


def _fold_queries(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, group: int, scale: float) -> Tensor:
    """Few queries: those that share a key head become rows of one matrix, and no key is repeated."""
    rows = q.unflatten(1, (k.shape[1], group)).flatten(2, 3)
    if mask is not None:
        mask = mask.expand(-1, group, -1, -1).flatten(1, 2).unsqueeze(1)
    out = F.scaled_dot_product_attention(rows, k, v, attn_mask=mask, scale=scale)
    return out.unflatten(2, (group, -1)).flatten(1, 2)


def _attend_with_maps(
    q: Tensor, k: Tensor, v: Tensor, visible: Visibility, group: int, scale: float, maps: Tap
) -> Tensor:
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
