import itertools
import pickle
import random

import numpy as np
import pytest
import torch

from spectrain import data

SIZES = [(1000, 10, 4), (1003, 10, 4), (97, 8, 5), (11, 10, 3), (20, 10, 16), (50, 1, 7), (1009, 16, 6)]


def counted(stream, tokens, block, batch, epochs):
    """How often each position of the text is an input and a target, epoch by epoch, by brute force.

    The text must be ``arange``, so that a token is its own position. Blocks follow each other in the
    endless stream; epoch e is blocks e * n to (e + 1) * n - 1, wherever batches begin.
    """
    n = tokens // block
    rows = []
    for t in itertools.count():
        inputs, targets = stream.batch(t)
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.shape == targets.shape == (batch, block)
        rows += list(zip(inputs.tolist(), targets.tolist(), strict=True))
        if len(rows) >= epochs * n:
            break
    for e in range(epochs):
        some = rows[e * n : (e + 1) * n]
        for inputs, targets in some:
            assert targets == [(i + 1) % tokens for i in inputs], "targets are the inputs moved on by one"
            assert inputs[1:] == targets[:-1], "a block is a piece of the text"
        for side in (0, 1):
            counts = np.bincount([i for row in some for i in row[side]], minlength=tokens)
            yield e, counts


def check_stream(make, tokens, block, batch):
    """Coverage, purity, order and change of seed: what a stream must have."""
    text = np.arange(tokens)
    left_over = set()
    for epoch, counts in counted(make(text, block=block, batch=batch, seed=0), tokens, block, batch, 3):
        assert counts.max() == 1, f"epoch {epoch}: a token twice"
        assert counts.sum() == tokens // block * block, f"epoch {epoch}: tokens left out"
        left_over.add(counts.tobytes())
    single = make(text, block=block, batch=1, seed=0)
    n = tokens // block
    orders = {tuple(int(single.batch(e * n + i)[0][0, 0]) for i in range(n)) for e in range(3)}
    assert n < 3 or len(orders) == 3, "another order in each epoch"
    assert tokens % block == 0 or len(left_over) > 1, "other tokens are left over in other epochs"
    once = make(text, block=block, batch=batch, seed=0)
    expected = [once.batch(t) for t in range(12)]
    again = make(text, block=block, batch=batch, seed=0)
    for t in [*random.Random(0).sample(range(12), 12), 3, 3]:
        for one, other in zip(again.batch(t), expected[t], strict=True):
            assert torch.equal(one, other), "batch t is a function of (seed, t)"
    different = make(text, block=block, batch=batch, seed=1)
    assert any(not torch.equal(different.batch(t)[0], expected[t][0]) for t in range(12)), "the seed"
    first = [int(i[0, 0]) for i, _ in expected]
    assert len(set(np.diff(first) % tokens)) > 1, "shuffled"


@pytest.mark.parametrize(("tokens", "block", "batch"), SIZES)
def test_every_token_once_an_epoch(tokens, block, batch):
    check_stream(data.TokenStream, tokens, block, batch)


class Wrong(data.TokenStream):
    """A stream to be made wrong in one way."""


class RepeatsABlock(Wrong):
    def _starts(self, numbers):
        return super()._starts(numbers - (numbers % 50 == 7))


class DependsOnCalls(Wrong):
    calls = 0

    def batch(self, t):
        self.calls += 1
        return super().batch(self.calls - 1)


class WithReplacement(Wrong):
    def _starts(self, numbers):
        draws = [
            torch.randint(len(self.tokens), (), generator=data.streams.generator(self.seed, int(n))) for n in numbers
        ]
        return np.array(draws)


class InOrder(Wrong):
    def _starts(self, numbers):
        return numbers * self.block


class SameOrderAlways(Wrong):
    def _starts(self, numbers):
        return super()._starts(numbers % self.blocks_per_epoch)


class IgnoresSeed(Wrong):
    def __init__(self, tokens, **sizes):
        super().__init__(tokens, **{**sizes, "seed": 0})


