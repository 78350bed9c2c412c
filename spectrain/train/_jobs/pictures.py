"""What jobs on pictures share: words about the data, sizes, and the matrices of their transformer."""

import torch

from spectrain import data, nn


def default_patch(size: int) -> int:
    """Pixels along a patch: the largest that divides ``size`` into at least 4 patches a side.

    >>> [default_patch(size) for size in (8, 28, 32, 7)]
    [2, 7, 8, 1]
    """
    return max(p for p in range(1, size + 1) if size % p == 0 and (size // p >= 4 or p == 1))


def about_source(train: data.images.Images, held_out: data.images.Images) -> str:
    """Where the pictures are from, and how many."""
    return f"pictures from {train.source}: {len(train):,} to learn from, {len(held_out):,} held out"


def about_pictures(train: data.images.Images) -> str:
    """What one picture is."""
    channels, size = train.pixels.shape[1:3]
    kind = "grey" if channels == 1 else "colour"
    return f"pictures are {kind}, {size} x {size}, of {len(train.classes)} classes"


def block_matrices(model: nn.ImageTransformer) -> set[torch.nn.Parameter]:
    """The weights of the linear layers inside the blocks."""
    linear = (m for m in model.blocks.modules() if isinstance(m, torch.nn.Linear))
    return {p for m in linear for p in m.parameters() if p.dim() == 2}


def cost(model: nn.ImageTransformer) -> str:
    """Floating-point operations of forward and backward."""
    patches = model.places.num_embeddings
    return f"{6 * patches * sum(p.numel() for p in block_matrices(model)) / 1e6:.3g} MFLOP a picture"
