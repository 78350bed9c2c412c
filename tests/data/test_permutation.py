"""Shuffling without memory: a bijection at every size, and no bias that a table of weaker shuffles would have."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from spectrain import data
from spectrain.data._streams import permutation
from spectrain.data._streams.permutation import Feistel

SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 100, 101, 997, 1024, 65_537, 1_048_577]


def feistel(count, seed=0):
    return Feistel.draw(count, stream=data.streams.generator(seed, "test"))


@pytest.mark.parametrize("count", SIZES)
def test_it_is_a_bijection(count):
    found = feistel(count)(np.arange(count))
    assert found.dtype == np.int64
    assert np.array_equal(np.sort(found), np.arange(count))


@pytest.mark.parametrize("count", [10**12, 2**40 + 7, 2**61 - 1])
def test_it_stays_inside_and_apart_at_sizes_that_no_memory_holds(count):
    some = np.concatenate((np.arange(5000), count - 1 - np.arange(5000)))
    found = feistel(count)(some)
    assert found.min() >= 0
    assert found.max() < count
    assert len(np.unique(found)) == len(some)
    assert np.array_equal(feistel(count)(some[::-1])[::-1], found), "an entry depends on its place alone"


def check_unbiased(draw):
    """Chi-square tests at fixed seeds: all permutations of 4 and 5, places of 64, and steps between neighbours."""
    for count in (4, 5):
        every = {p: i for i, p in enumerate(itertools.permutations(range(count)))}
        seen = np.zeros(len(every))
        for seed in range(20 * len(every)):
            seen[every[tuple(draw(count, seed)(np.arange(count)).tolist())]] += 1
        assert scipy.stats.chisquare(seen).pvalue > 1e-4, f"permutations of {count} are not alike"
    table, steps = np.zeros((64, 64)), np.zeros(64)
    for seed in range(1500):
        found = draw(64, seed)(np.arange(64))
        table[np.arange(64), found] += 1
        steps += np.bincount((found[1::2] - found[::2]) % 64, minlength=64)
    assert scipy.stats.chi2.sf(((table - 1500 / 64) ** 2 / (1500 / 64)).sum(), 63 * 63) > 1e-4, "places"
    assert scipy.stats.chisquare(steps[1:]).pvalue > 1e-4, "neighbours go on together"
    parity = [_sign(draw(9, seed)(np.arange(9))) for seed in range(1000)]
    assert abs(sum(parity)) < 4 * math.sqrt(1000), "even and odd permutations"


def _sign(p):
    return (-1) ** sum(a > b for a, b in itertools.combinations(p.tolist(), 2))


def test_every_permutation_is_alike():
    check_unbiased(feistel)


def rounds(number):
    def draw(count, seed):
        full = feistel(count, seed)
        return Feistel(count, full.keys[:number])

    return draw


def rotation(count, seed):
    shift = feistel(count, seed).keys[0] % count
    return lambda places: (places + shift) % count


def affine(count, seed):
    """The usual short cut: a x + b modulo the size."""
    first, second = feistel(count, seed).keys[:2]
    a = next(a for a in itertools.count(first % count + 1) if math.gcd(a, count) == 1)
    return lambda places: (places * a + second % count) % count


def odd_halves(count, seed):
    """Both halves of the number odd in size: at nine numbers only even permutations exist."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permutation, "_make_even", lambda number: number + 1 - number % 2)
        found = feistel(count, seed)(np.arange(count))
    return found.__getitem__


WRONG = {"one round": rounds(1), "two rounds": rounds(2), "rotation": rotation, "affine": affine, "odd": odd_halves}


@pytest.mark.parametrize("draw", WRONG.values(), ids=WRONG)
def test_the_check_rejects_weaker_shuffles(draw):
    with pytest.raises(AssertionError):
        check_unbiased(draw)


@pytest.mark.parametrize("kind", ["tokens", "index"])
def test_streams_of_many_blocks_use_it(monkeypatch, kind):
    """With the limit of drawn orders lowered, an epoch still has each block once, and ranks still agree."""
    monkeypatch.setattr(permutation, "DRAWN", 10)
    seed = {"tokens": 7001, "index": 7002}[kind]  # the caches of orders know nothing of the patch
    if kind == "tokens":
        stream = data.TokenStream(np.arange(1000), block=10, batch=5, seed=seed)
        firsts = torch.cat([stream.batch(t)[0] for t in range(20)])
        assert np.bincount(firsts.flatten().numpy()).tolist() == [1] * 1000
    else:
        stream = data.streams.IndexStream(100, batch=5, seed=seed)
        assert torch.cat([stream.batch(t) for t in range(20)]).sort().values.tolist() == list(range(100))


def test_a_stream_over_a_sparse_file_of_a_trillion_tokens(tmp_path):
    """O(1) memory and O(1) resume: a file of 2 TB that is nearly all holes, read at any step."""
    path = tmp_path / "tokens.bin"
    with open(path, "wb") as file:
        file.truncate(2 * 10**12)
    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    stream = data.TokenStream(tokens, block=256, batch=4, seed=0)
    starts = stream._starts(stream.numbers(10**9))
    assert len(set(starts.tolist())) == 4
    assert stream.batch(10**9)[0].shape == (4, 256)
