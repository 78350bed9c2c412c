"""Tokens in a file: written as they come, read in place."""

import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Integer

from spectrain._files.write import write_file
from spectrain.data._text.document import DataError


def write_tokens(
    file: str | PathLike[str], parts: Iterable[Integer[np.ndarray, " some"]], *, dtype: np.dtype
) -> np.memmap:
    """Write the parts one after the other into a ``.npy`` file, whole or not at all, and map it for reading."""
    write_file(Path(file), lambda temporary: _fill(temporary, parts, dtype, told=os.fspath(file)))
    found: np.memmap = np.load(file, mmap_mode="r")
    return found


def _fill(temporary: Path, parts: Iterable[Integer[np.ndarray, " some"]], dtype: np.dtype, *, told: str) -> None:
    count = 0
    with open(temporary, "wb") as out:
        _header(out, dtype, 0)
        for part in parts:
            out.write(part.astype(dtype).tobytes())
            count += len(part)
        if not count:
            raise DataError(f"{told}: there is no document to write the tokens of")
        out.seek(0)
        _header(out, dtype, count)


def _header(out: BinaryIO, dtype: np.dtype, count: int) -> None:
    """NumPy's header; it leaves room for a count of any length, so that it can be written again."""
    np.lib.format.write_array_header_1_0(out, {"descr": dtype.str, "fortran_order": False, "shape": (count,)})
