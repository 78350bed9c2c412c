"""The largest attention logits of a step, and QK-clip by them (article 11126, kexue.fm/archives/11126)."""

import math

from torch import nn

from spectrain import optim
from spectrain.nn.attention import Attention, attention_blocks, largest_logits


def clip_logits(model: nn.Module, threshold: float) -> dict[str, object]:
    """Clip where logits were above ``threshold`` in the step that was taken; figures for its row.

    ``max_logit``, over all, and of each layer; ``clipped_heads``, how many were above. An infinite threshold looks and
    changes nothing. ``watch_logits`` must have been called before the forward passes of the step.
    """
    found, clipped = largest_logits(model), 0
    for name, block in attention_blocks(model):
        if threshold < math.inf:
            assert isinstance(block, Attention)
            factors = optim.qk_clip_(**block.clip_arguments(), max_logits=found[name], threshold=threshold)
            clipped += int((factors < 1).sum())
    tops = [float(of_heads.max()) for of_heads in found.values()]
    each = {f"max_logit.{i}": top for i, top in enumerate(tops)}
    return {"max_logit": max(tops), **each, "clipped_heads": clipped}
