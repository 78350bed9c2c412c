"""A decoder-only transformer on one page: its feed-forward block, its blocks, the model, and all its initial weights.

Every model of this room draws its weights from :func:`generator_of` what a caller gives.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from spectrain._arrays.generators import fresh_generator
from spectrain.nn._attention.attention import Attention
from spectrain.nn._attention.cache import Cache
from spectrain.nn._attention.kind import normalise_wide
from spectrain.nn._autocast import narrowed
from spectrain.nn._linear import Linear
from spectrain.nn._numbers import check_not_negative, check_sizes
from spectrain.nn._rms_norm import RMSNorm

Norms: TypeAlias = Literal["pre", "post"]


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))``, without biases unless ``bias`` gives one to each map.

    Cost: ``6 * width * hidden`` multiply-adds a token, forward. Source: Shazeer, GLU variants improve
    transformers, arXiv 2002.05202.

    >>> import torch
    >>> SwiGLU(8, hidden=16)(torch.zeros(2, 3, 8)).abs().sum().item()
    0.0
    """

    def __init__(self, width: int, *, hidden: int, bias: bool = False) -> None:
        super().__init__()
        check_sizes("SwiGLU", width=width, hidden=hidden)
        self.gate = Linear(width, hidden, bias=bias)
        self.up = Linear(width, hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Apply the block to the last dimension."""
        x = narrowed(x)
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out

    @torch.no_grad()
    def initialise(self, *, generator: torch.Generator) -> None:
        """Draw the weights: normal of standard deviation ``1 / sqrt(fan_in)``, ``down`` and biases zero."""
        for reader in (self.gate, self.up):
            nn.init.normal_(reader.weight, std=reader.in_features**-0.5, generator=generator)
        nn.init.zeros_(self.down.weight)
        for layer in (self.gate, self.up, self.down):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Part(Protocol):
    """Half of a block: called on the normalised stream, and able to draw its own weights."""

    def __call__(self, x: Tensor) -> Tensor:
        """What is added to the stream."""
        ...

    def initialise(self, *, generator: torch.Generator) -> None:
        """Draw all weights in place."""
        ...


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``; ``feed_forward`` is any :class:`Part`.

    With ``norms="post"`` norms stand behind what they belong to (OLMo 2): ``x + norm(attention(x))``.
    """

    def __init__(
        self,
        width: int,
        *,
        attention: Attention,
        feed_forward: nn.Module,
        norm_eps: float | None = None,
        norms: Norms = "pre",
    ) -> None:
        super().__init__()
        if norms not in get_args(Norms):
            raise ValueError(f"Block: norms must be one of {', '.join(get_args(Norms))}, got {norms!r}.")
        self.norms = norms
        self.attention_norm = RMSNorm(width, eps=norm_eps)
        self.attention = attention
        self.feed_forward_norm = RMSNorm(width, eps=norm_eps)
        self.feed_forward = feed_forward

    def forward(
        self,
        x: Tensor,
        *,
        cache: Cache | None = None,
        documents: Tensor | None = None,
        absorbed: bool | None = None,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Apply both halves."""
        counts = counted is not None and getattr(self.feed_forward, "counts_tokens", False)
        there = {"counted": counted} if counts else {}
        if self.norms == "post":
            written = self.attention(x, cache=cache, documents=documents, absorbed=absorbed)
            x = x + normalise_wide(self.attention_norm, written)
            return x + normalise_wide(self.feed_forward_norm, self.feed_forward(x, **there))
        x = x + self.attention(self.attention_norm(x), cache=cache, documents=documents, absorbed=absorbed)
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x), **there)
        return out


class LanguageModel(nn.Module):
    """Next-token logits from tokens: embedding, ``depth`` blocks, norm, head.

    RMSNorm before each half of a block (or behind it: ``norms="post"``), rotary positions, SwiGLU; no biases.
    ``attention`` holds further arguments of :class:`Attention` (``{"latent": 64}``);
    ``feed_forward`` makes the second half of block i in place of SwiGLU: a module with
    ``initialise(generator=)``. ``tied=True`` makes the head share the embedding's weights. ``context`` is the longest
    sequence, cached tokens included, that the model takes; None takes any. Embeddings are divided by their rms
    (``embedding_norm``). ``norm_eps`` is added to mean squares; None adds the dtype's rounding. Weights are those of
    :func:`initialise`.

    Shapes: ``(batch, length)`` integers to ``(batch, length, vocabulary)`` logits.

    Raises ``ValueError`` where the shape is impossible (see :class:`Attention`), for tokens outside the vocabulary and
    beyond ``context``.

    >>> model = LanguageModel(vocabulary=50, width=32, depth=2, heads=4, kv_heads=2, generator=0)
    >>> model(torch.zeros(1, 8, dtype=torch.long)).shape
    torch.Size([1, 8, 50])
    >>> model.cache_numbers                                    # kept for a token, in all blocks together
    64
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        kv_heads: int | None = None,
        hidden: int | None = None,
        tied: bool = False,
        context: int | None = None,
        embedding_norm: bool = True,
        norm_eps: float | None = None,
        norms: Norms = "pre",
        attention: Mapping[str, Any] | None = None,
        feed_forward: Callable[[int], nn.Module] | None = None,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        sizes = {"vocabulary": vocabulary, "width": width, "depth": depth, "hidden": hidden, "context": context}
        check_sizes("LanguageModel", **sizes)
        check_not_negative("LanguageModel", norm_eps=norm_eps)
        hidden = 64 * math.ceil(8 * width / 3 / 64) if hidden is None else hidden
        self.context, self.embedding_norm = context, embedding_norm
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation would draw from the global generator
            self.embedding = nn.Embedding(vocabulary, width)
            self.blocks = nn.ModuleList(
                Block(
                    width,
                    attention=Attention(width, heads=heads, kv_heads=kv_heads, **(attention or {})),
                    feed_forward=SwiGLU(width, hidden=hidden) if feed_forward is None else feed_forward(i),
                    norm_eps=norm_eps,
                    norms=norms,
                )
                for i in range(depth)
            )
            self.norm = RMSNorm(width, eps=norm_eps)
            self.head = Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        if self.embedding.weight.device.type != "meta":
            initialise(self, generator=generator)

    @property
    def cache_numbers(self) -> int:
        """Numbers that decoding keeps for a token, in all blocks together."""
        return sum(block.attention.shape.cache_numbers for block in self.blocks if isinstance(block, Block))

    def forward(
        self,
        tokens: Int[Tensor, "batch length"],
        *,
        caches: list[Cache] | None = None,
        documents: Int[Tensor, "batch length"] | None = None,
        absorbed: bool | None = None,
        counted: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch length vocabulary"]:
        """Logits of the token that follows each position.

        ``counted`` is for experts: False for padding (:meth:`MoE.forward`); all others as in :meth:`Attention.forward`.
        """
        x = self.features(tokens, caches=caches, documents=documents, absorbed=absorbed, counted=counted)
        out: Tensor = self.head(x)
        return out

    def features(
        self,
        tokens: Int[Tensor, "batch length"],
        *,
        caches: list[Cache] | None = None,
        documents: Int[Tensor, "batch length"] | None = None,
        absorbed: bool | None = None,
        counted: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch length width"]:
        """What the head sees: the normalised residual stream."""
        end = tokens.shape[1] + (caches[0].seen if caches else 0)
        if self.context is not None and end > self.context:
            raise ValueError(f"LanguageModel: {end} tokens are beyond its context of {self.context}; give fewer.")
        x = self.embedding(tokens)
        if self.embedding_norm:
            x = F.rms_norm(x, (self.embedding.embedding_dim,))
        there = {} if counted is None else {"counted": counted}
        for i, block in enumerate(self.blocks):
            cache = None if caches is None else caches[i]
            x = block(x, cache=cache, documents=documents, absorbed=absorbed, **there)
        out: Tensor = self.norm(x)
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LanguageModel":
        """Keep tied weights tied where torch makes two of them, as ``to_empty`` does."""
        tied = self.head.weight is self.embedding.weight
        super()._apply(fn, recurse)
        if tied:
            self.head.weight = self.embedding.weight
        return self

    def empty_caches(self) -> list[Cache]:
        """One empty cache a block, for decoding."""
        return [block.attention.empty_cache() for block in self.blocks if isinstance(block, Block)]


@torch.no_grad()
def initialise(model: LanguageModel, *, generator: torch.Generator | int | None = None) -> None:
    """Draw all weights of a :class:`LanguageModel`, in place.

    Matrices that read the residual stream: normal with standard deviation ``1 / sqrt(fan_in)``, so
    that each keeps the scale of its input. Matrices that write to it (``output``, ``down``): zero, so
    that a deep model starts as the identity; where a norm follows (``norms="post"``) they are drawn like the others,
    for it would divide by nothing. Embedding: normal, 1 (it is normalised right away)
    untied; ``1 / sqrt(width)`` tied, where it is the head as well. An untied head: zero, so that the
    first loss is ``log(vocabulary)``. Norm gains: one.

    ``generator`` is a ``torch.Generator`` or an integer seed; ``None`` draws a fresh seed from the
    operating system and leaves torch's global generator alone.
    """
    draw = fresh_generator(generator, "initialise")
    width, tied = model.embedding.embedding_dim, model.head.weight is model.embedding.weight
    nn.init.normal_(model.embedding.weight, std=width**-0.5 if tied else 1.0, generator=draw)
    if not tied:
        nn.init.zeros_(model.head.weight)
    for block in model.blocks:
        assert isinstance(block, Block)
        for part in (block.attention, block.feed_forward):
            cast(Part, part).initialise(generator=draw)
        if block.norms == "post":
            for writer in (block.attention.output, getattr(block.feed_forward, "down", None)):
                if isinstance(writer, nn.Linear):
                    nn.init.normal_(writer.weight, std=writer.in_features**-0.5, generator=draw)
    for module in model.modules():
        if isinstance(module, nn.RMSNorm):
            nn.init.ones_(module.weight)
