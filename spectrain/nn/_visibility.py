"""Which keys a query sees, and how many: causal, windowed, packed, padded and cached, by one rule."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Visibility:
    """``length`` queries at the end of ``stored`` keys.

    ``mask`` is True where a query sees a key, ``(batch or 1, 1, length, stored)``; None where all keys up to the
    query's own are seen.
    """

    length: int
    stored: int
    mask: Tensor | None
    window: int | None

    def counts(self, device: torch.device) -> Tensor:
        """Visible keys of each query, ``(batch or 1, 1, length)``."""
        if self.mask is not None:
            return self.mask.sum(-1)
        return torch.arange(self.stored - self.length + 1, self.stored + 1, device=device).view(1, 1, -1)


def visibility(
    length: int, stored: int, *, window: int | None, documents: Tensor | None, device: torch.device
) -> Visibility:
    """A query sees the keys up to its own, no further back than ``window``, of its own document.

    ``documents`` numbers the document of each stored key, ``(batch, stored)``. Padding is a document of its own.
    """
    narrow = window is not None and window < stored
    if documents is None and not narrow and (length == stored or length == 1):
        return Visibility(length, stored, None, window)
    keys = torch.arange(stored, device=device)
    queries = keys[stored - length :, None]
    mask = keys <= queries
    if narrow:
        assert window is not None
        mask &= keys > queries - window
    mask = mask.view(1, 1, length, stored)
    if documents is not None:
        same = documents[:, None, stored - length :, None] == documents[:, None, None, :]
        mask = mask & same
    return Visibility(length, stored, mask, window)
