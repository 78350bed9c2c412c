"""What a folder of shards says of itself, and how it is held against its files when it is opened."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer

from spectrain._files.read import read_object
from spectrain._files.values import row, table, whole
from spectrain.data._text.document import DataError
from spectrain.data._text.growing import HEADER
from spectrain.data._text.tokenizer import Tokenizer, load_tokenizer

MANIFEST = "spectrain-shards.json"
TOKENIZER = "tokenizer.json"
PLAN = "spectrain-plan.npz"
"""What is there until the manifest is."""
FORMAT = "spectrain shards, 1"
_SEGMENT = 1 << 24  # bytes that have a digest
_LOOKED_AT = 16  # segments of a file compared when a folder is opened: 256 MB, a third of a second
_CURE = "prepare the text again, in a new folder"


@dataclass(frozen=True)
class Shard:
    """The tokens of one source, or of the held-out text, where they stand on the disk."""

    name: str
    tokens: Integer[np.ndarray, " tokens"]
    starts: Int64[np.ndarray, " documents"]
    """Where documents begin: at their end-of-text."""
    bytes: int
    """Of the text."""


@dataclass(frozen=True)
class Prepared:
    """Text that was tokenized before: what :func:`open_prepared` finds."""

    folder: Path
    tokenizer: Tokenizer
    sources: tuple[Shard, ...]
    """Training text."""
    held_out: Shard
    fingerprint: str
    """Of all tokens, as ``fingerprint`` makes it."""
    settings: dict[str, Any]
    """What they were made from and how."""
    checked: str
    """How much was compared with its digest, in words."""


def is_prepared(folder: str | Path) -> bool:
    """Whether a folder holds prepared text. DataError for one in which :func:`prepare` has not come to its end."""
    if is_whole(folder):
        return True
    if os.path.isfile(Path(folder) / PLAN):
        raise DataError(f"{folder} holds text that is not prepared to its end; give the same spectrain prepare again")
    return False


def is_whole(folder: str | Path) -> bool:
    """Whether a folder holds prepared text to its end."""
    return os.path.isfile(Path(folder) / MANIFEST)


def open_prepared(folder: str | Path) -> Prepared:
    """The shards of a folder, mapped, after they were compared with the manifest.

    Sizes of all files are compared, the digest of the tokenizer, and those of 16 segments of 16 MiB of each file,
    spread evenly where it has more. Raises DataError that names the file which is missing, truncated, altered or of
    another tokenizer.
    """
    folder = Path(folder)
    try:
        said = read_object(folder / MANIFEST, what="the manifest that spectrain prepare wrote")
        if said.get("format") != FORMAT:
            raise ValueError(f"{folder / MANIFEST} is of format {said.get('format')!r}, this version reads {FORMAT!r}")
        shards = [table(each, {"name", "tokens", "starts", "bytes"}) for each in row(said["shards"], "shards")]
        _compare_tokenizer(folder, said)
        looked = [_compare(folder, each) for shard in shards for each in (shard["tokens"], shard["starts"])]
    except (ValueError, KeyError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder} is no whole folder of shards: {error}; {_CURE}") from None
    opened = [_open(folder, shard) for shard in shards]
    some, most = (sum(counts) for counts in zip(*looked, strict=True))
    return Prepared(
        folder,
        load_tokenizer(folder / TOKENIZER, exact=False),
        tuple(opened[:-1]),
        opened[-1],
        str(said["fingerprint"]),
        said["settings"],
        f"{some} of {most} segments compared with their digests" if some < most else "compared with its digests",
    )


def _open(folder: Path, said: dict[str, Any]) -> Shard:
    tokens, starts = (np.load(folder / said[part]["file"], mmap_mode="r") for part in ("tokens", "starts"))
    return Shard(str(said["name"]), tokens, starts, whole(said["bytes"], "bytes", least=0))


def describe(path: Path) -> dict[str, object]:
    """What a manifest says of a file."""
    size = os.path.getsize(path)
    return {"file": path.name, "size": size, "segments": [_digest(path, i) for i in range(_segments(size))]}


def digest_of(path: Path) -> str:
    """The digest of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compare_tokenizer(folder: Path, said: dict[str, Any]) -> None:
    if digest_of(folder / TOKENIZER) != said["tokenizer"]:
        raise DataError(
            f"{folder / TOKENIZER} is another tokenizer than the one that made these shards, and token numbers mean "
            f"nothing without it: put it back, or {_CURE}."
        )


def _compare(folder: Path, said: Any) -> tuple[int, int]:
    """Compare a file with what is said of it; how many segments were, and how many it has."""
    path, size = folder / said["file"], whole(said["size"], "size", least=HEADER)
    if path.parent != folder:
        raise ValueError(f"{said['file']} is not in it")
    if (there := os.path.getsize(path)) != size:
        what = "truncated" if there < size else "longer than it was"
        raise DataError(f"{path} is {what}: it has {there:,} bytes, and {size:,} were written; {_CURE}.")
    count, digests = _segments(size), row(said["segments"], "segments")
    some = [i * count // min(count, _LOOKED_AT) for i in range(min(count, _LOOKED_AT))]
    for i in some:
        if _digest(path, i) != digests[i]:
            raise DataError(f"{path} was altered (at byte {i * _SEGMENT:,} or the {_SEGMENT:,} that follow); {_CURE}.")
    return len(some), count


def _segments(size: int) -> int:
    return -(-size // _SEGMENT)


def _digest(path: Path, i: int) -> str:
    with open(path, "rb") as file:
        file.seek(i * _SEGMENT)
        return hashlib.sha256(file.read(_SEGMENT)).hexdigest()[:32]
