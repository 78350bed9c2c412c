"""Batches of example numbers by arithmetic: batch t is a function of (seed, t) and of nothing else."""

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from spectrain.data._streams.permutation import endless


class IndexStream:
    """An endless stream of batches of example numbers, addressed by the step number.

    Epoch e is the permutation of ``examples`` numbers drawn from ``generator(seed, "examples", e)``; every
    example is used once, then the next epoch begins, within a batch if need be. Nothing is stored between calls,
    so a resume at t skips nothing; orders of more than about a million numbers are computed entry by entry. With
    ``world`` processes, ``rank`` gets its part of the same global batch.

    Raises ValueError for a size that does not fit.

    >>> stream = IndexStream(10, batch=4, seed=0)
    >>> first = torch.cat([stream.batch(t) for t in range(5)])          # two epochs
    >>> first[:10].sort().values.tolist() == first[10:].sort().values.tolist() == list(range(10))
    True
    """

    def __init__(self, examples: int, *, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if examples < 1 or batch < 1:
            raise ValueError(f"IndexStream needs at least one example and a batch of one, got {examples=}, {batch=}.")
        if world < 1 or batch % world or not 0 <= rank < world:
            raise ValueError(
                f"IndexStream: a batch of {batch} divides among {world} processes, numbered from 0, only if {world} "
                f"divides it; got rank {rank}. Choose a multiple."
            )
        self.examples, self.batch_size, self.seed, self.rank, self.world = examples, batch, seed, rank, world

    def epoch(self, t: int) -> float:
        """How many passes over the examples are done when batch t begins."""
        return t * self.batch_size / self.examples

    def batch(self, t: int) -> Int64[Tensor, " rows"]:
        """The numbers of step ``t`` (from 0): this rank's batch / world rows."""
        if t < 0:
            raise ValueError(f"IndexStream.batch: steps count from 0, got t={t}.")
        rows = self.batch_size // self.world
        places = np.arange(rows) + t * self.batch_size + self.rank * rows
        return torch.from_numpy(endless(places, self.examples, seed=self.seed, name="examples"))
