"""Training batches by arithmetic: batch t is a function of (seed, t) and of nothing else."""

import functools

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from spectrain.data._generator import generator
from spectrain.data._token_array import check_tokens


class TokenStream:
    """An endless stream of batches from one array of tokens, addressed by the step number.

    ``tokens`` (one-dimensional, any integer dtype, an ``np.memmap`` is fine) is read as a ring of N
    tokens. Epoch e draws from ``generator(seed, "epoch", e)`` an offset o in [0, N) and an order of
    the n = N // block blocks that start at o, o + block, ...; each is used once, then the next epoch
    begins, within a batch if need be. The N mod block tokens that are left over are other ones in
    each epoch. The targets are the inputs moved on by one, so in every epoch n * block tokens are
    inputs exactly once and targets exactly once.

    Nothing is stored between calls: batch t is the same whether or not any other batch was asked for,
    in every process and on every number of ranks. A resume continues at t + 1 and skips nothing.

    With ``world`` processes, ``rank`` gets rows ``rank * batch / world`` and following of the same
    global batch; ``batch`` counts the rows of all ranks together.

    Raises DataError when there are fewer than block + 1 tokens, ValueError when a size does not fit,
    TypeError for tokens that are not integers. ``batch(t)`` costs one copy of the batch; the first
    call in an epoch also shuffles the n block numbers (40 ms and 8 MB for a million blocks).

    >>> stream = TokenStream(np.arange(1000), block=10, batch=4, seed=0)
    >>> inputs, targets = stream.batch(123)
    >>> inputs.shape, bool((targets == (inputs + 1) % 1000).all())
    (torch.Size([4, 10]), True)
    >>> halves = [TokenStream(np.arange(1000), block=10, batch=4, seed=0, rank=r, world=2) for r in (0, 1)]
    >>> torch.equal(torch.cat([half.batch(123)[0] for half in halves]), inputs)
    True
    """

    def __init__(self, tokens: np.ndarray, *, block: int, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        check_tokens("TokenStream", tokens, block=block, batch=batch)
        if world < 1 or batch % world:
            raise ValueError(
                f"TokenStream: a batch of {batch} rows does not divide among world={world} processes; "
                f"choose a batch that is a multiple of {world}"
            )
        if not 0 <= rank < world:
            raise ValueError(f"TokenStream: rank must be between 0 and {world - 1}, got {rank}")
        self.tokens = tokens
        self.block, self.batch_size, self.seed, self.rank, self.world = block, batch, seed, rank, world

    @property
    def blocks_per_epoch(self) -> int:
        """How many blocks one pass over the text has: N // block."""
        return len(self.tokens) // self.block

    @property
    def tokens_per_batch(self) -> int:
        """How many targets a global batch has, all ranks together."""
        return self.batch_size * self.block

    def epoch(self, t: int) -> float:
        """How many passes over the text are done when batch t begins: 2.25 is a quarter into the third.

        >>> TokenStream(np.arange(1000), block=10, batch=4, seed=0).epoch(50)
        2.0
        """
        return t * self.batch_size / self.blocks_per_epoch

    def batch(self, t: int) -> tuple[Int64[Tensor, "rows block"], Int64[Tensor, "rows block"]]:
        """Return ``(inputs, targets)`` of step ``t`` (from 0), this rank's batch / world rows."""
        if t < 0:
            raise ValueError(f"TokenStream.batch: steps count from 0, got t={t}")
        rows = self.batch_size // self.world
        first = t * self.batch_size + self.rank * rows
        starts = np.array([self._start(first + row) for row in range(rows)], dtype=np.int64)
        window = (starts[:, None] + np.arange(self.block + 1)) % len(self.tokens)
        taken = torch.from_numpy(self.tokens[window].astype(np.int64))
        return taken[:, :-1].contiguous(), taken[:, 1:].contiguous()

    def _start(self, sample: int) -> int:
        """Where in the ring the sample-th block of the endless stream begins."""
        epoch, position = divmod(sample, self.blocks_per_epoch)
        offset, order = _epoch_order(self.seed, epoch, len(self.tokens), self.blocks_per_epoch)
        return offset + int(order[position]) * self.block


@functools.lru_cache(maxsize=4)  # a pure function: the cache saves time and cannot change a result
def _epoch_order(seed: int, epoch: int, tokens: int, blocks: int) -> tuple[int, Int64[Tensor, " blocks"]]:
    stream = generator(seed, "epoch", epoch)
    offset = int(torch.randint(tokens, (), generator=stream))
    return offset, torch.randperm(blocks, generator=stream)
