"""From the paths somebody types to documents, or to an error that says what is wrong with them."""

import dataclasses
import difflib
import glob
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrain.data._text.document import DataError, Document
from spectrain.data._text.files import read_standard_library
from spectrain.data._text.glob import find_paths, fixed_part
from spectrain.data._text.open import UnusableFileError, refuse_nothing
from spectrain.data._text.records import documents_in, documents_of, is_saved_dataset, load_saved

_logger = logging.getLogger("spectrain.data")


@dataclass(frozen=True, slots=True)
class _Source:
    """A file to read; one that was named must be good, one that was found is skipped if it is not."""

    path: Path
    name: str
    named: bool = False
    dataset: Any = None


def read_documents(paths: Sequence[str | Path | Any] | None = None, *, text_field: str = "text") -> list[Document]:
    """Read the texts at ``paths``, sorted by name.

    ``None``: the source of the Python standard library, without its tests. Otherwise each path is

    - a **file**, UTF-8, one document; ``.jsonl`` or ``.ndjson``: one document a line, its text in ``text_field``;
      each of these also in ``.gz``; ``.parquet``: one document a row (with the package pyarrow);
    - a **folder**, read with all its subfolders. Hidden, binary, empty and non-UTF-8 files in it, and those without
      the field, are skipped (JSON lines from the first bad one on), and how many of each is logged as a warning of
      the logger ``spectrain.data``. Links to folders are not followed. A folder that ``Dataset.save_to_disk`` wrote
      is read by the package datasets;
    - a **glob** such as ``"src/**/*.py"``, whose files are treated like those found in a folder, and whose ``**``
      follows no links to folders;
    - a **dataset** of Hugging Face itself, map-style or streamed: one document a row.

    A file that was named must be usable or the call fails. A file reached by two paths is read once. A name is
    relative to the folder that was given, or to the fixed part of the glob; the name of a file is its last part, that
    of a row has its number behind it; bytes that are not UTF-8 are written as in ``b"\\xe9"``. Names that would be
    equal become whole paths. So the split by names is the same wherever the folder lies.

    Raises DataError for a path that is empty or does not exist (with the nearest name that does); a file that is empty,
    binary, damaged, a device, not UTF-8 (with the offset), that unpacks to more than 250 times its size (a gzip bomb)
    or changes while it is read; a line or row without the field (with its number and the fields there are);
    a package that is missing, a glob that matches nothing, and when nothing is left to read. Memory: the text, and one
    file more; :func:`iterate_documents` holds one document at a time.

    >>> [d.name for d in read_documents() if d.name.startswith("json/")]
    ['json/__init__.py', 'json/decoder.py', 'json/encoder.py', 'json/scanner.py', 'json/tool.py']
    """
    return sorted(iterate_documents(paths, text_field=text_field), key=lambda document: document.name)


def iterate_documents(
    paths: Sequence[str | Path | Any] | None = None, *, text_field: str = "text"
) -> Iterator[Document]:
    """Yield what :func:`read_documents` returns one by one, in the order of the paths, for text larger than memory.

    Paths that do not exist are told at once; what is wrong inside a file, when it is reached.
    """
    if paths is None:
        return iter(read_standard_library())
    if isinstance(paths, str | Path):
        raise TypeError(f"read_documents takes a list of paths, got {paths!r}; write [{str(paths)!r}]")
    skipped: Counter[str] = Counter()
    sources = _unique([source for i, path in enumerate(paths) for source in _sources(path, i, skipped)])
    return _documents(paths, sources, skipped, text_field)


def _documents(
    paths: Sequence[Any], sources: Sequence[_Source], skipped: Counter[str], text_field: str
) -> Iterator[Document]:
    count = files = 0
    for source in sources:
        before = count
        for document in _in(source, skipped, text_field):
            count += 1
            yield document
        files += count > before
    told = ", ".join(f"{number} {reason}" for reason, number in sorted((+skipped).items()))
    if not count:
        where = ", ".join(map(str, paths)) or "an empty list of paths"
        raise DataError(f"no text in {where} (skipped: {told or 'nothing'}); name files or folders with UTF-8 text")
    if told:
        _logger.warning("read %d files, skipped %s", files, told)


