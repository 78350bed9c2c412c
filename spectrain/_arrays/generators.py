"""Random numbers: from a generator or a seed that is given; what None means is in the name. Never the global one."""

from typing import TypeAlias

import torch

Generator: TypeAlias = torch.Generator | int | None


def repeating_generator(generator: Generator, name: str) -> torch.Generator:
    """Return the generator, or a new one with the seed given; None is seed 0, so that a call repeats itself.

    For algorithms, whose result must not hang on when they are called. TypeError and ValueError for what is no seed.

    >>> repeating_generator(None, "svd").initial_seed()
    0
    """
    return _seeded(0 if generator is None else generator, name)


def fresh_generator(generator: Generator, name: str) -> torch.Generator:
    """Return the generator, or a new one with the seed given; None is a seed from the system, other at every call.

    For weights, of which two models must not get the same. TypeError and ValueError for what is no seed.

    >>> fresh_generator(3, "initialise").initial_seed()
    3
    """
    if generator is not None:
        return _seeded(generator, name)
    fresh = torch.Generator()
    fresh.seed()
    return fresh


def _seeded(generator: torch.Generator | int, name: str) -> torch.Generator:
    if isinstance(generator, torch.Generator):
        return generator
    if isinstance(generator, bool) or not isinstance(generator, int):
        raise TypeError(f"{name}: generator must be a torch.Generator or an int seed, got {type(generator).__name__}")
    if not -(2**63) <= generator < 2**64:
        raise ValueError(f"{name}: a seed must be from -2**63 to 2**64 - 1, got one of {generator.bit_length()} bits")
    return torch.Generator().manual_seed(generator)
