"""Tensors of a run in a folder, each rank its own, by ``torch.distributed.checkpoint``: read back on any mesh."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from spectrain.train._mesh.files import FOLDER, INDEX, file_digest
from spectrain.train._mesh.index import Reader
from spectrain.train._mesh.nested import tensors_in, with_tensors, without_tensors
from spectrain.train._mesh.ranks import ALONE, Ranks

_MODEL, _OPTIMIZER, _JOB = "model/", "optimizer/", "job"

State = dict[str, Any]


def take(model: nn.Module, optimizer: torch.optim.Optimizer, job: State) -> tuple[dict[str, Tensor], State]:
    """A copy of this rank's part of every tensor, by name, and the states of optimizer and job without them."""
    state = optimizer.state_dict()
    tensors = {_MODEL + name: value for name, value in model.state_dict().items()}
    tensors |= tensors_in(job, _JOB)
    rest: dict[int, State] = {}
    for index, entry in state["state"].items():
        rest[index] = {}
        for key, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{index}/{key}"] = value
            else:
                rest[index][key] = value
    kept = {"optimizer": {**state, "state": rest}, "job": without_tensors(job)}
    return {name: value.detach().clone() for name, value in tensors.items()}, kept


def write(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, str]:
    """Write what :func:`take` took, on every rank; digests of all files, by name under the folder above."""
    own = ranks.by_all(lambda: _write_own(folder, tensors, ranks))
    return {name: digest for part in ranks.gather(own) for name, digest in part.items()}


def _write_own(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, str]:
    """This rank's file, and for the first the index; where writing fails on one rank it fails on all."""
    with _quietly():
        dcp.save(dict(tensors), storage_writer=dcp.FileSystemWriter(folder), process_group=ranks.group)
    names = [*folder.glob(f"__{ranks.rank}_*.distcp"), *([folder / INDEX] if ranks.first else [])]
    return {f"{FOLDER}/{file.name}": file_digest(file) for file in sorted(names)}


def read(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, job: State, rest: State, ranks: Ranks
) -> State:
    """Put the weights into ``model``, however it is divided now, and return the states for its optimizer and its job.

    ``job``: that of the job as it is, whose tensors lie as those that are read will; ``rest``: what :func:`take` left.
    Raises ``KeyError`` and ``RuntimeError`` where names or shapes are those of another model.
    """
    reader = Reader(folder)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    into: dict[str, Tensor] = _weights(reader, model)
    state: dict[int, State] = {index: dict(entry) for index, entry in rest["optimizer"]["state"].items()}
    for key, said in _said(reader, _OPTIMIZER).items():
        index, name = key.removeprefix(_OPTIMIZER).split("/")
        into[key] = state.setdefault(int(index), {})[name] = _like(said, params[int(index)])
    held = dict(tensors_in(job, _JOB))
    own = {key: _like(said, held[key]) for key, said in _said(reader, f"{_JOB}/").items()}
    _load(into | own, reader, ranks)
    return {"optimizer": {**rest["optimizer"], "state": state}, "job": with_tensors(rest["job"], _JOB, own)}


def read_model(folder: Path, model: nn.Module) -> None:
    """Put the weights into a whole model, in one process; raises as :func:`read` does."""
    reader = Reader(folder)
    _load(_weights(reader, model), reader, ALONE)


def _weights(reader: Reader, model: nn.Module) -> dict[str, Tensor]:
    """The model's own tensors, to be written into."""
    own = {_MODEL + name: value.detach() for name, value in model.state_dict().items()}
    said = _said(reader, _MODEL)
    other = sorted(own.keys() ^ said.keys())
    other += [name for name in own.keys() & said.keys() if own[name].shape != said[name].size]
    if other:
        raise KeyError(f"{other[0].removeprefix(_MODEL)} is not in both, or has another shape.")
    return own


def _said(reader: Reader, prefix: str) -> dict[str, TensorStorageMetadata]:
    found = reader.read_metadata().state_dict_metadata
    return {
        key: value
        for key, value in found.items()
        if key.startswith(prefix) and isinstance(value, TensorStorageMetadata)
    }


def _like(said: TensorStorageMetadata, p: Tensor) -> Tensor:
    """An empty place for a tensor that is kept of ``p``: divided as ``p`` is where it has its shape."""
    if isinstance(p, DTensor) and said.size == p.shape:
        return torch.zeros_like(p, dtype=said.properties.dtype, requires_grad=False)
    return torch.zeros(said.size, dtype=said.properties.dtype, device=p.device)


def _load(into: dict[str, Tensor], reader: Reader, ranks: Ranks) -> None:
    with _quietly():
        dcp.load(into, storage_reader=reader, process_group=ranks.group, no_dist=ranks.alone)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's warnings about its own calls, and with errors that say what happened on which rank."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CheckpointException as error:
        words = "; ".join(f"{said} (rank {rank})" for rank, (said, _) in error.failures.items())
        raise RuntimeError(words.replace("\n", " ")) from error
