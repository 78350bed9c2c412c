"""The sizes of an attention block, filled in and checked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spectrain.nn._numbers import check_sizes

if TYPE_CHECKING:
    from spectrain.nn._attention.kind import Kind

Share = Literal["none", "content", "all"]


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """What an attention block is, in numbers; see :class:`Attention` for their meaning."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    rotary_dim: int
    query_rank: int | None
    output_rank: int | None
    kind: "Kind"

    @property
    def latent(self) -> int | None:
        """Numbers that keys and values are made from."""
        return self.kind.latent

    @property
    def share(self) -> Share:
        """How much of a key is its value."""
        return self.kind.share

    @property
    def content_dim(self) -> int:
        """Coordinates of queries and keys that are not rotated."""
        return self.head_dim - self.rotary_dim

    @property
    def extra_dim(self) -> int:
        """Coordinates of a value that no key holds already."""
        return self.kind.extra_dim(self)

    @property
    def cache_numbers(self) -> int:
        """Numbers that decoding keeps for a token."""
        return self.kind.cache_numbers(self)

    @property
    def expanded_numbers(self) -> int:
        """Numbers for a token if every head kept its own key and value."""
        return self.heads * (self.head_dim + self.value_dim)

    def absorbing_pays(self, length: int, stored: int) -> bool:
        """Whether ``length`` queries cost less on the latents of ``stored`` tokens than on keys and values made anew.

        Products are counted, forward; without a latent there is nothing to absorb.
        """
        return self.kind.absorbing_pays(self, length, stored)


def attention_shape(
    width: int,
    *,
    heads: int,
    kv_heads: int | None,
    head_dim: int | None,
    value_dim: int | None,
    rotary_dim: int | None,
    query_rank: int | None,
    output_rank: int | None,
    kind: "Kind",
) -> AttentionShape:
    """Fill in what was left open; ``ValueError`` for what cannot be."""
    if head_dim is None and width % heads:
        raise ValueError(
            f"Attention needs width divisible by heads, got width={width}, heads={heads}; or give head_dim."
        )
    kv_heads = heads if kv_heads is None else kv_heads
    if heads % kv_heads:
        raise ValueError(f"Attention needs heads divisible by kv_heads, got heads={heads}, kv_heads={kv_heads}.")
    sizes = kind.fill(width // heads, head_dim=head_dim, value_dim=value_dim, rotary_dim=rotary_dim)
    head_dim, value_dim, rotary_dim = sizes
    shape = AttentionShape(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=value_dim,
        rotary_dim=rotary_dim,
        query_rank=query_rank,
        output_rank=output_rank,
        kind=kind,
    )
    _check(shape)
    return shape


def round_to_even(size: float) -> int:
    """The even number nearest to ``size``, at least 2: positions turn pairs of coordinates."""
    return 2 * max(1, round(size / 2))


def _check(shape: AttentionShape) -> None:
    check_sizes("Attention", head_dim=shape.head_dim, value_dim=shape.value_dim)  # as they were filled in
    if shape.rotary_dim % 2 or not 0 <= shape.rotary_dim <= shape.head_dim:
        raise ValueError(
            f"Attention: rotary_dim must be even, from 0 to head_dim={shape.head_dim}, got {shape.rotary_dim}: "
            "positions turn pairs of coordinates."
        )
