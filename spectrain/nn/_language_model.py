"""A decoder-only transformer on one page, and its initialisation in one function."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from spectrain.nn._attention import Attention
from spectrain.nn._feed_forward import SwiGLU


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``."""

    def __init__(self, width: int, *, heads: int, kv_heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width)
        self.attention = Attention(width, heads=heads, kv_heads=kv_heads)
        self.feed_forward_norm = nn.RMSNorm(width)
        self.feed_forward = SwiGLU(width, hidden=hidden)

    def forward(self, x: Tensor, *, cache: list[Tensor] | None = None) -> Tensor:
        """Apply both halves."""
        x = x + self.attention(self.attention_norm(x), cache=cache)
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out


class LanguageModel(nn.Module):
    """Next-token logits from tokens: embedding, ``depth`` pre-norm blocks, norm, head.

    RMSNorm, rotary positions, grouped-query attention, SwiGLU; no biases. ``tied=True`` makes the
    head share the embedding's weights. Weights are those of :func:`initialise`.

    Shapes: ``(batch, length)`` integers to ``(batch, length, vocabulary)`` logits.

    Raises ``ValueError`` where the shape is impossible (see :class:`Attention`).

    >>> model = LanguageModel(vocabulary=50, width=32, depth=2, heads=4, kv_heads=2, generator=0)
    >>> model(torch.zeros(1, 8, dtype=torch.long)).shape
    torch.Size([1, 8, 50])
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
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if vocabulary < 1 or depth < 1:
            raise ValueError(f"LanguageModel needs vocabulary and depth of at least 1, got {vocabulary} and {depth}.")
        hidden = 64 * math.ceil(8 * width / 3 / 64) if hidden is None else hidden
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation would draw from the global generator
            self.embedding = nn.Embedding(vocabulary, width)
            self.blocks = nn.ModuleList(
                Block(width, heads=heads, kv_heads=kv_heads or heads, hidden=hidden) for _ in range(depth)
            )
            self.norm = nn.RMSNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        initialise(self, generator=generator)

    def forward(
        self, tokens: Int[Tensor, "batch length"], *, caches: list[list[Tensor]] | None = None
    ) -> Float[Tensor, "batch length vocabulary"]:
        """Logits of the token that follows each position."""
        out: Tensor = self.head(self.features(tokens, caches=caches))
        return out

    def features(
        self, tokens: Int[Tensor, "batch length"], *, caches: list[list[Tensor]] | None = None
    ) -> Float[Tensor, "batch length width"]:
        """What the head sees: the normalised residual stream."""
        x = F.rms_norm(self.embedding(tokens), (self.embedding.embedding_dim,))
        for i, block in enumerate(self.blocks):
            x = block(x, cache=None if caches is None else caches[i])
        out: Tensor = self.norm(x)
        return out

    def empty_caches(self, batch: int) -> list[list[Tensor]]:
        """One empty key-value cache a block, for decoding."""
        return [block.attention.empty_cache(batch) for block in self.blocks if isinstance(block, Block)]


@torch.no_grad()
def initialise(model: LanguageModel, *, generator: torch.Generator | int | None = None) -> None:
    """Draw all weights of a :class:`LanguageModel`, in place.

    Matrices that read the residual stream: normal with standard deviation ``1 / sqrt(fan_in)``, so
    that each keeps the scale of its input. Matrices that write to it (``output``, ``down``): zero, so
    that a deep model starts as the identity. Embedding: normal, 1 (it is normalised right away)
    untied; ``1 / sqrt(width)`` tied, where it is the head as well. An untied head: zero, so that the
    first loss is ``log(vocabulary)``. Norm gains: one.

    ``generator`` is a ``torch.Generator`` or an integer seed; ``None`` draws a fresh seed from the
    operating system and leaves torch's global generator alone.
    """
    draw = _generator(generator)
    width, tied = model.embedding.embedding_dim, model.head.weight is model.embedding.weight
    nn.init.normal_(model.embedding.weight, std=width**-0.5 if tied else 1.0, generator=draw)
    if not tied:
        nn.init.zeros_(model.head.weight)
    for block in model.blocks:
        assert isinstance(block, Block)
        attention, feed_forward = block.attention, block.feed_forward
        for reader in (attention.query, attention.key, attention.value, feed_forward.gate, feed_forward.up):
            nn.init.normal_(reader.weight, std=reader.in_features**-0.5, generator=draw)
        for writer in (attention.output, feed_forward.down):
            nn.init.zeros_(writer.weight)
    for module in model.modules():
        if isinstance(module, nn.RMSNorm):
            nn.init.ones_(module.weight)


def _generator(seed: torch.Generator | int | None) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        return seed
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
