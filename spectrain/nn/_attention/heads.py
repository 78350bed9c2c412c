"""Keys and values of their own: for every head (MHA), for groups of heads (GQA), for all heads together (MQA)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spectrain.nn._attention.attend import attend
from spectrain.nn._attention.cache import Cache
from spectrain.nn._attention.choice import Choice
from spectrain.nn._attention.kind import Kind, split_heads
from spectrain.nn._attention.rotary import Turns
from spectrain.nn._attention.shape import AttentionShape
from spectrain.nn._attention.visibility import Visibility
from spectrain.nn._linear import Linear

if TYPE_CHECKING:
    from spectrain.nn._attention.attention import Attention


@dataclass(frozen=True)
class Heads(Kind):
    """``kv_heads`` keys and values a token, each for ``heads / kv_heads`` queries; both are kept."""

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, object]) -> Kind | None:
        """Where nothing else is."""
        return None if any(size not in (None, "none") for size in sizes.values()) else cls()

    def fill(
        self, per_head: int, *, head_dim: int | None, value_dim: int | None, rotary_dim: int | None
    ) -> tuple[int, int, int]:
        """Values as large as keys, all rotated."""
        size = per_head if head_dim is None else head_dim
        return size, size if value_dim is None else value_dim, size if rotary_dim is None else rotary_dim

    def check(self, shape: AttentionShape, *, window: int | None) -> None:
        """All that an `AttentionShape` can hold fits together."""

    def cache_numbers(self, shape: AttentionShape) -> int:
        """A key and what of a value is not in it, for each key head."""
        return shape.kv_heads * (shape.head_dim + shape.extra_dim)

    def maps(
        self, shape: AttentionShape, width: int, *, norm: Callable[[int], nn.Module], bias: bool
    ) -> dict[str, nn.Module]:
        """``key``, and ``value`` unless keys hold it all."""
        maps: dict[str, nn.Module] = {"key": Linear(width, shape.kv_heads * shape.head_dim, bias=bias)}
        if shape.extra_dim:
            maps["value"] = Linear(width, shape.kv_heads * shape.extra_dim, bias=bias)
        return maps

    def keep(self, block: "Attention", x: Tensor, turns: Turns) -> tuple[Tensor, ...]:
        """The rotated key, and the value."""
        groups = block.shape.kv_heads
        key = block.place(block.key(x), groups, block.key_gains, turns)
        return self.beside(block, x, key)

    def beside(self, block: "Attention", x: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        """A key, and what is kept with it."""
        return (key, split_heads(block.value(x), block.shape.kv_heads)) if block.shape.extra_dim else (key,)

    def ask_and_keep(self, block: "Attention", x: Tensor, turns: Turns) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Of a single token, which is over before its operations are called, queries and keys are placed together."""
        if x.shape[1] > 1 or torch.is_grad_enabled() or block.key_gains is not None:
            return super().ask_and_keep(block, x, turns)
        heads = (block.shape.heads, block.shape.kv_heads)
        both = block.place(torch.cat((block.ask(x), block.key(x)), dim=-1), sum(heads), None, turns)
        q, key = both.split(heads, dim=1)
        return q, self.beside(block, x, key)

    def empty_cache(self, shape: AttentionShape) -> Cache:
        """Keys by coordinate where each head has its own and they are no values."""
        return Cache(by_coordinate=shape.heads == shape.kv_heads and self.share == "none")

    def clipped(self, block: "Attention") -> nn.Linear | None:
        """Keys of each group."""
        return block.key

    def keys_and_values(self, block: "Attention", kept: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """What is kept."""
        return kept[0], kept[1]

    def attend(
        self,
        block: "Attention",
        q: Tensor,
        kept: tuple[Tensor, ...],
        visible: Visibility,
        *,
        turns: Turns,
        absorbed: bool | None,
    ) -> Tensor:
        """softmax(q k^T) v."""
        key, value = self.keys_and_values(block, kept)
        most = block.largest_possible_logit
        return attend(
            q, block.keys(key), value, visible, scale=block.scale, maps=block.maps, look=block.look, most=most
        )


gqa = Choice(kind=Heads)
mha = Choice(kind=Heads, kv_heads=lambda heads: heads, why="every head has its own with mha")
mqa = Choice(kind=Heads, kv_heads=lambda heads: 1, why="multi-query", fixed=("key", "value"))
