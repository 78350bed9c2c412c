"""The pieces that a language model consists of, as one rank sees them: its blocks, and what stands before and after."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spectrain.nn import LanguageModel
from spectrain.nn.internal import as_elsewhere
from spectrain.train._jobs.model import build_model
from spectrain.train._jobs.samples import likelihood, likelihood_of_logits
from spectrain.train._plan.trace import Trace, trace
from spectrain.train.config import TrainConfig

BYTES = 257
"""Tokens of the tokenizer of single bytes: 256, and the end of a text."""

Piece = tuple[nn.Module, Callable[[], Tensor], list[Tensor]]


class Pieces(NamedTuple):
    """What a rank does for one micro-batch: before the blocks, in each of them, after them with the loss."""

    start: Trace
    block: Trace
    finish: Trace


def vocabulary(config: TrainConfig) -> int:
    """Tokens of the model."""
    return BYTES if config.tokenizer == "bytes" else config.vocabulary


def whole_model(config: TrainConfig) -> LanguageModel:
    """The model of a full configuration, without memory for its weights."""
    with torch.device("meta"):
        return _model(config, depth=config.depth)


@functools.lru_cache(maxsize=64)
def pieces(config: TrainConfig, *, rows: int, tensor: int, alone: bool, device: str) -> Pieces:
    """Traces of a full configuration for ``rows`` sequences on a rank that shares its matrices with ``tensor`` - 1.

    As a ``device`` of that type computes: only a processor has formulas of its own for some operations.

    ``alone``: one process computes the loss in pieces; of several each has all logits of its rows at once.
    """
    own = shared(config, tensor)
    with contextlib.nullcontext() if device == "cpu" else as_elsewhere():
        return Pieces(
            trace(functools.partial(_start, own, rows)),
            trace(functools.partial(_block, own, rows)),
            trace(functools.partial(_finish, own, rows, alone)),
        )


def shared(config: TrainConfig, tensor: int) -> TrainConfig:
    """The configuration of a model that has the heads and the hidden features of one of ``tensor`` ranks."""
    assert config.width
    assert config.heads
    assert config.kv_heads
    assert config.hidden
    return dataclasses.replace(
        config,
        tensor_parallel=1,
        mesh=None,
        heads=config.heads // tensor,
        kv_heads=config.kv_heads // tensor,
        hidden=config.hidden // tensor,
        head_dim=config.head_dim or config.width // config.heads,
    )


def _model(config: TrainConfig, *, depth: int) -> LanguageModel:
    return build_model(dataclasses.replace(config, depth=depth), vocabulary=vocabulary(config), generator=0)


def _start(config: TrainConfig, rows: int) -> Piece:
    """Embedding and its norm."""
    model = _model(config, depth=1)
    width = model.embedding.embedding_dim
    tokens = torch.zeros(rows, config.block, dtype=torch.long)

    def run() -> Tensor:
        return nn.functional.rms_norm(model.embedding(tokens), (width,))

    return model.embedding, run, [tokens]


def _block(config: TrainConfig, rows: int) -> Piece:
    """One block."""
    block: Any = _model(config, depth=1).blocks[0]
    assert config.width
    x = torch.zeros(rows, config.block, config.width, requires_grad=True)
    apart = torch.zeros(rows, config.block, dtype=torch.long) if config.packing == "documents" else None

    def run() -> Tensor:
        with _autocast(config):
            out: Tensor = block(x, documents=apart)
        return out

    return block, run, [x]


class _Last(LanguageModel):
    """A model whose features are those of a tensor that is there: what is left is the last norm, head and loss."""

    def features(self, tokens: Tensor, **options: Any) -> Tensor:
        """The norm of what the blocks gave."""
        out: Tensor = self.norm(tokens)
        return out

    def forward(self, tokens: Tensor, **options: Any) -> Tensor:
        """Logits of it."""
        out: Tensor = self.head(self.features(tokens))
        return out


def _finish(config: TrainConfig, rows: int, alone: bool) -> Piece:
    """The last norm, the head, the loss."""
    model = _model(config, depth=1)
    model.__class__ = _Last
    assert config.width
    x = torch.zeros(rows, config.block, config.width, requires_grad=True)
    targets = torch.zeros(rows, config.block, dtype=torch.long)

    def run() -> Tensor:
        with _autocast(config):
            return (likelihood if alone else likelihood_of_logits)(model, x, targets)

    return nn.ModuleList([model.norm, model.head]), run, [x, targets]


def _autocast(config: TrainConfig) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.autocast == "bfloat16")
