"""One file of text: plain or gzipped, UTF-8, and an error that says where it is not.

And the text that every Python brings along: the source of its standard library.
"""

import os
import sysconfig
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
    parts: list[bytes] = []
    for piece in chunks(path, pipe=pipe):
        if not parts:
            _refuse_binary(piece, path)
        parts.append(piece)
    raw = b"".join(parts)
    if not raw:
        raise UnusableFileError("empty", f"{path} is empty; name a file with text in it")
    return decode(raw, str(path))


def decode(raw: bytes, where: str) -> str:
    """The UTF-8 text of bytes; UnusableFileError that names the byte which is none."""
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UnusableFileError(
            "not UTF-8",
            f"{where} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start} "
            f"(line {raw.count(10, 0, error.start) + 1}); if it is Latin-1, convert it with: "
            f"iconv -f LATIN1 -t UTF-8",
        ) from None


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
    root = Path(sysconfig.get_path("stdlib"))
    documents = [
        Document(name=path.relative_to(root).as_posix(), text=text)
        for path in _modules(root)
        if (text := _text_or_nothing(path))
    ]
    if not documents:
        raise DataError(
            f"the source of Python's standard library is not in {root} (some Pythons ship it as a zip or "
            "compiled only); name your own text with --data PATH, or use a Python installed from source, by "
            "pyenv, or on Debian with the package libpython3-stdlib"
        )
    return sorted(documents, key=lambda document: document.name)


def _modules(root: Path) -> list[Path]:
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
