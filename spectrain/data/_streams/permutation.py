"""Shuffling by arithmetic: a permutation of any size whose entries are computed one by one."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Int64

from spectrain.data._generator import generator

Order: TypeAlias = Callable[[Int64[np.ndarray, " some"]], Int64[np.ndarray, " some"]]
"""From places to what stands there."""

DRAWN = 1 << 20  # entries up to which the permutation is drawn and kept: 8 MB
_ROUNDS = 10  # as in FF1 of NIST SP 800-38G; Luby and Rackoff prove four to be enough with ideal rounds


def permutation(count: int, *, stream: torch.Generator) -> Order:
    """A random permutation of ``count`` numbers, as a function from places to numbers.

    Up to about a million it is ``torch.randperm``: every permutation alike. Beyond, nothing is stored: see
    :class:`Feistel`.
    """
    if count <= DRAWN:
        return torch.randperm(count, generator=stream).numpy().__getitem__
    return Feistel.draw(count, stream=stream)


def endless(numbers: Int64[np.ndarray, " some"], count: int, *, seed: int, name: str) -> Int64[np.ndarray, " some"]:
    """What stands at ``numbers`` of an endless row of permutations of ``count``, each epoch its own."""
    return by_epoch(numbers, count, lambda epoch: _of_epoch(count, seed, name, epoch))


def by_epoch(
    numbers: Int64[np.ndarray, " some"], count: int, order: Callable[[int], Order]
) -> Int64[np.ndarray, " some"]:
    """What stands at ``numbers`` of an endless row of epochs of ``count`` places, each in its own order."""
    epochs, places = np.divmod(numbers, count)
    found = np.empty_like(numbers)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        found[here] = order(int(epoch))(places[here])
    return found


@functools.lru_cache(maxsize=8)  # a pure function: the cache saves time and cannot change a result
def _of_epoch(count: int, seed: int, name: str, epoch: int) -> Order:
    return permutation(count, stream=generator(seed, name, epoch))


@dataclass(frozen=True)
class Feistel:
    """A pseudo-random permutation of 0 ... count - 1: no memory, 10 rounds of arithmetic an entry.

    A number is written as (L, R) with L below a, R below b and a b >= count. Each round adds a keyed hash of one part
    to the other, L <- L + F(R) mod a, then R <- R + F(L) mod b, and so on: whatever F is, each round can be undone, so
    all of it is a bijection (Feistel's network; four rounds with ideal F cannot be told from a random permutation by
    fewer than about sqrt(a) looks: Luby and Rackoff 1988). Results that are not below ``count`` are sent through again
    until they are (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002); as a and b are
    near the square root, that is one in sqrt(count) / 4. F is the finaliser of SplitMix64 (Steele, Lea, Flood 2014)
    after the round's key: made to shuffle, not to keep secrets. a and b are even: were both odd, only even
    permutations could come out of a b = count.

    >>> order = Feistel.draw(10, stream=torch.Generator().manual_seed(0))
    >>> sorted(order(np.arange(10)).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    count: int
    keys: tuple[int, ...]

    @staticmethod
    def draw(count: int, *, stream: torch.Generator) -> "Feistel":
        """The permutation with keys from ``stream``."""
        high, low = torch.randint(1 << 32, (2, _ROUNDS), generator=stream).tolist()
        return Feistel(count, tuple(h << 32 | g for h, g in zip(high, low, strict=True)))

    def __call__(self, places: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " some"]:
        """What stands at these places, each between 0 and count - 1."""
        found = self._once(places.astype(np.uint64))
        while (outside := found >= self.count).any():
            found[outside] = self._once(found[outside])
        return found.astype(np.int64)

    def _once(self, numbers: np.ndarray) -> np.ndarray:
        a = _make_even(math.isqrt(self.count - 1) + 1)
        b = np.uint64(_make_even(-(-self.count // a)))
        parts: list[np.ndarray] = [numbers // b, numbers % b]
        for i, key in enumerate(self.keys):
            size = b if i % 2 else np.uint64(a)
            parts[i % 2] = (parts[i % 2] + _hash(parts[1 - i % 2], key) % size) % size
        return parts[0] * b + parts[1]


def _make_even(number: int) -> int:
    return number + number % 2


def _hash(x: np.ndarray, key: int) -> np.ndarray:
    """SplitMix64's finaliser of x + key, all modulo 2^64."""
    z = x + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
