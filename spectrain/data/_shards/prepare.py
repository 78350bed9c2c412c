"""Text to shards: found, read, divided, a tokenizer learned, tokenized; after a kill it goes on where it was."""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from spectrain._files.read import read_object
from spectrain._files.write import write_file, write_json
from spectrain.data._shards.division import divide
from spectrain.data._shards.encode import Encoded, encode_all
from spectrain.data._shards.found import Found, Group, find, refuse_pipes
from spectrain.data._shards.jobs import jobs, training_texts
from spectrain.data._shards.manifest import (
    FORMAT,
    MANIFEST,
    PLAN,
    TOKENIZER,
    Prepared,
    describe,
    digest_of,
    is_whole,
    open_prepared,
)
from spectrain.data._shards.scan import DIGEST, Scan, Told, scan
from spectrain.data._text.document import DataError
from spectrain.data._text.growing import Growing
from spectrain.data._text.token_file import PART, fingerprint_of_parts
from spectrain.data._text.tokenizer import Tokenizer, load_tokenizer
from spectrain.data._text.tokenizer_training import train_on

_PROGRESS = "progress.json"
_NAMED = 3  # paths that a title lists
_COMMIT = 16  # jobs between two moments that a kill cannot undo


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How a text is to become tokens."""

    tokenizer: Literal["bytes", "bpe"] = "bpe"
    vocabulary: int = 4096
    fraction: float = 0.05
    seed: int = 0
    text_field: str = "text"
    own: Tokenizer | None = None
    """A tokenizer that is there already; the two fields above then say nothing."""

    def __post_init__(self) -> None:
        """Refuse before anything is read what would be refused at the end of it."""
        if not 0 < self.fraction < 1:
            raise ValueError(f"prepare: fraction must be between 0 and 1, got {self.fraction}; 0.05 is usual")
        train_on(self.tokenizer, ["a"], 1, min(self.vocabulary, 257))

    def settings(self, found: Found) -> dict[str, Any]:
        """All that the tokens depend on, as it stands in a manifest: the state of each file by a digest."""
        states = hashlib.sha256(json.dumps(found.states).encode()).hexdigest()
        names = [_title(group) for group in found.groups]
        said = {name: value for name, value in vars(self).items() if name != "own"}
        if self.own is not None:
            said |= {"tokenizer": f"own {self.own.fingerprint}", "vocabulary": self.own.vocabulary_size}
        return {**said, "names": names, "files": sum(map(len, found.sources)), "states": states}

    @staticmethod
    def is_own(settings: dict[str, Any]) -> bool:
        """Whether settings of a manifest are of a tokenizer that was given."""
        return str(settings["tokenizer"]).startswith("own ")

    def key(self, found: Found) -> str:
        """A name for what this makes of a text."""
        return _key(self.settings(found))


def _key(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode()).hexdigest()[:16]


def prepare(
    groups: Sequence[Group],
    folder: str | Path,
    *,
    tokenizer: Literal["bytes", "bpe"] = "bpe",
    vocabulary: int = 4096,
    fraction: float = 0.05,
    seed: int = 0,
    text_field: str = "text",
    own: Tokenizer | None = None,
    workers: int = 1,
    told: Told = lambda what, done, total: None,
) -> Prepared:
    r"""Tokenize text into files that are mapped, in the memory of one document or of some megabytes.

    Each group of paths (None: the standard library) is divided into training and held-out text as
    ``split_documents`` does, and becomes a source, to be read as it is or in a ``Mixture``; the held-out text of all
    is one. The tokenizer is learned as by ``train_tokenizer``, from the training text of all groups, or is the one that
    is given (``own``). Tokens are those
    of ``encode_documents`` on documents in the order of their files' names and, in JSON lines and Parquet, of their
    rows: the order of ``read_documents`` but for such rows, which that sorts as text (1, 10, 100, 2).

    The text is read three times: for lengths and digests, for the tokenizer's sample, and to tokenize it; a file that
    is one large document is read part by part, and once more where it is itself divided. ``workers`` processes
    tokenize, at about 5 MB/s each. Kept in memory: 32 bytes a document,
    about a hundred while it is divided, and some megabytes a worker. A folder in which
    this was interrupted is gone on with.

    ``told`` hears of progress. Raises DataError as ``read_documents`` and ``split_documents`` do, for files that change
    meanwhile, and for a folder that holds something else; ``OSError`` where the folder cannot be written.

    >>> import tempfile
    >>> from spectrain import data
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "songs.jsonl").write_text("".join(f'{{"text": "song {i}\\n"}}\n' for i in range(40)))
    >>> made = prepare([[folder / "songs.jsonl"]], folder / "tokens", tokenizer="bytes")
    >>> len(made.sources[0].starts), len(made.held_out.starts), made.sources[0].tokens.dtype
    (38, 2, dtype('uint16'))
    """
    asked = Asked(
        tokenizer=tokenizer, vocabulary=vocabulary, fraction=fraction, seed=seed, text_field=text_field, own=own
    )
    return prepare_found(find(groups), Path(folder), asked, workers=workers, told=told)


def prepare_found(found: Found, folder: Path, asked: Asked, *, workers: int, told: Told) -> Prepared:
    """:func:`prepare` of files that were found already."""
    settings = asked.settings(found)
    folder.mkdir(parents=True, exist_ok=True)
    if is_whole(folder):
        (folder / PLAN).unlink(missing_ok=True)  # a kill may leave it
        made = open_prepared(folder)
        if made.settings != settings:
            raise DataError(f"{folder} holds another text, or one prepared otherwise; give another folder")
        return made
    text, cuts = _plan(found, folder, asked, settings, told)
    made_by = _tokenizer(folder, asked, text, cuts, told)
    _tokenize(text, cuts, folder, made_by, workers, told)
    _finish(folder, settings, text, told)
    return open_prepared(folder)


def _plan(
    found: Found, folder: Path, asked: Asked, settings: dict[str, Any], told: Told
) -> tuple[Scan, Int64[np.ndarray, " documents"]]:
    """The documents and how they are divided, from the folder or by reading all of the text."""
    file, name = folder / PLAN, _key(settings)
    if file.exists():
        with np.load(file) as kept:
            if str(kept["key"]) != name:
                raise DataError(f"{folder} holds the beginning of something else; remove it, or give another folder")
            digests = np.zeros(0, DIGEST)  # only the division needs them
            text = Scan(found, asked.text_field, kept["counts"], kept["rows"], kept["chars"], digests)
            return text, kept["cuts"]
    if other := sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")):
        raise DataError(f"{folder} is there and not empty ({', '.join(other[:3])}); give a new folder")
    refuse_pipes(found)
    text = scan(found, text_field=asked.text_field, told=told)
    cuts = divide(text, fraction=asked.fraction, seed=asked.seed)

    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as out:
            np.savez(out, key=np.array(name), counts=text.counts, rows=text.rows, chars=text.chars, cuts=cuts)

    write_file(file, fill)
    return text, cuts


def _tokenizer(folder: Path, asked: Asked, text: Scan, cuts: Int64[np.ndarray, " documents"], told: Told) -> Tokenizer:
    """The tokenizer of the folder, learned where it is not there yet."""
    file = folder / TOKENIZER
    if asked.own is not None and asked.own.puts_space_in_front:
        raise DataError(
            "this tokenizer puts a space in front of a text, which cannot be tokenized part by part then, as large "
            "text is; train on the text itself, less than 128 MiB of it"
        )
    if not file.exists() and asked.own is not None:
        asked.own.save_settings(folder)  # before the file that counts on it
        write_file(file, asked.own.save)
    elif not file.exists():
        told("learning a tokenizer", 0, None)
        total = int(cuts[cuts > 0].sum())
        made = train_on(asked.tokenizer, training_texts(text, cuts), total, asked.vocabulary)
        write_file(file, made.save)
    return load_tokenizer(file, exact=False)


def _tokenize(
    text: Scan,
    cuts: Int64[np.ndarray, " documents"],
    folder: Path,
    tokenizer: Tokenizer,
    workers: int,
    told: Told,
) -> None:
    done = _Done.read(folder, shards=len(text.found.groups) + 1)
    with _files(folder, tokenizer.dtype, done) as files:
        rest = itertools.islice(jobs(text, cuts), done.jobs, None)
        total = int(text.chars.sum())
        for encoded in encode_all(rest, tokenizer, file=folder / TOKENIZER, workers=workers):
            done.take(encoded, *files[encoded.shard])
            told("tokenizing", done.chars, total)
            if done.jobs % _COMMIT == 0:
                done.write(folder, files)
        done.write(folder, files)


@dataclass
class _Done:
    """How far the shards have come: what a kill cannot undo."""

    jobs: int
    chars: int
    bytes: list[int]
    counts: list[list[int]]
    """Tokens and documents of each shard."""

    @staticmethod
    def read(folder: Path, *, shards: int) -> "_Done":
        file = folder / _PROGRESS
        if not file.exists():
            return _Done(0, 0, [0] * shards, [[0, 0] for _ in range(shards)])
        return _Done(**read_object(file, what="what an interrupted spectrain prepare wrote"))

    def take(self, encoded: Encoded, tokens: Growing, starts: Growing) -> None:
        """Put what a job became behind."""
        starts.append(encoded.starts + tokens.count)
        tokens.append(encoded.tokens)
        self.jobs, self.chars = self.jobs + 1, self.chars + encoded.chars
        self.bytes[encoded.shard] += encoded.bytes

    def write(self, folder: Path, files: Sequence[tuple[Growing, Growing]]) -> None:
        """Make certain what is there, and then that it is."""
        for file in itertools.chain.from_iterable(files):
            file.sync()
        self.counts = [[tokens.count, starts.count] for tokens, starts in files]
        write_json(folder / _PROGRESS, vars(self))


@contextlib.contextmanager
def _files(folder: Path, dtype: np.dtype, done: _Done) -> Iterator[list[tuple[Growing, Growing]]]:
    """The files that grow: tokens and starts of documents of each shard."""
    with contextlib.ExitStack() as stack:
        made: list[tuple[Growing, Growing]] = []
        for shard, (tokens, documents) in enumerate(done.counts):
            here, there = _paths(folder, shard, len(done.counts))
            pair = Growing(here, dtype, count=tokens), Growing(there, np.dtype(np.int64), count=documents)
            for file in pair:
                stack.callback(file.close)
            made.append(pair)
        yield made


def _paths(folder: Path, shard: int, shards: int) -> tuple[Path, Path]:
    name = "held-out" if shard == shards - 1 else f"train-{shard}"
    return folder / f"{name}.npy", folder / f"{name}.starts.npy"


def _finish(folder: Path, settings: dict[str, Any], text: Scan, told: Told) -> None:
    """Write the manifest, which makes it a folder of shards, and remove what only an interruption needs."""
    told("computing digests", 0, None)
    shards = len(text.found.groups) + 1
    done = _Done.read(folder, shards=shards)
    paths = [_paths(folder, shard, shards) for shard in range(shards)]
    names = [*settings["names"], "held out"]
    write_json(
        folder / MANIFEST,
        {
            "format": FORMAT,
            "settings": settings,
            "tokenizer": digest_of(folder / TOKENIZER),
            "fingerprint": fingerprint_of_parts(
                itertools.chain.from_iterable(read_parts(tokens) for tokens, _ in paths)
            ),
            "shards": [
                {"name": name, "tokens": describe(tokens), "starts": describe(starts), "bytes": size}
                for name, (tokens, starts), size in zip(names, paths, done.bytes, strict=True)
            ],
        },
    )
    for name in (_PROGRESS, PLAN):
        (folder / name).unlink()


def read_parts(path: Path) -> Iterator[np.ndarray]:
    """A file of numbers part by part: read and not mapped, for what is mapped counts as memory of the process."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        _, _, dtype = np.lib.format.read_array_header_1_0(file)
        while len(part := np.fromfile(file, dtype, PART)):
            yield part


def _title(group: Group) -> str:
    if group is None:
        return "the standard library"
    more = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
    return ", ".join(map(str, group[:_NAMED])) + more
