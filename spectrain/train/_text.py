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
    train: np.ndarray
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
    documents = data.read_documents(config.data or None)
    train, validation = data.split_documents(documents, fraction=config.validation_fraction, seed=config.seed)
    if tokenizer_file is not None:
        tokenizer = _recorded(tokenizer_file, config)
    else:
        tokenizer = data.train_tokenizer(config.tokenizer, train, vocabulary_size=config.vocabulary)
    train_tokens, validation_tokens = (tokenizer.encode_documents(part) for part in (train, validation))
    return Text(
        tokenizer=tokenizer,
        train=train_tokens,
        validation=validation_tokens,
        documents=(len(train), len(validation)),
        bytes=(_size(train), _size(validation)),
        validation_text="".join(document.text for document in validation),
        fingerprint=_fingerprint(train_tokens, validation_tokens),
    )


def _recorded(file: Path, config: TrainConfig) -> data.Tokenizer:
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


def _size(documents: list[data.Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


def _fingerprint(*tokens: np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in tokens:
        digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]
