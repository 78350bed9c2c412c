"""Mixing: exact proportions wherever one looks, each source in its own order, the same on any ranks."""

import hashlib
import math
import pickle
import random

import numpy as np
import pytest
import torch

from spectrain import data
from spectrain.data._streams.mixture import whole_weights

WEIGHTS = [(3, 1), (1, 1), (0.1, 0.9), (5, 3, 2), (1, 1, 1, 1, 1), (97, 2, 1), (0.7, 0.2, 0.05, 0.05), (1,)]


def sources(count, **changes):
    """Source k is the numbers 10,000 k + (0 ... 400 + 100 k)."""
    sizes = {"block": 5, "batch": 8, "seed": 3, **changes}
    return [data.TokenStream(np.arange(400 + 100 * k) + 10_000 * k, **sizes) for k in range(count)]


def mixture(weights, *, seed=0, **changes):
    return data.Mixture(sources(len(weights), **changes), weights=weights, seed=seed)


def check_proportions(make, weights):
    """Windows of W rows are exact, the error of any beginning is bounded, and sources go through their own rows."""
    stream = make(weights)
    whole = whole_weights(weights, sources=len(weights))
    total = sum(whole)
    rows = torch.cat([stream.batch(t)[0] for t in range(-(-4 * total // 8) + 40)])
    owner = (rows[:, 0] // 10_000).numpy()
    counts = np.stack([np.concatenate(([0], np.cumsum(owner == k))) for k in range(len(weights))], axis=1)
    window = counts[total:] - counts[:-total]
    assert (window == np.array(whole)).all(), "every W rows have w_k of source k"
    error = counts - np.arange(len(counts))[:, None] * np.array(whole) / total
    assert np.abs(error).max() < (1 if len(weights) == 2 else 1 + math.ceil(math.log2(len(weights)))) + 1e-9
    for k, source in enumerate(sources(len(weights))):
        mine = rows[torch.from_numpy(owner == k)]
        assert torch.equal(mine, source.rows(np.arange(len(mine)))[0]), "a source goes on where it was"


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_proportions_are_exact(weights):
    check_proportions(mixture, weights)


class Wrong(data.Mixture):
    """A mixture to be made wrong in one way."""


class Drawn(Wrong):
    """Sources drawn by chance, as most loaders do: right in the long run only."""

    def rows(self, numbers):
        share = np.array(self.weights) / sum(self.weights)
        made = [np.random.default_rng(int(n)).choice(len(share), p=share) for n in numbers]
        parts = [self.streams[k].rows(np.array([n]))[0] for k, n in zip(made, numbers, strict=True)]
        return torch.cat(parts), torch.cat(parts)


class SkipsRows(Wrong):
    """Every source at the global number: proportions right, most of each text never seen."""

    def rows(self, numbers):
        owner = super().rows(numbers)[0][:, 0] // 10_000
        parts = [self.streams[int(k)].rows(np.array([n]))[0] for k, n in zip(owner, numbers, strict=True)]
        return torch.cat(parts), torch.cat(parts)


class EqualShares(Wrong):
    def __init__(self, streams, *, weights, seed):
        super().__init__(streams, weights=[1] * len(streams), seed=seed)


@pytest.mark.parametrize("kind", Wrong.__subclasses__())
def test_the_check_rejects_wrong_mixtures(kind):
    with pytest.raises(AssertionError):
        check_proportions(lambda weights: kind(sources(len(weights)), weights=weights, seed=0), (3, 1))


def test_counts_and_epochs_are_those_of_the_rows():
    stream = mixture((5, 3, 2))
    owner = torch.cat([stream.batch(t)[0][:, 0] // 10_000 for t in range(50)])
    assert stream.counts(400) == np.bincount(owner).tolist()
    assert stream.epochs(50) == [200 / 80, 120 / 100, 80 / 120]
    assert stream.counts(10 * 10**15) == [5 * 10**15, 3 * 10**15, 2 * 10**15]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_and_resume(world):
    whole = mixture((3, 1))
    ranks = pickle.loads(pickle.dumps([mixture((3, 1), rank=r, world=world) for r in range(world)]))
    for t in [*random.Random(0).sample(range(10**9), 20), 0, 1]:
        for side in (0, 1):
            assert torch.equal(torch.cat([rank.batch(t)[side] for rank in ranks]), whole.batch(t)[side])


@pytest.mark.parametrize(("workers", "method"), [(0, "fork"), (1, "fork"), (2, "fork"), (4, "fork"), (2, "spawn")])
def test_the_hash_is_the_same_whatever_the_workers(workers, method):
    stream = mixture((3, 1))
    with data.processes.Workers(stream.batch, workers=workers, method=method) as batches:
        assert digest(next(batches) for _ in range(12)) == digest(stream.batch(t) for t in range(12))
    assert digest(stream.batch(t) for t in range(12)) != digest(stream.batch(t) for t in range(1, 13))


def digest(batches):
    found = hashlib.sha256()
    for batch in batches:
        for part in batch:
            found.update(part.numpy().tobytes())
    return found.hexdigest()


def test_the_seed_moves_the_pattern_and_packed_sources_stay_packed():
    assert any(not torch.equal(mixture((3, 1)).batch(t)[0], mixture((3, 1), seed=1).batch(t)[0]) for t in range(4))
    tokens = np.array([0, 1, 2, 0, 3, 0, 4, 5, 6])
    packed = [data.PackedStream(tokens, end_of_text=0, block=4, batch=4, seed=s) for s in (0, 1)]
    batch = data.Mixture(packed, weights=(1, 1), seed=0).batch(0)
    assert batch._fields == ("inputs", "targets", "documents", "positions")
    assert batch.documents.shape == (4, 4)


BAD = {
    "too few": ((1,), "one for each of the 2 sources"),
    "too many": ((1, 2, 3), "one for each of the 2 sources"),
    "negative": ((1, -1), "positive and finite, got -1"),
    "zero": ((0, 1), "positive and finite, got 0; leave a source out"),
    "nan": ((1, float("nan")), "positive and finite, got nan"),
    "infinite": ((1, float("inf")), "positive and finite, got inf"),
}


@pytest.mark.parametrize("case", BAD)
def test_weights_that_are_none(case):
    weights, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        data.Mixture(sources(2), weights=weights, seed=0)


def test_streams_that_do_not_fit_together():
    with pytest.raises(ValueError, match="the same kind, block, batch"):
        data.Mixture([*sources(1), *sources(1, block=6)], weights=(1, 1), seed=0)
    with pytest.raises(ValueError, match="0 sources"):
        data.Mixture([], weights=(), seed=0)
