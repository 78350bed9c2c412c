"""The global generators of torch, NumPy and Python as functions of (seed, step)."""

import random

import numpy as np
import torch

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
