"""Tokens in a file: written as they come, read in place."""

import hashlib
import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from spectrain._files.write import write_file
from spectrain.data._text.document import DataError
from spectrain.data._text.growing import Growing

PART = 1 << 22
"""Tokens looked at together."""


def write_tokens(
    file: str | PathLike[str], parts: Iterable[Integer[np.ndarray, " some"]], *, dtype: np.dtype
) -> np.memmap:
    """Write the parts one after the other into a ``.npy`` file, whole or not at all, and map it for reading."""
    write_file(Path(file), lambda temporary: _fill(temporary, parts, dtype, told=os.fspath(file)))
    found: np.memmap = np.load(file, mmap_mode="r")
    return found


def _fill(temporary: Path, parts: Iterable[Integer[np.ndarray, " some"]], dtype: np.dtype, *, told: str) -> None:
    file = Growing(temporary, dtype)
    try:
        for part in parts:
            file.append(part)
        if not file.count:
            raise DataError(f"{told}: there is no document to write the tokens of")
        file.sync()
    finally:
        file.close()


def fingerprint(*tokens: Integer[np.ndarray, " _"]) -> str:
    """A digest of these tokens, whatever the integers they are kept in.

    >>> fingerprint(np.arange(5)) == fingerprint(np.arange(3, dtype=np.uint16), np.arange(3, 5))
    True
    """
    return fingerprint_of_parts(array[start : start + PART] for array in tokens for start in range(0, len(array), PART))


def fingerprint_of_parts(parts: Iterable[Integer[np.ndarray, " some"]]) -> str:
    """The same of tokens that come in parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]
