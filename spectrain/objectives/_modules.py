"""The torch modules among encoders, and what about them cannot be cut into chunks."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import nn


def modules(encoders: Sequence[object]) -> Iterator[nn.Module]:
    """Each encoder that is a module, once."""
    seen: set[int] = set()
    for encoder in encoders:
        if isinstance(encoder, nn.Module) and id(encoder) not in seen:
            seen.add(id(encoder))
            yield encoder


def refuse_batch_statistics(encoders: Sequence[object]) -> None:
    """Raise ``ValueError`` naming a batch normalisation in training mode: it mixes the examples of a chunk."""
    for encoder in modules(encoders):
        for name, module in encoder.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
                raise ValueError(
                    f"Contrastive: {name or 'the encoder'} is a {type(module).__name__} in training mode: its output "
                    "depends on the other examples of a chunk, so chunks cannot give the full batch's gradient. Use "
                    "LayerNorm or GroupNorm, put it into eval(), compute statistics of the whole batch with "
                    "batch_norm='exact', or accept those of each chunk with 'per chunk'."
                )


def without_sync(encoder: object) -> AbstractContextManager[object]:
    """DistributedDataParallel's ``no_sync``: gradients wait for the last chunk. Nothing for other encoders."""
    no_sync = getattr(encoder, "no_sync", None)
    if no_sync is None:
        return nullcontext()
    context: AbstractContextManager[object] = no_sync()
    return context
