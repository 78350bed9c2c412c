"""What users of other loaders complain of, one test each; the issues are named in docs/data.md."""

import numpy as np
import pytest
import torch

from spectrain import data

TEXT = np.arange(997, dtype=np.int32)
END = 0


def stream(kind, **share):
    sizes = {"block": 8, "batch": 12, **share}
    plain = data.TokenStream(TEXT, seed=1, **sizes)
    if kind == "tokens":
        return plain
    if kind == "packed":
        return data.PackedStream(np.where(TEXT % 5 == 0, END, TEXT), end_of_text=END, seed=1, **sizes)
    return data.Mixture([plain, data.TokenStream(TEXT[:300] + 5000, seed=2, **sizes)], weights=(2, 1), seed=1)


KINDS = ("tokens", "packed", "mixture")


class Watched(np.ndarray):
    """Tokens that count how many of them are read."""

    read = 0

    def __getitem__(self, index):
        found = super().__getitem__(index)
        Watched.read += np.size(found)
        return found


def test_resume_reads_nothing_but_its_batch():
    tokens = np.arange(100_000).view(Watched)
    late = data.TokenStream(tokens, block=8, batch=12, seed=0)
    Watched.read = 0
    late.batch(10**9)
    assert 12 * 8 <= Watched.read <= 12 * 9


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_epoch_has_its_own_order_also_after_a_resume(kind):
    whole = stream(kind)
    n = whole.blocks_per_epoch
    first, second = (whole.rows(np.arange(e * n, (e + 1) * n))[0] for e in (0, 1))
    assert not torch.equal(first, second)
    resumed = stream(kind).rows(np.arange(n, 2 * n))[0]
    assert torch.equal(resumed, second)


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_ranks_drops_nothing(kind):
    worlds = (1, 2, 4, 1, 3)  # changed at every step
    for t, world in enumerate(worlds):
        parts = [stream(kind, rank=r, world=world).batch(t) for r in range(world)]
        for side, part in enumerate(stream(kind).batch(t)):
            assert torch.equal(torch.cat([p[side] for p in parts]), part)


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_no_state_to_be_stale(kind):
    used, fresh = stream(kind), stream(kind)
    for t in (5, 1000, 3):
        used.batch(t)
    assert all(torch.equal(a, b) for a, b in zip(used.batch(7), fresh.batch(7), strict=True))
    assert not hasattr(used, "state_dict")


def test_no_epoch_is_lost_at_its_border():
    one = data.streams.IndexStream(10, batch=4, seed=0)
    for border in range(6):  # stop before batch `border`, go on with another object
        numbers = [one.batch(t) for t in range(border)]
        numbers += [data.streams.IndexStream(10, batch=4, seed=0).batch(t) for t in range(border, 10)]
        seen = torch.cat(numbers).view(4, 10)
        assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in seen)


def draws(t):
    return float(np.random.rand()), float(torch.rand(()))


def test_workers_draw_different_numbers():
    with data.processes.Workers(draws, workers=4, method="fork") as batches:
        found = [next(batches) for _ in range(8)]
    assert len({a for a, _ in found}) == len({b for _, b in found}) == 8


def test_epochs_draw_different_numbers():
    """An augmentation of the same example in two epochs: the steps differ, so the numbers do."""
    found = []
    for epoch in range(3):  # workers made anew for each epoch, as many loops do
        with data.processes.Workers(draws, workers=2, start=4 * epoch, method="fork") as batches:
            found += [next(batches) for _ in range(4)]
    assert len(set(found)) == 12
