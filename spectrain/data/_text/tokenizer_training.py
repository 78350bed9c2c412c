"""Training a tokenizer on the text at hand, in a few seconds and always to the same result."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import tokenizers
from tokenizers import models, trainers

from spectrain.data._text.byte_level import assemble, byte_characters, pieces, pre_tokenizer
from spectrain.data._text.document import DataError, Document
from spectrain.data._text.merges_cache import recall
from spectrain.data._text.tokenizer import Tokenizer

_SAMPLE = 4_000_000  # characters to learn merges from; three times as many give half a percent fewer tokens
_PIECE = 1 << 14  # characters taken in one place
_WORTH = 1 << 18  # characters from which on learning takes longer than looking it up


def train_tokenizer(
    kind: Literal["bytes", "bpe"],
    documents: Sequence[Document],
    *,
    vocabulary_size: int = 4096,
    cache: bool = True,
) -> Tokenizer:
    """Make a byte-level tokenizer: ``"bytes"`` learns nothing, ``"bpe"`` learns merges from the text.

    ``"bytes"`` has always 257 tokens (256 bytes and end-of-text), whatever ``vocabulary_size`` is.

    ``"bpe"`` is byte-pair encoding (Sennrich, Haddow, Birch 2016, arXiv 1508.07909) on bytes (Radford
    et al. 2019): the most frequent pair of neighbouring tokens becomes a token, until there are
    ``vocabulary_size``, fewer if no pair is left. Merges stay inside pre-tokens, whose pattern is made
    for source code: a word with the space before it, a run of signs, up to three digits, or a line's
    end together with the next line's indentation.

    From a text of more than 4 million characters evenly spread pieces of 16,384 are taken, together
    about 4 million. The result depends on the documents and their order alone, not on the number of
    threads. What was learned of more than a quarter of a million characters is kept in the user's cache folder
    (``XDG_CACHE_HOME/spectrain/tokenizers``), by a digest of those characters, and taken from there the next time;
    ``cache=False`` neither reads nor writes it.

    Raises ValueError for another kind or ``vocabulary_size`` < 257, DataError for no text.

    >>> songs = [Document(name="song", text="la la la lala\\n" * 9)]
    >>> tokenizer = train_tokenizer("bpe", songs, vocabulary_size=260)
    >>> tokenizer.vocabulary_size, len(tokenizer.encode("la la la lala\\n"))
    (260, 5)
    """
    total = sum(len(document.text) for document in documents)
    return train_on(kind, (document.text for document in documents), total, vocabulary_size, cache=cache)


def train_on(
    kind: Literal["bytes", "bpe"],
    texts: Iterable[str | Iterable[str]],
    total: int,
    vocabulary_size: int,
    *,
    cache: bool = True,
) -> Tokenizer:
    """:func:`train_tokenizer` of texts that come in parts, ``total`` characters in all."""
    if kind == "bytes":
        return Tokenizer(assemble([]))
    if kind != "bpe":
        raise ValueError(f"train_tokenizer: kind must be 'bytes' or 'bpe', got {kind!r}")
    if vocabulary_size < 257:
        raise ValueError(
            "train_tokenizer: a byte-level vocabulary has 256 bytes and an end-of-text, so vocabulary_size "
            f"must be at least 257, got {vocabulary_size}"
        )
    count, chosen = vocabulary_size - 257, sample(texts, total)
    if not cache or total < _WORTH:
        return Tokenizer(assemble(_learn_merges(chosen, count)))
    kept = list(chosen)
    return Tokenizer(assemble(recall(kept, count, lambda: _learn_merges(kept, count))))


def _learn_merges(texts: Iterable[str], count: int) -> list[tuple[str, str]]:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer()
    trainer = trainers.BpeTrainer(vocab_size=256 + count, initial_alphabet=list(byte_characters()), show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return [(left, right) for left, right in json.loads(backend.to_str())["model"]["merges"]]


def sample(texts: Iterable[str | Iterable[str]], total: int) -> Iterator[str]:
    """All of these texts, or evenly spread pieces of them when their ``total`` characters are more than is needed."""
    if not total:
        raise DataError("train_tokenizer: there is no text to learn merges from; name more text, or use 'bytes'")
    seen = kept = 0
    for piece in (piece for text in texts for piece in pieces(text, size=_PIECE)):
        seen += len(piece)
        if total <= _SAMPLE or kept * total <= seen * _SAMPLE:
            kept += len(piece)
            yield piece
