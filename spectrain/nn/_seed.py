"""A generator from what a caller gives: a generator, a seed, or nothing."""

import torch


def generator_of(seed: torch.Generator | int | None) -> torch.Generator:
    """``seed`` itself, one seeded with it, or one seeded by the operating system; torch's global one is left alone."""
    if isinstance(seed, torch.Generator):
        return seed
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
