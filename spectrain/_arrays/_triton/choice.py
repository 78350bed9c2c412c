"""Whether a kernel is taken instead of torch's product: allowed here, right against float64, and faster.

One comparison for each kernel, dtype, layout and size class, at the first product of its class; its outcome is kept
while the process lives. A measured choice could differ between two runs of one command and between ranks. So none is
made, and torch's product is taken, where bits have to repeat: with ``torch.use_deterministic_algorithms``, which is
also the switch that turns the kernels off and which `spectrain train` sets; among several ranks; and in graphs.
"""

import functools
import importlib.util
import statistics
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from spectrain._arrays.scale import recording

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_ROUNDINGS = 4.0
"""A result that is further from float64 is wrong."""
_CAPABILITY = (8, 0)  # from Ampere on: tensor cores that take bfloat16
_GAIN = 0.95  # of the time of torch's product; what gains less is not worth other bits
_ROUNDS = 7

Run = Callable[[], Tensor]


class Trial(NamedTuple):
    """A kernel in one tiling beside torch's product."""

    way: Any
    roundings: float
    """Distance from float64 in roundings, as its kernel counts them; NaN where it did not run."""
    ratio: float
    """Its time over that of torch's product, the median of several; NaN where it is wrong."""
    problem: str = ""
    """Why it did not run."""

    @property
    def wins(self) -> bool:
        """Whether it is right and faster."""
        return self.roundings <= MOST_ROUNDINGS and self.ratio <= _GAIN


_TRIALS: dict[Hashable, list[Trial]] = {}


def trials() -> dict[Hashable, list[Trial]]:
    """Return every comparison that this process has made, by kernel, dtype, layout and size class."""
    return dict(_TRIALS)


def possible(*tensors: Tensor) -> bool:
    """Whether a measured choice may be made for a product of these: no graph, no derivative, no bits that repeat."""
    return (
        not recording()  # first: a graph would look into the cache of the next
        and _capable(tensors[0].device)
        and tensors[0].dtype in DTYPES
        and all(type(X) in (Tensor, Parameter) for X in tensors)  # others may have no memory of their own
        and not _bits_repeat()
        and not _differentiated(tensors)
    )


def _bits_repeat() -> bool:
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.are_deterministic_algorithms_enabled() or (several and torch.distributed.get_world_size() > 1)


def _differentiated(tensors: tuple[Tensor, ...]) -> bool:
    by_function = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return by_function or (torch.is_grad_enabled() and any(X.requires_grad for X in tensors))


@functools.cache
def _capable(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= _CAPABILITY


def winner(key: Hashable, compared: Callable[[], list[Trial]]) -> Any:
    """Return the fastest right way, or None where torch's product is taken; compared once for each key."""
    if key not in _TRIALS:
        try:
            _TRIALS[key] = compared()
        except Exception as problem:  # no memory for the samples, or a Triton that does not load
            _TRIALS[key] = [_failed("none", problem)]
    ahead = [trial for trial in _TRIALS[key] if trial.wins]
    return min(ahead, key=lambda trial: trial.ratio).way if ahead else None


def size_class(*sizes: int) -> tuple[int, ...]:
    """Return each size as a power of two, rounded up.

    >>> size_class(1, 48, 64, 65)
    (1, 64, 64, 128)
    """
    return tuple([1 << max(size - 1, 0).bit_length() for size in sizes])


def compare(
    ours: Mapping[Any, Run],
    theirs: Run,
    roundings: Callable[[Tensor], float],
    *,
    milliseconds: Callable[[Run], float] | None = None,
) -> list[Trial]:
    """Return every way of ours beside theirs, first its error, then, where it is right, its time, in turns."""
    return [_trial(way, run, theirs, roundings, milliseconds or _by_events) for way, run in ours.items()]


def _trial(
    way: Any, run: Run, theirs: Run, roundings: Callable[[Tensor], float], milliseconds: Callable[[Run], float]
) -> Trial:
    try:
        error = roundings(run())
    except Exception as problem:  # no C compiler, too little memory, a device its compiler does not know: all the same
        return _failed(way, problem)
    if not error <= MOST_ROUNDINGS:
        return Trial(way, error, float("nan"))
    theirs()  # to warm up
    ratios = [milliseconds(run) / milliseconds(theirs) for _ in range(_ROUNDS)]
    return Trial(way, error, statistics.median(ratios))


def _failed(way: Any, problem: Exception) -> Trial:
    return Trial(way, float("nan"), float("nan"), f"{type(problem).__name__}: {problem}")


def _by_events(run: Run) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)
