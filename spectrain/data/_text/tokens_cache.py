"""Tokens that were made before, kept in the user's cache folder by a digest of all that decides them."""

import contextlib
import functools
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Integer

from spectrain._files.cache import cache_folder
from spectrain._files.write import write_file
from spectrain.data._text import byte_level
from spectrain.data._text.document import Document

Tokens = Integer[np.ndarray, " tokens"]

WORTH = 1 << 18
"""Characters of text from which on making tokens takes longer than looking them up."""
MOST = 1 << 28
"""Bytes of all files together: 256 MiB, a text of about 400 MB. What was used last stays."""
_LARGEST = MOST // 2
_LINE = 1 << 10


def key_of(documents: Iterable[Document], tokenizer: str, *, kind: type) -> str:
    """A digest of the texts, where each ends, all that ``tokenizer`` says of itself, and the code of its ``kind``.

    ``OSError`` where the source of that code is not here: a version that changed it could not be told from another.
    """
    made_by = [tokenizers.__version__, sys.byteorder, _code(kind), tokenizer]
    found = hashlib.sha256(json.dumps(made_by).encode())
    for document in documents:
        text = document.text.encode("utf-8", errors="surrogatepass")
        found.update(b"%d:" % len(text))
        found.update(text)
    return found.hexdigest()


def recall(key: str, dtype: np.dtype, *, make: Callable[[], Tokens], possible: Callable[[Tokens], bool]) -> Tokens:
    """The tokens of a key: from the cache, or from ``make`` and put there.

    A file that cannot be read, was cut, is not what its own digest says, is another key's or whose tokens are not
    ``possible`` counts as absent and is replaced; a folder that cannot be written costs nothing but the next making.
    Files are replaced whole, so that processes may write at once: what they write is equal.
    """
    with contextlib.suppress(OSError, ValueError):
        found = _read(_folder() / key, key, dtype)
        if possible(found):
            os.utime(_folder() / key)
            return found
    tokens = make()
    with contextlib.suppress(OSError):
        _write(_folder() / key, key, tokens)
    return tokens


def _folder() -> Path:
    return cache_folder() / "tokens"


@functools.cache
def _code(kind: type) -> str:
    """A digest of the text of the modules that make tokens out of text."""
    modules = byte_level, *(sys.modules[each.__module__] for each in kind.__mro__ if each is not object)
    try:
        return hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()
    except TypeError as error:  # a class that was typed in
        raise OSError(str(error)) from None


def _line(key: str, content: bytes | bytearray) -> bytes:
    """What stands before the tokens in a file: whose they are, how many bytes, and their digest."""
    said = {"key": key, "bytes": len(content), "digest": hashlib.sha256(key.encode() + content).hexdigest()}
    return json.dumps(said).encode() + b"\n"


def _read(path: Path, key: str, dtype: np.dtype) -> Tokens:
    """The tokens in a file; ValueError where they are not those of this key."""
    size = os.stat(path).st_size
    if size > _LARGEST or not path.is_file():
        raise ValueError(f"{path} is no file of tokens")
    with open(path, "rb") as file:
        line = file.readline(_LINE)
        content = bytearray(max(0, size - len(line)))
        read = file.readinto(content)
    if read != len(content) or line != _line(key, content):
        raise ValueError(f"{path} does not hold the tokens of {key}")
    return np.frombuffer(content, dtype=dtype)  # ValueError for half a token


def _write(path: Path, key: str, tokens: Tokens) -> None:
    content = tokens.tobytes()
    if len(content) > _LARGEST - _LINE:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, lambda temporary: temporary.write_bytes(_line(key, content) + content))
    _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Remove the files that were used longest ago until all together are within the bound."""
    with os.scandir(folder) as entries:
        files = sorted(
            (entry.stat().st_mtime, entry.path, entry.stat().st_size) for entry in entries if entry.is_file()
        )
    over = sum(size for *_, size in files) - MOST
    for _, path, size in files:
        if over <= 0:
            return
        os.unlink(path)
        over -= size
