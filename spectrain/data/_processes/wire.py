"""What goes between processes: batches as bytes, whatever they are made of, and seeds of the global generators."""

import pickle
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from spectrain.data._generator import generator


def seed_global_generators(seed: int, *keys: int | str) -> None:
    """Set all three from ``generator(seed, *keys)``."""
    stream = generator(seed, *keys)
    torch.set_rng_state(stream.get_state())
    random.seed(stream.initial_seed())
    np.random.seed(stream.initial_seed() % 2**32)


class own_generators_kept:  # noqa: N801 (reads as a statement)
    """Put the global generators of this process back afterwards."""

    def __enter__(self) -> None:
        self.states = torch.get_rng_state(), random.getstate(), np.random.get_state()

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.states[0])
        random.setstate(self.states[1])
        np.random.set_state(self.states[2])


@dataclass(frozen=True)
class _Sent:
    """A tensor as bytes: torch's own way, shared memory, outlives a killed worker."""

    content: np.ndarray
    dtype: torch.dtype
    shape: tuple[int, ...]

    def tensor(self) -> Tensor:
        return torch.from_numpy(self.content).view(self.dtype).reshape(self.shape)


def pack(value: Any) -> bytes:
    """``value`` with its tensors on the CPU and their bytes in it."""
    return pickle.dumps(tree_map(lambda leaf: _send(leaf) if isinstance(leaf, Tensor) else leaf, value), protocol=5)


def unpack(content: bytes) -> Any:
    """What :func:`pack` was given."""
    return tree_map(lambda leaf: leaf.tensor() if isinstance(leaf, _Sent) else leaf, pickle.loads(content))


def _send(tensor: Tensor) -> _Sent:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return _Sent(flat.view(torch.uint8).numpy().copy(), tensor.dtype, tuple(tensor.shape))
