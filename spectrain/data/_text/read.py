"""From the paths somebody types to documents, or to an error that says what is wrong with them."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spectrain.data._text.document import DataError, Document, Flow
from spectrain.data._text.files import read_standard_library
from spectrain.data._text.open import UnusableFileError
from spectrain.data._text.records import flows_in, flows_of
from spectrain.data._text.sources import Source, find_sources

_logger = logging.getLogger("spectrain.data")


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
    return _documents(paths, find_sources(paths, skipped), skipped, text_field)


def _documents(
    paths: Sequence[Any], sources: Sequence[Source], skipped: Counter[str], text_field: str
) -> Iterator[Document]:
    count = files = 0
    for source in sources:
        before = count
        for document in _in(source, skipped, text_field):
            count += 1
            yield document
        files += count > before
    tell_skipped(paths, skipped, files=files)


def tell_skipped(paths: Sequence[Any], skipped: Counter[str], *, files: int) -> None:
    """Log how many files were skipped, and why. DataError where none is left."""
    told = ", ".join(f"{number} {reason}" for reason, number in sorted((+skipped).items()))
    if not files:
        where = ", ".join(map(str, paths)) or "an empty list of paths"
        raise DataError(f"no text in {where} (skipped: {told or 'nothing'}); name files or folders with UTF-8 text")
    if told:
        _logger.warning("read %d files, skipped %s", files, told)


def _in(source: Source, skipped: Counter[str], text_field: str) -> Iterator[Document]:
    try:
        for flow in flows(source, text_field=text_field):
            yield Document(name=flow.name, text="".join(flow.parts))
    except UnusableFileError as error:
        if source.named:
            raise
        skipped[error.reason] += 1
    except MemoryError:
        raise DataError(
            f"{source.path} does not fit into memory; divide it into files, or one text a line of JSON"
        ) from None


def flows(source: Source, *, text_field: str) -> Iterator[Flow]:
    """The documents of a source, each as it is read."""
    if source.dataset is not None:
        return flows_of(source.dataset, name=source.name, text_field=text_field)
    return flows_in(source.path, source.name, text_field=text_field, pipe=source.named)
