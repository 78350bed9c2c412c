"""From paths to tokens: read, split by document, tokenize; the same on every resume. Large text goes through shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectrain import data
from spectrain.train._jobs.large import large_text, trained_kind
from spectrain.train.config import TrainConfig

_OPENING = 1 << 16


@dataclass(frozen=True)
class Text:
    """What a run learns from and is judged by: arrays in memory, or maps of files."""

    tokenizer: data.Tokenizer
    names: tuple[str, ...]
    """What the sources are called."""
    sources: tuple[np.ndarray, ...]
    """Training tokens: one array, or with ``--data-weights`` one for each source."""
    starts: tuple[np.ndarray | None, ...]
    """Where the documents of a source begin, if that is known."""
    validation: np.ndarray
    documents: tuple[int, int]
    bytes: tuple[int, int]
    fingerprint: str
    origin: str = ""
    """Where the tokens come from, when they do not come from the text itself."""

    def opening(self) -> str:
        """How the held-out text begins."""
        return self.tokenizer.decode(self.validation[:_OPENING])


def load(config: TrainConfig, *, tokenizer_file: Path | None) -> Text:
    """The text of ``config`` as tokens, with the run's own tokenizer when a run goes on.

    A folder of prepared text is opened; text of more than about 128 MiB is prepared first, in the user's cache, and
    found there the next time; anything less is read and tokenized in memory.

    Raises ``ValueError`` (see ``data.read_documents``) for text that cannot be used, for shards that are damaged, of
    another tokenizer or made with other settings, and for a run's tokenizer that is missing or has more tokens than
    the configuration says.
    """
    own = None if tokenizer_file is None else _read_tokenizer(tokenizer_file, config)
    prepared = large_text(config, own)
    if prepared is None:
        return _in_memory(config, own)
    if own is not None and not own.same_as(prepared.tokenizer):
        raise ValueError(
            f"{tokenizer_file} is another tokenizer than that of the shards in {prepared.folder}, so their token "
            "numbers mean something else to this run. Restore the one that is the run's, or the text it began with."
        )
    shards = prepared.sources
    return Text(
        tokenizer=prepared.tokenizer,
        names=tuple(shard.name for shard in shards),
        sources=tuple(shard.tokens for shard in shards),
        starts=tuple(shard.starts for shard in shards),
        validation=prepared.held_out.tokens,
        documents=(sum(len(shard.starts) for shard in shards), len(prepared.held_out.starts)),
        bytes=(sum(shard.bytes for shard in shards), prepared.held_out.bytes),
        fingerprint=prepared.fingerprint,
        origin=f"shards in {prepared.folder}, {prepared.checked}",
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
        end, starts = text.tokenizer.end_of_text, text.starts[k]
        return data.PackedStream(text.sources[k], end_of_text=end, seed=seed, starts=starts, **sizes)
    return data.TokenStream(text.sources[k], seed=seed, **sizes)


def about_stream(text: Text, stream: data.TokenStream | data.PackedStream | data.Mixture) -> Iterator[str]:
    """Lines about the proportions and the packing of :func:`stream`, where there are any."""
    streams = stream.streams if isinstance(stream, data.Mixture) else (stream,)
    if isinstance(stream, data.Mixture):
        shares = zip(text.names, stream.weights, text.sources, strict=True)
        rows = ", ".join(f"{path} {w / sum(stream.weights):.3g} ({len(t):,} tokens)" for path, w, t in shares)
        yield f"mixture: {rows}"
    packed = [part for part in streams if isinstance(part, data.PackedStream)]
    if packed:
        empty = ", ".join(f"{100 * part.padding:.2g} %" for part in packed)
        cut = sum(part.cuts for part in packed)
        yield f"packing: whole documents, {cut} of them cut into rows, {empty} of the places empty"


def _in_memory(config: TrainConfig, own: data.Tokenizer | None) -> Text:
    parts = _parts(config)
    train = [document for part, _ in parts for document in part]
    held_out = [document for _, part in parts for document in part]
    validation = held_out if len(parts) == 1 else _new(train, held_out)
    tokenizer = own or data.train_tokenizer(trained_kind(config), train, vocabulary_size=config.vocabulary)
    sources = tuple(tokenizer.encode_documents(part, cache=True) for part, _ in parts)
    validation_tokens = tokenizer.encode_documents(validation, cache=True)
    return Text(
        tokenizer=tokenizer,
        names=config.data if config.data_weights else (", ".join(config.data),),
        sources=sources,
        starts=(None,) * len(sources),
        validation=validation_tokens,
        documents=(len(train), len(validation)),
        bytes=(_size(train), _size(validation)),
        fingerprint=data.shards.fingerprint(*sources, validation_tokens),
    )


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
    tokenizer = data.load_tokenizer(file, exact=False)
    most = 257 if config.tokenizer == "bytes" else config.vocabulary
    if tokenizer.vocabulary_size > most:
        raise ValueError(
            f"{file} has a vocabulary of {tokenizer.vocabulary_size} tokens, the run's is at most {most}: it is "
            "another run's tokenizer. Restore the right one."
        )
    return tokenizer


def _size(documents: list[data.text.Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)
