"""Random streams by name: the same keys give the same stream, in any process, thread or order."""

import hashlib
import operator

import numpy as np
import torch

_WORDS = 624  # state words of the Mersenne Twister (MT19937), torch's CPU generator
_HEADER = 24  # bytes before them in torch's serialized state; each word then takes 8 bytes


def generator(seed: int, *keys: int | str) -> torch.Generator:
    """Return the torch.Generator that belongs to ``(seed, *keys)``, e.g. ``generator(0, "dropout", step)``.

    Nothing is advanced or shared, so there is nothing to save for a resume and nothing to duplicate
    in a worker: whoever needs the randomness of step t asks for it by name. This is the
    process-safe generator of article 6575 (kexue.fm/archives/6575), where item i is a function of i
    and not of the items before it, carried over from data to random numbers.

    The whole 19968-bit state is drawn from SHAKE-256 of the keys. ``manual_seed(hash)`` would not
    do: torch's CPU generator keeps only the low 32 bits of a seed (seeds 1 and 1 + 2**32 give one
    stream), so among 100,000 streams a pair of equal ones is more likely than not.

    For code that only knows the global generator (``torch.nn.functional.dropout`` on the CPU), pass
    the state on: ``torch.set_rng_state(generator(seed, "dropout", step).get_state())``. The streams are
    for the CPU; ``initial_seed()`` is a 63-bit hash of the keys too, to seed another device or NumPy.

    ``seed`` and the keys are integers of any size and sign or strings; anything else is a TypeError.
    Costs about 50 microseconds.

    >>> a, b = generator(0, "dropout", 7), generator(0, "dropout", 7)
    >>> torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))
    True
    >>> torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=generator(0, "dropout", 8)))
    False
    """
    stream = hashlib.shake_256(_canonical((seed, *keys))).digest(8 + 4 * _WORDS)
    result = torch.Generator().manual_seed(int.from_bytes(stream[:8], "little") >> 1)
    state = result.get_state()
    words = np.frombuffer(stream, dtype="<u4", offset=8).astype(np.int64)
    state[_HEADER : _HEADER + 8 * _WORDS] = torch.from_numpy(words).view(torch.uint8)
    return result.set_state(state)


def _canonical(keys: tuple[object, ...]) -> bytes:
    """Write the keys so that no two lists of keys are written alike."""
    return repr(tuple(_plain(key) for key in keys)).encode("utf-8", errors="surrogatepass")


def _plain(key: object) -> int | str:
    if isinstance(key, str):
        return str(key)
    try:
        return operator.index(key)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"generator: seed and keys must be integers or strings, got {key!r} ({type(key).__name__}). "
            "Name a purpose and an index, such as generator(0, 'dropout', 12)."
        ) from None
