"""Portions of a step side by side on an accelerator."""

from collections.abc import Callable, Iterable
from functools import cache

import torch

from spectrain.optim._step.portions import Live


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
