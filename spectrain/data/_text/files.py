"""One file of text: plain or gzipped, UTF-8, and an error that says where it is not.

And the text that every Python brings along: the source of its standard library.
"""

import codecs
import itertools
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from spectrain.data._text.document import DataError, Document
from spectrain.data._text.open import UnusableFileError, chunks, refuse_utf16

_PROBE = 8000  # a NUL this near the beginning means binary: git's rule
# Test suites are a third of the source and unlike the rest; the others are not the library.
_LEFT_OUT = {"test", "tests", "idle_test", "ensurepip", "site-packages", "dist-packages", "__pycache__"}


def read_text(path: Path, *, pipe: bool = False) -> str:
    """Read a UTF-8 text exactly, newlines untouched; a byte-order mark is dropped, ``.gz`` is unpacked.

    What is binary is told by its beginning, before the rest is read. Raises UnusableFileError.
    """
    return "".join(read_parts(path, pipe=pipe))


def read_parts(path: Path, *, pipe: bool = False) -> Iterator[str]:
    """The text of :func:`read_text`, about a megabyte at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line, begun = 0, 0, False
    for piece in itertools.chain(chunks(path, pipe=pipe), [b""]):
        if piece and not offset:
            _refuse_binary(piece, path)
        waiting = len(decoder.getstate()[0])  # bytes of a character that the piece before began
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error, offset - waiting, line) from None
        if text:
            yield text if begun else text.removeprefix("\ufeff")
            begun = True
        offset, line = offset + len(piece), line + piece.count(10)
    if not offset:
        raise UnusableFileError("empty", f"{path} is empty; name a file with text in it")


def _not_utf8(path: Path, error: UnicodeDecodeError, offset: int, line: int) -> UnusableFileError:
    """The error about a byte of a part that begins at ``offset``, with ``line`` ends of line before it."""
    raw, at = error.object, error.start
    return UnusableFileError(
        "not UTF-8",
        f"{path} is not UTF-8: byte 0x{raw[at]:02x} at offset {offset + at} (line {line + raw.count(10, 0, at) + 1}); "
        "if it is Latin-1, convert it with: iconv -f LATIN1 -t UTF-8",
    )


def _refuse_binary(start: bytes, path: Path) -> None:
    refuse_utf16(start, path)
    if (nul := start[:_PROBE].find(0)) >= 0:
        raise UnusableFileError("binary", f"{path} is a binary file (a NUL at byte {nul}); name text files")


def read_standard_library() -> list[Document]:
    """Read every module of the standard library this Python runs on, about 11 MB, sorted by name.

    Left out: test suites, installed packages, ensurepip, and what was made for this machine alone
    (``config-*`` folders, ``_sysconfigdata*``, links that lead out). Names are relative to the root of the
    library and written with ``/``. DataError when there is no source, as in a Python packed as a zip.
    """
    root = standard_library()
    documents = [
        Document(name=path.relative_to(root).as_posix(), text=text)
        for path in modules(root)
        if (text := _text_or_nothing(path))
    ]
    if not documents:
        raise DataError(
            f"the source of Python's standard library is not in {root} (some Pythons ship it as a zip or "
            "compiled only); name your own text with --data PATH, or use a Python installed from source, by "
            "pyenv, or on Debian with the package libpython3-stdlib"
        )
    return sorted(documents, key=lambda document: document.name)


def standard_library() -> Path:
    """Its root."""
    return Path(sysconfig.get_path("stdlib"))


def modules(root: Path) -> list[Path]:
    """The files of :func:`read_standard_library`."""
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")]
        paths = [Path(folder, name) for name in files if name.endswith(".py")]
        found += [path for path in paths if not path.name.startswith("_sysconfigdata") and not path.is_symlink()]
    return found


def _text_or_nothing(path: Path) -> str:
    try:
        return read_text(path)
    except UnusableFileError:
        return ""
