"""A text as a row of jobs: pieces of about a megabyte that can be tokenized anywhere, in an order that is always the
same."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from spectrain.data._shards.division import LEFT_OUT
from spectrain.data._shards.scan import Scan
from spectrain.data._text.byte_level import pieces
from spectrain.data._text.document import DataError, Flow

_SIZE = 1 << 20  # characters of a job


@dataclass
class Job:
    """Pieces of text for one shard, as ``pieces`` cuts them, and which of them begin a document."""

    shard: int
    texts: list[str] = field(default_factory=list)
    begins: list[bool] = field(default_factory=list)
    chars: int = 0

    def add(self, text: str, *, begins: bool) -> None:
        """Put a piece behind."""
        self.texts.append(text)
        self.begins.append(begins)
        self.chars += len(text)


def jobs(scan: Scan, cuts: Int64[np.ndarray, " documents"]) -> Iterator[Job]:
    """All jobs: training text of group k for shard k, held-out text of all groups for the last one."""
    groups = scan.groups
    held_out = len(scan.found.groups)
    waiting = [Job(shard) for shard in range(held_out + 1)]
    for i, flow in scan.read():
        length, cut = int(scan.chars[i]), int(cuts[i])
        if cut == LEFT_OUT:
            continue
        text = Parted(flow, cut)
        parts = ((int(groups[i]), text.head(), cut or not length), (held_out, text.tail(), cut < length))
        for shard, half, wanted in parts:
            if wanted:
                yield from _fill(waiting, shard, half)
        if text.seen + sum(map(len, flow.parts)) != length:
            raise DataError(f"{flow.name} changed while it was read; read it when it is at rest")
    yield from (job for job in waiting if job.texts)


def training_texts(scan: Scan, cuts: Int64[np.ndarray, " documents"]) -> Iterator[Iterator[str]]:
    """The training text of each document that has any, in parts."""
    for i, flow in scan.read():
        if cuts[i] > 0:
            yield Parted(flow, int(cuts[i])).head()


def _fill(waiting: list[Job], shard: int, text: Iterator[str]) -> Iterator[Job]:
    """Put a document into the job that waits for its shard; yield what is full."""
    begins = True
    for piece in pieces(text):
        waiting[shard].add(piece, begins=begins)
        begins = False
        if waiting[shard].chars >= _SIZE:
            yield waiting[shard]
            waiting[shard] = Job(shard)
    if begins:  # an empty document is its end-of-text
        waiting[shard].add("", begins=True)


class Parted:
    """A text that comes in parts, as its first ``cut`` characters and the rest: first one is read, then the other."""

    def __init__(self, flow: Flow, cut: int) -> None:
        self.flow, self.cut, self.seen = flow, cut, 0
        self._rest = ""

    def head(self) -> Iterator[str]:
        """The first characters."""
        while self.seen < self.cut and (part := next(self.flow.parts, None)) is not None:
            here = self.cut - self.seen
            self._rest = part[here:]
            self.seen += len(part)
            yield part[:here]

    def tail(self) -> Iterator[str]:
        """What follows."""
        if self._rest:
            yield self._rest
        for part in self.flow.parts:
            self.seen += len(part)
            yield part
