"""Weights in one file, from a model in shards and back, with one matrix whole in memory at a time."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import _TYPES as _BY_NAME
from torch import Tensor, nn

from spectrain._arrays.spread import is_spread
from spectrain.optim.internal import spread_like

_NAMES = {dtype: name for name, dtype in _BY_NAME.items()}


def write_model(file: Path | None, model: nn.Module, *, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write the file that ``safetensors.torch.save_model`` would write, byte for byte, of a model in shards.

    Every rank calls it, since every matrix is gathered; the one with a ``file`` writes, the others give None.
    ``weights``: those to write in the place of the model's own, by their names in its state.
    """
    kept, tied = _distinct(model)
    if weights is not None:
        kept = {name: weights[name] for name in kept}
    order = sorted(kept, key=lambda name: (-kept[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": tied} if tied else {}
    end = 0
    for name in order:
        start, end = end, end + kept[name].numel() * kept[name].element_size()
        header[name] = {
            "dtype": _NAMES[kept[name].dtype],
            "shape": list(kept[name].shape),
            "data_offsets": [start, end],
        }
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    if file is None:
        for name in order:
            _whole(kept[name])
        return
    with open(file, "wb") as stream:
        stream.write(len(words).to_bytes(8, "little") + words)
        for name in order:
            stream.write(_whole(kept[name]).contiguous().view(-1).view(torch.uint8).numpy().data)


def read_model(file: Path, model: nn.Module) -> None:
    """Put the weights of such a file into a model in shards, one tensor after the other.

    Raises ``RuntimeError`` where names or shapes are those of another model.
    """
    kept, _ = _distinct(model)
    with safetensors.safe_open(file, framework="pt") as stored:
        other = sorted(kept.keys() ^ set(stored.keys()))
        if other:
            raise RuntimeError(f"{other[0]} is not in both.")
        for name, value in kept.items():
            found = stored.get_tensor(name)
            if found.shape != value.shape:
                raise RuntimeError(f"{name} is {tuple(found.shape)} there and {tuple(value.shape)} here.")
            with torch.no_grad():
                value.copy_(spread_like(found.to(value.device), value))


def spread(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimizer of whole parameters, for one whose parameters are divided."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    found = {
        index: {
            key: spread_like(value, params[index]) if isinstance(value, Tensor) else value
            for key, value in entry.items()
        }
        for index, entry in state["state"].items()
    }
    return {**state, "state": found}


def _whole(value: Tensor) -> Tensor:
    return gathered(value).detach().cpu()


def gathered(value: Tensor) -> Tensor:
    """A tensor of all ranks in one piece; a plain one as it is. Every rank calls it."""
    return value.full_tensor() if is_spread(value) else value


def _distinct(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor once, under the first of its names, and the other names with that one."""
    names: dict[int, str] = {}
    tied = {name: first for name, value in _everything(model) if (first := names.setdefault(id(value), name)) != name}
    return {name: value for name, value in _everything(model) if name not in tied}, tied


def _everything(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and saved buffers, by name in order."""
    known = model.state_dict().keys()
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    yield from sorted((pair for pair in every if pair[0] in known), key=lambda pair: pair[0])
