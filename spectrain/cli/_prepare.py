"""``spectrain prepare``: text in, shards of tokens out, for runs of ``spectrain train`` to map."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spectrain import data
from spectrain.train.internal import Pace, claimed, tokenizer_file, workers_here


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Tokenize text once, into a folder that --data of a run can name: it maps the files instead of reading text.

    Text of any size goes through the memory of some megabytes. After a kill the same command goes on where it was.
    """

    data: tuple[str, ...] = ()
    """Text: files, folders, globs, JSON lines, Parquet, .gz. None: the Python standard library's source."""
    out_dir: Path
    """The folder to write."""
    apart: bool = False
    """Keep each --data as a source of its own, for --data-weights of a run."""
    text_field: str = "text"
    """Where JSON lines and Parquet have the text."""
    tokenizer: str = "bpe"
    """bpe: byte-level BPE trained on a sample of 4 million characters of the training text; bytes: single bytes; else
    the tokenizer.json of somebody else, or the folder that has one."""
    vocabulary: int = 4096
    """Tokens of the BPE vocabulary."""
    validation_fraction: float = 0.05
    """Share of the text held out, by document."""
    seed: int = 0
    """Decides which documents are held out."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Processes that tokenize. Default: one for each core that this one may use."""


def main(argv: list[str]) -> int:
    """Prepare, and say what a run gets."""
    asked = tyro.cli(Prepare, args=argv, prog="spectrain prepare")
    if asked.workers is not None and not 1 <= asked.workers <= 1024:
        raise ValueError(f"--workers must be from 1 to 1,024, got {asked.workers}.")
    if asked.apart and len(asked.data) < 2:
        raise ValueError(f"--apart keeps several --data apart, and {len(asked.data)} is named; leave it out.")
    own = (
        None
        if asked.tokenizer in ("bpe", "bytes")
        else data.load_tokenizer(tokenizer_file(asked.tokenizer), exact=False)
    )
    groups = [[path] for path in asked.data] if asked.apart else [asked.data or None]
    with claimed(asked.out_dir) as folder:
        made = data.shards.prepare(
            groups,
            folder,
            tokenizer="bytes" if asked.tokenizer == "bytes" else "bpe",
            own=own,
            vocabulary=asked.vocabulary,
            fraction=asked.validation_fraction,
            seed=asked.seed,
            text_field=asked.text_field,
            workers=asked.workers or workers_here(),
            told=Pace("characters", stages=True),
        )
    for shard in (*made.sources, made.held_out):
        part = "held out" if shard is made.held_out else f"training text ({shard.name})"
        print(f"{part}: {len(shard.starts):,} documents, {shard.bytes:,} bytes, {len(shard.tokens):,} tokens")
    print(f"written: {folder}. To train on it:\n  spectrain train --data {shlex.quote(str(folder))}{_flags(asked)}")
    return 0


def _flags(asked: Prepare) -> str:
    """What a run must be told besides: settings that are not its defaults."""
    default = Prepare(out_dir=asked.out_dir)
    named = ("tokenizer", "vocabulary", "validation_fraction")
    told = [f" --{n.replace('_', '-')} {getattr(asked, n)}" for n in named if getattr(asked, n) != getattr(default, n)]
    weights = [" --data-weights " + " ".join("1" for _ in asked.data)] if asked.apart else []
    return "".join([*told, *weights])
