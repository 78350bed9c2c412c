"""The parameters that a step moves, and the portions in which it moves matrices, side by side on an accelerator."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from spectrain._arrays.runs import runs
from spectrain.optim._step.settings import Settings

_PORTION = 2**20  # entries of a portion on a processor: what stays in its cache from momentum to weight


class Live(NamedTuple):
    """The parameters of one group that have a gradient; gradients and weights are this rank's part."""

    settings: Settings
    names: list[str]
    params: list[Tensor]
    grads: list[Tensor]
    weights: list[Tensor]

    def some(self, indices: list[int]) -> "Live":
        """Return the parameters at these places."""
        lists = (self.names, self.params, self.grads, self.weights)
        return Live(self.settings, *([items[i] for i in indices] for items in lists))  # type: ignore[arg-type]


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
    if torch.compiler.is_compiling() or part.settings.tol is not None:
        return None
    if not _far(part):
        return _PORTION
    return -(-sum(p.numel() for p in part.params) // streams) if streams > 1 else None


def _far(part: Live) -> bool:
    return any(p.device.type != "cpu" for p in part.params)


def _cut(params: list[Tensor], most: int) -> Iterator[list[int]]:
    """Return the places of the parameters, by shape, in runs of at most ``most`` entries, or of one parameter."""
    order = sorted(range(len(params)), key=lambda i: (sorted(params[i].shape), params[i].shape))
    yield from (order[some] for some in runs([params[i].numel() for i in order], most))


def check_streams(streams: int) -> int:
    """Return the number, or raise ValueError."""
    if isinstance(streams, bool) or not isinstance(streams, int) or streams < 1:
        raise ValueError(f"Muon: streams must be an integer of at least 1, got {streams!r}.")
    return streams


def side_by_side(portions: Iterable[list[Live]], act: Callable[[list[Live]], None], *, streams: int) -> None:
    """Call ``act`` on every portion: on a GPU by turns on ``streams`` CUDA streams, elsewhere one after the other.

    A side stream waits for what the current stream has been told so far (gradients, momentum), and the current stream
    for all of them at the end, so that whoever uses the weights next need not know. Every intermediate tensor is made,
    used and freed on one side stream; what they share (weights, gradients, state) outlives the step. So no
    ``record_stream`` is needed. The same pattern is recorded into a CUDA graph as a fork and a join.
    """
    used = []
    for turn, portion in enumerate(portions):
        device = portion[0].params[0].device
        if streams == 1 or device.type != "cuda" or torch.compiler.is_compiling():
            act(portion)
            continue
        current, side = torch.cuda.current_stream(device), _stream(device, turn % streams)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            act(portion)
        used.append((current, side))
    for current, side in used:
        current.wait_stream(side)


@cache  # the allocator keeps memory for each stream: the same ones at every step
def _stream(device: torch.device, index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