def _sources(given: str | Path | Any, i: int, skipped: Counter[str]) -> list[_Source]:
    if not isinstance(given, str | Path):
        return [_of_dataset(given, type(given).__name__, i)]
    refuse_nothing(given)
    path = Path(os.path.expanduser(given))
    if os.path.isdir(path) and is_saved_dataset(path):
        return [_of_dataset(load_saved(path), path.name, i)]
    if os.path.isdir(path):
        return list(_in_folder(path, path, skipped))
    if os.path.exists(path):
        return [_Source(path, _readable(path.name), named=True)]
    if glob.has_magic(str(path)):
        return _match(path, skipped)
    if os.path.islink(path):
        raise DataError(f"{path} is a link to {os.readlink(path)!r}, where nothing is; mend the link or name the file")
    raise DataError(f"{path} does not exist; {_nearest(path)}")


def _of_dataset(dataset: Any, name: str, i: int) -> _Source:
    if not hasattr(dataset, "column_names"):
        raise TypeError(f"read_documents takes paths and Hugging Face datasets, got {type(dataset).__name__}")
    return _Source(Path(f"{name}-{i}"), name, named=True, dataset=dataset)


def _match(pattern: Path, skipped: Counter[str]) -> list[_Source]:
    matches = find_paths(pattern)
    if not matches:
        raise DataError(f"nothing matches {pattern}; * stays in one folder, ** goes through subfolders")
    fixed = fixed_part(pattern)
    found: list[_Source] = []
    for match in matches:
        if not os.path.isdir(match):
            found += _find(match, fixed, skipped)
        elif "**" not in pattern.parts:
            found += _in_folder(match, fixed, skipped)
    return found


def _in_folder(folder: Path, root: Path, skipped: Counter[str]) -> Iterator[_Source]:
    def closed(_: OSError) -> None:
        skipped["unreadable"] += 1

    for where, folders, files in os.walk(folder, onerror=closed):
        skipped["hidden"] += sum(name.startswith(".") for name in [*folders, *files])
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield from _find(Path(where, name), root, skipped)


def _find(path: Path, root: Path, skipped: Counter[str]) -> list[_Source]:
    """A file that was found, not named: pipes, devices and links to nowhere are none."""
    if os.path.isfile(path):
        return [_Source(path, _readable(path.relative_to(root).as_posix()))]
    skipped["unreadable"] += 1
    return []


def _readable(name: str) -> str:
    r"""A name as text: bytes that are no UTF-8 become ``\xe9``, so that it can be printed, written and hashed."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _unique(sources: list[_Source]) -> list[_Source]:
    """Each file once (the named one wins), and each under a name of its own."""
    once: dict[str, _Source] = {}
    for source in sorted(sources, key=lambda source: not source.named):
        once.setdefault(os.path.realpath(source.path), source)
    count = Counter(source.name for source in once.values())
    return [
        source if count[source.name] == 1 else dataclasses.replace(source, name=_readable(source.path.as_posix()))
        for source in once.values()
    ]


def _in(source: _Source, skipped: Counter[str], text_field: str) -> Iterator[Document]:
    if source.dataset is not None:
        yield from documents_of(source.dataset, name=source.name, text_field=text_field)
        return
    try:
        yield from documents_in(source.path, source.name, text_field=text_field, pipe=source.named)
    except UnusableFileError as error:
        if source.named:
            raise
        skipped[error.reason] += 1
    except MemoryError:
        raise DataError(
            f"{source.path} does not fit into memory; divide it into files, or one text a line of JSON"
        ) from None


def _nearest(path: Path) -> str:
    """Say what does exist: the closest name in the deepest folder that is there."""
    folder = next(parent for parent in path.absolute().parents if os.path.isdir(parent))
    wanted = path.absolute().relative_to(folder).parts[0]
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return f"the folder {folder} cannot be listed"
    close = difflib.get_close_matches(wanted, names, n=1) or difflib.get_close_matches(wanted.lower(), names, n=1)
    if close:
        return f"did you mean {folder / close[0]}?"
    return f"{folder} holds {', '.join(names[:5]) or 'nothing'}{', ...' if len(names) > 5 else ''}"
