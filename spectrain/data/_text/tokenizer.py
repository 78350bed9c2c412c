"""Byte-level tokenizers: every text has an encoding, and decoding gives exactly that text back."""

import array
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int32, Integer

from spectrain._files.write import write_json, write_text
from spectrain.data._text.byte_level import SPACE, bytes_of_tokens, cuts_as_we_do, falls_back, pieces, pretokens
from spectrain.data._text.document import DataError, Document
from spectrain.data._text.gguf_fields import fields
from spectrain.data._text.open import chunks
from spectrain.data._text.special import SETTINGS, end_of_text, settings_beside
from spectrain.data._text.token_file import write_tokens
from spectrain.data._text.tokens_cache import WORTH, key_of, recall

FILE = "tokenizer.json"
_CACHE = 1 << 18  # pre-tokens whose encoding is remembered: about 40 MB
_PROBE = "x  Y\r\n\t e\u0301\ufb01 \u4e2d\x00 \U0001f600 "  # what normalizers like to change


class Tokenizer:
    r"""Text to integers and back, byte-level: without unknown characters and without normalisation.

    Made by ``train_tokenizer`` and ``load_tokenizer``. Tokens 0...255 of a trained tokenizer are the
    bytes, then come the merges in the order in which they were learned, and end-of-text is last. An
    ``<|endoftext|>`` that stands in a text is text like any other and cannot forge the token.

    Encoding runs at about 5 MB/s on one core: pre-tokens repeat, so each different one is encoded
    once and remembered.

    >>> from spectrain import data
    >>> tokenizer = data.train_tokenizer("bytes", [])
    >>> tokenizer.encode("né\n")
    array([110, 195, 169,  10], dtype=int32)
    >>> tokenizer.decode([110, 195, 169, 10]), tokenizer.decode([110, 195])
    ('né\n', 'n�')
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, *, settings: Mapping[str, Any] | None = None, exact: bool = True
    ) -> None:
        """Wrap a byte-level BPE of the library ``tokenizers``; DataError if it is something else.

        ``settings`` is what a ``tokenizer_config.json`` says; its ``eos_token`` is end-of-text. Without ``exact`` the
        tokenizer may change the text by its normalizer (NFC) or put a space in front (those of words, as Llama 2's),
        and the text is then what that makes of it.
        """
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        if getattr(backend.model, "dropout", None):
            raise DataError("the tokenizer drops merges by chance; write dropout: null into its file")
        self._backend = backend
        self.settings = dict(settings or {})
        self.end_of_text: int = end_of_text(backend, self.settings.get("eos_token"))
        self._bytes = bytes_of_tokens(backend, end=self.end_of_text)
        self._ours = cuts_as_we_do(backend)
        self._cache: dict[str, bytes] = {}
        self._exact = exact
        self._words = falls_back(backend)
        self._front = self.normal("x") == " x"
        probed = backend.encode(_PROBE, add_special_tokens=False).ids
        if (back := self.to_bytes(probed).decode("utf-8", errors="replace")) != self.normal(_PROBE):
            raise DataError(
                f"the tokenizer changes the text: {_PROBE!r} comes back as {back!r}; use one without a "
                "normalizer and without a space put in front"
            )

    def normal(self, text: str) -> str:
        """The text that is encoded: what a normalizer makes of it, with a space put in front where one is."""
        if self._exact:
            return text
        if self._backend.normalizer is not None:
            text = self._backend.normalizer.normalize_str(text)
        if not self._words:
            return text
        if self._backend.pre_tokenizer is not None:
            text = "".join(piece for piece, _ in self._backend.pre_tokenizer.pre_tokenize_str(text))
        return text.replace(SPACE, " ")

    @property
    def changes_text(self) -> bool:
        """Whether bytes are those of the text that a normalizer makes, or that has a space put in front."""
        return not self._exact and (self._words or self._backend.normalizer is not None)

    @property
    def puts_space_in_front(self) -> bool:
        """Whether a text is encoded with a space before it, so that the tokens of its parts are not those of it."""
        return self._front

    def number_of(self, role: str) -> int | None:
        """The id of ``bos_token``, ``eos_token`` or ``pad_token``; None where nothing says it."""
        name = self.settings.get(role)
        return None if name is None else self._backend.token_to_id(name)

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are, end-of-text included."""
        return len(self._bytes)

    @property
    def dtype(self) -> np.dtype:
        """What tokens are kept in: uint16 when the vocabulary fits, int32 otherwise."""
        return np.dtype(np.uint16 if self.vocabulary_size <= 1 << 16 else np.int32)

    @functools.cached_property
    def byte_lengths(self) -> Int32[np.ndarray, " vocabulary"]:
        """How many bytes of text each token stands for; 0 for end-of-text.

        Bits per byte = sum of the losses in bits / ``byte_lengths[targets].sum()``.
        """
        return np.array([len(token) for token in self._bytes], dtype=np.int32)

    def encode(self, text: str) -> Int32[np.ndarray, " tokens"]:
        """Encode a text, without end-of-text. DataError if it holds a lone surrogate (no UTF-8)."""
        return np.frombuffer(b"".join(self._encode(text)), dtype=np.int32)

    def encode_documents(
        self, documents: Iterable[Document], *, file: str | PathLike[str] | None = None, cache: bool = False
    ) -> Integer[np.ndarray, " tokens"]:
        """Encode documents into one array, an end-of-text before each: ``E d1 d1 d1 E d2 d2 ...``.

        The array closes to a ring (after the last document comes the E of the first), which is how
        ``TokenStream`` and ``validation_batches`` read it; and E is what a sample starts from. The dtype
        is uint16 when the vocabulary fits and int32 otherwise; memory peaks at 1.2 times the array.

        With ``file`` the tokens are written there as they come, as ``.npy``, and an ``np.memmap`` of it is returned:
        with ``iterate_documents``, text larger than memory needs the memory of one document. DataError when there is
        none.

        With ``cache`` the tokens of more than a quarter of a million characters are kept in the user's cache folder
        (``XDG_CACHE_HOME/spectrain/tokens``, 256 MiB at most), by a digest of text, tokenizer and code, and taken from
        there the next time, checked; all documents are then in memory at once.
        """
        if file is not None:
            return write_tokens(file, self._parts(documents), dtype=self.dtype)
        return self._recall(list(documents)) if cache else self._gather(documents)

    def _recall(self, documents: Sequence[Document]) -> Integer[np.ndarray, " tokens"]:
        """Those of before, where the text is worth it and everything that decides tokens can be told."""
        if sum(len(document.text) for document in documents) < WORTH:
            return self._gather(documents)
        try:
            key = key_of(documents, f"{self._exact} {self._definition()}", kind=type(self))
        except OSError:
            return self._gather(documents)

        def possible(tokens: Integer[np.ndarray, " tokens"]) -> bool:
            return self._could_be(documents, tokens)

        return recall(key, self.dtype, make=lambda: self._gather(documents), possible=possible)

    def _could_be(self, documents: Sequence[Document], tokens: Integer[np.ndarray, " tokens"]) -> bool:
        """Whether these have an end-of-text for each document and stand for as many bytes."""
        if not 0 <= int(tokens.min(initial=0)) <= int(tokens.max(initial=0)) < self.vocabulary_size:
            return False
        if np.count_nonzero(tokens == self.end_of_text) < len(documents):
            return False
        size = sum(len(document.text.encode()) for document in documents)
        return self.changes_text or int(self.byte_lengths[tokens].sum(dtype=np.int64)) == size

    def _gather(self, documents: Iterable[Document]) -> Integer[np.ndarray, " tokens"]:
        tokens = array.array("H" if self.dtype == np.uint16 else "i")
        for part in self._parts(documents):
            tokens.frombytes(part.astype(self.dtype).tobytes())
        return np.frombuffer(tokens, dtype=self.dtype)

    def _parts(self, documents: Iterable[Document]) -> Iterator[Int32[np.ndarray, " some"]]:
        for document in documents:
            yield np.array([self.end_of_text], dtype=np.int32)
            for ids in self._encode(document.text):
                yield np.frombuffer(ids, dtype=np.int32)

    def decode(self, ids: Sequence[int | np.integer] | Integer[np.ndarray, " tokens"]) -> str:
        """Turn tokens into text; end-of-text gives nothing, bytes that are no UTF-8 give U+FFFD.

        ``decode(encode(text)) == text`` for every text, but for what a normalizer changes; a space put in front is
        taken away again. Raises ValueError for an id out of range.
        """
        text = self.to_bytes(ids).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self._front else text

    def to_bytes(self, ids: Sequence[int | np.integer] | Integer[np.ndarray, " tokens"]) -> bytes:
        """The bytes that tokens stand for, which may begin or end inside of a character. Raises as ``decode`` does."""
        flat = np.asarray(ids, dtype=np.int64)
        if len(flat) and not 0 <= flat.min() <= flat.max() < self.vocabulary_size:
            raise ValueError(
                f"Tokenizer.decode: ids must be between 0 and {self.vocabulary_size - 1}, "
                f"got {flat.min()}...{flat.max()}; was this text encoded by another tokenizer?"
            )
        return b"".join(map(self._bytes.__getitem__, flat.tolist()))

    def same_as(self, other: "Tokenizer") -> bool:
        """Whether the other one makes the same tokens of every text, by its definition."""
        return self.fingerprint == other.fingerprint

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of all that decides tokens."""
        return hashlib.sha256(self._definition().encode("utf-8", errors="surrogatepass")).hexdigest()[:16]

    def _definition(self) -> str:
        return f"{self.end_of_text} {self._backend.to_str()}"

    def save(self, path: str | PathLike[str]) -> None:
        """Write tokenizer.json, which ``tokenizers.Tokenizer.from_file`` reads as well."""
        write_text(Path(path), self._backend.to_str(pretty=True))

    def save_settings(self, folder: str | PathLike[str]) -> None:
        """Write the ``tokenizer_config.json`` that says which token ends a text; nothing where it is the usual one."""
        if self.settings:
            write_json(Path(folder) / SETTINGS, self.settings)

    def gguf(self, *, rows: int | None = None) -> dict[str, Any]:
        """The fields by which a GGUF file says this tokenizer to llama.cpp, for ``nn.models.to_gguf``.

        ``rows`` are those of the embedding; default: the vocabulary. llama.cpp knows patterns that cut text by name:
        those of GPT-2, Llama 3, DBRX (OLMo 2) and Qwen 2; without merges any is right. It has no normalizer: text that
        ``normal`` changes gives other tokens there. A text of a tokenizer of ours begins with end-of-text there too.

        Raises DataError for a pattern without a name (that of ``train_tokenizer("bpe", ...)``), for words that fall
        back to bytes, and for added tokens that take the spaces beside them.
        """
        rows = self.vocabulary_size if rows is None else rows
        return fields(self._backend, end=self.end_of_text, settings=self.settings, rows=rows)

    def _encode(self, text: str) -> Iterator[bytes]:
        """Yield the ids of consecutive parts of a text as the bytes of int32 arrays."""
        for piece in pieces(text) if self._ours else [text]:
            _refuse_surrogates(piece)
            words = pretokens(piece) if self._ours else [piece]
            self._learn(words)
            ids = b"".join(map(self._cache.__getitem__, words))
            if not self._ours:
                self._check_whole(piece, ids)
            yield ids

    def _check_whole(self, text: str, ids: bytes) -> None:
        """DataError where tokens stand for more or less than the text: bits a byte would be a wrong number."""
        held = int(self.byte_lengths[np.frombuffer(ids, dtype=np.int32)].sum(dtype=np.int64))
        if held != (wanted := len(self.normal(text).encode())):
            raise DataError(
                f"the tokenizer makes tokens of {held} bytes out of a text of {wanted}: it adds or drops some; use one "
                "whose added tokens take no spaces beside them"
            )

    def _learn(self, words: Sequence[str]) -> None:
        """Make sure that the cache holds all of ``words``."""
        if len(self._cache) > _CACHE or not self._ours:
            self._cache.clear()
        new = list({word for word in words if word not in self._cache})
        for word, encoding in zip(new, self._backend.encode_batch_fast(new, add_special_tokens=False), strict=True):
            self._cache[word] = array.array("i", encoding.ids).tobytes()


def load_tokenizer(path: str | PathLike[str], *, exact: bool = True) -> Tokenizer:
    """Read a tokenizer.json: one of ours, or any byte-level BPE (those of GPT-2, Llama 3, Qwen, OLMo 2).

    End-of-text is the ``eos_token`` of a ``tokenizer_config.json`` beside it, else ``<|endoftext|>``. Without ``exact``
    a normalizer is taken (NFC, Qwen's), which changes the text, and a space that is put in front (Llama 2's). ``path``
    may be the folder that holds a tokenizer.json.

    Raises FileNotFoundError when there is none and DataError when the file is not such a tokenizer.
    """
    path = Path(path) / FILE if os.path.isdir(path) else Path(path)
    os.stat(path)  # FileNotFoundError
    content = b"".join(chunks(path))
    try:
        backend = tokenizers.Tokenizer.from_buffer(content)
        return Tokenizer(backend, settings=settings_beside(path, backend), exact=exact)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # the library raises no narrower class
        raise DataError(f"{path} is not a tokenizer.json: {error}") from error


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"Tokenizer.encode: {text[error.start]!r} is half a surrogate pair and has no UTF-8 encoding; "
            "read the text with errors='strict' or 'replace'"
        ) from None
