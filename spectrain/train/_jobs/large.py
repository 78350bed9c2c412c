"""Text that does not go through memory: a folder of prepared text, or one that a run prepares for itself."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from spectrain import data
from spectrain._files.cache import cache_folder
from spectrain.train._jobs.pace import Pace
from spectrain.train._run.claim import FolderInUse, claimed
from spectrain.train._run.progress import Progress
from spectrain.train.config import TrainConfig

LARGE = 1 << 27
"""Bytes of text from which on it is prepared; in memory it would take about seven times as much."""
_AGAIN = 0.5  # seconds


def trained_kind(config: TrainConfig) -> Literal["bpe", "bytes"]:
    """The kind of tokenizer that is to be trained, where none is there."""
    return "bytes" if config.tokenizer == "bytes" else "bpe"


def large_text(config: TrainConfig, own: data.Tokenizer | None = None) -> data.shards.Prepared | None:
    """The prepared text that ``config`` names, or that its text becomes; None where that goes through memory.

    ``own`` is the tokenizer that is there already.
    """
    folder = _prepared_folder(config)
    if folder is not None:
        return _as_asked(config, data.shards.open_prepared(folder), own)
    if config.data_weights and len(config.data_weights) != len(config.data):
        raise ValueError(
            f"--data-weights must be one number for each of the {len(config.data)} --data, got {config.data_weights}."
        )
    if not config.data:
        return None
    found = data.shards.find([[path] for path in config.data] if config.data_weights else [config.data])
    return _prepare(config, found, own) if found.size >= LARGE else None


def workers_here() -> int:
    """One process for each core that this one may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepared_folder(config: TrainConfig) -> Path | None:
    for path in config.data:
        if os.path.isdir(path) and data.shards.is_prepared(path):
            if len(config.data) > 1:
                raise ValueError(
                    f"--data {path} is prepared text, which is trained on alone; prepare the others together with it "
                    "(spectrain prepare --apart, to mix them)."
                )
            return Path(path)
    return None


def _as_asked(config: TrainConfig, prepared: data.shards.Prepared, own: data.Tokenizer | None) -> data.shards.Prepared:
    """Refuse shards that were made otherwise than the flags say."""
    count, weights = len(prepared.sources), len(config.data_weights)
    if count > 1 and weights != count:
        raise ValueError(
            f"{prepared.folder} was prepared with --apart from {count} sources; give --data-weights, one number for "
            f"each, got {weights}."
        )
    if count == 1 and weights:
        raise ValueError(f"{prepared.folder} holds one source, and there is nothing to mix; leave --data-weights out.")
    flags: dict[str, object] = {"fraction": config.validation_fraction}
    if own is None or config.tokenizer in ("bpe", "bytes"):  # another one is compared token by token
        flags |= {"tokenizer": config.tokenizer}
        flags |= {"vocabulary": config.vocabulary} if config.tokenizer == "bpe" else {}
    for name, asked in flags.items():
        was = prepared.settings[name]
        if name == "tokenizer" and data.shards.Asked.is_own(prepared.settings):
            raise ValueError(
                f"{prepared.folder} was prepared with a tokenizer that was given, which is in it: give --tokenizer "
                f"{prepared.folder}."
            )
        if was != asked:
            flag = "--validation-fraction" if name == "fraction" else f"--{name}"
            raise ValueError(
                f"{prepared.folder} was prepared with {flag} {was}, and {asked} is asked for: give {flag} {was}, or "
                "prepare the text again."
            )
    return prepared


def _prepare(config: TrainConfig, found: data.shards.Found, own: data.Tokenizer | None) -> data.shards.Prepared:
    asked = data.shards.Asked(
        own=own if config.init_from or config.tokenizer not in ("bpe", "bytes") else None,
        tokenizer=trained_kind(config),
        vocabulary=config.vocabulary,
        fraction=config.validation_fraction,
        seed=config.seed,
        text_field=config.text_field,
    )
    folder, say = cache_folder() / "text" / asked.key(found), Progress().say
    if data.shards.is_whole(folder):
        return data.shards.open_prepared(folder)
    say(f"about {found.size / 1e6:,.0f} MB of text, once for all runs like this one, to shards in {folder}")
    with _in_turn(folder):
        told = Pace("characters", say=say, stages=True)
        return data.shards.prepare_found(found, folder, asked, workers=config.threads or workers_here(), told=told)


@contextlib.contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Hold a folder; another process that prepares the same text is waited for."""
    with contextlib.ExitStack() as stack:
        waiting = False
        while True:
            try:
                stack.enter_context(claimed(folder))
                break
            except FolderInUse as error:
                if not waiting:
                    Progress().say(f"waiting: {str(error).split('.')[0]}")
                waiting = True
                time.sleep(_AGAIN)
        yield
