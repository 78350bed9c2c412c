"""Text from a model, one token at a time."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from spectrain.nn._language_model import LanguageModel

_COLDEST = 1e-3
"""Below it, logits divided by the temperature overflow sooner than they differ from the most likely token."""


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompt: Int[Tensor, "batch length"],
    *,
    tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    context: int | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch longer"]:
    """Continue ``prompt`` by ``tokens`` tokens drawn from ``softmax(logits / temperature)``.

    ``temperature=0`` takes the most likely token; ``top_k`` keeps only the k most likely ones.
    Positions are decoded with a key-value cache; when ``context`` positions are full, the cache is
    built again from the last half of them, so that the model never sees a position it was not trained on.

    Raises ``ValueError`` for an empty prompt, ``top_k < 1`` and a temperature that is negative, tiny or
    not finite; ``FloatingPointError`` for logits that are not finite.

    >>> model = LanguageModel(vocabulary=7, width=16, depth=1, heads=2, generator=0)
    >>> generate(model, torch.zeros(1, 1, dtype=torch.long), tokens=4, temperature=0.0).shape
    torch.Size([1, 5])
    """
    if prompt.shape[-1] == 0:
        raise ValueError("generate: the prompt is empty; give at least one token, e.g. the end-of-text token.")
    if temperature != 0 and not _COLDEST <= temperature < math.inf:
        raise ValueError(
            f"generate: temperature must be 0 (most likely) or from {_COLDEST} up and finite, got {temperature}."
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"generate: top_k must be at least 1 or None for all tokens, got {top_k}.")
    text, unread = prompt, prompt if context is None else prompt[:, -context:]
    caches, seen = model.empty_caches(), 0
    for _ in range(tokens):
        if context is not None and seen + unread.shape[-1] > context:
            unread, caches, seen = text[:, -max(1, context // 2) :], model.empty_caches(), 0
        logits = model(unread, caches=caches)[:, -1].float()
        seen += unread.shape[-1]
        unread = _draw(logits, temperature=temperature, top_k=top_k, generator=generator)
        text = torch.cat((text, unread), dim=-1)
    return text


def _draw(logits: Tensor, *, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    if not logits.isfinite().all():
        raise FloatingPointError("generate: the model's logits are not finite, so there is nothing to draw from")
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    if top_k is not None and top_k < logits.shape[-1]:
        floor = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < floor, -torch.inf)
    chances = (logits / temperature).softmax(dim=-1)
    if generator is None:
        return torch.multinomial(chances, 1)
    return torch.multinomial(chances.to(generator.device), 1, generator=generator).to(logits.device)
