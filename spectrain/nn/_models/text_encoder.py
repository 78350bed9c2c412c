"""A text as one vector: embedding, blocks that see the whole text, and a mean over its tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from spectrain._arrays.generators import fresh_generator
from spectrain.nn._attention.rotary import Rotary
from spectrain.nn._models.language_model import SwiGLU
from spectrain.nn._numbers import check_not_negative, check_sizes
from spectrain.nn._rms_norm import RMSNorm


class TextEncoder(nn.Module):
    """Token numbers to a vector: ``depth`` blocks of two-way attention and SwiGLU, then the mean over the tokens.

    Padding is marked by -1 and takes no part: a text has the same vector, rounding apart, whatever it is padded
    to. ``depth=0`` is a bag of tokens.

    Shapes: ``(batch, length)`` integers to ``(batch, width)``. Cost: ``24 depth width^2 + 4 depth length width``
    operations a token.

    Raises ``ValueError`` where width does not divide into heads, and for a text of padding only.

    >>> encoder = TextEncoder(vocabulary=50, width=16, depth=1, heads=2, generator=0)
    >>> text = torch.tensor([[3, 1, 4], [1, 5, -1]])
    >>> torch.testing.assert_close(encoder(text)[1:], encoder(text[1:, :2]))
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        check_sizes("TextEncoder", vocabulary=vocabulary, width=width, heads=heads)
        check_not_negative("TextEncoder", depth=depth)
        if width % (2 * heads):
            raise ValueError(f"TextEncoder needs width divisible by twice the heads, got width={width}, heads={heads}.")
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation would draw from the global generator
            self.embedding = nn.Embedding(vocabulary, width)
            self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
            self.norm = RMSNorm(width)
        if self.embedding.weight.device.type != "meta":
            self.initialise(generator=generator)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch width"]:
        """One vector a text, of length about ``sqrt(width)``."""
        seen = tokens >= 0
        if not seen.any(dim=1).all():
            raise ValueError(f"TextEncoder: text {int((~seen.any(dim=1)).nonzero()[0])} has no token, only padding.")
        x = F.rms_norm(self.embedding(tokens.clamp(min=0)), (self.embedding.embedding_dim,))
        mask = seen[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        mean = (x * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
        out: Tensor = self.norm(mean)
        return out

    @torch.no_grad()
    def initialise(self, *, generator: torch.Generator | int | None = None) -> None:
        """Draw all weights in place; what writes to the stream starts at zero, gains at one."""
        draw = fresh_generator(generator, "initialise")
        nn.init.normal_(self.embedding.weight, generator=draw)
        for block in self.blocks:
            assert isinstance(block, _Block)
            for reader in (block.query, block.key, block.value):
                nn.init.normal_(reader.weight, std=reader.in_features**-0.5, generator=draw)
            nn.init.zeros_(block.output.weight)
            block.feed_forward.initialise(generator=draw)
        for module in self.modules():
            if isinstance(module, nn.RMSNorm):
                nn.init.ones_(module.weight)


class _Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``; every token sees every other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = RMSNorm(width), RMSNorm(width)
        self.query, self.key, self.value, self.output = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.rotary = Rotary(width // heads)
        self.feed_forward = SwiGLU(width, hidden=64 * -(-8 * width // 192))

    def forward(self, x: Float[Tensor, "batch length width"], mask: Tensor) -> Float[Tensor, "batch length width"]:
        h = self.attention_norm(x)
        q, k, v = (f(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        q, k = (self.rotary(F.rms_norm(part, part.shape[-1:])) for part in (q, k))
        x = x + self.output(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2))
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out
