"""Keys that are values, in part (S1) or whole (S2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spectrain.nn._attention.choice import Choice
from spectrain.nn._attention.heads import Heads
from spectrain.nn._attention.kind import Kind
from spectrain.nn._attention.rotary import Turns
from spectrain.nn._attention.shape import AttentionShape, Share, round_to_even
from spectrain.nn._attention.visibility import Visibility

if TYPE_CHECKING:
    from spectrain.nn._attention.attention import Attention


@dataclass(frozen=True)
class Content(Heads):
    """The unrotated coordinates of a key are those of its value; further ones have a map of their own (S1).

    Without further ones it is S3, the form that MLA has while decoding.
    """

    share: Share = "content"
    foreign: str = "share='content'"

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, object]) -> Kind | None:
        """With ``share="content"``."""
        return cls() if sizes["share"] == cls.share else None

    def fill(
        self, per_head: int, *, head_dim: int | None, value_dim: int | None, rotary_dim: int | None
    ) -> tuple[int, int, int]:
        """Values as large as keys, a quarter of them rotated: what is rotated cannot be shared."""
        if rotary_dim is None:
            rotary_dim = round_to_even((head_dim or per_head) / 4)
        return super().fill(per_head, head_dim=head_dim, value_dim=value_dim, rotary_dim=rotary_dim)

    def check(self, shape: AttentionShape, *, window: int | None) -> None:
        """A value holds what is shared."""
        if shape.value_dim < shape.content_dim:
            raise ValueError(
                f"Attention with share='content': a value holds the {shape.content_dim} unrotated coordinates of its "
                f"key, so value_dim must be at least that, got {shape.value_dim}."
            )

    def clipped(self, block: "Attention") -> nn.Linear | None:
        """None: what shrinks a key would shrink a value."""
        return None

    def extra_dim(self, shape: AttentionShape) -> int:
        """What is not shared."""
        return shape.value_dim - shape.content_dim

    def beside(self, block: "Attention", x: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        """What of a value is not shared, then the key, whose unrotated coordinates come first."""
        kept = super().beside(block, x, key)
        return (torch.cat(kept[::-1], dim=-1),) if block.shape.extra_dim else kept

    def keys_and_values(self, block: "Attention", kept: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Views of what is kept, so that no token costs a copy: a key is its end, a value its beginning.

        A value that is narrower than its key has some rotated coordinates behind it, which :meth:`attend` leaves out.
        """
        s = block.shape
        return kept[0][..., s.extra_dim :], kept[0][..., : max(s.value_dim, s.head_dim)]

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
        """As ever, then in the order of a value: what is shared, and the rest."""
        s = block.shape
        heads = super().attend(block, q, kept, visible, turns=turns, absorbed=absorbed)[..., : s.value_dim]
        return heads.roll(-s.extra_dim, dims=-1) if s.extra_dim else heads  # a turn by nothing would copy


@dataclass(frozen=True)
class Whole(Content):
    """The rotated key is the value (S2): outputs are turned back by the position of their query (VO-RoPE)."""

    share: Share = "all"
    foreign: str = "share='all'"
    no_latent: str = "with share='all' values are rotated, and a latent's are not."

    def check(self, shape: AttentionShape, *, window: int | None) -> None:
        """Keys and values have one size."""
        if shape.value_dim != shape.head_dim:
            raise ValueError(
                f"Attention with share='all': the key is the value, so value_dim must be head_dim={shape.head_dim}, "
                f"got {shape.value_dim}."
            )

    def extra_dim(self, shape: AttentionShape) -> int:
        """Nothing."""
        return 0

    def keys_and_values(self, block: "Attention", kept: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The key, twice."""
        return kept[0], kept[0]

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
        """As ever, then turned back, so that only differences of positions count."""
        heads = super().attend(block, q, kept, visible, turns=turns, absorbed=absorbed)
        return block.rotary.turn(heads, turns, back=True)


def _wide_heads(head_dim: int) -> list[tuple[str, object, str]]:
    return [("head_dim", 2 * (head_dim // 2), "what the shared values save of the cache, spent on wider heads")]


s1 = Choice(
    kind=Content,
    arguments={"share": "content"},
    defaults=lambda width, heads, block: _wide_heads(3 * (width // heads) // 2),
)
s2 = Choice(
    kind=Whole,
    arguments={"share": "all"},
    defaults=lambda width, heads, block: _wide_heads(2 * (width // heads)),
)
