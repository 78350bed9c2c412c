"""Keys and values as maps of a latent that all heads share (MLA), expanded for training or absorbed for decoding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from spectrain.nn._attention.attend import attend
from spectrain.nn._attention.choice import Choice
from spectrain.nn._attention.kind import Kind, normalise_wide, split_heads
from spectrain.nn._attention.rotary import Turns
from spectrain.nn._attention.shape import AttentionShape, round_to_even
from spectrain.nn._attention.visibility import Visibility
from spectrain.nn._linear import Linear

if TYPE_CHECKING:
    from spectrain.nn._attention.attention import Attention


@dataclass(frozen=True)
class Latent(Kind):
    """A latent and one rotated key a token are kept; keys and values of each head are maps of the latent."""

    latent: int = 0
    normalises_keys: ClassVar[bool] = False

    @property
    def no_latent(self) -> str:  # type: ignore[override]
        """It is one."""
        return f"the block has a latent of {self.latent} already."

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, object]) -> Kind | None:
        """With ``latent=``."""
        latent = sizes["latent"]
        return cls(latent) if isinstance(latent, int) else None

    def fill(
        self, per_head: int, *, head_dim: int | None, value_dim: int | None, rotary_dim: int | None
    ) -> tuple[int, int, int]:
        """Half as many rotated coordinates beside the others, which are as many as those of a value."""
        rotary_dim = round_to_even(per_head / 2) if rotary_dim is None else rotary_dim
        head_dim = per_head + rotary_dim if head_dim is None else head_dim
        return head_dim, head_dim - rotary_dim if value_dim is None else value_dim, rotary_dim

    def check(self, shape: AttentionShape, *, window: int | None) -> None:
        """A latent of something, for all heads."""
        if shape.kv_heads != shape.heads:
            raise ValueError(
                f"Attention with latent={self.latent} makes keys for all heads; leave kv_heads={shape.kv_heads} out."
            )

    def cache_numbers(self, shape: AttentionShape) -> int:
        """The latent and the rotated key."""
        return self.latent + shape.rotary_dim

    def absorbing_pays(self, shape: AttentionShape, length: int, stored: int) -> bool:
        """Products, forward.

        Expanding is ``stored latent (content + value)`` a head and then ``length stored (head + value)``; absorbing is
        ``length latent (content + value)`` and then ``length stored (2 latent + rotary)``.
        """
        maps = self.latent * (shape.content_dim + shape.value_dim)
        expanded = stored * maps + length * stored * (shape.head_dim + shape.value_dim)
        return length * maps + length * stored * (2 * self.latent + shape.rotary_dim) < expanded

    def maps(
        self, shape: AttentionShape, width: int, *, norm: Callable[[int], nn.Module], bias: bool
    ) -> dict[str, nn.Module]:
        """``latent`` and ``key_rotary`` from the stream, ``key`` and ``value`` from the latent."""
        assert not bias  # refused by whoever asks: the absorbed form multiplies by weights
        maps: dict[str, nn.Module] = {
            "latent": Linear(width, self.latent, bias=False),
            "latent_norm": norm(self.latent),
        }
        if shape.rotary_dim:
            maps["key_rotary"] = Linear(width, shape.rotary_dim, bias=False)
        if shape.content_dim:
            maps["key"] = Linear(self.latent, shape.heads * shape.content_dim, bias=False)
        return maps | {"value": Linear(self.latent, shape.heads * shape.value_dim, bias=False)}

    def clipped(self, block: "Attention") -> nn.Linear | None:
        """Keys of each head; the rotated part, which all share, is another map."""
        return block.key if block.shape.content_dim else None

    def keep(self, block: "Attention", x: Tensor, turns: Turns) -> tuple[Tensor, ...]:
        """The normalised latent and the rotated key, side by side, as if of one head."""
        latent = normalise_wide(block.latent_norm, block.latent(x))
        if not block.shape.rotary_dim:
            return (latent.unsqueeze(1),)
        latent = torch.cat((latent, block.key_rotary(x)), dim=-1).unsqueeze(1)
        return (block.rotary.turn(latent, turns, fresh=True),)

    def keys_and_values(self, block: "Attention", kept: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Expanded: each head's own, made anew."""
        s = block.shape
        latent, rotated = kept[0].split((self.latent, s.rotary_dim), dim=-1)
        key = rotated.expand(-1, s.heads, -1, -1)
        if s.content_dim:
            key = torch.cat((split_heads(block.key(latent.squeeze(1)), s.heads), key), dim=-1)
        return key, split_heads(block.value(latent.squeeze(1)), s.heads)

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
        """In the form that costs less, unless one is asked for or keys are watched: absorbed, there are none."""
        pays = block.shape.absorbing_pays(visible.length, visible.stored) if absorbed is None else absorbed
        if pays and not block.keys.watched:
            return self._absorb(block, q, kept[0], visible)
        key, value = self.keys_and_values(block, kept)
        return attend(q, block.keys(key), value, visible, scale=block.scale, maps=block.maps, look=block.look)

    def _absorb(self, block: "Attention", q: Tensor, latents: Tensor, visible: Visibility) -> Tensor:
        """q . (W_k c) = (W_k^T q) . c, sum p (W_v c) = W_v (sum p c): one key and value for all heads, the latent.

        The rotated part stands behind both, as in the cache, and what it adds to a value is left out: a product of a
        few more columns, where torch fuses no heads whose keys and values are not of one size.
        """
        s = block.shape
        content, rotated = q.split((s.content_dim, s.rotary_dim), dim=-1)
        if s.content_dim:
            content = _each(content, block.key.weight.view(s.heads, -1, self.latent))
        else:
            content = content.new_zeros(*content.shape[:-1], self.latent)
        query = torch.cat((content, rotated), dim=-1)
        heads = attend(query, latents, latents, visible, scale=block.scale, maps=block.maps, look=block.look)
        return _each(heads[..., : self.latent], block.value.weight.view(s.heads, -1, self.latent).mT)


def _each(x: Tensor, maps: Tensor) -> Tensor:
    """``(batch, heads, length, m)`` times a matrix a head, ``(heads, m, n)``: each is read once, whatever the batch."""
    heads = x.transpose(0, 1)
    rows = heads.flatten(1, 2)
    if rows.shape[1] == 1 and x.dtype == torch.bfloat16 and maps.stride(1) == 1:
        out = torch.bmm(maps.mT, rows.mT)  # of a matrix in bfloat16 torch reads rows in 2/3 of the time of columns
    else:
        out = torch.bmm(rows, maps)
    return out.view(*heads.shape[:3], maps.shape[-1]).transpose(0, 1)


mla = Choice(
    kind=Latent,
    sizes=("latent",),
    kv_heads=lambda heads: heads,
    why="every head has its own with mla",
    defaults=lambda width, heads, block: [("latent", max(1, width // 2), "half of the width")],
    fixed=("key_rotary",),
)
