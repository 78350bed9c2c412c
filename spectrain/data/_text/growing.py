"""An array in a file that grows: numbers are put behind, it can be cut back, and it is a ``.npy`` file all the time."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped

from spectrain.data._text.document import DataError

HEADER = 128
"""Bytes of NumPy's header for one dimension, which leaves room for a count of any length."""


class Growing:
    """A ``.npy`` file of one dimension, whose first ``count`` numbers are kept, the rest is cut off.

    Raises DataError for a file that has fewer.
    """

    def __init__(self, path: Path, dtype: np.dtype, *, count: int = 0) -> None:
        self.path, self.dtype, self.count = path, dtype, count
        size = HEADER + count * dtype.itemsize
        if count and (there := os.path.getsize(path)) < size:
            raise DataError(f"{path} has {there} bytes, fewer than the {size} that were written; remove its folder")
        self._file: BinaryIO = open(path, "r+b" if count else "w+b")  # noqa: SIM115 - closed by close
        self._write_header()
        self._file.truncate(size)
        self._file.seek(0, os.SEEK_END)

    def append(self, part: Shaped[np.ndarray, " some"]) -> None:
        """Put numbers behind."""
        self._file.write(part.astype(self.dtype, copy=False).tobytes())
        self.count += len(part)

    def sync(self) -> None:
        """Force onto the disk what was appended, and a header that counts it."""
        self._write_header()
        self._file.seek(0, os.SEEK_END)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file, as it stands."""
        self._file.close()

    def _write_header(self) -> None:
        self._file.seek(0)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, header)
        assert self._file.tell() == HEADER
