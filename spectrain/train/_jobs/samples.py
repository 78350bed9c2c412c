"""Held-out text scored, every token exactly once; and text written by the model, for people to read."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spectrain import data, nn, objectives


@dataclass(frozen=True)
class Score:
    """Sums over a text: nats, scored tokens, bytes of text behind them."""

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte of text."""
        return objectives.bits_per_byte(self.nats, bytes=self.bytes)


def likelihood(
    model: nn.LanguageModel,
    inputs: Tensor,
    targets: Tensor,
    *,
    documents: Tensor | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    """The sum of nats of all targets, from the features on in pieces: the logits of a batch never exist at once."""
    features = model.features(inputs, documents=documents, counted=counted)
    return objectives.linear_negative_log_likelihood(features, model.head.weight, targets)


def likelihood_of_logits(
    model: nn.LanguageModel,
    inputs: Tensor,
    targets: Tensor,
    *,
    documents: Tensor | None = None,
    counted: Tensor | None = None,
) -> Tensor:
    """The same from all logits at once, which is what a model that is divided over ranks gives."""
    return objectives.negative_log_likelihood(model(inputs, documents=documents, counted=counted), targets)


@functools.cache
def compiled_likelihood() -> Callable[..., Tensor]:
    """:func:`likelihood` by torch.compile: one graph a shape, shared by all models of that shape in this process.

    Raises ``ValueError`` where there is no C++ compiler for the CPU's kernels.
    """
    check_compiler()
    return torch.compile(likelihood, dynamic=False, fullgraph=True)


def check_compiler() -> None:
    """Raise ``ValueError`` where there is no C++ compiler for the CPU's kernels."""
    from torch._inductor import cpp_builder  # two seconds, which a run that compiles nothing does without

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:  # whatever Inductor says of a missing compiler, differently from release to release
        raise ValueError(
            "--compile needs a C++ compiler, and Inductor finds none: install g++, or leave --compile out."
        ) from error


def fill_rows(rows: int, *parts: Tensor) -> tuple[Tensor, ...]:
    """Inputs and targets of a last, shorter batch filled up with rows that do not count, so that one graph serves."""
    missing = rows - len(parts[0])
    return tuple(F.pad(part, (0, 0, 0, missing), value=fill) for part, fill in zip(parts, (0, -100), strict=True))


@torch.no_grad()
def evaluate(
    model: nn.LanguageModel,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    byte_lengths: np.ndarray,
    autocast: torch.autocast,
    device: torch.device,
    end_of_text: int | None = None,
    score: Callable[..., Tensor] = likelihood,
    rows: int = 0,
    told: Callable[[int], object] = lambda tokens: None,
) -> Score:
    """Score ``model`` on ``(inputs, targets)`` batches; targets of -100 do not count.

    With ``end_of_text``, which begins a document, tokens see their own document only. ``score`` is what computes the
    likelihood, on batches of ``rows`` rows at least. ``told`` hears after each batch how many tokens are scored.
    """
    nats, tokens, size = [], 0, 0
    for batch in batches:
        inputs, targets = fill_rows(max(rows, len(batch[0])), *batch)
        with autocast:
            apart = {} if end_of_text is None else {"documents": document_numbers(inputs, end_of_text).to(device)}
            nats.append(score(model, inputs.to(device), targets.to(device), **apart).item())
        counted, length = count(targets, byte_lengths)
        tokens, size = tokens + counted, size + length
        told(tokens)
    return Score(math.fsum(nats), tokens, size)


def document_numbers(inputs: Tensor, end_of_text: int) -> Tensor:
    """The number of the document that each token belongs to, within its row."""
    return (inputs == end_of_text).cumsum(-1)


def count(targets: Tensor, byte_lengths: np.ndarray) -> tuple[int, int]:
    """How many targets count, and how many bytes of text they stand for."""
    scored = targets[targets >= 0].numpy()
    return scored.size, int(byte_lengths[scored].sum(dtype=np.int64))


def prompts(opening_text: str) -> list[str]:
    """Nothing at all, and the first line with some letters of the held-out text."""
    lines = (line.rstrip() for line in opening_text.splitlines())
    opening = next((line for line in lines if sum(c.isalpha() for c in line) >= 8), "")
    return ["", *([opening[:80] + "\n"] if opening else [])]


def write(
    model: nn.LanguageModel,
    tokenizer: data.Tokenizer,
    prompt: str,
    *,
    tokens: int,
    context: int,
    generator: torch.Generator,
    temperature: float = 0.8,
    top_k: int | None = 50,
) -> str:
    """``prompt`` and its continuation. Leaves the model's mode as it was."""
    pieces = stream(
        model,
        tokenizer,
        [prompt],
        tokens=tokens,
        context=context,
        generator=generator,
        temperature=temperature,
        top_k=top_k,
    )
    return "".join(piece[0] for piece in pieces)


def stream(
    model: nn.LanguageModel,
    tokenizer: data.Tokenizer,
    prompts: Sequence[str],
    *,
    tokens: int,
    context: int,
    generator: torch.Generator,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    form: Any = "auto",
) -> Iterator[list[str]]:
    """Yield first the prompts, then what each token adds to them: text that will not change any more.

    A character of several bytes comes when its last byte has come. Leaves the model's mode as it was.
    """
    ids = [[tokenizer.end_of_text, *tokenizer.encode(prompt).tolist()] for prompt in prompts]
    longest = max(map(len, ids))
    padded = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
    documents = torch.tensor([[-1] * (longest - len(row)) + [0] * len(row) for row in ids])
    device = model.embedding.weight.device
    was_training = model.training
    model.eval()
    drawn = nn.stream(
        model,
        padded.to(device),
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        context=context,
        vocabulary=tokenizer.vocabulary_size,
        documents=documents.to(device) if len({*map(len, ids)}) > 1 else None,
        form=form,
        generator=generator,
    )
    said = [tokenizer.decode(row[1:]) for row in ids]
    yield list(said)
    try:
        for column in drawn:
            for row, token in zip(ids, column[:, 0].tolist(), strict=True):
                row.append(token)
            now = [tokenizer.decode(row[1:]) for row in ids]
            yield [_settle(text)[len(old) :] for text, old in zip(now, said, strict=True)]
            said = [max(old, _settle(text), key=len) for text, old in zip(now, said, strict=True)]
        yield [tokenizer.decode(row[1:])[len(old) :] for row, old in zip(ids, said, strict=True)]
    finally:
        model.train(was_training)


def _settle(text: str) -> str:
    """Without what may still be the beginning of a character."""
    return text.rstrip("\N{REPLACEMENT CHARACTER}")
