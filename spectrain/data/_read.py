"""From the paths somebody types to documents, or to an error that says what is wrong with them."""

import difflib
import glob
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spectrain.data._document import DataError, Document
from spectrain.data._standard_library import read_standard_library
from spectrain.data._text_file import UnusableFileError, read_text

_logger = logging.getLogger("spectrain.data")


@dataclass(frozen=True, slots=True)
class _Source:
    """A file to read; one that was named must be good, one that was found is skipped if it is not."""

    path: Path
    name: str
    named: bool = False


def read_documents(paths: Sequence[str | Path] | None = None) -> list[Document]:
    """Read the texts at ``paths``, one document a file, sorted by name.

    ``None``: the source of the Python standard library, without its tests. Otherwise each path is

    - a **file**, UTF-8, or the same in ``.gz``; it must be usable or the call fails;
    - a **folder**, read with all its subfolders. Hidden, binary, empty and non-UTF-8 files in it are
      skipped, and how many of each is logged as a warning of the logger ``spectrain.data``. Links to
      folders are not followed;
    - a **glob** such as ``"src/**/*.py"``, whose files are treated like those found in a folder.

    A file reached by two paths is read once. A name is relative to the folder that was given, or to
    the fixed part of the glob; the name of a file is its last part. Names that would be equal become
    whole paths. So the split by names is the same wherever the folder lies.

    Raises DataError for a path that does not exist (with the nearest name that does), a file that is
    empty, binary, damaged or not UTF-8 (with the offset), a glob that matches nothing, and when
    nothing is left to read. Memory: the text, and one file more.

    >>> [d.name for d in read_documents() if d.name.startswith("json/")]
    ['json/__init__.py', 'json/decoder.py', 'json/encoder.py', 'json/scanner.py', 'json/tool.py']
    """
    if paths is None:
        return read_standard_library()
    if isinstance(paths, str | Path):
        raise TypeError(f"read_documents takes a list of paths, got {paths!r}; write [{str(paths)!r}]")
    skipped: Counter[str] = Counter()
    sources = _unique([source for path in paths for source in _sources(path, skipped)])
    documents = [Document(name=s.name, text=text) for s in sources if (text := _text(s, skipped)) is not None]
    told = ", ".join(f"{count} {reason}" for reason, count in sorted((+skipped).items()))
    if not documents:
        where = ", ".join(map(str, paths)) or "an empty list of paths"
        raise DataError(f"no text in {where} (skipped: {told or 'nothing'}); name files or folders with UTF-8 text")
    if told:
        _logger.warning("read %d files, skipped %s", len(documents), told)
    return sorted(documents, key=lambda document: document.name)


def _sources(given: str | Path, skipped: Counter[str]) -> list[_Source]:
    path = Path(given).expanduser()
    if path.is_dir():
        return list(_in_folder(path, path, skipped))
    if path.exists():
        return [_Source(path, path.name, named=True)]
    if glob.has_magic(str(path)):
        return _matching(path, skipped)
    raise DataError(f"{path} does not exist; {_nearest(path)}")


def _matching(pattern: Path, skipped: Counter[str]) -> list[_Source]:
    matches = sorted(Path(match) for match in glob.glob(str(pattern), recursive=True))
    if not matches:
        raise DataError(f"nothing matches {pattern}; * stays in one folder, ** goes through subfolders")
    fixed = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    found: list[_Source] = []
    for match in matches:
        if not match.is_dir():
            found.append(_Source(match, match.relative_to(fixed).as_posix()))
        elif "**" not in pattern.parts:
            found += _in_folder(match, fixed, skipped)
    return found


def _in_folder(folder: Path, root: Path, skipped: Counter[str]) -> Iterator[_Source]:
    for where, folders, files in os.walk(folder):
        skipped["hidden"] += sum(name.startswith(".") for name in [*folders, *files])
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(where, name) for name in files if not name.startswith(".")]
        for path in paths:
            if path.is_file():
                yield _Source(path, path.relative_to(root).as_posix())
            else:
                skipped["unreadable"] += 1


def _unique(sources: list[_Source]) -> list[_Source]:
    """Each file once (the named one wins), and each under a name of its own."""
    once: dict[str, _Source] = {}
    for source in sorted(sources, key=lambda source: not source.named):
        once.setdefault(os.path.realpath(source.path), source)
    count = Counter(source.name for source in once.values())
    return [
        source if count[source.name] == 1 else _Source(source.path, source.path.as_posix(), source.named)
        for source in once.values()
    ]


def _text(source: _Source, skipped: Counter[str]) -> str | None:
    try:
        return read_text(source.path)
    except UnusableFileError as error:
        if source.named:
            raise
        skipped[error.reason] += 1
        return None


def _nearest(path: Path) -> str:
    """Say what does exist: the closest name in the deepest folder that is there."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    wanted = path.absolute().relative_to(folder).parts[0]
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return f"the folder {folder} cannot be listed"
    close = difflib.get_close_matches(wanted, names, n=1) or difflib.get_close_matches(wanted.lower(), names, n=1)
    if close:
        return f"did you mean {folder / close[0]}?"
    return f"{folder} holds {', '.join(names[:5]) or 'nothing'}{', ...' if len(names) > 5 else ''}"
