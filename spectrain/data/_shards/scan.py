"""What documents a text has: read once from end to end, each with its length and a digest, none of them kept."""

import array
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from jaxtyping import Int64

from spectrain.data._shards.found import Found, state
from spectrain.data._text.document import DataError, Flow
from spectrain.data._text.open import UnusableFileError
from spectrain.data._text.read import flows, tell_skipped

Told = Callable[[str, int, int | None], object]
"""Who hears of progress: what is done, for how many characters, and of how many in all where that is known."""
DIGEST = np.dtype("S16")
"""The first half of a SHA-256."""


@dataclass(frozen=True)
class Scan:
    """The documents of some files, in the order they are read: 32 bytes each."""

    found: Found
    text_field: str
    counts: Int64[np.ndarray, " files"]
    """Documents of each file."""
    rows: Int64[np.ndarray, " documents"]
    """Which line or row of its file; 0 for a file that is one document."""
    chars: Int64[np.ndarray, " documents"]
    digests: np.ndarray
    """Of the texts: equal for copies."""

    @property
    def groups(self) -> Int64[np.ndarray, " documents"]:
        """The group of each document."""
        group = np.repeat(np.arange(len(self.found.sources)), [len(files) for files in self.found.sources])
        return np.repeat(group, self.counts)

    def names(self) -> Iterator[str]:
        """The names of all documents, in order."""
        rows = iter(self.rows.tolist())
        for source, count in zip(chain.from_iterable(self.found.sources), self.counts.tolist(), strict=True):
            yield from (f"{source.name}:{row}" if row else source.name for row in islice(rows, count))

    def read(self) -> Iterator[tuple[int, Flow]]:
        """Every document again, with its number. DataError for a file that changed since it was found."""
        first = 0
        sources, states = chain.from_iterable(self.found.sources), chain.from_iterable(self.found.states)
        files = zip(sources, states, self.counts.tolist(), strict=True)
        for source, before, count in files:
            if count and state(source) != before:
                raise DataError(f"{source.path} changed while it was read; read it when it is at rest")
            yield from enumerate(islice(flows(source, text_field=self.text_field), count), first)
            first += count


def scan(found: Found, *, text_field: str, told: Told) -> Scan:
    """Read everything once. Raises as ``read_documents`` does."""
    counts, rows, chars, digests = array.array("q"), array.array("q"), array.array("q"), bytearray()
    seen = 0
    for group, sources, skipped in zip(found.groups, found.sources, found.skipped, strict=True):
        files = 0
        for source in sources:
            before = len(rows)
            try:
                for flow in flows(source, text_field=text_field):
                    length, digest = _measure(flow, lambda length: told("reading", seen + length, None))  # noqa: B023
                    seen += length
                    if length or group is not None:  # modules without a line are no part of the standard library
                        rows.append(int(flow.name[len(source.name) + 1 :] or 0))
                        chars.append(length)
                        digests += digest
            except UnusableFileError as error:
                if source.named:
                    raise
                skipped[error.reason] += group is not None
            counts.append(len(rows) - before)
            files += len(rows) > before
        tell_skipped(group or ("the standard library",), skipped, files=files)
    numbers = [np.frombuffer(column, np.int64) for column in (counts, rows, chars)]
    return Scan(found, text_field, numbers[0], numbers[1], numbers[2], np.frombuffer(bytes(digests), DIGEST))


def _measure(flow: Flow, told: Callable[[int], object]) -> tuple[int, bytes]:
    """Characters of a document, and its digest."""
    length, digest = 0, hashlib.sha256()
    for part in flow.parts:
        length += len(part)
        digest.update(part.encode())
        told(length)
    return length, digest.digest()[: DIGEST.itemsize]
