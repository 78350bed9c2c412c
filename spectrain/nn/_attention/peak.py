"""The largest logit of each head, exactly, whatever computes the attention (article 11126, kexue.fm/archives/11126).

Fused attention keeps no logits and returns no maximum. So they are computed once more, without gradient, a block of
queries at a time: one product of queries and keys, in memory for an eighth of them. That is one product beside the
seven that attention takes in a training step (two forward, five backward).
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spectrain.nn._attention.visibility import Visibility

_BLOCKS = 8  # of queries
_LEAST = 128  # queries of a block


class Peak(nn.Module):
    """A module with a running maximum of the logits of each of its heads, in float32, while ``watches`` is on."""

    peak: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.watches = False

    def look(self, q: Tensor, k: Tensor, visible: Visibility, scale: float) -> None:
        """See scaled logits of ``(batch, heads, length, dim)`` queries on keys of as many or fewer heads."""
        if not (self.watches and self.training) or q.numel() == 0:
            return
        with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
            found = largest_logits_of(q, k, visible, scale=scale)
            self.peak.copy_(torch.maximum(self.peak, found.to(self.peak.dtype)))

    @torch.no_grad()
    def take_peak(self) -> Float[Tensor, " heads"]:
        """The largest since the last call, which begins anew; ValueError where there was no forward pass."""
        found = self.peak.clone()
        if bool(found.isneginf().any()):
            raise ValueError(
                "Attention: no logit was seen since the last call; call watch_logits(model) before, and a forward pass "
                "in training mode."
            )
        self.peak.fill_(-torch.inf)
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Peak":
        """Stay in float32 whatever the model is cast to."""
        super()._apply(fn, recurse)
        self.peak = self.peak.float()
        return self


def largest_logits_of(q: Tensor, k: Tensor, visible: Visibility, *, scale: float) -> Float[Tensor, " heads"]:
    """The largest ``scale q k`` over all that is visible, for each head; products in float32 or wider."""
    wide = torch.promote_types(q.dtype, torch.float32)
    group, length = q.shape[1] // k.shape[1], q.shape[2]
    rows, k = q.detach().to(wide).unflatten(1, (k.shape[1], group)), k.detach().to(wide).unsqueeze(2)
    size = max(_LEAST, -(-length // _BLOCKS))
    largest = None
    for start in range(0, length, size):
        stop = min(start + size, length)
        first, seen = visible.keys(start, stop)  # no key after the last query of the block
        logits = rows[..., start:stop, :] @ k[..., first:seen, :].mT
        if not visible.whole:
            logits.masked_fill_(~visible.mask(start, stop, first, seen).unsqueeze(2), -torch.inf)
        else:  # only the last keys are after some query of the block
            later = torch.ones(stop - start, stop - start, dtype=torch.bool, device=q.device).triu(1)
            logits[..., seen - (stop - start) :].masked_fill_(later, -torch.inf)
        found = logits.amax((0, -2, -1)).flatten()
        largest = found if largest is None else torch.maximum(largest, found)
    assert largest is not None
    return largest * scale


def attention_blocks(model: nn.Module) -> Iterator[tuple[str, Peak]]:
    """The attention blocks of ``model`` by name, in its order."""
    return ((name, block) for name, block in model.named_modules() if isinstance(block, Peak))


def watch_logits(model: nn.Module, *, on: bool = True) -> None:
    """Let every :class:`Attention` of ``model`` see its largest logits in training mode, or stop; before torch.compile.

    >>> from spectrain import nn
    >>> model = nn.LanguageModel(vocabulary=9, width=16, depth=1, heads=2, generator=0)
    >>> watch_logits(model)
    >>> _ = model(torch.zeros(1, 4, dtype=torch.long))
    >>> {name: tuple(found.shape) for name, found in largest_logits(model).items()}
    {'blocks.0.attention': (2,)}
    """
    for _, block in attention_blocks(model):
        block.watches = on
        block.peak.fill_(-torch.inf)


def largest_logits(model: nn.Module) -> dict[str, Float[Tensor, " heads"]]:
    """The largest logit of each head since the last call, scaled as the softmax sees it, by name of the block.

    Exact: over all training-mode forward passes in between (micro-batches, recomputations of a checkpoint), in every
    form of attention: fused, folded, watched, absorbed, with any mask. With several ranks take the maximum over them
    (an ``all_reduce`` of the result); DDP broadcasts buffers before a forward pass, so that micro-batches need its
    ``no_sync()`` or ``broadcast_buffers=False``. ``optim.qk_clip_`` takes the result. ValueError where a block saw no
    forward pass.

    Cost: a product of queries and keys in each forward pass.
    """
    return {name: block.take_peak() for name, block in attention_blocks(model)}
