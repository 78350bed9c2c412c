"""Which characters of each document are learned from: the split of ``split_documents``, by lengths and digests."""

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from spectrain.data._shards.scan import Scan
from spectrain.data._text.document import DataError
from spectrain.data._text.split import at_line, cut_at, rank, those_that_fit

LEFT_OUT = -1
_HASH = np.dtype("S32")


def divide(scan: Scan, *, fraction: float, seed: int) -> Int64[np.ndarray, " documents"]:
    """How many characters of each document, from its first on, are training text; the rest is held out.

    0 is a document that is held out as a whole, :data:`LEFT_OUT` one that is used for nothing, because another group
    trains on its text. Groups are divided one by one. Raises DataError where one cannot be.
    """
    cuts = np.empty(len(scan.chars), np.int64)
    groups, names = scan.groups, scan.names()
    for group in range(len(scan.found.groups)):
        here = np.flatnonzero(groups == group)
        cuts[here] = _divide(scan, here, itertools.islice(names, len(here)), fraction, seed)
    if len(scan.found.groups) > 1:
        _leave_out(scan, cuts)
    return cuts


def _divide(
    scan: Scan, here: Int64[np.ndarray, " some"], names: Iterator[str], fraction: float, seed: int
) -> Int64[np.ndarray, " some"]:
    chars = scan.chars[here]
    room = fraction * int(chars.sum())
    whole = _whole_documents(scan.digests[here], chars, names, room, seed)
    cuts = np.where(whole, 0, chars) if 2 * int(chars[whole].sum()) >= room else _ends(scan, here, fraction)
    if not (cuts < chars).any():
        raise DataError(
            f"{len(here)} documents with {chars.sum()} characters in total cannot be divided into training and "
            "validation text; name more text"
        )
    return cuts


def _whole_documents(
    digests: np.ndarray, chars: Int64[np.ndarray, " some"], names: Iterator[str], room: float, seed: int
) -> np.ndarray:
    """Whether each document is held out: copies together, in the order of hashes, while they fit."""
    _, copies = np.unique(digests, return_inverse=True)
    sizes = np.zeros(copies.max() + 1, np.int64)
    np.add.at(sizes, copies, chars)
    order = np.argsort(_ranks(copies, names, seed))
    chosen = np.zeros(len(sizes), bool)
    chosen[order[those_that_fit(map(int, sizes[order]), room)]] = True
    return chosen[copies]


def _ranks(copies: Int64[np.ndarray, " documents"], names: Iterator[str], seed: int) -> np.ndarray:
    """The hash of each text: of its document's name, of the first name in order where there are copies."""
    several = np.bincount(copies) > 1
    ranks, first = np.empty(len(several), _HASH), dict[int, str]()
    for copy, name in zip(map(int, copies), names, strict=True):
        if several[copy]:
            name = first[copy] = min(first.get(copy, name), name)
        ranks[copy] = rank(name, seed)
    return ranks


def _ends(scan: Scan, here: Int64[np.ndarray, " some"], fraction: float) -> Int64[np.ndarray, " some"]:
    """Where the last part of each document begins, at a line: for that they are read once more."""
    cuts = scan.chars.copy()
    mine = np.isin(np.arange(len(cuts)), here)
    for i, flow in scan.read():
        length = int(scan.chars[i])
        if mine[i] and length >= 2:
            cut = cut_at(length, fraction)
            cuts[i] = at_line(cut, _lines_around(flow.parts, cut), length, fraction)
    return cuts[here]


def _lines_around(parts: Iterator[str], cut: int) -> tuple[int, int]:
    """Where the line begins in which ``cut`` stands, and where the next one; 0 where none does."""
    before = seen = 0
    for part in parts:
        place = min(max(cut - seen, 0), len(part))
        if (line := part.rfind("\n", 0, place)) >= 0:
            before = seen + line + 1
        if (after := part.find("\n", place)) >= 0:
            return before, seen + after + 1
        seen += len(part)
    return before, 0


def _leave_out(scan: Scan, cuts: Int64[np.ndarray, " documents"]) -> None:
    """Mark held-out documents whose text is training text: a split keeps copies together, two splits do not."""
    learned = np.unique(scan.digests[(cuts == scan.chars) & (cuts > 0)])
    cuts[(cuts == 0) & (scan.chars > 0) & np.isin(scan.digests, learned)] = LEFT_OUT
    if not ((cuts >= 0) & (cuts < scan.chars)).any():
        raise DataError("every held-out document is training text of another --data; give texts that differ.")
