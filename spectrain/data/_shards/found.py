"""The files of a text before anything of them is read: which, how large, and in which state."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectrain.data._text.document import DataError
from spectrain.data._text.files import modules, standard_library
from spectrain.data._text.sources import Source, find_sources

Group = Sequence[str | Path] | None
"""Paths that are divided together into training and held-out text; None is the standard library."""
State = list[str | int]
"""Name, place, size and time of change: what is compared to know that a file is still the same."""
_PACKED = 4  # how many times its size in an archive a text has, about


@dataclass(frozen=True)
class Found:
    """The files of some groups, each group's by name: the order they are read in."""

    groups: tuple[Group, ...]
    sources: tuple[tuple[Source, ...], ...]
    states: tuple[tuple[State, ...], ...]
    skipped: tuple[Counter[str], ...]

    @property
    def size(self) -> int:
        """About how many bytes of text there are."""
        return sum(_size(source) for group in self.sources for source in group)


def find(groups: Sequence[Group]) -> Found:
    """The files of each group. Raises as ``read_documents`` does for paths."""
    skipped = tuple(Counter[str]() for _ in groups)
    each = (_library() if g is None else find_sources(g, s) for g, s in zip(groups, skipped, strict=True))
    sources = tuple(tuple(sorted(group, key=lambda source: source.name)) for group in each)
    return Found(tuple(groups), sources, tuple(tuple(map(state, group)) for group in sources), skipped)


def state(source: Source) -> State:
    """The state of a file now."""
    if source.dataset is not None:
        return [source.name, str(getattr(source.dataset, "_fingerprint", "")), 0, 0]
    there = os.stat(source.path)
    return [source.name, os.path.realpath(source.path), there.st_size, there.st_mtime_ns]


def refuse_pipes(found: Found) -> None:
    """DataError for what can be read only once."""
    for source in (source for group in found.sources for source in group):
        if source.dataset is None and not os.path.isfile(source.path):
            raise DataError(f"{source.path} is no regular file, and this text is read more than once; copy it to one")


def _library() -> list[Source]:
    root = standard_library()
    return [Source(path, path.relative_to(root).as_posix()) for path in modules(root)]


def _size(source: Source) -> int:
    if source.dataset is not None:
        return int(getattr(getattr(source.dataset, "data", None), "nbytes", 0))
    return os.path.getsize(source.path) * (_PACKED if source.path.suffix in (".gz", ".parquet") else 1)
