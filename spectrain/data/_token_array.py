"""What an array of tokens must be before it is cut into blocks."""

import numpy as np

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
