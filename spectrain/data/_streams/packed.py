"""Rows of whole documents: packed tightly, with the borders told, so that no document sees another."""

from bisect import bisect_left
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from spectrain.data._streams.permutation import endless
from spectrain.data._streams.rows import AbstractRows, check_tokens
from spectrain.data._text.document import DataError

_IGNORE = -100  # what torch.nn.functional.cross_entropy leaves out by default


class Packed(NamedTuple):
    """A batch of :class:`PackedStream`: each part is int64, (rows, block)."""

    inputs: Int64[Tensor, "rows block"]
    targets: Int64[Tensor, "rows block"]
    """-100 where the input is padding."""
    documents: Int64[Tensor, "rows block"]
    """1, 2, ... within the row; 0 for padding. ``nn.LanguageModel`` takes it as ``documents=``."""
    positions: Int64[Tensor, "rows block"]
    """From 0 in each document."""


class PackedStream(AbstractRows):
    """An endless stream of rows that hold whole documents, addressed by the step number.

    ``tokens`` is what ``Tokenizer.encode_documents`` makes: E d d d E d d ..., a document being its end-of-text and
    what follows, and the target of its last token the next end-of-text. Documents longer than ``block`` are cut into
    pieces of ``block`` tokens and a rest. The pieces are packed into rows, the longest first, each into the fullest row
    that has room for it (best-fit decreasing: Ding et al. 2024, "Fewer truncations improve language modeling", arXiv
    2404.10830). ``.padding`` is the share of places left empty, ``.cuts`` how many documents were cut.

    In each epoch every token is an input exactly once and a target exactly once. The rows are the same in all epochs;
    their order is drawn from ``generator(seed, "packed", e)``. As in ``TokenStream`` nothing is stored between calls,
    and ``rank`` and ``world`` share the same global batch.

    ``starts``, the places of the documents' end-of-text, spares looking for them in all of the tokens.

    Raises what ``TokenStream`` raises, and DataError for tokens that do not begin with ``end_of_text``. Packing costs
    about a second and 100 MB for a million documents.

    >>> tokens = np.array([0, 5, 6, 0, 7, 0, 8, 9, 9])          # three documents, 0 is end-of-text
    >>> batch = PackedStream(tokens, end_of_text=0, block=5, batch=2, seed=0).batch(0)
    >>> batch.inputs
    tensor([[0, 5, 6, 0, 7],
            [0, 8, 9, 9, 0]])
    >>> batch.documents
    tensor([[1, 1, 1, 2, 2],
            [1, 1, 1, 1, 0]])
    """

    def __init__(
        self,
        tokens: np.ndarray,
        *,
        end_of_text: int,
        block: int,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        starts: np.ndarray | None = None,
    ) -> None:
        check_tokens("PackedStream", tokens, block=1, batch=batch)
        if block < 1:
            raise ValueError(f"PackedStream: block must be at least 1, got {block}")
        super().__init__(batch=batch, seed=seed, rank=rank, world=world)
        if tokens[0] != end_of_text:
            raise DataError(
                f"PackedStream: the tokens begin with {tokens[0]}, not with end_of_text {end_of_text}; make them with "
                "Tokenizer.encode_documents"
            )
        self.tokens, self.block = tokens, block
        starts = _document_starts(tokens, end_of_text) if starts is None else np.asarray(starts, dtype=np.int64)
        lengths = np.diff(starts, append=len(tokens))
        self.cuts = int((lengths > block).sum())
        self._starts, self._lengths, self._rows = _pack(*_pieces(starts, lengths, block), block)

    @property
    def blocks_per_epoch(self) -> int:
        """How many rows hold all documents."""
        return len(self._rows) - 1

    @property
    def padding(self) -> float:
        """Share of the places that hold no token."""
        return 1 - len(self.tokens) / (self.blocks_per_epoch * self.block)

    def rows(self, numbers: Int64[np.ndarray, " rows"]) -> Packed:
        """Rows of the endless stream."""
        parts = np.zeros((4, len(numbers), self.block), dtype=np.int64)
        parts[1] = _IGNORE
        for i, row in enumerate(endless(numbers, self.blocks_per_epoch, seed=self.seed, name="packed")):
            place = 0
            for number, piece in enumerate(range(self._rows[row], self._rows[row + 1]), start=1):
                start, length = int(self._starts[piece]), int(self._lengths[piece])
                here = np.s_[i, place : place + length]
                ring = np.take(self.tokens, np.arange(start, start + length + 1), mode="wrap")
                parts[0][here], parts[1][here] = ring[:-1], ring[1:]
                parts[2][here], parts[3][here] = number, np.arange(length)
                place += length
        return Packed(*map(torch.from_numpy, parts))


def _document_starts(tokens: np.ndarray, end_of_text: int, step: int = 1 << 24) -> Int64[np.ndarray, " documents"]:
    """Where the documents begin; of a memory map one part after the other."""
    parts = range(0, len(tokens), step)
    return np.concatenate([start + np.flatnonzero(tokens[start : start + step] == end_of_text) for start in parts])


def _pieces(
    starts: Int64[np.ndarray, " documents"], lengths: Int64[np.ndarray, " documents"], block: int
) -> tuple[Int64[np.ndarray, " pieces"], Int64[np.ndarray, " pieces"]]:
    """Documents cut into pieces of at most ``block`` tokens: starts and lengths."""
    counts = -(-lengths // block)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    left = np.repeat(lengths, counts) - within * block
    return np.repeat(starts, counts) + within * block, np.minimum(left, block)


def _pack(
    starts: Int64[np.ndarray, " pieces"], lengths: Int64[np.ndarray, " pieces"], block: int
) -> tuple[Int64[np.ndarray, " pieces"], Int64[np.ndarray, " pieces"], Int64[np.ndarray, " borders"]]:
    """Best-fit decreasing: the pieces row by row, and where each row begins among them."""
    order = np.argsort(-lengths, kind="stable")
    row_of = np.empty(len(order), dtype=np.int64)
    waiting: dict[int, list[int]] = {}  # rows by the room they have
    rooms: list[int] = []  # those that some row has, ascending
    rows = 0
    for piece, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        at = bisect_left(rooms, length)
        if at == len(rooms):
            row, room = rows, block
            rows += 1
        else:
            room = rooms[at]
            row = waiting[room].pop()
            if not waiting[room]:
                del waiting[room], rooms[at]
        row_of[piece] = row
        if left := room - length:
            if left not in waiting:
                rooms.insert(bisect_left(rooms, left), left)
            waiting.setdefault(left, []).append(row)
    by_row = np.argsort(row_of, kind="stable")
    borders = np.concatenate(([0], np.cumsum(np.bincount(row_of, minlength=rows))))
    return starts[by_row], lengths[by_row], borders
