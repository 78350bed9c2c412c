"""The default model of `spectrain train` as plain torch, and a loop that trains it: an afternoon's work."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Moved = Literal["muon", "adamw"]


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and of its batches."""

    vocabulary: int
    depth: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    block: int
    batch: int


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``: grouped keys, normalised and rotated; SwiGLU."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.heads, self.size = (s.heads, s.kv_heads), s.width // s.heads
        self.norm1, self.norm2 = nn.RMSNorm(s.width), nn.RMSNorm(s.width)
        self.query, self.out = (nn.Linear(s.width, s.width, bias=False) for _ in range(2))
        self.key, self.value = (nn.Linear(s.width, s.kv_heads * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(s.width, s.hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(s.hidden, s.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n = self.norm1(x)
        q, k, v = (
            layer(n).unflatten(-1, (-1, self.size)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        q, k = (rotate(F.rms_norm(part, (self.size,)), cos, sin) for part in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True, enable_gqa=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        n = self.norm2(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))


class Plain(nn.Module):
    """Embedding, blocks, norm, head."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(s.vocabulary, s.width), nn.Linear(s.width, s.vocabulary, bias=False)
        self.blocks, self.norm = nn.ModuleList(Block(s) for _ in range(s.depth)), nn.RMSNorm(s.width)
        size = s.width // s.heads
        angle = torch.arange(s.block)[:, None] / 10_000 ** (torch.arange(0, size, 2) / size)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = F.rms_norm(self.embedding(tokens), (self.norm.weight.numel(),))
        cos, sin = self.cos, self.sin
        if torch.is_autocast_enabled("cpu"):
            cos, sin = cos.bfloat16(), sin.bfloat16()
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), targets.flatten())


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of coordinates, half a head apart."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def plain_step(s: Shape, *, moved: Moved, bfloat16: bool, compiled: bool) -> Callable[[], float]:
    """A step of the loop: windows of a text, gradient, clip, update; returns the loss."""
    torch.manual_seed(0)
    model = Plain(s)
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not m for m in matrices)]
    adamw = torch.optim.AdamW(rest if moved == "muon" else model.parameters(), lr=3e-3, fused=True)
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if moved == "muon":
        optimizers.append(torch.optim.Muon(matrices, lr=8e-3, adjust_lr_fn="match_rms_adamw"))
    loss_of = torch.compile(model, dynamic=False) if compiled else model
    return train_step(loss_of, optimizers, s, bfloat16=bfloat16, parameters=list(model.parameters()))


def train_step(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizers: list[torch.optim.Optimizer],
    s: Shape,
    *,
    bfloat16: bool,
    parameters: list[nn.Parameter],
) -> Callable[[], float]:
    """The loop around any model that gives its loss."""
    text, windows = torch.randint(s.vocabulary, (2**18,)), torch.arange(s.block + 1)

    def step() -> float:
        rows = text[torch.randint(len(text) - s.block, (s.batch, 1)) + windows]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            loss = loss_of(rows[:, :-1], rows[:, 1:])
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        return loss.item()

    return step
