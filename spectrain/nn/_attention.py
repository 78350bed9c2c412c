"""Causal attention with grouped keys and values, through torch's scaled_dot_product_attention."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.nn._rotary import Rotary


class Attention(nn.Module):
    """Causal self-attention: ``heads`` queries share ``kv_heads`` keys and values.

    ``kv_heads == heads`` is multi-head attention, ``1`` is multi-query, between is grouped-query.
    Queries and keys are normalised per head (``qk_norm``) and then rotated, so that logits stay
    bounded by ``sqrt(head_dim)`` whatever the optimizer does to the weights.

    Shapes: ``(batch, length, width)`` in and out. Cost: ``4 length^2 width`` for the scores besides
    the four projections.

    >>> block = Attention(16, heads=4, kv_heads=2)
    >>> x = torch.randn(1, 6, 16)
    >>> y, cache = block(x), block.empty_cache(1)
    >>> parts = [block(part, cache=cache) for part in x.split(2, dim=1)]    # the same, in pieces
    >>> torch.testing.assert_close(torch.cat(parts, dim=1), y)
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        kv_heads: int | None = None,
        qk_norm: bool = True,
        rotary_base: float = 1e4,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or width % heads:
            raise ValueError(f"Attention needs width divisible by heads, got width={width}, heads={heads}.")
        if kv_heads < 1 or heads % kv_heads:
            raise ValueError(f"Attention needs heads divisible by kv_heads, got heads={heads}, kv_heads={kv_heads}.")
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.query = nn.Linear(width, heads * self.head_dim, bias=False)
        self.key = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.value = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.output = nn.Linear(heads * self.head_dim, width, bias=False)
        self.rotary = Rotary(self.head_dim, base=rotary_base)
        self.qk_norm = qk_norm

    def empty_cache(self, batch: int) -> list[Tensor]:
        """A cache of no positions, to be handed to :meth:`forward`, which fills it."""
        return [self.key.weight.new_empty(batch, self.kv_heads, 0, self.head_dim) for _ in range(2)]

    def forward(
        self, x: Float[Tensor, "batch length width"], *, cache: list[Tensor] | None = None
    ) -> Float[Tensor, "batch length width"]:
        """Attend; with a cache, ``x`` continues the positions in it and is appended to it."""
        past = cache[0].shape[-2] if cache else 0
        q = self._split(self.query(x), self.heads)
        k = self._split(self.key(x), self.kv_heads)
        v = self._split(self.value(x), self.kv_heads)
        if self.qk_norm:
            q, k = F.rms_norm(q, (self.head_dim,)), F.rms_norm(k, (self.head_dim,))
        q, k = self.rotary(q, start=past), self.rotary(k, start=past)
        if cache is not None:
            k, v = (torch.cat((old.to(new.dtype), new), dim=-2) for old, new in zip(cache, (k, v), strict=True))
            cache[:] = [k, v]
        return self.output(self._attend(q, k, v, past).transpose(1, 2).flatten(-2))

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self.head_dim)).transpose(1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, past: int) -> Tensor:
        grouped = self.heads != self.kv_heads
        if past == 0:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        # is_causal aligns the mask top left; new queries stand at the end, so say it ourselves.
        length = q.shape[-2]
        mask = torch.ones(length, past + length, dtype=torch.bool, device=q.device).tril(diagonal=past)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
