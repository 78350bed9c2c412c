"""Which keys a query sees, and how many: causal, windowed, packed, padded and cached alike.

A rule and not a mask: whoever needs the mask asks for that of a few queries, and no more than those is ever held.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_QUERIES = 256
"""Whose mask is made at once."""


@dataclass(frozen=True)
class Visibility:
    """``length`` queries at the end of ``stored`` keys.

    A query sees the keys up to its own, no further back than ``window``, of its own document. ``documents`` numbers
    that of each stored key, ``(batch, stored)``; padding is a document of its own.
    """

    length: int
    stored: int
    device: torch.device
    window: int | None = None
    documents: Tensor | None = None

    @property
    def narrow(self) -> bool:
        """Whether the window hides keys."""
        return self.window is not None and self.window < self.stored

    @property
    def whole(self) -> bool:
        """Whether no mask is needed: a triangle from the top left, or a single query that sees all."""
        return self.documents is None and not self.narrow and (self.length == self.stored or self.length == 1)

    @property
    def repeats(self) -> bool:
        """Whether the mask depends on distances alone, so that one serves for many blocks of queries."""
        return self.documents is None

    def blocks(self) -> list[tuple[int, int]]:
        """First and last queries, the last one excluded, whose masks are made at once."""
        return [(start, min(start + _QUERIES, self.length)) for start in range(0, self.length, _QUERIES)]

    def keys(self, start: int, stop: int) -> tuple[int, int]:
        """The keys that some of these queries may see: the first one, and the one after the last."""
        past = self.stored - self.length
        first = past + start - self.window + 1 if self.window is not None and self.narrow else 0
        return max(0, first), past + stop

    def mask(self, start: int, stop: int, first: int, last: int) -> Tensor:
        """True where a query of ``start..stop`` sees a key of ``first..last``: ``(batch or 1, 1, queries, keys)``."""
        keys = torch.arange(first, last, device=self.device)
        past = self.stored - self.length
        queries = torch.arange(past + start, past + stop, device=self.device)[:, None]
        mask = keys <= queries
        if self.window is not None and self.narrow:
            mask &= keys > queries - self.window
        mask = mask.view(1, 1, stop - start, last - first)
        if self.documents is not None:
            own = self.documents[:, past + start : past + stop]
            mask = mask & (own[:, None, :, None] == self.documents[:, None, None, first:last])
        return mask

    def counts(self) -> Tensor:
        """Visible keys of each query, ``(batch or 1, 1, length)``."""
        if self.whole:
            past = self.stored - self.length
            return torch.arange(past + 1, self.stored + 1, device=self.device).view(1, 1, -1)
        return torch.cat([self.mask(*block, *self.keys(*block)).sum(-1) for block in self.blocks()], dim=-1)
