"""Merges that were learned before, kept in the user's cache folder by a digest of all that decides them."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import tokenizers

from spectrain._files.cache import cache_folder
from spectrain._files.read import read_object
from spectrain._files.write import write_text
from spectrain.data._text.byte_level import PATTERN, byte_characters

Merges = list[tuple[str, str]]


def recall(texts: Sequence[str], count: int, learn: Callable[[], Merges]) -> Merges:
    """Return the merges of these texts, at most ``count``: from the cache, or learned and put there.

    A file that cannot be read, is not what its own digest says, or holds what no training makes counts as absent and is
    replaced; a folder that cannot be written costs nothing but the next training. Files are replaced whole, so that
    processes may write at once: what they write is equal.
    """
    key = _key(texts, count)
    with contextlib.suppress(OSError, ValueError):
        return _read(_folder() / f"{key}.json", key, count)
    merges = learn()
    with contextlib.suppress(OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        found = {"key": key, "merges": merges, "digest": _digest(key, merges)}
        write_text(_folder() / f"{key}.json", json.dumps(found))
    return merges


def _folder() -> Path:
    return cache_folder() / "tokenizers"


def _key(texts: Sequence[str], count: int) -> str:
    """A digest of the texts, where each ends, how many merges are asked for, and who learns them by which rules."""
    found = hashlib.sha256(json.dumps([tokenizers.__version__, PATTERN, count, [len(text) for text in texts]]).encode())
    for text in texts:
        found.update(text.encode("utf-8", errors="surrogatepass"))
    return found.hexdigest()


def _digest(key: str, merges: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps([key, merges]).encode()).hexdigest()


def _read(path: Path, key: str, count: int) -> Merges:
    """The merges in a file; ValueError where they are not those of this key, or could not have been learned."""
    found = read_object(path, what="merges that an earlier run has learned")
    merges = found.get("merges")
    if found.get("key") != key or not isinstance(merges, list) or found.get("digest") != _digest(key, merges):
        raise ValueError(f"{path} does not hold the merges of {key}")
    known = set(byte_characters())
    for pair in merges:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(x, str) and x in known for x in pair):
            raise ValueError(f"{path}: {pair} are no two tokens that were there before")
        known.add(pair[0] + pair[1])
    if len(merges) > count:
        raise ValueError(f"{path} has {len(merges)} merges, and {count} were asked for")
    return [(left, right) for left, right in merges]