class TargetsNotMoved(Wrong):
    def batch(self, t):
        inputs, _ = super().batch(t)
        return inputs, inputs


class DropsLast(Wrong):
    """Throws the last incomplete batch of an epoch away, as most loaders do."""

    def _starts(self, numbers):
        per_epoch = self.blocks_per_epoch // self.batch_size * self.batch_size
        epochs, places = np.divmod(numbers, per_epoch)
        return super()._starts(epochs * self.blocks_per_epoch + places)


WRONG = {c.__name__: c for c in Wrong.__subclasses__()}


@pytest.mark.parametrize("stream", WRONG.values(), ids=WRONG)
def test_the_check_rejects_wrong_streams(stream):
    with pytest.raises(AssertionError):
        check_stream(stream, 1003, 10, 7)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 12])
def test_any_number_of_ranks_gives_the_same_global_batch(world):
    text = np.arange(1000, dtype=np.uint16)
    sizes = {"block": 8, "batch": 12, "seed": 5}
    whole = data.TokenStream(text, **sizes)
    ranks = [data.TokenStream(text, **sizes, rank=rank, world=world) for rank in range(world)]
    for t in (0, 1, 9, 10, 11, 1000):
        for side in (0, 1):
            together = torch.cat([stream.batch(t)[side] for stream in ranks])
            assert torch.equal(together, whole.batch(t)[side])
    assert {stream.tokens_per_batch for stream in ranks} == {96}


def test_resume_far_away_on_another_number_of_ranks_in_another_process():
    text = np.arange(5000, dtype=np.int32)
    before = data.TokenStream(text, block=16, batch=4, seed=3)
    after = [data.TokenStream(text, block=16, batch=4, seed=3, rank=r, world=4) for r in range(4)]
    after = pickle.loads(pickle.dumps(after))
    t = 10**12
    assert torch.equal(torch.cat([s.batch(t)[0] for s in after]), before.batch(t)[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_every_integer_dtype_gives_the_same(dtype):
    text = np.random.default_rng(0).integers(0, 200, 500)
    a, b = (data.TokenStream(x, block=8, batch=2, seed=0).batch(3) for x in (text, text.astype(dtype)))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])


def test_a_memory_map_is_read_in_place(tmp_path):
    np.arange(1000, dtype=np.uint16).tofile(tmp_path / "tokens.bin")
    mapped = np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode="r")
    stream = data.TokenStream(mapped, block=8, batch=2, seed=0)
    assert torch.equal(stream.batch(1)[0], data.TokenStream(np.arange(1000), block=8, batch=2, seed=0).batch(1)[0])


def test_epoch_counts_passes():
    stream = data.TokenStream(np.arange(1009), block=10, batch=4, seed=0)
    assert [stream.epoch(t) for t in (0, 25, 50, 75)] == [0, 1, 2, 3]
    assert stream.epoch(10) == 0.4


def test_a_short_text_says_how_short():
    with pytest.raises(data.DataError, match=r"8 tokens.*at most 7"):
        data.TokenStream(np.arange(8), block=8, batch=1, seed=0)
    data.TokenStream(np.arange(9), block=8, batch=1, seed=0)
    with pytest.raises(data.DataError, match="0 tokens"):
        data.TokenStream(np.arange(0), block=8, batch=1, seed=0)


