"""From paths to tokens: read, split by document, tokenize; the same on every resume."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectrain import data
from spectrain.train.config import TrainConfig


@dataclass(frozen=True)
class Text:
    """What a run learns from and is judged by."""

    tokenizer: data.Tokenizer
    sources: tuple[np.ndarray, ...]
    """Training tokens: one array, or with ``--data-weights`` one for each ``--data``."""
    validation: np.ndarray
    documents: tuple[int, int]
    bytes: tuple[int, int]
    validation_text: str
    fingerprint: str


def load(config: TrainConfig, *, tokenizer_file: Path | None) -> Text:
    """Read the text of ``config`` and tokenize it, with the run's own tokenizer when a run goes on.

    Raises ``ValueError`` (see ``data.read_documents``) for text that cannot be used, and for a run's
    tokenizer that is missing or has more tokens than the configuration says.
    """
    parts = _parts(config)
    train = [document for part, _ in parts for document in part]
    held_out = [document for _, part in parts for document in part]
    validation = held_out if len(parts) == 1 else _new(train, held_out)
    if tokenizer_file is not None:
        tokenizer = _read_tokenizer(tokenizer_file, config)
    else:
        tokenizer = data.train_tokenizer(config.tokenizer, train, vocabulary_size=config.vocabulary)
    sources = tuple(tokenizer.encode_documents(part) for part, _ in parts)
    validation_tokens = tokenizer.encode_documents(validation)
    return Text(
        tokenizer=tokenizer,
        sources=sources,
        validation=validation_tokens,
        documents=(len(train), len(validation)),
        bytes=(_size(train), _size(validation)),
        validation_text="".join(document.text for document in validation),
        fingerprint=_fingerprint(*sources, validation_tokens),
    )


def stream(config: TrainConfig, text: Text) -> data.TokenStream | data.PackedStream | data.Mixture:
    """The batches of a run: of one text or a mixture, as the text runs or document by document."""
    sizes = {"block": config.block, "batch": config.batch_size}
    streams = [_of_source(config, text, k, sizes) for k in range(len(text.sources))]
    if not config.data_weights:
        return streams[0]
    return data.Mixture(streams, weights=config.data_weights, seed=config.seed)


def _of_source(config: TrainConfig, text: Text, k: int, sizes: dict[str, int]) -> data.TokenStream | data.PackedStream:
    seed = data.streams.generator(config.seed, "source", k).initial_seed() if config.data_weights else config.seed
    if config.packing == "documents":
        return data.PackedStream(text.sources[k], end_of_text=text.tokenizer.end_of_text, seed=seed, **sizes)
    return data.TokenStream(text.sources[k], seed=seed, **sizes)


def _parts(config: TrainConfig) -> list[tuple[list[data.text.Document], list[data.text.Document]]]:
    """Training and validation documents, of all ``--data`` together or of each."""
    groups = [[path] for path in config.data] if config.data_weights else [list(config.data) or None]
    return [
        data.split_documents(
            data.read_documents(group, text_field=config.text_field),
            fraction=config.validation_fraction,
            seed=config.seed,
        )
        for group in groups
    ]


def _new(train: list[data.text.Document], validation: list[data.text.Document]) -> list[data.text.Document]:
    """Held-out documents without those that another source has among its training text."""
    seen = {document.text for document in train}  # a split keeps copies together; two splits do not
    kept = [document for document in validation if document.text not in seen]
    if not kept:
        raise ValueError("every held-out document is training text of another --data; give texts that differ.")
    return kept


def _read_tokenizer(file: Path, config: TrainConfig) -> data.Tokenizer:
    if not file.exists():
        raise ValueError(f"{file} is missing, and token numbers mean nothing without it: restore it.")
    tokenizer = data.load_tokenizer(file)
    most = 257 if config.tokenizer == "bytes" else config.vocabulary
    if tokenizer.vocabulary_size > most:
        raise ValueError(
            f"{file} has a vocabulary of {tokenizer.vocabulary_size} tokens, the run's is at most {most}: it is "
            "another run's tokenizer. Restore the right one."
        )
    return tokenizer


def _size(documents: list[data.text.Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


def _fingerprint(*tokens: np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in tokens:
        digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]
