"""The parameters that a step moves, and the portions in which it moves matrices."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

_PORTION = 2**20  # entries of a portion on a processor: what stays in its cache from momentum to weight


class Live(NamedTuple):
    """The parameters of one group that have a gradient; gradients and weights are this rank's part."""

    group: dict[str, Any]
    names: list[str]
    params: list[Tensor]
    grads: list[Tensor]
    weights: list[Tensor]

    def some(self, indices: list[int]) -> "Live":
        """Return the parameters at these places."""
        lists = (self.names, self.params, self.grads, self.weights)
        return Live(self.group, *([items[i] for i in indices] for items in lists))  # type: ignore[arg-type]


def portions(live: list[Live], *, streams: int = 1) -> Iterator[list[Live]]:
    """Return lists that together hold everything once, equal shapes side by side.

    On one device and with ``streams`` above 1 each group is cut into about as many portions of equal size.

    On a processor a step over a whole model at once would read and write every intermediate result in memory, most of
    it fresh from the system, which costs as much as the products. Accelerators have the cache for nothing but
    tiles, and take all in as few calls as there are; so does a graph that is being recorded. Where msign may refuse a
    tolerance nothing is to be moved before all are known.
    """
    most = [_most(part, streams) for part in live]
    whole = [part for part, entries in zip(live, most, strict=True) if entries is None]
    if whole:
        yield whole
    for part, entries in zip(live, most, strict=True):
        if entries is not None:
            yield from ([part.some(indices)] for indices in _cut(part.params, entries))


def _most(part: Live, streams: int) -> int | None:
    """Entries of a portion at most; None where the part is not to be cut."""
    if torch.compiler.is_compiling() or part.group["tol"] is not None:
        return None
    if not _far(part):
        return _PORTION
    return -(-sum(p.numel() for p in part.params) // streams) if streams > 1 else None


def _far(part: Live) -> bool:
    return any(p.device.type != "cpu" for p in part.params)


def _cut(params: list[Tensor], most: int) -> Iterator[list[int]]:
    """Return the places of the parameters, by shape, in runs of at most ``most`` entries, or of one parameter."""
    chunk: list[int] = []
    entries = 0
    for i in sorted(range(len(params)), key=lambda i: (sorted(params[i].shape), params[i].shape)):
        if chunk and entries + params[i].numel() > most:
            yield chunk
            chunk, entries = [], 0
        chunk.append(i)
        entries += params[i].numel()
    if chunk:
        yield chunk
