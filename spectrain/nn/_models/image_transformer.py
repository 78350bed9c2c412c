"""A transformer over the patches of an image, told the times and the label: the velocity of an image flow."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from spectrain._arrays.generators import fresh_generator
from spectrain.nn._numbers import check_not_negative, check_sizes


class ImageTransformer(nn.Module):
    """``u(x, r, t, labels)``: images in, images of the same shape out, by attention between square patches.

    The times enter as Fourier features of t and t - r, the label as an embedding; their sum sets scale, shift and
    gate of every block (adaptive normalisation, starting at the identity), so the untrained model returns zero.

    Shapes: ``x`` is ``(batch, channels, size, size)``, r and t ``(batch,)``; ``labels`` integers below ``classes``, or
    ``classes`` itself for "no label" (also when left out). Cost: ``24 depth width^2`` operations a patch.

    Raises ``ValueError`` where size does not divide into patches or width into heads.

    Source: Peebles and Xie, "Scalable diffusion models with transformers" (arXiv 2212.09748).

    >>> model = ImageTransformer(size=8, channels=1, patch=2, width=32, depth=1, heads=2, classes=10, generator=0)
    >>> x, t = torch.randn(3, 1, 8, 8), torch.rand(3)
    >>> model(x, t, t).shape, model(x, t, t, labels=torch.tensor([0, 9, 10])).abs().max().item()
    (torch.Size([3, 1, 8, 8]), 0.0)
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        classes: int = 0,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        sizes = {"size": size, "channels": channels, "patch": patch, "width": width, "depth": depth, "heads": heads}
        check_sizes("ImageTransformer", **sizes)
        check_not_negative("ImageTransformer", classes=classes)
        if size % patch:
            raise ValueError(f"ImageTransformer needs size divisible by patch, got size={size}, patch={patch}.")
        if width % heads or width % 2:
            raise ValueError(f"ImageTransformer needs an even width divisible by heads, got {width=}, {heads=}.")
        self.patch, self.classes = patch, classes
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation would draw from the global generator
            self.embed = nn.Linear(channels * patch**2, width)
            self.places = nn.Embedding((size // patch) ** 2, width)
            self.times = nn.ModuleList(_Times(width) for _ in range(2))
            self.label = nn.Embedding(classes + 1, width)
            self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
            self.modulation = nn.Linear(width, 2 * width)
            self.head = nn.Linear(width, channels * patch**2)
        if self.embed.weight.device.type != "meta":
            self.initialise(generator=generator)

    def forward(
        self,
        x: Float[Tensor, "batch channels size size"],
        r: Float[Tensor, " batch"],
        t: Float[Tensor, " batch"],
        *,
        labels: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch channels size size"]:
        """The average velocity over [r, t]."""
        if labels is None:
            labels = torch.full((len(x),), self.classes, device=x.device)
        told = F.silu(self.times[0](t) + self.times[1](t - r) + self.label(labels))
        h = self.embed(_patches(x, self.patch)) + self.places.weight
        for block in self.blocks:
            h = block(h, told)
        scale, shift = self.modulation(told)[:, None].chunk(2, dim=-1)
        out = self.head(F.rms_norm(h, h.shape[-1:]) * (1 + scale) + shift)
        return _image(out, self.patch, like=x)

    @torch.no_grad()
    def initialise(self, *, generator: torch.Generator | int | None = None) -> None:
        """Draw all weights in place; what writes to the image starts at zero."""
        draw = fresh_generator(generator, "initialise")
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=draw)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=1.0, generator=draw)
        silent = [self.head, self.modulation, *(block.modulation for block in self.blocks if isinstance(block, _Block))]
        for module in silent:
            nn.init.zeros_(module.weight)


def _patches(x: Float[Tensor, "batch channels size size"], patch: int) -> Float[Tensor, "batch patches numbers"]:
    """Squares of ``patch`` pixels, row by row; torch's ``pixel_unshuffle`` fails for an empty batch."""
    side = x.shape[-1] // patch
    cut = x.unflatten(3, (side, patch)).unflatten(2, (side, patch))
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(len(x), side**2, x.shape[1] * patch**2)


def _image(patches: Float[Tensor, "batch patches numbers"], patch: int, *, like: Tensor) -> Tensor:
    """The inverse of :func:`_patches`."""
    side = like.shape[-1] // patch
    cut = patches.unflatten(1, (side, side)).unflatten(3, (like.shape[1], patch, patch))
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(like.shape)


class _Times(nn.Module):
    """A number in [0, 1] as a vector: Fourier features, then two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        half = self.up.in_features // 2
        # Periods from 1 to 8, none shorter: objectives that differentiate by time multiply the noise of an untrained
        # feature by its frequency, and that of period 1/16 drowned what was to be learned.
        octaves = torch.linspace(-3, 0, half, dtype=t.dtype, device=t.device)
        angles = 2 * math.pi * t[:, None] * torch.exp2(octaves)
        out: Tensor = self.down(F.silu(self.up(torch.cat((angles.sin(), angles.cos()), dim=1))))
        return out


class _Block(nn.Module):
    """Attention and feed-forward, each normalised, scaled, shifted and gated by what the block is told."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, h: Float[Tensor, "batch n width"], told: Float[Tensor, "batch width"]) -> Tensor:
        parts = self.modulation(told)[:, None].chunk(6, dim=-1)
        h = h + parts[2] * self._attend(_modulate(h, parts[0], parts[1]))
        out: Tensor = h + parts[5] * self.down(F.gelu(self.up(_modulate(h, parts[3], parts[4]))))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        out: Tensor = self.output(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        return out


def _modulate(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.rms_norm(h, h.shape[-1:]) * (1 + scale) + shift
