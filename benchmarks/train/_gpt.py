"""nanoGPT's recipe for a CPU, written from its description: GPT-2's blocks on characters, AdamW, cosine to a tenth.

What is published (github.com/karpathy/nanoGPT, README, "I only have a macbook"): 4 blocks, 4 heads, 128 wide, context
64, batches of 12 random windows, 2000 steps, no dropout, no biases; learning rate 1e-3, 100 steps of warm-up, cosine to
1e-4, betas 0.9 and 0.99, decay 0.1 of all matrices, the embeddings among them, gradients clipped at 1; first weights
N(0, 0.02), those into the stream smaller by sqrt(2 x 4). The first nine tenths of the characters are learned from.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Recipe:
    """The sizes and rates of the recipe."""

    depth: int = 4
    heads: int = 4
    width: int = 128
    block: int = 64
    batch: int = 12
    steps: int = 2000
    warmup: int = 100
    lr: float = 1e-3
    final_lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * share)) / 2


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(rows, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Token and position embeddings, blocks, a norm, and a head that is the token embedding."""

    def __init__(self, recipe: Recipe, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, recipe.width), nn.Embedding(recipe.block, recipe.width)
        self.blocks = nn.ModuleList(Block(recipe.width, recipe.heads) for _ in range(recipe.depth))
        self.norm = nn.LayerNorm(recipe.width, bias=False)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                into_stream = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * recipe.depth) if into_stream else 1.0))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[-1]))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)


def run(text: str, recipe: Recipe, *, seed: int) -> dict[str, float]:
    """Train the recipe; return the loss over all held-out characters, each scored once, and the number of weights."""
    alphabet = sorted(set(text))
    number = {character: i for i, character in enumerate(alphabet)}
    tokens = torch.tensor([number[character] for character in text])
    learned, held_out = tokens.split([int(0.9 * len(tokens)), len(tokens) - int(0.9 * len(tokens))])
    torch.manual_seed(seed)
    model = GPT(recipe, len(alphabet))
    groups = [
        {"params": [p for p in model.parameters() if (p.dim() > 1) == matrix], "weight_decay": decay}
        for matrix, decay in ((True, recipe.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)
    for step in range(recipe.steps):
        at = torch.randint(len(learned) - recipe.block, (recipe.batch, 1)) + torch.arange(recipe.block + 1)
        windows = learned[at]
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        loss = _loss(model, windows[:, :-1], windows[:, 1:]) / (recipe.batch * recipe.block)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
    return {
        "validation_loss": _whole(model, held_out, recipe.block),
        "parameters": sum(p.numel() for p in groups[0]["params"]),
    }


def _loss(model: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")


@torch.no_grad()
def _whole(model: GPT, tokens: Tensor, block: int) -> float:
    """The mean loss over all tokens but the first, in windows side by side."""
    windows = [tokens[i : i + block + 1][None] for i in range(0, len(tokens) - 1, block)]
    return float(sum(_loss(model, window[:, :-1], window[:, 1:]) for window in windows)) / (len(tokens) - 1)
