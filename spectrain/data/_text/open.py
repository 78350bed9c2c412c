"""The bytes of a file, packed or not: never a wait, never without end, and an error that names the file."""

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from spectrain.data._text.document import DataError

_PIECE = 1 << 20
_FREE = 1 << 26  # bytes unpacked before anybody asks how small they were
_RATIO = 250  # text packs to a fifth, logs to a hundredth; gzip's limit, and that of a bomb, is 1032


class UnusableFileError(DataError):
    """A file that cannot be text for training; ``reason`` is the one word it is counted under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def chunks(path: Path, *, pipe: bool = False) -> Iterator[bytes]:
    """The bytes of a file in order, ``.gz`` unpacked, a megabyte at a time.

    Raises UnusableFileError for what is no regular file (``pipe``: nor a pipe, which a shell makes of ``<(zcat a)``),
    cannot be read, is a damaged archive or one that unpacks to more than 250 times its size, and for a file that
    somebody writes to meanwhile, of which nobody knows what was read.
    """
    try:
        with _open(path, pipe=pipe) as file:
            before = _state(file)
            yield from _unpack(file, path) if path.suffix == ".gz" else iter(lambda: file.read(_PIECE), b"")
            if _state(file) != before:
                raise UnusableFileError("changed", f"{path} changed while it was read; read it when it is at rest")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnusableFileError("damaged", f"{path} is not a whole gzip file: {error}") from error
    except OSError as error:
        raise UnusableFileError("unreadable", f"{path} cannot be read: {error.strerror or error}") from error


def lines(path: Path, *, pipe: bool = False) -> Iterator[bytes]:
    r"""The lines of a file without their ``\n``, a byte-order mark dropped; errors as of :func:`chunks`."""
    begun = [b""]
    for i, piece in enumerate(chunks(path, pipe=pipe)):
        if i == 0:
            refuse_utf16(piece, path)
        first, *more = (piece.removeprefix(b"\xef\xbb\xbf") if i == 0 else piece).split(b"\n")
        begun.append(first)
        if more:
            yield b"".join(begun)
            yield from more[:-1]
            begun = [more[-1]]
    if last := b"".join(begun):
        yield last


def refuse_utf16(start: bytes, path: Path) -> None:
    """UnusableFileError where a file begins as UTF-16 does."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnusableFileError("not UTF-8", f"{path} is UTF-16; convert it with: iconv -f UTF-16 -t UTF-8")


def refuse_nothing(path: object) -> None:
    """DataError for an empty path, which the system would take for the working folder."""
    if isinstance(path, str) and not path:
        raise DataError('a path is empty (a shell variable without a value?); the folder you are in is written "."')


def _open(path: Path, *, pipe: bool) -> BinaryIO:
    """Open what is a file without waiting for anybody; a FIFO that nobody writes to would keep us for ever."""
    if pipe and stat.S_ISFIFO(os.stat(path).st_mode):  # its other end waits for one reader: opened once
        return open(path, "rb")
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    raise UnusableFileError(
        "unreadable", f"{path} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file; name a file with text in it"
    )


def _state(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else (0, 0)


def _unpack(file: BinaryIO, path: Path) -> Iterator[bytes]:
    packed, size = _Counted(file), 0
    if not (start := packed.peek()):
        return  # an empty file is no archive of nothing, but says as little
    with gzip.GzipFile(fileobj=io.BufferedReader(packed), mode="rb") as plain:
        while piece := plain.read(_PIECE):
            size += len(piece)
            if size > max(_FREE, _RATIO * (packed.count + len(start))):
                raise UnusableFileError(
                    "damaged", f"{path} unpacks to more than {_RATIO} times its size, which no text does; a gzip bomb?"
                )
            yield piece


class _Counted(io.RawIOBase):
    """A file that counts what was read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.count, self._start = file, 0, b""

    def peek(self) -> bytes:
        """The first bytes, which are read again."""
        self._start = self.file.read(1)
        return self._start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._start or self.file.read(len(buffer))
        self._start = b""
        buffer[: len(content)] = content
        self.count += len(content)
        return len(content)
