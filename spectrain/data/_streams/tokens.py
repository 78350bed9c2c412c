"""Training batches by arithmetic: batch t is a function of (seed, t) and of nothing else."""

import functools

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from spectrain.data._generator import generator
from spectrain.data._streams.permutation import Order, by_epoch, permutation
from spectrain.data._streams.rows import AbstractRows, check_tokens


class TokenStream(AbstractRows):
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
    TypeError for tokens that are not integers. ``batch(t)`` costs one copy of the batch. The order is drawn at the
    first call in an epoch for up to about a million blocks (40 ms, 8 MB); for more it is computed block by block
    (Luby and Rackoff 1988; Black and Rogaway 2002) and takes no memory: with a memory map, text larger than memory
    is shuffled as a whole.

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
        super().__init__(batch=batch, seed=seed, rank=rank, world=world)
        self.tokens, self.block = tokens, block

    @property
    def blocks_per_epoch(self) -> int:
        """How many blocks one pass over the text has: N // block."""
        return len(self.tokens) // self.block

    def batch(self, t: int) -> tuple[Int64[Tensor, "rows block"], Int64[Tensor, "rows block"]]:
        """Return ``(inputs, targets)`` of step ``t`` (from 0), this rank's batch / world rows."""
        return self.rows(self.numbers(t))

    def rows(
        self, numbers: Int64[np.ndarray, " rows"]
    ) -> tuple[Int64[Tensor, "rows block"], Int64[Tensor, "rows block"]]:
        """Return ``(inputs, targets)`` of blocks of the endless stream."""
        window = (self._starts(numbers)[:, None] + np.arange(self.block + 1)) % len(self.tokens)
        taken = torch.from_numpy(self.tokens[window].astype(np.int64))
        return taken[:, :-1].contiguous(), taken[:, 1:].contiguous()

    def _starts(self, numbers: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
        """Where in the ring these blocks of the endless stream begin."""

        def order(epoch: int) -> Order:
            offset, blocks = _epoch_order(self.seed, epoch, len(self.tokens), self.blocks_per_epoch)
            return lambda places: offset + blocks(places) * self.block

        return by_epoch(numbers, self.blocks_per_epoch, order)


@functools.lru_cache(maxsize=4)  # a pure function: the cache saves time and cannot change a result
def _epoch_order(seed: int, epoch: int, tokens: int, blocks: int) -> tuple[int, Order]:
    stream = generator(seed, "epoch", epoch)
    offset = int(torch.randint(tokens, (), generator=stream))
    return offset, permutation(blocks, stream=stream)
