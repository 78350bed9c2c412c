"""Validation: every held-out token scored exactly once."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spectrain import objectives


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


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    byte_lengths: np.ndarray,
    autocast: torch.autocast,
    device: torch.device,
    end_of_text: int | None = None,
) -> Score:
    """Score ``model`` on ``(inputs, targets)`` batches; targets of -100 do not count.

    With ``end_of_text``, which begins a document, tokens see their own document only.
    """
    nats, tokens, size = [], 0, 0
    for inputs, targets in batches:
        with autocast:
            apart = {} if end_of_text is None else {"documents": numbered(inputs, end_of_text).to(device)}
            logits = model(inputs.to(device), **apart)
        nats.append(objectives.negative_log_likelihood(logits, targets.to(device)).item())
        counted, length = count(targets, byte_lengths)
        tokens, size = tokens + counted, size + length
    return Score(math.fsum(nats), tokens, size)


def numbered(inputs: Tensor, end_of_text: int) -> Tensor:
    """The number of the document that each token belongs to, within its row."""
    return (inputs == end_of_text).cumsum(-1)


def count(targets: Tensor, byte_lengths: np.ndarray) -> tuple[int, int]:
    """How many targets count, and how many bytes of text they stand for."""
    scored = targets[targets >= 0].numpy()
    return scored.size, int(byte_lengths[scored].sum(dtype=np.int64))
