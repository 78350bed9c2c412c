"""Text from a model, one token at a time."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spectrain.nn._models.language_model import Block, LanguageModel
from spectrain.nn._modes import GenerationForm

_FORMS = {"auto": None, "absorbed": True, "expanded": False, "full": None}
_COLDEST = 1e-3
"""Below it, logits divided by the temperature overflow sooner than they differ from the most likely token."""


@torch.no_grad()
def stream(
    model: LanguageModel,
    prompt: Int[Tensor, "batch length"],
    *,
    tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
    context: int | None = None,
    vocabulary: int | None = None,
    documents: Int[Tensor, "batch length"] | None = None,
    form: GenerationForm = "auto",
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield up to ``tokens`` tokens that continue ``prompt``, ``(batch, 1)`` each, as soon as they are drawn.

    Drawn from ``softmax(logits / temperature)``; ``temperature=0`` takes the most likely token. ``top_k`` keeps only
    the k most likely ones, ``top_p`` the fewest that hold so much of the chance. A row that has drawn ``stop`` repeats
    it, and when all have, nothing more comes. With ``vocabulary`` the first so many tokens are drawn only: a table may
    have more rows than its tokenizer has tokens.

    ``documents`` are those of :meth:`Attention.forward`: prompts of several
    lengths are padded on the left, with a document number of its own for the padding.

    Positions are decoded with a cache; when ``context`` (default: the model's) is full, the cache is built again from
    the last half of it, so that the model never sees a position that it was not trained on. With attention sinks no
    distance grows with the text, and where sinks and window are within ``context`` the cache goes on, with all of the
    prompt behind it; only the model's own context is kept to. ``form`` says how: ``auto``
    chooses by shape, ``absorbed`` and ``expanded`` are the two forms of a latent, ``full`` reads the whole text again
    for every token, without a cache.

    Raises ``ValueError`` for an empty prompt, tokens outside the vocabulary, ``top_k < 1``, ``top_p`` outside (0, 1],
    a temperature that is negative, tiny or not finite and an unknown ``form``; ``FloatingPointError`` for logits that
    are not finite.

    >>> model = LanguageModel(vocabulary=7, width=16, depth=1, heads=2, generator=0)
    >>> [token.item() for token in stream(model, torch.zeros(1, 1, dtype=torch.long), tokens=3, temperature=0.0)]
    [0, 0, 0]
    """
    if form not in _FORMS:
        raise ValueError(f"generate: form must be one of {', '.join(_FORMS)}, got {form!r}.")
    _check(model, prompt, temperature=temperature, top_k=top_k, top_p=top_p)
    context = model.context if context is None or _reach(model) <= context else context
    absorbed = _FORMS[form]
    text, owners = prompt, documents
    caches, done = model.empty_caches(), torch.zeros(len(prompt), 1, dtype=torch.bool, device=prompt.device)
    unread = prompt.shape[1] if context is None else min(context, prompt.shape[1])
    for _ in range(tokens):
        if context is not None and caches[0].seen + unread > context:
            unread, caches = max(1, context // 2), model.empty_caches()
        given = None if owners is None else owners[:, -unread:]
        if form == "full":
            logits = model(text[:, -unread:], documents=given, absorbed=absorbed)[:, -1]
        else:
            logits = model(text[:, -unread:], caches=caches, documents=given, absorbed=absorbed)[:, -1]
        logits = logits[:, :vocabulary]
        drawn = _draw(_mask_unlikely(logits.float(), temperature, top_k, top_p), temperature, generator)
        if stop is not None:
            drawn = torch.where(done, stop, drawn)
            done |= drawn == stop
        yield drawn
        text = torch.cat((text, drawn), dim=-1)
        owners = None if owners is None else torch.cat((owners, owners[:, -1:]), dim=-1)
        unread = unread + 1 if form == "full" else 1
        if done.all():
            return


def generate(
    model: LanguageModel,
    prompt: Int[Tensor, "batch length"],
    *,
    tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
    context: int | None = None,
    vocabulary: int | None = None,
    documents: Int[Tensor, "batch length"] | None = None,
    form: GenerationForm = "auto",
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch longer"]:
    """``prompt`` and what :func:`stream` draws after it, in one tensor.

    >>> model = LanguageModel(vocabulary=7, width=16, depth=1, heads=2, generator=0)
    >>> generate(model, torch.zeros(1, 1, dtype=torch.long), tokens=4, temperature=0.0).shape
    torch.Size([1, 5])
    """
    drawn = stream(
        model,
        prompt,
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop=stop,
        context=context,
        vocabulary=vocabulary,
        documents=documents,
        form=form,
        generator=generator,
    )
    return torch.cat((prompt, *drawn), dim=-1)


def _reach(model: LanguageModel) -> float | int:
    """Places in text that a query sees in any block; infinite where they grow with it."""
    reaches = (block.attention.kind.reach(block.attention.window) for block in model.blocks if isinstance(block, Block))
    return max(math.inf if reach is None else reach for reach in reaches)


def _check(model: LanguageModel, prompt: Tensor, *, temperature: float, top_k: int | None, top_p: float | None) -> None:
    if prompt.shape[-1] == 0:
        raise ValueError("generate: the prompt is empty; give at least one token, e.g. the end-of-text token.")
    vocabulary = model.embedding.num_embeddings
    if prompt.min() < 0 or prompt.max() >= vocabulary:
        worst = int(prompt.min() if prompt.min() < 0 else prompt.max())
        raise ValueError(
            f"generate: token {worst} of the prompt is outside the vocabulary of {vocabulary}; "
            "encode it with the model's own tokenizer."
        )
    if temperature != 0 and not _COLDEST <= temperature < math.inf:
        raise ValueError(
            f"generate: temperature must be 0 (most likely) or from {_COLDEST} up and finite, got {temperature}."
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"generate: top_k must be at least 1 or None for all tokens, got {top_k}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"generate: top_p must be above 0 and at most 1, or None, got {top_p}.")


def _mask_unlikely(
    logits: Float[Tensor, "batch vocabulary"], temperature: float, top_k: int | None, top_p: float | None
) -> Tensor:
    """Logits, those of tokens that may not be drawn at -inf."""
    if top_k is not None and top_k < logits.shape[-1]:
        floor = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < floor, -torch.inf)
    if top_p is not None and top_p < 1 and temperature:
        falling, order = logits.sort(dim=-1, descending=True)
        chances = (falling / temperature).softmax(-1)
        enough = chances.cumsum(-1) - chances >= top_p  # of the chance lies before this token
        logits = logits.masked_fill(torch.zeros_like(enough).scatter(-1, order, enough), -torch.inf)
    return logits


def _draw(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if logits.isnan().any() or not (logits.amax(-1) < torch.inf).all() or not (logits.amax(-1) > -torch.inf).all():
        raise FloatingPointError("generate: the model's logits are not finite, so there is nothing to draw from")
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    chances = (logits / temperature).softmax(dim=-1)
    if generator is None:
        return torch.multinomial(chances, 1)
    return torch.multinomial(chances.to(generator.device), 1, generator=generator).to(logits.device)
