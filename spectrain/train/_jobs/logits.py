"""The largest attention logits of a step, and QK-clip by them (article 11126, kexue.fm/archives/11126)."""

import math

import torch
from torch import Tensor, nn

from spectrain import optim
from spectrain.nn.attention import Attention, attention_blocks, largest_logits
from spectrain.train._mesh.ranks import Ranks


def clip_logits(model: nn.Module, threshold: float, ranks: Ranks) -> dict[str, object]:
    """Clip where logits were above ``threshold`` in the step that was taken; figures for its row.

    ``max_logit``, over all, and of each layer; ``clipped_heads``, how many were above. An infinite threshold looks and
    changes nothing. ``watch_logits`` must have been called before the forward passes of the step. Over ranks logits
    are those of the whole batch and all heads, and each rank multiplies the rows that it has.
    """
    found, clipped = _over_ranks(largest_logits(model), ranks), 0
    for name, block in attention_blocks(model):
        if threshold < math.inf:
            assert isinstance(block, Attention)
            given = block.clip_arguments()
            for count in ("heads", "kv_heads"):
                given[count] *= ranks.layout.tensor  # a block knows of the heads of this rank
            factors = optim.qk_clip_(**given, max_logits=found[name], threshold=threshold)
            clipped += int((factors < 1).sum())
    tops = [float(of_heads.max()) for of_heads in found.values()]
    each = {f"max_logit.{i}": top for i, top in enumerate(tops)}
    return {"max_logit": max(tops), **each, "clipped_heads": clipped}


def _over_ranks(own: dict[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """The largest logit of each head of the model, of all ranks: a maximum, which no order changes."""
    sizes = [len(of_heads) for of_heads in own.values()]
    tops = ranks.most(torch.cat([*own.values()])).split(sizes, dim=1)
    return {name: of_heads.flatten() for name, of_heads in zip(own, tops, strict=True)}
