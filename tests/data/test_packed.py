"""Packing: every token once, borders where the documents are, and few places left empty."""

import random

import numpy as np
import pytest
import torch

from spectrain import data

END = 0


def corpus(lengths, seed=0):
    """Documents of these many tokens (end-of-text included); token i of the array is i, but for the ends."""
    tokens = np.arange(sum(lengths))
    starts = np.cumsum(lengths) - lengths
    tokens[starts] = END
    return tokens, starts


LENGTHS = {
    "short": [1 + i % 9 for i in range(40)],
    "long": [50, 3, 17, 20, 1, 64],
    "one": [7],
    "blocks": [16, 32, 16, 48],
    "random": np.random.default_rng(0).integers(1, 40, 200).tolist(),
}


def check_packed(make, lengths, block=16, batch=3):
    """By brute force: rows of one epoch against the documents."""
    tokens, starts = corpus(lengths)
    stream = make(tokens, end_of_text=END, block=block, batch=batch, seed=0)
    rows = stream.blocks_per_epoch
    parts = [torch.cat(part)[:rows] for part in zip(*(stream.batch(t) for t in range(-(-rows // batch))), strict=True)]
    inputs, targets, documents, positions = (part.numpy() for part in parts)
    used = documents > 0
    assert ((targets == -100) == ~used).all(), "padding is not scored"
    ring = np.append(tokens, END)
    pieces = []
    for row in range(rows):
        for number in range(1, documents[row].max() + 1):
            here = np.flatnonzero(documents[row] == number)
            assert len(here), "documents are numbered without a gap"
            assert (np.diff(here) == 1).all(), "a document stands together"
            assert (positions[row, here] == np.arange(len(here))).all(), "positions begin again"
            a, b = inputs[row, here], targets[row, here]
            assert (a[1:] == b[:-1]).all()
            assert END not in a[1:], "a document ends before the next end-of-text"
            pieces.append((tuple(a.tolist()), int(b[-1])))
    expected = []
    for start, length in zip(starts.tolist(), lengths, strict=True):
        for cut in range(start, start + length, block):
            stop = min(cut + block, start + length)
            expected.append((tuple(tokens[cut:stop].tolist()), int(ring[stop])))
    assert sorted(pieces) == sorted(expected), "each piece of a document once"
    assert stream.padding == pytest.approx(1 - used.mean(), abs=1e-12)
    assert stream.cuts == sum(length > block for length in lengths)


@pytest.mark.parametrize("case", LENGTHS)
def test_every_document_once_and_whole(case):
    check_packed(data.PackedStream, LENGTHS[case])


class Wrong(data.PackedStream):
    """A stream to be made wrong in one way."""


class OneDocument(Wrong):
    def rows(self, numbers):
        batch = super().rows(numbers)
        return batch._replace(documents=batch.documents.clamp(max=1))


class PositionsGoOn(Wrong):
    def rows(self, numbers):
        batch = super().rows(numbers)
        return batch._replace(positions=torch.arange(self.block).expand_as(batch.positions).clone())


class PaddingScored(Wrong):
    def rows(self, numbers):
        batch = super().rows(numbers)
        return batch._replace(targets=batch.targets.clamp(min=0))


class LastTokenUnscored(Wrong):
    def rows(self, numbers):
        batch = super().rows(numbers)
        return batch._replace(targets=batch.targets.masked_fill(batch.targets == END, -100))


class Repeats(Wrong):
    def rows(self, numbers):
        return super().rows(numbers // 2)


@pytest.mark.parametrize("kind", Wrong.__subclasses__())
def test_the_check_rejects_wrong_packing(kind):
    with pytest.raises(AssertionError):
        check_packed(kind, LENGTHS["random"])


def test_best_fit_leaves_little_empty():
    lengths = np.random.default_rng(1).integers(1, 64, 2000).tolist()
    stream = data.PackedStream(corpus(lengths)[0], end_of_text=END, block=64, batch=1, seed=0)
    least = -(-sum(lengths) // 64)  # no packing has fewer rows
    assert stream.blocks_per_epoch <= 1.01 * least
    greedy, room = 1, 64  # in the order of the text, a new row when the next does not fit
    for length in lengths:
        greedy, room = (greedy, room - length) if length <= room else (greedy + 1, 64 - length)
    assert greedy > 1.2 * least


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_and_resume(world):
    tokens, _ = corpus(LENGTHS["random"])
    whole = data.PackedStream(tokens, end_of_text=END, block=16, batch=8, seed=1)
    sizes = {"end_of_text": END, "block": 16, "batch": 8, "seed": 1, "world": world}
    ranks = [data.PackedStream(tokens, **sizes, rank=r) for r in range(world)]
    for t in random.Random(0).sample(range(10**9), 20):
        for side, part in enumerate(whole.batch(t)):
            assert torch.equal(torch.cat([rank.batch(t)[side] for rank in ranks]), part)


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_workers_change_nothing(workers):
    tokens, _ = corpus(LENGTHS["short"])
    stream = data.PackedStream(tokens, end_of_text=END, block=16, batch=4, seed=1)
    with data.processes.Workers(stream.batch, workers=workers, method="fork", start=5) as batches:
        for t in range(5, 11):
            assert all(torch.equal(a, b) for a, b in zip(next(batches), stream.batch(t), strict=True))


def test_another_order_in_each_epoch():
    tokens, _ = corpus(LENGTHS["short"])
    stream = data.PackedStream(tokens, end_of_text=END, block=16, batch=1, seed=0)
    n = stream.blocks_per_epoch
    orders = {tuple(stream.rows(np.arange(e * n, (e + 1) * n)).inputs[:, 1].tolist()) for e in range(3)}
    assert len(orders) == 3


def test_what_cannot_be_packed():
    with pytest.raises(data.DataError, match=r"begin with 5, not with end_of_text 0"):
        data.PackedStream(np.array([5, 0, 1]), end_of_text=0, block=4, batch=1, seed=0)
    with pytest.raises(data.DataError, match="0 tokens"):
        data.PackedStream(np.arange(0), end_of_text=0, block=4, batch=1, seed=0)
    with pytest.raises(ValueError, match="at least 1"):
        data.PackedStream(np.arange(9), end_of_text=0, block=0, batch=1, seed=0)
