"""One pass over held-out tokens in which each is scored exactly once."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from spectrain.data._streams.rows import check_tokens

_IGNORE = -100  # what torch.nn.functional.cross_entropy leaves out by default


def validation_batches(
    tokens: np.ndarray, *, block: int, batch: int, most: int | None = None
) -> Iterator[tuple[Int64[Tensor, "rows block"], Int64[Tensor, "rows block"]]]:
    """Yield ``(inputs, targets)`` over all N tokens in order, every token being a target exactly once.

    As in ``TokenStream`` the tokens are a ring: the input of target i is token i - 1, and that of
    token 0 is the last. ``Tokenizer.encode_documents`` begins with an end-of-text, so the ring
    starts and closes at a document's border: every byte of the text is scored, the first too. Blocks
    do not see each other. There are ceil(N / block) blocks in batches of at most ``batch`` rows; the end
    of the last block is padded with input 0 and target -100, which ``cross_entropy`` ignores.
    Average by ``(targets != -100).sum()``, not by batches, whose sizes differ.

    ``most`` bounds the number of tokens: where there are more, most // block blocks (or one of ``most`` tokens) are
    taken, spread evenly over the text, so that every part of it has its share.

    Raises DataError when there is no token and TypeError or ValueError for arrays that are not tokens.

    >>> batches = list(validation_batches(np.arange(5), block=2, batch=2))
    >>> torch.cat([targets for _, targets in batches])
    tensor([[   1,    2],
            [   3,    4],
            [   0, -100]])
    """
    check_tokens("validation_batches", tokens, block=1, batch=batch)
    if block < 1 or (most is not None and most < 1):
        raise ValueError(f"validation_batches: block and most must be at least 1, got {block} and {most}")
    if most is None or most >= len(tokens):
        return _batches(tokens, np.arange(-(-len(tokens) // block)), block, batch)
    block = min(block, most)
    blocks, count = -(-len(tokens) // block), most // block
    return _batches(tokens, np.arange(count) * blocks // count, block, batch)


def _batches(
    tokens: np.ndarray, chosen: Int64[np.ndarray, " blocks"], block: int, batch: int
) -> Iterator[tuple[Int64[Tensor, "rows block"], Int64[Tensor, "rows block"]]]:
    for first in range(0, len(chosen), batch):
        places = chosen[first : first + batch, None] * block + np.arange(block + 1)
        ring = np.take(tokens, places, mode="wrap").astype(np.int64)
        outside = places[:, :-1] >= len(tokens)
        inputs = torch.from_numpy(np.where(outside, 0, ring[:, :-1]))
        yield inputs, torch.from_numpy(np.where(outside, _IGNORE, ring[:, 1:]))
