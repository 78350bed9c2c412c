"""The likelihood of text: in nats a token for the optimizer, in bits a byte for people."""

import math

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def negative_log_likelihood(
    logits: Float[Tensor, "*batch vocabulary"], targets: Int[Tensor, "*batch"], *, ignore: int = -100
) -> Float[Tensor, ""]:
    """``-sum log softmax(logits)[target]`` over all targets other than ``ignore``, in nats.

    The *sum*, not the mean: divided once by the number of tokens of the whole step, it gives the
    same gradient however a batch is cut into micro-batches, also where they hold different numbers of
    tokens. Computed in float32 for narrower logits.

    >>> import torch
    >>> nats = negative_log_likelihood(torch.zeros(3, 8), torch.tensor([1, 2, -100]))
    >>> math.isclose(nats.item(), 2 * math.log(8), rel_tol=1e-6)
    True
    """
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignore, reduction="sum")


def bits_per_byte(nats: float, *, bytes: int) -> float:
    """Total negative log-likelihood in nats to bits a byte: ``nats / (log(2) * bytes)``.

    Independent of the tokenizer, and what a compressor that uses the model would need.

    Raises ``ValueError`` unless ``bytes`` is positive.

    >>> bits_per_byte(8 * math.log(2), bytes=1)
    8.0
    """
    if bytes < 1:
        raise ValueError(f"bits_per_byte needs at least one byte of text, got bytes={bytes}.")
    return nats / (math.log(2) * bytes)