BAD = {
    "world": ({"world": 3}, "multiple of 3"),
    "no world": ({"world": 0}, "world=0"),
    "rank": ({"world": 2, "rank": 2}, "between 0 and 1"),
    "negative rank": ({"rank": -1}, "between 0 and 0"),
    "block": ({"block": 0}, "at least 1"),
    "batch": ({"batch": 0}, "at least 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_sizes_that_do_not_fit(case):
    sizes, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        data.TokenStream(np.arange(100), **{"block": 8, "batch": 4, "seed": 0, **sizes})


def test_arrays_that_are_not_tokens():
    with pytest.raises(TypeError, match="integers"):
        data.TokenStream(np.arange(100.0), block=8, batch=4, seed=0)
    with pytest.raises(ValueError, match="one-dimensional"):
        data.TokenStream(np.zeros((10, 10), dtype=int), block=8, batch=4, seed=0)
    with pytest.raises(ValueError, match="from 0"):
        data.TokenStream(np.arange(100), block=8, batch=4, seed=0).batch(-1)


# Validation


def check_validation(batches, tokens, block, batch):
    """Each token is a target once, after the token before it; only the end of the last block is padded."""
    targets_seen = []
    pairs = list(batches(np.arange(tokens), block=block, batch=batch))
    for inputs, targets in pairs:
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.shape == targets.shape
        assert inputs.shape[0] <= batch
        assert inputs.shape[1] == block
        scored = targets != -100
        assert bool((inputs[scored] == (targets[scored] - 1) % tokens).all())
        targets_seen += targets[scored].tolist()
        inside = inputs[:, 1:][scored[:, 1:]]
        assert bool((inside == targets[:, :-1][scored[:, 1:]]).all()), "no gap inside a block"
    assert targets_seen == [*range(1, tokens), 0]
    padding = sum(int((targets == -100).sum()) for _, targets in pairs)
    assert padding == -tokens % block
    assert all(bool((targets != -100).all()) for _, targets in pairs[:-1])


@pytest.mark.parametrize(("tokens", "block", "batch"), [*SIZES, (5, 10, 2), (2, 1, 1), (160, 10, 4), (161, 10, 4)])
def test_validation_scores_every_token_once(tokens, block, batch):
    check_validation(data.validation_batches, tokens, block, batch)


def without_the_end(tokens, *, block, batch):
    whole = len(tokens) // (block * batch) * block * batch
    if whole:
        yield from data.validation_batches(tokens[:whole], block=block, batch=batch)


def overlapping(tokens, *, block, batch):
    for start in range(0, len(tokens) - block, block // 2):
        row = torch.from_numpy(tokens[start : start + block + 1])
        yield row[None, :-1], row[None, 1:]


def without_the_first(tokens, *, block, batch):
    for inputs, targets in data.validation_batches(tokens, block=block, batch=batch):
        yield inputs, targets.masked_fill(targets == 0, -100)


def padding_scored(tokens, *, block, batch):
    for inputs, targets in data.validation_batches(tokens, block=block, batch=batch):
        yield inputs, targets.clamp(min=0)


WRONG_VALIDATION = {f.__name__: f for f in (without_the_end, overlapping, without_the_first, padding_scored)}


@pytest.mark.parametrize("batches", WRONG_VALIDATION.values(), ids=WRONG_VALIDATION)
def test_the_check_rejects_wrong_validation(batches):
    with pytest.raises(AssertionError):
        check_validation(batches, 97, 8, 4)


def test_bits_per_byte_of_a_fair_die_are_exact():
    """A model that gives each of 257 tokens the same chance needs log2(257) bits for each, E included."""
    documents = [data.text.Document(name="a", text="héllo"), data.text.Document(name="b", text="wörld!\n")]
    tokenizer = data.train_tokenizer("bytes", documents)
    tokens = tokenizer.encode_documents(documents)
    nats = size = 0.0
    for _, targets in data.validation_batches(tokens, block=4, batch=2):
        logits = torch.zeros(targets.numel(), 257, dtype=torch.float64)
        nats += float(torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum"))
        size += tokenizer.byte_lengths[targets[targets != -100].numpy()].sum()
    assert size == sum(len(d.text.encode()) for d in documents)
    np.testing.assert_allclose(nats / np.log(2) / size, np.log2(257) * (size + 2) / size, rtol=1e-14)


def test_validation_refuses_what_it_cannot_score():
    with pytest.raises(data.DataError, match="1 tokens"):
        data.validation_batches(np.arange(1), block=8, batch=4)
    with pytest.raises(ValueError, match="block"):
        data.validation_batches(np.arange(10), block=0, batch=4)
    with pytest.raises(TypeError, match="integers"):
        data.validation_batches(np.arange(10.0), block=2, batch=4)
