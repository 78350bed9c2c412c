"""What all streams are: rows with numbers, of which step t takes the next batch, and a rank its part.

An array of tokens is checked here before it is cut into blocks.
"""

import abc
import operator

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from spectrain.data._text.document import DataError


def check_tokens(caller: str, tokens: np.ndarray, *, block: int, batch: int) -> None:
    """Raise TypeError, ValueError or DataError unless ``tokens`` can be cut into blocks of that size."""
    if not np.issubdtype(tokens.dtype, np.integer):
        raise TypeError(f"{caller}: tokens must be integers, got {tokens.dtype}; encode the text first")
    if tokens.ndim != 1:
        raise ValueError(f"{caller}: tokens must be one-dimensional, got shape {tokens.shape}; use .ravel()")
    if block < 1 or batch < 1:
        raise ValueError(f"{caller}: block and batch must be at least 1, got block={block}, batch={batch}")
    if len(tokens) < block + 1:
        raise DataError(
            f"{caller}: the text has {len(tokens)} tokens, fewer than one block of {block} and its last target; "
            f"name more text, or use a block of at most {max(len(tokens) - 1, 0)}"
        )


class AbstractRows(abc.ABC):
    """Rows numbered 0, 1, 2, ... without end; batch t is rows t * batch to (t + 1) * batch - 1.

    With ``world`` processes, ``rank`` gets rows ``rank * batch / world`` and following of the same global batch.
    """

    def __init__(self, *, batch: int, seed: int, rank: int, world: int) -> None:
        """Raise ValueError for a share that does not fit."""
        name = type(self).__name__
        if world < 1 or batch % world:
            raise ValueError(
                f"{name}: a batch of {batch} rows does not divide among world={world} processes; "
                f"choose a batch that is a multiple of {world}"
            )
        if not 0 <= rank < world:
            raise ValueError(f"{name}: rank must be between 0 and {world - 1}, got {rank}")
        self.batch_size, self.seed, self.rank, self.world = batch, seed, rank, world

    block: int
    """Tokens of a row."""

    @property
    @abc.abstractmethod
    def blocks_per_epoch(self) -> int:
        """How many rows one pass has."""

    @abc.abstractmethod
    def rows(self, numbers: Int64[np.ndarray, " rows"]) -> tuple[Tensor, ...]:
        """The rows with these numbers, part by part."""

    @property
    def tokens_per_batch(self) -> int:
        """How many places for a token a global batch has, all ranks together."""
        return self.batch_size * self.block

    def epoch(self, t: int) -> float:
        """How many passes over the text are done when batch t begins: 2.25 is a quarter into the third."""
        return t * self.batch_size / self.blocks_per_epoch

    def batch(self, t: int) -> tuple[Tensor, ...]:
        """The parts of step ``t`` (from 0), this rank's batch / world rows of each."""
        return self.rows(self.numbers(t))

    def numbers(self, t: int) -> Int64[np.ndarray, " rows"]:
        """Which rows are this rank's in step ``t``."""
        if operator.index(t) < 0:
            raise ValueError(f"{type(self).__name__}.batch: steps count from 0, got t={t}")
        share = self.batch_size // self.world
        first = t * self.batch_size + self.rank * share
        return np.arange(first, first + share, dtype=np.int64)
