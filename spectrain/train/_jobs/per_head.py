"""Muon by heads: rules under which each head of queries, keys and values is a matrix of its own (article 10907)."""

from torch import nn

from spectrain import optim
from spectrain.nn.attention import Attention


def head_rules(model: nn.Module) -> dict[str, optim.Matrix]:
    """Rules for ``optim.route`` that cut the maps of each attention of ``model`` into their heads.

    Maps of what all heads share stay whole: latents, the rotated key beside one, queries' way through a rank.
    """
    return {
        f"{path}.{name}.weight": optim.Matrix(heads=(count,))
        for path, block in model.named_modules()
        if isinstance(block, Attention)
        for name, count in block.head_counts().items()
        if count > 1
    }
