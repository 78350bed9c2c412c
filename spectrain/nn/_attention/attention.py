"""Causal attention, from many heads to one latent, in every form that training and decoding need."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from spectrain.nn._attention.attend import Visibility, attend, visibility
from spectrain.nn._attention.cache import Cache
from spectrain.nn._attention.rotary import Rotary, Turns
from spectrain.nn._attention.shape import Share, attention_shape
from spectrain.nn._capture.tap import Tap
from spectrain.nn._numbers import check_not_negative, check_positive, check_sizes


class Attention(nn.Module):
    """Causal self-attention: MHA, MQA, GQA, shared keys and values, or a latent (MLA).

    ========================= ================================================== ===========================
    arguments                 keys and values                                    kept for a token
    ========================= ================================================== ===========================
    ``kv_heads=heads`` (MHA)  one of each a head                                 2 heads head_dim
    ``kv_heads=g`` (GQA, MQA) g, each for heads / g queries                      2 g head_dim
    ``share="content"`` (S1)  unrotated coordinates are key and value            g (head_dim + value_dim - content)
    ``share="all"`` (S2)      the key is the value; outputs are turned back      g head_dim
    ``latent=r`` (MLA)        maps of a latent of r numbers that all heads share r + rotary_dim
    ========================= ================================================== ===========================

    ``head_dim`` coordinates of queries and keys, the last ``rotary_dim`` of them rotated by position; ``value_dim`` of
    values. Defaults: ``width / heads``, all rotated (a quarter with ``share``); with ``latent``, ``width / heads`` and
    half as many rotated ones beside them, whose key all heads share. ``query_rank`` makes queries through so many
    numbers. ``qk_norm`` (default: on, but for a latent, where it could not be absorbed) divides queries and keys by
    their rms, so that logits stay bounded by ``sqrt(head_dim)``; ``latent_norm`` normalises latents. ``norm_eps`` is
    added to mean squares; default: the dtype's rounding, and 1e-6 for latents, as published.

    ``window`` lets a query see so many keys, its own included. ``log_n`` is the length of training: queries are
    multiplied by ``log n / log log_n``, n the number of keys that the query *sees*, so that attention is as focused at
    any length; ``log_n_learned`` adds a factor a head, which starts at 1.

    Shapes: ``(batch, length, width)`` in and out. Cost: ``2 length^2 heads (head_dim + value_dim)`` besides the maps.

    Raises ``ValueError`` for sizes that do not fit together and for numbers that cannot be (NaN, a base of -1).

    Sources: articles 10091, 10907, 11111 (MLA), 8823, 9034 (log n) of kexue.fm; DeepSeek-V2, arXiv 2405.04434.

    >>> block = Attention(16, heads=4, latent=8)
    >>> x = torch.randn(1, 6, 16)
    >>> y, cache = block(x), block.empty_cache()
    >>> parts = [block(part, cache=cache) for part in x.split(2, dim=1)]    # the same, in pieces
    >>> torch.testing.assert_close(torch.cat(parts, dim=1), y)
    >>> block.shape.cache_numbers, block.shape.expanded_numbers
    (10, 40)
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        value_dim: int | None = None,
        rotary_dim: int | None = None,
        latent: int | None = None,
        query_rank: int | None = None,
        share: Share = "none",
        qk_norm: bool | None = None,
        latent_norm: bool = True,
        norm_eps: float | None = None,
        window: int | None = None,
        log_n: int | None = None,
        log_n_learned: bool = False,
        rotary_base: float = 1e4,
        rotary_parts: int = 1,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes("Attention", width=width)
        check_positive("Attention", rotary_base=rotary_base, scale=scale)
        check_not_negative("Attention", norm_eps=norm_eps)
        self.shape = attention_shape(
            width,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            value_dim=value_dim,
            rotary_dim=rotary_dim,
            latent=latent,
            query_rank=query_rank,
            share=share,
        )
        self.qk_norm = latent is None if qk_norm is None else qk_norm
        if latent is not None and self.qk_norm:
            raise ValueError("Attention: qk_norm=True cannot be absorbed into a latent; leave it out.")
        if window is not None and window < 1:
            raise ValueError(f"Attention: window must be at least 1, the query's own key, got {window}.")
        if log_n is not None and log_n < 2:
            raise ValueError(f"Attention: log_n is the length of training and must be at least 2, got {log_n}.")
        if log_n_learned and log_n is None:
            raise ValueError("Attention: log_n_learned needs log_n, the length of training, to start from.")
        self.window, self.log_n = window, log_n
        self.scale = self.shape.head_dim**-0.5 if scale is None else scale
        self.log_n_gain = nn.Parameter(torch.ones(heads)) if log_n_learned else None
        self.rotary = Rotary(self.shape.rotary_dim, base=rotary_base, parts=rotary_parts)
        self.norm_eps = norm_eps
        self._make_maps(width, latent_norm=latent_norm)
        self.queries, self.keys, self.maps = Tap(), Tap(), Tap(costly=True)

    def _make_maps(self, width: int, *, latent_norm: bool) -> None:
        s, eps = self.shape, 1e-6 if self.norm_eps is None else self.norm_eps
        if s.query_rank is not None:
            self.query_down = nn.Linear(width, s.query_rank, bias=False)
            self.query_norm = nn.RMSNorm(s.query_rank, eps=eps) if latent_norm else nn.Identity()
        self.query = nn.Linear(s.query_rank or width, s.heads * s.head_dim, bias=False)
        if s.latent is not None:
            self.latent = nn.Linear(width, s.latent, bias=False)
            self.latent_norm = nn.RMSNorm(s.latent, eps=eps) if latent_norm else nn.Identity()
            if s.rotary_dim:
                self.key_rotary = nn.Linear(width, s.rotary_dim, bias=False)
            if s.content_dim:
                self.key = nn.Linear(s.latent, s.heads * s.content_dim, bias=False)
            self.value = nn.Linear(s.latent, s.heads * s.value_dim, bias=False)
        else:
            self.key = nn.Linear(width, s.kv_heads * s.head_dim, bias=False)
            if s.extra_dim:
                self.value = nn.Linear(width, s.kv_heads * s.extra_dim, bias=False)
        self.output = nn.Linear(s.heads * s.value_dim, width, bias=False)

    @torch.no_grad()
    def initialise(self, *, generator: torch.Generator) -> None:
        """Draw the weights: normal of standard deviation ``1 / sqrt(fan_in)``, ``output`` zero, gains one."""
        for name, module in self.named_children():
            if isinstance(module, nn.Linear):
                std = 0.0 if name == "output" else module.in_features**-0.5
                nn.init.normal_(module.weight, std=std, generator=generator) if std else nn.init.zeros_(module.weight)
            elif isinstance(module, nn.RMSNorm):
                nn.init.ones_(module.weight)
        if self.log_n_gain is not None:
            nn.init.ones_(self.log_n_gain)

    def empty_cache(self) -> Cache:
        """A cache of no tokens, to be handed to :meth:`forward`, which fills it."""
        return Cache()

    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        *,
        cache: Cache | None = None,
        documents: Int[Tensor, "batch length"] | None = None,
        absorbed: bool | None = None,
    ) -> Float[Tensor, "batch length width"]:
        """Attend; with a cache, ``x`` continues the tokens in it and is added to it.

        ``documents`` numbers the document of each token: tokens see their own only, and padding is a document like any
        other. ``absorbed`` chooses, for a latent, whether queries go to the latents or latents become keys and values;
        None takes what costs less (:meth:`AttentionShape.absorbing_pays`).
        """
        batch, length = x.shape[:2]
        if absorbed and self.shape.latent is None:
            raise ValueError(
                "Attention: absorbed=True needs a latent; this block keeps its keys and values as they are."
            )
        turns = self.rotary.turns(0 if cache is None else cache.seen, length, device=x.device)
        kept = self._kept(x, turns)
        if cache is not None:
            kept = cache.append(kept, window=self.window)
            documents = cache.documents(documents, batch=batch, length=length, device=x.device)
        visible = visibility(length, kept[0].shape[2], window=self.window, documents=documents, device=x.device)
        q = self.queries(self._log_n_scaled(self._queries(x, turns), visible))
        pays = self.shape.absorbing_pays(length, visible.stored) if absorbed is None else absorbed
        if pays and not self.keys.watched:  # absorbed, there are no keys to be seen
            heads = self._absorbed(q, kept[0], visible)
        else:
            key, value = self._keys_and_values(kept)
            heads = attend(q, self.keys(key), value, visible, scale=self.scale, maps=self.maps)
        if self.shape.share == "all":
            heads = self.rotary.turn(heads, turns.inverse())
        return cast(Tensor, self.output(heads.transpose(1, 2).flatten(-2)))

    def _queries(self, x: Tensor, turns: Turns) -> Tensor:
        if self.shape.query_rank is not None:
            x = _latent(self.query_norm, self.query_down(x))
        return self.rotary.turn(self._normalised(_split(self.query(x), self.shape.heads)), turns)

    def _kept(self, x: Tensor, turns: Turns) -> tuple[Tensor, ...]:
        """What decoding keeps of each token."""
        if self.shape.latent is not None:
            latent = _latent(self.latent_norm, self.latent(x))
            if self.shape.rotary_dim:
                latent = torch.cat((latent, self.key_rotary(x)), dim=-1)
            return (self.rotary.turn(latent.unsqueeze(1), turns),)
        key = self.rotary.turn(self._normalised(_split(self.key(x), self.shape.kv_heads)), turns)
        return (key, _split(self.value(x), self.shape.kv_heads)) if self.shape.extra_dim else (key,)

    def _keys_and_values(self, kept: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        s = self.shape
        if s.latent is not None:
            latent, rotated = kept[0].split((s.latent, s.rotary_dim), dim=-1)
            key = rotated.expand(-1, s.heads, -1, -1)
            if s.content_dim:
                key = torch.cat((_split(self.key(latent.squeeze(1)), s.heads), key), dim=-1)
            return key, _split(self.value(latent.squeeze(1)), s.heads)
        if s.share == "none":
            return kept[0], kept[1]
        if s.share == "all":
            return kept[0], kept[0]
        content = kept[0][..., : s.content_dim]
        return kept[0], torch.cat((content, kept[1]), dim=-1) if s.extra_dim else content

    def _absorbed(self, q: Tensor, latents: Tensor, visible: Visibility) -> Tensor:
        """q . (W_k c) = (W_k^T q) . c, sum p (W_v c) = W_v (sum p c): one key and value for all heads, the latent."""
        s = self.shape
        assert s.latent is not None
        content, rotated = q.split((s.content_dim, s.rotary_dim), dim=-1)
        if s.content_dim:
            content = content @ self.key.weight.unflatten(0, (s.heads, -1))
        else:
            content = content.new_zeros(*content.shape[:-1], s.latent)
        value = self.value.weight.unflatten(0, (s.heads, -1))
        query = torch.cat((content, rotated), dim=-1)
        heads = attend(query, latents, latents[..., : s.latent], visible, scale=self.scale, maps=self.maps)
        return heads @ value.mT

    def _normalised(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=self.norm_eps) if self.qk_norm else x

    def _log_n_scaled(self, q: Tensor, visible: Visibility) -> Tensor:
        if self.log_n is None:
            return q
        factor = visible.counts(q.device).log().unsqueeze(-1) / math.log(self.log_n)
        if self.log_n_gain is not None:
            factor = factor * self.log_n_gain.view(-1, 1, 1)
        return q * factor.to(q.dtype)

    def extra_repr(self) -> str:
        """The sizes, and what the cache holds for a token."""
        s = self.shape
        sizes = f"heads={s.heads}, kv_heads={s.kv_heads}, head_dim={s.head_dim}, rotary_dim={s.rotary_dim}"
        return f"{sizes}, cache={s.cache_numbers:,} numbers a token ({s.expanded_numbers:,} if expanded)"


def _latent(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise in the precision of the gains: under autocast ``x`` is narrower, which torch answers with a warning."""
    return cast(Tensor, norm(x.to(norm.weight.dtype) if isinstance(norm, nn.RMSNorm) else x))


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
