"""One file of text: plain or gzipped, UTF-8, and an error that says where it is not."""

import gzip
import zlib
from pathlib import Path

from spectrain.data._document import DataError

_PROBE = 8000  # a NUL this near the beginning means binary: git's rule


class UnusableFileError(DataError):
    """A file that cannot be text for training; ``reason`` is the one word it is counted under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_text(path: Path) -> str:
    """Read a UTF-8 text exactly, newlines untouched; a byte-order mark is dropped, ``.gz`` is unpacked."""
    raw = _content(path)
    if not raw:
        raise UnusableFileError("empty", f"{path} is empty; name a file with text in it")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnusableFileError("not UTF-8", f"{path} is UTF-16; convert it with: iconv -f UTF-16 -t UTF-8")
    if (nul := raw[:_PROBE].find(0)) >= 0:
        raise UnusableFileError("binary", f"{path} is a binary file (a NUL at byte {nul}); name text files")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UnusableFileError(
            "not UTF-8",
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start} "
            f"(line {raw.count(10, 0, error.start) + 1}); if it is Latin-1, convert it with: "
            f"iconv -f LATIN1 -t UTF-8",
        ) from None


def _content(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UnusableFileError("unreadable", f"{path} cannot be read: {error.strerror or error}") from error
    if path.suffix != ".gz" or not raw:
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UnusableFileError("damaged", f"{path} is not a whole gzip file: {error}") from error
