"""The sizes of an attention block, filled in and checked."""

from dataclasses import dataclass
from typing import Literal, get_args

Share = Literal["none", "content", "all"]


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """What an attention block is, in numbers; see :class:`Attention` for their meaning."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    rotary_dim: int
    latent: int | None
    query_rank: int | None
    share: Share

    @property
    def content_dim(self) -> int:
        """Coordinates of queries and keys that are not rotated."""
        return self.head_dim - self.rotary_dim

    @property
    def extra_dim(self) -> int:
        """Coordinates of a value that no key holds already."""
        return {"none": self.value_dim, "content": self.value_dim - self.content_dim, "all": 0}[self.share]

    @property
    def cache_numbers(self) -> int:
        """Numbers that decoding keeps for a token."""
        if self.latent is not None:
            return self.latent + self.rotary_dim
        return self.kv_heads * (self.head_dim + self.extra_dim)

    @property
    def expanded_numbers(self) -> int:
        """Numbers for a token if every head kept its own key and value."""
        return self.heads * (self.head_dim + self.value_dim)

    def absorbing_pays(self, length: int, stored: int) -> bool:
        """Whether ``length`` queries cost less on the latents of ``stored`` tokens than on keys and values made anew.

        Products, forward: expanding is ``stored latent (content + value)`` a head and then ``length stored (head +
        value)``; absorbing is ``length latent (content + value)`` and then ``length stored (2 latent + rotary)``.
        """
        if self.latent is None:
            return False
        maps = self.latent * (self.content_dim + self.value_dim)
        expanded = stored * maps + length * stored * (self.head_dim + self.value_dim)
        return length * maps + length * stored * (2 * self.latent + self.rotary_dim) < expanded


def attention_shape(
    width: int,
    *,
    heads: int,
    kv_heads: int | None,
    head_dim: int | None,
    value_dim: int | None,
    rotary_dim: int | None,
    latent: int | None,
    query_rank: int | None,
    share: Share,
) -> AttentionShape:
    """Fill in what was left open; ``ValueError`` for what cannot be."""
    if heads < 1 or (head_dim is None and width % heads):
        raise ValueError(
            f"Attention needs width divisible by heads, got width={width}, heads={heads}; or give head_dim."
        )
    if latent is not None and kv_heads not in (None, heads):
        raise ValueError(f"Attention with latent={latent} makes keys for all heads; leave kv_heads={kv_heads} out.")
    if latent is not None and share != "none":
        raise ValueError(f"Attention shares keys and values or has a latent, not both, got {share=}, {latent=}.")
    if share not in get_args(Share):
        raise ValueError(f"Attention: share must be one of {', '.join(get_args(Share))}, got {share!r}.")
    kv_heads = heads if kv_heads is None else kv_heads
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(f"Attention needs heads divisible by kv_heads, got heads={heads}, kv_heads={kv_heads}.")
    per_head = width // heads
    if rotary_dim is None:
        rotary_dim = _even(per_head / 2) if latent is not None else (head_dim or per_head)
        rotary_dim = _even(rotary_dim / 4) if share != "none" else rotary_dim
    if head_dim is None:
        head_dim = per_head + (rotary_dim if latent is not None else 0)
    if value_dim is None:
        value_dim = head_dim - rotary_dim if latent is not None else head_dim
    shape = AttentionShape(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=value_dim,
        rotary_dim=rotary_dim,
        latent=latent,
        query_rank=query_rank,
        share=share,
    )
    _check(shape)
    return shape


def _even(size: float) -> int:
    return 2 * max(1, round(size / 2))


def _check(shape: AttentionShape) -> None:
    for name in ("head_dim", "value_dim", "latent", "query_rank"):
        size = getattr(shape, name)
        if size is not None and size < 1:
            raise ValueError(f"Attention: {name} must be at least 1, got {size}.")
    if shape.rotary_dim % 2 or not 0 <= shape.rotary_dim <= shape.head_dim:
        raise ValueError(
            f"Attention: rotary_dim must be even, from 0 to head_dim={shape.head_dim}, got {shape.rotary_dim}: "
            "positions turn pairs of coordinates."
        )
    if shape.share == "content" and shape.value_dim < shape.content_dim:
        raise ValueError(
            f"Attention with share='content': a value holds the {shape.content_dim} unrotated coordinates of its key, "
            f"so value_dim must be at least that, got {shape.value_dim}."
        )
    if shape.share == "all" and shape.value_dim != shape.head_dim:
        raise ValueError(
            f"Attention with share='all': the key is the value, so value_dim must be head_dim={shape.head_dim}, "
            f"got {shape.value_dim}."
        )
