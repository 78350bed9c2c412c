"""Globs that end: links to folders are named, never walked into by ``**``, so a loop of links is no endless tree."""

import fnmatch
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path


def find_paths(pattern: Path) -> list[Path]:
    """What matches, sorted; as ``glob.glob(recursive=True)`` but that ``**`` does not follow links to folders.

    Names that begin with a dot match patterns that do.
    """
    fixed = fixed_part(pattern)
    parts = pattern.parts[len(fixed.parts) :]
    return sorted(set(_expand(fixed, parts)))


def fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before its first sign."""
    return next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))


def _expand(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    if not parts:
        if os.path.lexists(folder):
            yield folder
        return
    first, *rest = parts
    if first == "**":
        yield from _expand(folder, rest)
        for name in _names(folder, "*"):
            if rest and not (folder / name).is_symlink() and os.path.isdir(folder / name):
                yield from _expand(folder / name, parts)
            elif not rest:
                yield from _below(folder / name)
    elif glob.has_magic(first):
        for name in _names(folder, first):
            yield from _expand(folder / name, rest)
    else:
        yield from _expand(folder / first, rest)


def _below(path: Path) -> Iterator[Path]:
    yield path
    if not path.is_symlink() and os.path.isdir(path):
        for name in _names(path, "*"):
            yield from _below(path / name)


def _names(folder: Path, pattern: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    seen = names if pattern.startswith(".") else [name for name in names if not name.startswith(".")]
    return fnmatch.filter(seen, pattern)
