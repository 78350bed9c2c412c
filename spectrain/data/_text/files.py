"""One file of text: plain or gzipped, UTF-8, and an error that says where it is not."""

from pathlib import Path

from spectrain.data._text.open import UnusableFileError, chunks, refuse_utf16

_PROBE = 8000  # a NUL this near the beginning means binary: git's rule


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
    return decoded(raw, str(path))


def decoded(raw: bytes, where: str) -> str:
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
