"""The index of a checkpoint's shards, read without running code: torch keeps it as a pickle."""

import pickle
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from spectrain.train._mesh.files import INDEX

_RECORDS = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_FUNCTIONS = {("torch.serialization", "_get_layout")}


class _Unpickler(pickle.Unpickler):
    """Makes records of torch's checkpoints, sizes, dtypes and paths, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of that name; ``UnpicklingError`` for one that no index has."""
        found = super().find_class(module, name)
        record = isinstance(found, type) and found.__module__ in _RECORDS
        plain = isinstance(found, torch.dtype) or found is torch.Size
        path = isinstance(found, type) and issubclass(found, Path)
        if record or plain or path or (module, name) in _FUNCTIONS:
            return found
        raise pickle.UnpicklingError(f"{INDEX} names {module}.{name}, which is no part of an index")


class Reader(dcp.FileSystemReader):
    """Torch's reader, which believes no index that names anything but what an index is made of."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index; ``RuntimeError`` where it is none."""
        try:
            with open(Path(self.path) / INDEX, "rb") as file:
                found = _Unpickler(file).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, ImportError) as error:
            raise RuntimeError(f"{self.path}: {error}") from None
        if not isinstance(found, Metadata):
            raise RuntimeError(f"{self.path}: {INDEX} is no index")
        found.storage_meta = found.storage_meta or StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found
