"""The files of weights in a folder: which there are, what they hold, and the tensors themselves."""

import re
from collections.abc import Iterator
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from spectrain._files.read import read_json

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATS = ("F64", "F32", "F16", "BF16")


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, from the heads of the files.

    Raises ``ValueError`` naming a file that is missing, cut or outside of the folder, a tensor that stands in two
    files, and one that is no plain float.
    """
    found: dict[str, tuple[int, ...]] = {}
    for file in _files_of(folder):
        try:
            with safetensors.safe_open(str(file), framework="pt") as opened:
                parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
                heads = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}
        except safetensors.SafetensorError as error:
            raise ValueError(f"{file} is no whole safetensors file: {error}.") from None
        for name, (shape, dtype) in heads.items():
            if name in found:
                raise ValueError(f"{folder}: {name} stands in two files; which is meant?")
            if dtype not in _FLOATS:
                raise ValueError(f"{file}: {name} is of dtype {dtype}; weights must be {', '.join(_FLOATS)}.")
            found[name] = shape
    return found


def tensors_in(folder: Path) -> dict[str, Tensor]:
    """All tensors by their names."""
    return {name: w for file in _files_of(folder) for name, w in safetensors.torch.load_file(str(file)).items()}


def _files_of(folder: Path) -> Iterator[Path]:
    """The files of weights, each a regular one of this folder."""
    for name in _names_of(folder):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}; other formats than safetensors are not read.")
        _refuse_link_out(folder, name)
        yield folder / name


def _names_of(folder: Path) -> list[str]:
    """The names of the files of weights.

    Names are plain: a folder from somebody else must not choose what is read elsewhere.
    """
    index = folder / _INDEX
    if not index.exists():
        return [_ONE]
    if (folder / _ONE).exists():
        raise ValueError(f"{folder} has {_ONE} and {_INDEX}, which names others; take away the one that is not meant.")
    try:
        names = set(read_json(index, what="the index that came with the weights")["weight_map"].values())
        plain = {name for name in names if _is_plain(name)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} holds no weight_map from tensors to files ({error!r:.100}); get it anew.") from None
    if other := sorted(map(str, names - plain)):
        raise ValueError(
            f"{index}: weight_map names {other[0]!r:.200}; each must be the name of a .safetensors file in {folder} "
            "itself, without folders. Do not trust this folder, or put the file there and mend the name."
        )
    return sorted(plain)


def _is_plain(name: object) -> bool:
    """Whether a name is that of a file of weights and of no folder, on any system."""
    return isinstance(name, str) and bool(re.fullmatch(r"[^/\\:\0]+\.safetensors", name))


def _refuse_link_out(folder: Path, file: str) -> None:
    """ValueError for a link that leaves the folder, but for huggingface_hub's from ``snapshots/...`` to ``blobs``."""
    home, real = folder.resolve(), (folder / file).resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if home not in real.parents and real.parent != blobs:
        raise ValueError(f"{folder / file} is a link to {real}, outside of the folder; put the file itself there.")
