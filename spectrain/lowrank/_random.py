"""Random numbers of a factorization: from a generator that is given, or from a fixed seed; never the global one."""

from typing import TypeAlias

import torch
from torch import Tensor

Generator: TypeAlias = torch.Generator | int | None


def generator_of(generator: Generator, name: str) -> torch.Generator:
    """Return the generator, or a new one with the seed given (None: seed 0, so that a call repeats itself)."""
    if isinstance(generator, torch.Generator):
        return generator
    if generator is not None and (isinstance(generator, bool) or not isinstance(generator, int)):
        raise TypeError(f"{name}: generator must be a torch.Generator or an int seed, got {type(generator).__name__}")
    return torch.Generator().manual_seed(generator or 0)


def gaussian(*shape: int, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Tensor:
    """Return independent standard normal numbers (complex: E|z|^2 = 1), drawn on the generator's device."""
    return torch.randn(*shape, dtype=dtype, device=generator.device, generator=generator).to(device)
