"""Examples of somebody's data set as batches: fetched by number, moved to a device, told apart by digest."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from spectrain import data


def fetch(examples: Any, numbers: Sequence[int], collate: Callable[[Any], Any]) -> Any:
    """A batch of the examples of these numbers; a data set with torch's ``__getitems__`` is asked once for all.

    >>> fetch("spectral", [0, 3], "".join)
    'sc'
    """
    whole = getattr(examples, "__getitems__", None)
    return collate(whole(list(numbers)) if whole else [examples[i] for i in numbers])


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with all its tensors on ``device``: of tuples, lists, mappings, and what has a method ``to``."""
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(part, device) for part in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(part, device) for part in batch)
    return batch


def digest(*batches: Any) -> str:
    """A digest of the tensors, numbers and strings of some batches, and of how they are held."""
    found = hashlib.blake2b(digest_size=16)
    for part in _parts(batches):
        found.update(part)
    return found.hexdigest()


def _parts(batch: Any) -> Iterator[bytes]:
    yield type(batch).__name__.encode()
    if isinstance(batch, Tensor):
        held = batch.detach().cpu().contiguous()
        yield repr((held.dtype, tuple(held.shape))).encode()
        yield held.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield repr(key).encode()
            yield from _parts(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from _parts(value)
    elif isinstance(batch, (str, bytes, int, float, complex)):
        yield repr(batch).encode()


@contextmanager
def draws_of(device: torch.device, seed: int, *keys: int | str) -> Iterator[None]:
    """Let torch's global generators draw what belongs to ``(seed, *keys)``, and put them back afterwards.

    So dropout and augmentation are functions of seed and step, whatever anybody else draws.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        own = data.streams.generator(seed, *keys)
        torch.set_rng_state(own.get_state())
        if cuda:
            torch.cuda.manual_seed(own.initial_seed())
        yield
