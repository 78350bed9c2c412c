"""One pass over held-out tokens in which each is scored exactly once."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from spectrain.data._streams.rows import check_tokens

_IGNORE = -100  # what torch.nn.functional.cross_entropy leaves out by default


def validation_batches(
    tokens: np.ndarray, *, block: int, batch: int
) -> Iterator[tuple[Int64[Tensor, "rows block"], Int64[Tensor, "rows block"]]]:
    """Yield ``(inputs, targets)`` over all N tokens in order, every token being a target exactly once.

    As in ``TokenStream`` the tokens are a ring: the input of target i is token i - 1, and that of
    token 0 is the last. ``Tokenizer.encode_documents`` begins with an end-of-text, so the ring
    starts and closes at a document's border: every byte of the text is scored, the first too. Blocks
    do not see each other. There are ceil(N / block) blocks in batches of at most ``batch`` rows; the end
    of the last block is padded with input 0 and target -100, which ``cross_entropy`` ignores.
    Average by ``(targets != -100).sum()``, not by batches, whose sizes differ.

    Raises DataError when there is no token and TypeError or ValueError for arrays that are not tokens.

    >>> batches = list(validation_batches(np.arange(5), block=2, batch=2))
    >>> torch.cat([targets for _, targets in batches])
    tensor([[   1,    2],
            [   3,    4],
            [   0, -100]])
    """
    check_tokens("validation_batches", tokens, block=1, batch=batch)
    if block < 1:
        raise ValueError(f"validation_batches: block must be at least 1, got {block}")
    return _batches(tokens, block, batch)


def _batches(
    tokens: np.ndarray, block: int, batch: int
) -> Iterator[tuple[Int64[Tensor, "rows block"], Int64[Tensor, "rows block"]]]:
    count = len(tokens)
    for start in range(0, count, block * batch):
        stop = min(start + block * batch, count)
        rows = -(-(stop - start) // block)
        inputs = torch.zeros(rows * block, dtype=torch.int64)
        targets = torch.full((rows * block,), _IGNORE)
        ring = np.take(tokens, np.arange(start, stop + 1), mode="wrap").astype(np.int64)
        inputs[: stop - start] = torch.from_numpy(ring[:-1])
        targets[: stop - start] = torch.from_numpy(ring[1:])
        yield inputs.view(rows, block), targets.view(rows, block)
